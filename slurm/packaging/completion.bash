# bash completion for pva-mpi and spd-run. The commands and options are asked from the program's own --help, so this file does not age.
_pva_mpi() {
    local program=${COMP_WORDS[0]} word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} command='' help line values options
    COMPREPLY=()
    if [ "${program##*/}" = pva-mpi ]; then
        if [ "$COMP_CWORD" = 1 ]; then
            mapfile -t COMPREPLY < <(compgen -W "$("$program" --help 2>/dev/null | sed -nE 's/^  ([a-z0-9-]+) +.*/\1/p') --help --version" -- "$word")
            return
        fi
        command=${COMP_WORDS[1]}
    fi
    # shellcheck disable=SC2086 # no word when there is no command
    help=$("$program" $command --help 2>/dev/null)
    # Descriptions run over several lines: each option on one.
    help=$(awk '/^  -/ { if (n++) printf "\n"; printf "%s", $0; next } /^ +[^ ]/ { sub(/^ +/, " "); printf "%s", $0; next } { if (n) printf "\n"; n = 0 } END { printf "\n" }' <<<"$help")
    if [[ $before == --* ]]; then
        line=$(grep -E -- "^  $before( |\$)" <<<"$help" | head -n 1)
        # A choice lists its values in brackets, separated by bars.
        values=$(sed -nE 's/.*\(([a-z0-9_-]+(\|[a-z0-9_-]+)+)\).*/\1/p' <<<"$line" | tr '|' ' ')
        if [ -n "$values" ]; then
            mapfile -t COMPREPLY < <(compgen -W "$values" -- "$word")
            return
        fi
        case $line in
        *" DIR "*) mapfile -t COMPREPLY < <(compgen -d -- "$word"); return ;;
        *" FILE "* | *" PATH "*) mapfile -t COMPREPLY < <(compgen -f -- "$word"); return ;;
        # another word in capitals: a value only the user knows
        "  $before "[A-Z]*) return ;;
        esac
    fi
    case $word in
    -*)
        options=$(sed -nE 's/^  --\[no-\]([a-z0-9-]+).*/--\1 --no-\1/p; s/^  (--[a-z0-9-]+).*/\1/p; s/^  -[A-Za-z], (--[a-z0-9-]+).*/\1/p' <<<"$help")
        mapfile -t COMPREPLY < <(compgen -W "$options --help" -- "$word")
        ;;
    *) mapfile -t COMPREPLY < <(compgen -f -- "$word") ;;
    esac
}
complete -o filenames -F _pva_mpi pva-mpi spd-run
