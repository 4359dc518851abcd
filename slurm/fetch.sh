#!/bin/bash
# Downloads what a run reads, on a machine with internet (often a login or transfer node), with the hub's own client: weights, autoencoders, the
# MBPP problems, a sample of general text. Sizes and hashes are checked; run it again after an interruption, it goes on where it was.
usage() {
    cat <<'END'
usage: slurm/fetch.sh [--only PART[,PART...]] [--dry-run] [--check]

  --only     some of model, sae, problems, pile
  --dry-run  say what would be downloaded, how large it is, and where it goes
  --check    hash again what is there, download nothing

Which model, and where to: MODEL_SIZE, MODEL_DIR, SAE_DIR, PROBLEMS and PILE in slurm/site.env. The client is `hf` (or huggingface-cli, or
HUB_CLIENT); to get one:  python3 -m venv ~/hub && ~/hub/bin/pip install huggingface_hub pyarrow && PATH=~/hub/bin:$PATH
Gemma's licence is accepted once, in a browser, at https://huggingface.co/google/gemma-2-9b; then `hf auth login`, or HF_TOKEN.
END
}
here=$(dirname "$(readlink -f "$0")")
# shellcheck source=common.sh
. "$here/common.sh"

dry='' check='' only=model,sae,problems,pile
while [ $# -gt 0 ]; do
    case $1 in
    --dry-run) dry=1 ;;
    --check) check=1 ;;
    --only)
        [ $# -gt 1 ] || die 2 "--only needs a value"
        only=$2
        shift
        ;;
    --help | -h) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
    esac
    shift
done
for part in ${only//,/ }; do
    case $part in model | sae | problems | pile) ;; *) die 2 "--only $part: model, sae, problems or pile" ;; esac
done
load_site
case $MODEL_SIZE in 2b | 9b | 27b) ;; *) die 2 "MODEL_SIZE=$MODEL_SIZE: 2b, 9b or 27b" ;; esac

client=()
for name in ${HUB_CLIENT:-hf huggingface-cli}; do
    command -v "$name" >/dev/null && client=("$name") && break
done
if [ ${#client[@]} = 0 ] && [ -z "$dry$check" ]; then die 4 "no hub client: neither hf nor huggingface-cli is installed. ${0##*/} --help says how to get one"; fi

# --- Checking ------------------------------------------------------------------------------------------------------------------------------------------
# The client leaves, beside each file, the hub's own name for its content: SHA-256 for large files, git's SHA-1 for small ones.
# Prints nothing when the file is whole; else what is wrong. Checked files are listed in SHA256SUMS and hashed again only by --check.
fault_of() { # DIRECTORY FILE
    local path=$1/$2 expected sum
    [ -s "$path" ] || { echo "is not there"; return; }
    if [ -z "$check" ] && [ "$1/SHA256SUMS" -nt "$path" ] && grep -qF "  $2" "$1/SHA256SUMS"; then return; fi
    expected=$(sed -n 2p "$1/.cache/huggingface/download/$2.metadata" 2>/dev/null)
    [ -n "$expected" ] || expected=$(awk -v name="$2" '{ n = substr($0, 67) } n == name { print $1 }' "$1/SHA256SUMS" 2>/dev/null)
    sum=$(sha256sum <"$path") && sum=${sum%% *}
    case ${#expected} in
    64) [ "$sum" = "$expected" ] || { echo "has SHA-256 $sum, the hub says $expected"; return; } ;;
    40) [ "$({ printf 'blob %s\0' "$(stat -L -c %s "$path")"; cat "$path"; } | sha1sum | cut -c1-40)" = "$expected" ] || { echo "differs from the hub's"; return; } ;;
    *) say "note: $path: the client left no hash; only its presence is checked" ;;
    esac
    remember "$1" "$2" "$sum"
}
remember() { # DIRECTORY FILE SHA256
    { awk -v name="$2" 'substr($0, 67) != name' "$1/SHA256SUMS" 2>/dev/null; printf '%s  %s\n' "$3" "$2"; } >"$1/SHA256SUMS.partial" &&
        mv "$1/SHA256SUMS.partial" "$1/SHA256SUMS"
}

