#!/usr/bin/env bash
# slurm/fetch.sh with a client that plays the hub: what arrives damaged is fetched again, what was interrupted goes on, what cannot be had is said.
# The client serves $dir/hub/KIND/REPOSITORY and leaves the hub's hashes beside the files, as the real one does.
set -u
source=${PVA_TEST_SOURCE:-$(cd "$(dirname "$0")/.." && pwd)}
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
checks=0 failures=0
fail() { failures=$((failures + 1)); echo "failed: $*"; }
check() { checks=$((checks + 1)); "$@" || fail "$*"; }
mkdir -p "$dir/bin" "$dir/calls"

# The client's interpreter: as a converter it plays pyarrow (the "Parquet" files hold JSON lines already), else it is bash.
cat >"$dir/bin/python3" <<'END'
#!/bin/bash
if [ "$1" = - ]; then
    [ -z "${NO_PYARROW:-}" ] || { cat >/dev/null; echo "pyarrow is not installed" >&2; exit 1; }
    cat >/dev/null
    directory=$2
    shift 2
    cd "$directory" && cat "$@"
else
    exec bash "$@"
fi
END
# TROUBLE: a file whose name contains it arrives damaged once; STOP_AT: the download ends there once; REFUSE: no access to what contains it.
cat >"$dir/bin/hf" <<END
#!$dir/bin/python3
[ "\$1" = download ] || { echo "no command \$1" >&2; exit 2; }
shift
repository=\$1 files=()
shift
while [ \$# -gt 0 ]; do
    case \$1 in
    --repo-type) kind=\$2; shift ;;
    --local-dir) to=\$2; shift ;;
    -*) echo "no option \$1" >&2; exit 2 ;;
    *) files+=("\$1") ;;
    esac
    shift
done
echo "\$repository \${#files[@]}" >>$dir/calls/list
case "\$repository" in *"\${REFUSE:-nothing}"*) echo "403: gated" >&2; exit 1 ;; esac
for file in "\${files[@]}"; do
    from=$dir/hub/\$kind/\$repository/\$file
    [ -f "\$from" ] || { echo "404: \$file" >&2; exit 1; }
    if [ -n "\${STOP_AT:-}" ] && [[ \$file == *"\$STOP_AT"* ]] && [ ! -e $dir/calls/stopped ]; then : >$dir/calls/stopped; kill -KILL \$\$; fi
    mkdir -p "\$to/\$(dirname "\$file")" "\$to/.cache/huggingface/download/\$(dirname "\$file")"
    cp "\$from" "\$to/\$file"
    case \$file in
    *.safetensors | *.npz | *.model | *.parquet) name=\$(sha256sum <"\$from" | cut -c1-64) ;;
    *) name=\$({ printf 'blob %s\0' "\$(stat -c %s "\$from")"; cat "\$from"; } | sha1sum | cut -c1-40) ;;
    esac
    printf '%s\n%s\n%s\n' 0123456789012345678901234567890123456789 "\$name" 1.0 >"\$to/.cache/huggingface/download/\$file.metadata"
    if [ -n "\${TROUBLE:-}" ] && [[ \$file == *"\$TROUBLE"* ]] && [ ! -e "$dir/calls/damaged" ]; then : >"$dir/calls/damaged"; printf x | dd of="\$to/\$file" bs=1 seek=3 conv=notrunc status=none; fi
