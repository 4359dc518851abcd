#!/bin/sh
# Manual pages from what the programs say themselves: man.sh PROGRAM DIRECTORY writes DIRECTORY/PROGRAM.1 and, for each of its commands, PROGRAM-COMMAND.1.
set -eu
program=$1 directory=$2
name=${program##*/}
version=$("$program" --version 2>/dev/null | sed 's/^[^ ]* *//')

# --help to roff: the first line is the synopsis; "  --option VALUE   text" starts an entry, deeper lines continue it, others are paragraphs.
roff() { # TITLE SUMMARY
    awk -v title="$1" -v summary="$2" -v version="$version" '
    function escape(s) { gsub(/\\/, "\\e", s); gsub(/-/, "\\-", s); if (s ~ /^[.'\'']/) s = "\\&" s; return s }
    function part(s) { if (part_now != s) { print ".SH " s; part_now = s } }
    BEGIN {
        upper = toupper(title); gsub(/-/, "\\-", upper)
        printf ".TH \"%s\" 1 \"\" \"pva\\-mpi %s\" \"User Commands\"\n.SH NAME\n%s \\- %s\n", upper, version, escape(title), escape(summary)
    }
    NR == 1 { sub(/^[Uu]sage: */, ""); print ".SH SYNOPSIS\n.B " escape($0); next }
    /^ *$/ { if (part_now != "") print ".PP"; next }
    /^  +-/ {
        part("OPTIONS"); line = $0; sub(/^ +/, "", line)
        at = match(line, /  +/)
        term = at ? substr(line, 1, at - 1) : line; text = at ? substr(line, at + RLENGTH) : ""
        print ".TP\n.B " escape(term); if (text != "") print escape(text); next
    }
    /^  [a-z]/ {
        part("COMMANDS"); line = $0; sub(/^ +/, "", line); at = index(line, " ")
        text = substr(line, at + 1); sub(/^ +/, "", text)
        print ".TP\n.B " escape(substr(line, 1, at - 1)) "\n" escape(text); next
    }
    /^ / { line = $0; sub(/^ +/, "", line); print escape(line); next }
    { part("DESCRIPTION"); print escape($0) }
    END { print ".SH SEE ALSO\n.BR pva\\-mpi (1)" }'
}

mkdir -p "$directory"
help=$("$program" --help)
printf '%s\n' "$help" | roff "$name" "does a language model know that the program it is writing is right?" >"$directory/$name.1"
printf '%s\n' "$help" | sed -nE 's/^  ([a-z0-9-]+) +(.*)/\1 \2/p' | while read -r command summary; do
    "$program" "$command" --help 2>/dev/null | roff "$name-$command" "$summary" >"$directory/$name-$command.1"
done
