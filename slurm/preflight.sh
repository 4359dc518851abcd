#!/bin/bash
# Run on the login node before the first submission: is everything there, does it fit together, and would SLURM take the jobs?
usage() {
    cat <<'END'
usage: slurm/preflight.sh [--hash] [--on-node]

  --hash     read all of the weights and compare them with the SHA256SUMS that fetch.sh wrote
  --on-node  also run `pva-mpi doctor` for two minutes at most on a compute node, with the GPU and the launcher of site.env (waits in the queue)

One line per check: ok, note or FAIL. Exit status 1 when something failed.
END
}
here=$(dirname "$(readlink -f "$0")")
# shellcheck source=common.sh
. "$here/common.sh"

hash='' on_node='' failures=0
for argument; do
    case $argument in
    --hash) hash=1 ;;
    --on-node) on_node=1 ;;
    --help | -h) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
    esac
done
ok() { printf 'ok    %s\n' "$*"; }
note() { printf 'note  %s\n' "$*"; }
fail() {
    printf 'FAIL  %s\n' "$*"
    failures=$((failures + 1))
}

load_site
ok "site.env: $SITE_ENV, MODEL_SIZE=$MODEL_SIZE, RUN_DIR=$RUN_DIR"

# --- Software --------------------------------------------------------------------------------------------------------------------------------------
check_software() {
    local missing version
    if (load_modules); then
        load_modules
        [ -z "$MODULES" ] || ok "modules: $MODULES"
    else
        fail "the modules or site_setup of site.env do not load (see above)"
    fi
    if ! find_program PVA_PROGRAM pva-mpi; then
        fail "pva-mpi: ${PVA_PROGRAM:-it} is not there or not executable: ./bootstrap build, or set PVA_PROGRAM in site.env"
        return
    fi
    missing=$(ldd "$PVA_PROGRAM" 2>/dev/null | awk '/not found/ { print $1 }' | paste -sd' ')
    if [ -n "$missing" ]; then
        fail "pva-mpi: $PVA_PROGRAM wants $missing, which is not found: is a module missing in MODULES?"
    elif version=$("$PVA_PROGRAM" --version 2>&1); then
        ok "program: $version, $PVA_PROGRAM"
    else
        fail "pva-mpi: $PVA_PROGRAM does not start: $version"
    fi
    command -v python3 >/dev/null && ok "python3: $(python3 -c 'import sys; print(sys.version.split()[0], sys.executable)'); the compute nodes need it, too" ||
        fail "python3 is not here: the generated programs run in it (on the compute nodes; --python names another)"
    [ "$LAUNCHER" = srun ] || command -v "${MPIRUN%% *}" >/dev/null || fail "LAUNCHER=mpirun, and ${MPIRUN%% *} is not found: is a module missing in MODULES?"
    # A program that lies on a local disk is not there on the nodes.
    case $(df --output=fstype "$PVA_PROGRAM" 2>/dev/null | tail -n 1) in
    tmpfs | overlay | ext4 | xfs | btrfs) note "$PVA_PROGRAM lies on a local file system: do the compute nodes see it?" ;;
    esac
}