done
END
chmod 755 "$dir/bin"/*

# --- What the hub has --------------------------------------------------------------------------------------------------------------------------------
model=$dir/hub/model/google/gemma-2-2b
mkdir -p "$model"
echo '{"hidden_size": 2304}' >"$model/config.json"
echo '{}' >"$model/generation_config.json"
head -c 5000 /dev/urandom >"$model/tokenizer.model"
for i in 1 2 3; do head -c 20000 /dev/urandom >"$model/model-0000$i-of-00003.safetensors"; done
echo '{"weight_map": {"a": "model-00001-of-00003.safetensors", "b": "model-00002-of-00003.safetensors", "c": "model-00003-of-00003.safetensors", "d": "model-00001-of-00003.safetensors"}}' >"$model/model.safetensors.index.json"
read -r _ width numbers < <(grep '^gemma-scope-2b-pt-res ' "$source/slurm/autoencoders.txt")
layer=0
for number in $numbers; do
    mkdir -p "$dir/hub/model/google/gemma-scope-2b-pt-res/layer_$layer/$width/average_l0_$number"
    echo "$layer $number" >"$dir/hub/model/google/gemma-scope-2b-pt-res/layer_$layer/$width/average_l0_$number/params.npz"
    layer=$((layer + 1))
done
mkdir -p "$dir/hub/dataset/google-research-datasets/mbpp/full" "$dir/hub/dataset/NeelNanda/pile-10k/data"
for part in train test validation prompt; do echo "{\"part\": \"$part\"}" >"$dir/hub/dataset/google-research-datasets/mbpp/full/$part-00000-of-00001.parquet"; done
for i in $(seq 12); do echo "{\"text\": \"$i\"}"; done >"$dir/hub/dataset/NeelNanda/pile-10k/data/train-00000-of-00001-4746b8785c874cc7.parquet"

cat >"$dir/site.env" <<END
. $source/slurm/site.env
PVA_PROGRAM=/bin/true
END
export SITE_ENV=$dir/site.env DATA_DIR=$dir/data MODEL_SIZE=2b FETCH_PAUSE=0 PILE_ROWS=12 HUB_CLIENT=$dir/bin/hf
MBPP_SHA256=$(cat "$dir"/hub/dataset/google-research-datasets/mbpp/full/{train,test,validation,prompt}-* | sha256sum | cut -c1-64)
export MBPP_SHA256
fetch() { # STATUS options...
    local status=$1
    shift
    checks=$((checks + 1))
    timeout 60 "$source/slurm/fetch.sh" "$@" >"$dir/out" 2>&1
    local got=$?
    [ $got = "$status" ] || fail "exit $got, expected $status: fetch.sh $*: $(cat "$dir/out")"
}
says() { check grep -qE -- "$1" "$dir/out"; }

# --- Looking first
fetch 0 --dry-run
says 'google/gemma-scope-2b-pt-res: 26 files'
check test ! -e "$dir/data" -a ! -e "$dir/calls/list"
# --- A damaged shard and a client that dies: one call of ours mends both
TROUBLE=model-00002 STOP_AT=layer_20 fetch 0
says 'model-00002-of-00003.safetensors has SHA-256 .*, the hub says'
check test -e "$dir/calls/damaged" -a -e "$dir/calls/stopped"
for part in gemma-2-2b gemma-scope-2b-pt-res; do
    check diff -r -x .cache -x SHA256SUMS "$dir/hub/model/google/$part" "$dir/data/$part"
    check sh -c "cd $dir/data/$part && sha256sum --quiet -c SHA256SUMS"
done
check test "$(wc -l <"$dir/data/gemma-scope-2b-pt-res/SHA256SUMS")" = 26
check test "$(wc -l <"$dir/data/pile-10k.jsonl")" = 12
check test "$(wc -l <"$dir/data/mbpp.jsonl")" = 4
# what the interrupted call had fetched was not fetched again
check grep -q '^google/gemma-scope-2b-pt-res 6$' "$dir/calls/list"
# --- Complete: the hub is not asked
: >"$dir/calls/list"
fetch 0
check test ! -s "$dir/calls/list"
fetch 0 --check
# --- Later damage is found by --check, which changes nothing, and mended without it when the file is younger than its record
echo >>"$dir/data/gemma-2-2b/model-00003-of-00003.safetensors"
fetch 3 --check --only model
says 'model-00003-of-00003.safetensors has SHA-256'
sleep 1
touch "$dir/data/gemma-2-2b/model-00003-of-00003.safetensors"
fetch 0 --only model
check cmp "$model/model-00003-of-00003.safetensors" "$dir/data/gemma-2-2b/model-00003-of-00003.safetensors"
rm "$dir/data/gemma-scope-2b-pt-res/layer_7/$width"/*/params.npz
fetch 3 --check --only sae
fetch 0 --only sae
# --- What cannot be had
rm -rf "$dir/data"
REFUSE=gemma-2 fetch 4 --only model
says 'licence'
MODEL_SIZE=7b fetch 2
fetch 2 --only weights
HUB_CLIENT=$dir/bin/none fetch 4
says 'no hub client'
MBPP_SHA256=${MBPP_SHA256//[0-7]/8} fetch 3 --only problems
says 'not the published file'
check test ! -e "$dir/data/mbpp.jsonl"
PILE_ROWS=13 fetch 3 --only pile
echo "slurm_fetch: $checks checks, $failures failed"
[ $failures = 0 ]