# download KIND REPOSITORY DIRECTORY FILE...: until every file is there and whole, three times at most.
download() {
    local kind=$1 repository=$2 directory=$3 attempt name fault wrong
    shift 3
    if [ -n "$dry" ]; then
        printf '%s: %d files to %s\n' "$repository" $# "$directory"
        printf '    %s\n' "$@"
        return
    fi
    mkdir -p "$directory" || die 4 "$directory cannot be made"
    for attempt in 0 1 2 3; do
        wrong=()
        for name; do
            fault=$(fault_of "$directory" "$name")
            [ -z "$fault" ] && continue
            wrong+=("$name")
            [ "$fault" = "is not there" ] && [ -z "$check" ] && continue
            say "$directory/$name $fault"
            # What is damaged is fetched afresh, and without the client believing that it has it.
            [ -n "$check" ] || rm -f "$directory/$name" "$directory/.cache/huggingface/download/$name.metadata"
        done
        if [ ${#wrong[@]} = 0 ]; then
            say "$repository: $# files, complete in $directory"
            return
        fi
        [ -z "$check" ] || die 3 "$repository: ${#wrong[@]} of $# files are missing or damaged"
        [ $attempt -lt 3 ] || break
        [ $attempt = 0 ] || sleep "${FETCH_PAUSE:-10}"
        say "$repository: ${#wrong[@]} of $# files to download (attempt $((attempt + 1)))"
        "${client[@]}" download "$repository" "${wrong[@]}" --repo-type "$kind" --local-dir "$directory" >&2
    done
    die 4 "$repository: ${wrong[0]} could not be downloaded. Is the licence accepted, are you logged in (${client[0]} auth login, or HF_TOKEN), is there room in $directory?"
}

room() { # DIRECTORY GB
    local above=$1 free
    while [ ! -d "$above" ]; do above=$(dirname "$above"); done
    free=$(df -Pk "$above" | awk 'NR == 2 { print int($4 / 1000000) }')
    [ -n "$dry" ] && echo "about $2 GB to $1 ($free GB free)"
    [ -n "$dry$check" ] || [ "$free" -ge "$2" ] || [ -d "$1" ] || die 4 "$1: about $2 GB are needed, $free GB are free"
}

# --- The parts -----------------------------------------------------------------------------------------------------------------------------------------
fetch_model() {
    local repository=google/gemma-2-$MODEL_SIZE shards seen
    case $MODEL_SIZE in 2b) room "$MODEL_DIR" 11 ;; 9b) room "$MODEL_DIR" 38 ;; 27b) room "$MODEL_DIR" 110 ;; esac
    if [ -n "$dry" ]; then
        download model "$repository" "$MODEL_DIR" config.json tokenizer.model model.safetensors.index.json 'model-0000*.safetensors (those the index names)'
        return
    fi
    download model "$repository" "$MODEL_DIR" config.json generation_config.json tokenizer.model model.safetensors.index.json
    mapfile -t shards < <(grep -o '"[^"]*\.safetensors"' "$MODEL_DIR/model.safetensors.index.json" | tr -d '"' | sort -u)
    [ ${#shards[@]} -gt 0 ] || die 3 "$MODEL_DIR/model.safetensors.index.json names no files"
    download model "$repository" "$MODEL_DIR" "${shards[@]}"
    # The program reads every header, and compares it with the file's size and the model's shape.
    find_program PVA_PROGRAM pva-mpi || return 0
    seen=$("$PVA_PROGRAM" doctor --model "$MODEL_DIR" --dtype "$(stored_dtype)" --backend cpu 2>&1 | grep -E ' (model|tokenizer) ')
    [ -z "$seen" ] || say "$seen"
    ! grep -q ^FAIL <<<"$seen" || die 3 "$MODEL_DIR: downloaded, but not a model that pva-mpi can read (see above)"
}

fetch_sae() {
    local release=gemma-scope-$MODEL_SIZE-pt-res width numbers number layer=0 files=()
    case $MODEL_SIZE in 2b) room "$SAE_DIR" 8 ;; 9b) room "$SAE_DIR" 20 ;; 27b) room "$SAE_DIR" 15 ;; esac
    read -r _ width numbers < <(grep "^$release " "$here/autoencoders.txt")
    for number in $numbers; do
        case $number in *:*) layer=${number%:*} number=${number#*:} ;; esac
        files+=("layer_$layer/$width/average_l0_$number/params.npz")
        layer=$((layer + 1))
    done
    [ ${#files[@]} -gt 0 ] || die 3 "$here/autoencoders.txt does not know $release"
    download model "google/$release" "$SAE_DIR" "${files[@]}"
}

# The datasets lie on the hub as Parquet, the program reads JSON lines: the client's own Python converts, when it has pyarrow.
rows() { # DIRECTORY FILE...: prints the rows
    local directory=$1 python
    shift
    python=$(sed -n '1s/^#! *\([^ ]*python[^ ]*\).*/\1/p' "$(command -v "${client[0]}")" 2>/dev/null)
    "${python:-python3}" - "$directory" "$@" <<'END'
import json, sys
try:
    import pyarrow.parquet as parquet
except ImportError:
    sys.exit("pyarrow is not installed beside the hub's client: pip install pyarrow there")
rows = [row for name in sys.argv[2:] for row in parquet.read_table(sys.argv[1] + "/" + name).to_pylist()]
if rows and "task_id" in rows[0]:  # MBPP: the order of the original file, and its keys
    rows.sort(key=lambda row: row["task_id"])
    rows = [{key: row[key] for key in ("text", "code", "task_id", "test_setup_code", "test_list", "challenge_test_list")} for row in rows]
else:
    rows = [{"text": row["text"]} for row in rows]
for row in rows:
    print(json.dumps(row))
END
}

# The 974 problems of google-research/mbpp/mbpp.jsonl, byte for byte.
mbpp_sha256=${MBPP_SHA256:-ccf64ceae9c5403bf50a044cb6d505bfd2a2963ee58338ba268fd65beab92a9f} # another in the environment: another file is wanted
fetch_problems() {
    local kept=${PROBLEMS%/*}/hub/mbpp files=() part
    for part in train test validation prompt; do files+=("full/$part-00000-of-00001.parquet"); done
    if [ -n "$dry" ]; then
        download dataset google-research-datasets/mbpp "$kept" "${files[@]}"
        echo "    made from these: $PROBLEMS"
        return
    fi
    if [ -s "$PROBLEMS" ] && [ "$(sha256sum <"$PROBLEMS" | cut -c1-64)" = $mbpp_sha256 ]; then
        say "MBPP: 974 problems, complete in $PROBLEMS"
        return
    fi
    [ -z "$check" ] || die 3 "$PROBLEMS is missing, or not the 974 problems of MBPP"
    download dataset google-research-datasets/mbpp "$kept" "${files[@]}"
    if ! rows "$kept" "${files[@]}" >"$PROBLEMS.partial"; then
        say "the original file instead, from its authors' repository"
        curl -fsSL --retry 3 -o "$PROBLEMS.partial" https://raw.githubusercontent.com/google-research/google-research/master/mbpp/mbpp.jsonl ||
            die 4 "the problems could not be converted, nor fetched with curl"
    fi
    [ "$(sha256sum <"$PROBLEMS.partial" | cut -c1-64)" = $mbpp_sha256 ] ||
        die 3 "$PROBLEMS.partial is not the published file (SHA-256 $mbpp_sha256): look at it, and rename it if you want to work with it all the same"
    mv "$PROBLEMS.partial" "$PROBLEMS"
    say "MBPP: 974 problems, complete in $PROBLEMS"
}

fetch_pile() {
    local kept=${PILE%/*}/hub/pile-10k file=data/train-00000-of-00001-4746b8785c874cc7.parquet n
    if [ -n "$dry" ] || { [ -z "$check" ] && [ ! -s "$PILE" ]; }; then download dataset NeelNanda/pile-10k "$kept" $file; fi
    if [ -n "$dry" ]; then
        echo "    made from this: $PILE"
        return
    fi
    if [ ! -s "$PILE" ]; then
        [ -z "$check" ] || die 3 "$PILE is not there"
        rows "$kept" $file >"$PILE.partial" || die 4 "the general text could not be converted"
        n=$(wc -l <"$PILE.partial")
        [ "$n" = "${PILE_ROWS:-10000}" ] || die 3 "$PILE.partial has $n texts, ${PILE_ROWS:-10000} were expected"
        mv "$PILE.partial" "$PILE"
    fi
    say "general text: $(wc -l <"$PILE") texts, complete in $PILE"
}

[ -n "$dry" ] || mkdir -p "$(dirname "$PROBLEMS")" "$(dirname "$PILE")" || die 4 "the directories of PROBLEMS and PILE cannot be made"
for part in ${only//,/ }; do "fetch_$part"; done
exit 0