# --- Files -----------------------------------------------------------------------------------------------------------------------------------------
check_files() {
    local line missing shapes
    missing=$(missing_inputs phase1 pile phase2 phase3 steer | grep -v '^the program')
    if [ -n "$missing" ]; then
        while read -r line; do fail "missing: $line"; done <<<"$missing"
    else
        ok "files: model, autoencoders, problems and general text are there"
    fi
    [ -r "$PROBLEMS" ] && ok "problems: $(wc -l <"$PROBLEMS") lines in $PROBLEMS"
    if [ -r "$MODEL_DIR/config.json" ] && [ -x "$PVA_PROGRAM" ]; then
        model_size
        [ "$size" = "$MODEL_SIZE" ] || note "MODEL_SIZE=$MODEL_SIZE, but $MODEL_DIR/config.json is ${size/other/of another shape}: resources follow the file"
        # Headers, shapes and sizes of every tensor; the data itself is mapped, not read.
        shapes=$("$PVA_PROGRAM" doctor --model "$MODEL_DIR" --dtype "$(stored_dtype)" --backend cpu 2>&1 | grep -E '^(ok|FAIL|-) +(model|tokenizer) ')
        while read -r line; do
            case $line in ok*) ok "$(sed -E 's/^ok +(\w+) +/\1: /' <<<"$line")" ;; ?*) fail "$line" ;; esac
        done <<<"$shapes"
    fi
    if [ -n "$hash" ]; then
        for line in "$MODEL_DIR" "$SAE_DIR"; do
            if [ ! -r "$line/SHA256SUMS" ]; then
                note "hash: $line/SHA256SUMS is not there (fetch.sh writes it): nothing to compare with"
            elif missing=$(cd "$line" && sha256sum --quiet -c SHA256SUMS 2>&1); then
                ok "hash: $(wc -l <"$line/SHA256SUMS") files of $line are whole"
            else
                fail "hash: $line: $(head -n 1 <<<"$missing")"
            fi
        done
    fi
}

# --- Space -----------------------------------------------------------------------------------------------------------------------------------------
check_space() {
    local above=$RUN_DIR need free quota
    model_size
    case $size in 2b) need=4 ;; 9b) need=8 ;; 27b) need=14 ;; *) need=1 ;; esac # all phases and the snapshots
    while [ ! -d "$above" ]; do above=$(dirname "$above"); done
    if [ ! -w "$above" ]; then
        fail "run directory: $above cannot be written"
        return
    fi
    free=$(df -Pk "$above" | awk 'NR == 2 { print int($4 / 1000000) }')
    if [ "$free" -ge $need ]; then ok "space: $free GB free for $RUN_DIR, at most about $need GB are needed"; else fail "space: $free GB free for $RUN_DIR, about $need GB are needed"; fi
    case $(df --output=fstype "$above" | tail -n 1) in
    lustre) quota=$(lfs quota -h -u "$(id -un)" "$above" 2>/dev/null | sed -n 3p) ;;
    gpfs) quota=$(mmlsquota 2>/dev/null | tail -n 1) ;;
    tmpfs | ramfs) note "$above is memory: results there are lost with the machine" ;;
    *) quota=$(quota -s 2>/dev/null | tail -n +3) ;;
    esac
    # A star marks what is over its limit.
    case ${quota:-} in
    '') note "quota: none is reported for $above" ;;
    *'*'*) fail "quota: over the limit: $quota" ;;
    *) ok "quota: $(tr -s ' \n' ' ' <<<"$quota")" ;;
    esac
}

# --- SLURM -----------------------------------------------------------------------------------------------------------------------------------------
check_slurm() {
    local name partition line gpus nodes phase answer limit time
    for name in sbatch srun squeue scontrol sinfo; do
        command -v $name >/dev/null || { fail "SLURM: there is no $name here"; return; }
    done
    ok "SLURM: $(sinfo --version), cluster $(scontrol show config 2>/dev/null | sed -n 's/^ClusterName *= *//p')"
    if [ "$LAUNCHER" = srun ] && ! srun --mpi=list 2>&1 | grep -qw "${SRUN_MPI%%_v*}"; then
        fail "srun --mpi=list has no $SRUN_MPI: take another for SRUN_MPI, or LAUNCHER=mpirun"
    fi
    partition=${SBATCH_PARTITION:-$(sinfo -h -o %P | sed -n 's/\*$//p' | head -n 1)}
    if [ -z "$(sinfo -h -p "${partition:-none}" -o %P 2>/dev/null)" ]; then
        fail "partition ${partition:-(no default)} does not exist: sinfo lists them; SBATCH_PARTITION in site.env"
        return
    fi
    line=$(sinfo -h -p "$partition" -o '%D nodes, %c CPUs, %m MB, %G, limit %l' | head -n 3 | paste -sd';')
    ok "partition $partition: $line"
    if [ "$GPUS_PER_NODE" -gt 0 ]; then
        # "gpu:h100:4(S:0-1)": the largest number of the wanted type on a node.
        gpus=$(sinfo -h -p "$partition" -o %G | tr ',' '\n' | sed 's/([^)]*)//' | awk -F: -v type="$GPU_TYPE" \
            '$1 == "gpu" && (type == "" || $2 == type) && $NF + 0 > most { most = $NF + 0 } END { print most + 0 }')
        if [ "$gpus" = 0 ]; then
            fail "GPUs: partition $partition has none${GPU_TYPE:+ of type $GPU_TYPE} (sinfo -p $partition -o %G); GPUS_PER_NODE=0 computes on CPUs"
        elif [ "$gpus" -lt "$GPUS_PER_NODE" ]; then
            fail "GPUs: GPUS_PER_NODE=$GPUS_PER_NODE, but a node of $partition has at most $gpus${GPU_TYPE:+ of type $GPU_TYPE}"
        else
            ok "GPUs: $gpus a node in $partition, GPUS_PER_NODE=$GPUS_PER_NODE"
        fi
    fi
    # SLURM itself judges the request: account, QOS, memory, CPUs, GPUs, time.
    for phase in phase1 steer report; do
        resources $phase
        limit=$(sinfo -h -p "$partition" -o %l | head -n 1)
        time=$(printf '%s\n' "${options[@]}" | sed -n 's/^--time=//p')
        # Many clusters accept such a job, and let it wait for ever.
        if [ "$(seconds "$time")" -gt "$(seconds "$limit")" ]; then
            fail "$phase asks for $time, the limit of $partition is $limit: TIME_LIMIT=$limit in site.env (jobs that meet it come back and resume)"
            continue
        fi
        if answer=$(sbatch --test-only --output=/dev/null "${options[@]}" "$here/$phase.sh" 2>&1); then
            ok "$phase would be taken: $(tail -n 1 <<<"$answer" | sed 's/^sbatch: //')"
        else
            fail "$phase would be refused: $(grep -v '^$' <<<"$answer" | sed 's/^sbatch: //; s/^allocation failure: //' | tail -n 2 | paste -sd' '); the request: ${options[*]:4}"
        fi
    done
    if [ "$(scontrol show config | sed -n 's/^JobRequeue *= *//p')" = 0 ]; then
        note "jobs are not requeued by default here (JobRequeue=0); ours ask for it with --requeue"
    fi
    nodes=$(squeue -h -u "$(id -un)" -o %i 2>/dev/null | wc -l)
    [ "$nodes" = 0 ] || note "you have $nodes job(s) in the queue"
}

check_node() {
    local gpu=()
    [ "$GPUS_PER_NODE" -gt 0 ] && gpu=(--gres="gpu${GPU_TYPE:+:$GPU_TYPE}:1")
    say "waiting for a compute node ..."
    # srun reads names of its own.
    if SLURM_ACCOUNT=${SBATCH_ACCOUNT:-} SLURM_PARTITION=${SBATCH_PARTITION:-} SLURM_QOS=${SBATCH_QOS:-} SLURM_CONSTRAINT=${SBATCH_CONSTRAINT:-} srun_clean \
        --job-name=pva-doctor --time=2 --ntasks=1 --cpus-per-task="$CPUS_PER_RANK" "${gpu[@]}" --mpi="$SRUN_MPI" "$here/rank.sh" "$PVA_PROGRAM" doctor; then
        ok "doctor on a compute node (above)"
    else
        fail "doctor on a compute node (above)"
    fi
}
srun_clean() { # empty variables would count as requests for an account named ""
    local name
    for name in SLURM_ACCOUNT SLURM_PARTITION SLURM_QOS SLURM_CONSTRAINT; do [ -n "${!name}" ] || unset $name; done
    srun "$@"
}

check_software
check_files
check_space
check_slurm
[ -z "$on_node" ] || check_node
if [ $failures = 0 ]; then
    echo "ready: slurm/pipeline.sh submits the study"
else
    echo "$failures to mend"
fi
[ $failures = 0 ] || exit 1
