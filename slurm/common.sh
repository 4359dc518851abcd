# common.sh - what the scripts of this directory share: site.env, resources, submitting, starting ranks, stopping and coming back. Sourced, bash.
# shellcheck disable=SC2086 # counts and exit statuses need no quotes

say() { printf '%s\n' "$*" >&2; }
die() { # STATUS text: the exit codes are pva-mpi's own
    local status=$1
    shift
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit "$status"
}

# SITE_ENV names another file, for a second cluster that mounts the same clone.
load_site() {
    SITE_ENV=${SITE_ENV:-$here/site.env}
    # sbatch --export=LIST leaves it out, and Open MPI 5 does not start without it.
    [ -n "${HOME:-}" ] || { HOME=$(getent passwd "$(id -u)" | cut -d: -f6) && export HOME=${HOME:-/}; }
    [ -r "$SITE_ENV" ] || die 3 "$SITE_ENV cannot be read"
    # shellcheck source=site.env
    . "$SITE_ENV" || die 3 "$SITE_ENV: has an error (see above)"
    export SITE_ENV
    export -n PVA_PROGRAM # else pva-mpi would take it for an option that it does not know
    case $LAUNCHER in srun | mpirun) ;; *) die 2 "LAUNCHER=$LAUNCHER: srun or mpirun" ;; esac
    case $GPU_REQUEST in gres | gpus-per-node | gpus-per-task) ;; *) die 2 "GPU_REQUEST=$GPU_REQUEST: gres, gpus-per-node or gpus-per-task" ;; esac
    case $GPUS_PER_NODE$CPUS_PER_RANK$STOP_BEFORE_END$MOST_REQUEUES in
    *[!0-9]*) die 2 "GPUS_PER_NODE, CPUS_PER_RANK, STOP_BEFORE_END and MOST_REQUEUES are whole numbers" ;;
    esac
}

load_modules() {
    local name
    if [ -n "$MODULES" ]; then
        if ! command -v module >/dev/null; then
            for name in /etc/profile.d/lmod.sh /etc/profile.d/modules.sh /usr/share/lmod/lmod/init/bash /usr/share/modules/init/bash; do
                # shellcheck disable=SC1090
                [ -r $name ] && . $name && break
            done
        fi
        command -v module >/dev/null || die 3 "site.env names modules, and there is no module command"
        for name in $MODULES; do
            module load "$name" || die 3 "module load $name failed"
        done
    fi
    site_setup || die 3 "site_setup in $SITE_ENV failed"
}

# find_program VARIABLE NAME: an absolute path into the variable, unless site.env has set it.
find_program() {
    local variable=$1 name=$2 path
    if [ -z "${!variable}" ]; then
        for path in "$here/../build/$name" "$here/../../../bin/$name" "$(command -v "$name")"; do
            [ -x "$path" ] && break
        done
        printf -v "$variable" %s "$path"
    fi
    [ -x "${!variable}" ] || return 1
    printf -v "$variable" %s "$(readlink -f "${!variable}")"
}

# --- The model's size ------------------------------------------------------------------------------------------------------------------------------
# By its configuration where it is there, else by MODEL_SIZE. Sets size and weights_gb (bfloat16, in GB, rounded up).
model_size() {
    local width=''
    [ -r "$MODEL_DIR/config.json" ] && width=$(tr -d ' \n\r' <"$MODEL_DIR/config.json" | grep -o '"hidden_size":[0-9]*' | head -n 1 | cut -d: -f2)
    case ${width:-$MODEL_SIZE} in
    2304 | 2b) size=2b weights_gb=6 ;;
    3584 | 9b) size=9b weights_gb=19 ;;
    4608 | 27b) size=27b weights_gb=55 ;;
    *)
        case $MODEL_SIZE in 2b | 9b | 27b) ;; *) die 2 "MODEL_SIZE=$MODEL_SIZE: 2b, 9b or 27b" ;; esac
        size=other weights_gb=2 # a model of another shape, for trying
        ;;
    esac
}

# How the weights are stored: looked at in this type they are mapped, not converted, which a login node would not like.
stored_dtype() {
    local first
    first=$(find "$MODEL_DIR/" -maxdepth 1 -name '*.safetensors' -print 2>/dev/null | sort | head -n 1)
    if head -c 4096 "$first" | tr -d ' ' | grep -aq '"dtype":"F32"'; then echo f32; else echo bf16; fi
}

# --- Resources ---------------------------------------------------------------------------------------------------------------------------------------
# time_limit PHASE: on one GPU with 2 TB/s (A100) each fits with room; whatever does not is requeued and goes on.
time_limit() {
    local hours
    case $1:$size in
    report:*) hours=1 ;;
    phase1:9b | pile:27b | phase2:27b) hours=6 ;;
    phase1:27b | phase3:9b) hours=12 ;;
    phase1:* | pile:* | phase2:*) hours=3 ;;
    phase3:27b | steer:9b | steer:27b | run:9b | run:27b) hours=24 ;;
    phase3:*) hours=6 ;;
    *) hours=12 ;;
    esac
    printf '%02d:00:00' $hours
}

# seconds LIMIT: as SLURM reads it: M, M:S, H:M:S, D-H, D-H:M, D-H:M:S.
seconds() {
    local days=0 rest=$1 a b c
    case $rest in *-*) days=${rest%%-*} rest=${rest#*-} ;; esac
    IFS=: read -r a b c <<<"$rest"
    case $1 in '' | *[!0-9:-]*) echo 999999999; return ;; esac # "UNLIMITED", or a word that sbatch refuses better than we do
    if [ "$days" != 0 ] || [ -n "$c" ]; then
        echo $((10#$days * 86400 + 10#$a * 3600 + 10#${b:-0} * 60 + 10#${c:-0}))
    else
        echo $((10#$a * 60 + 10#${b:-0}))
    fi
}

# resources PHASE: sets nodes, ranks, per_node and the array options for sbatch.
resources() {
    local phase=$1 memory gpu=gpu cpus=$CPUS_PER_RANK
    model_size
    if [ -n "$TIME_LIMIT" ] && [ "$(seconds "$TIME_LIMIT")" -le "$STOP_BEFORE_END" ]; then
        die 2 "TIME_LIMIT=$TIME_LIMIT: a job must run for longer than STOP_BEFORE_END=$STOP_BEFORE_END seconds, else it is stopped as it starts"
    fi
    options=(--job-name="pva-$phase" --open-mode=append --requeue --signal="B:USR1@$STOP_BEFORE_END" --time="${TIME_LIMIT:-$(time_limit "$phase")}")
    if [ "$phase" = report ]; then
        nodes=1 ranks=1 per_node=1 cpus=2
        options+=(--nodes=1 --ntasks-per-node=1 --cpus-per-task=2 --mem="$MEM_REPORT")
    else
        per_node=${RANKS_PER_NODE:-$GPUS_PER_NODE}
        [ "$per_node" -gt 0 ] 2>/dev/null || per_node=1
        ranks=$RANKS
        if [ -z "$ranks" ]; then
            ranks=$per_node
            [ $ranks -gt 4 ] && ranks=4
            case $size in 2b | other) ranks=1 ;; esac
        fi
        [ "$ranks" -ge 1 ] 2>/dev/null || die 2 "RANKS=$ranks: a whole number from 1 on"
        [ "$ranks" -lt "$per_node" ] && per_node=$ranks
        nodes=$(((ranks + per_node - 1) / per_node))
        [ $((nodes * per_node)) = "$ranks" ] || die 2 "RANKS=$ranks: not a multiple of the $per_node ranks of a node"
        # Weights are mapped once per node; a rank on the CPU also holds its keys and values, one on a GPU holds buffers only.
        memory=$((weights_gb + 4 + per_node * (GPUS_PER_NODE > 0 ? 4 : 4 + weights_gb * 2 / 3)))
        options+=(--nodes="$nodes" --ntasks-per-node="$per_node" --cpus-per-task="$cpus" --mem="${MEM_PER_NODE:-${memory}G}")
        if [ "$GPUS_PER_NODE" -gt 0 ]; then
            [ $per_node -le "$GPUS_PER_NODE" ] || say "note: $per_node ranks on a node of $GPUS_PER_NODE GPUs share them"
            [ -n "$GPU_TYPE" ] && gpu=gpu:$GPU_TYPE
            case $GPU_REQUEST in
            gres) options+=(--gres="$gpu:$((per_node < GPUS_PER_NODE ? per_node : GPUS_PER_NODE))") ;;
            gpus-per-node) options+=(--gres=none --gpus-per-node="${GPU_TYPE:+$GPU_TYPE:}$((per_node < GPUS_PER_NODE ? per_node : GPUS_PER_NODE))") ;;
            gpus-per-task) options+=(--gres=none --gpus-per-task="${GPU_TYPE:+$GPU_TYPE:}1") ;;
            esac
        else
            options+=(--gres=none) # the scripts themselves ask for one GPU
        fi
    fi
    # Written in the words of the shell, so that a site can say --comment="a b".
    [ -n "$EXTRA_SBATCH" ] && eval "options+=($EXTRA_SBATCH)"
    return 0
}

# --- What a phase reads --------------------------------------------------------------------------------------------------------------------------------
# Prints a line for each thing that is missing. With a later phase the run directory's files must be there or be made before it.
missing_inputs() { # PHASE...
    local phase name
    find_program PVA_PROGRAM pva-mpi || echo "the program: ${PVA_PROGRAM:-pva-mpi} is not there or not executable: ./bootstrap build, or set PVA_PROGRAM in site.env"
    for phase; do
        case $phase in
        phase1 | pile | phase3 | steer | run)
            missing_model
            break
            ;;
        esac
    done
    for phase; do
        case $phase in
        phase1 | phase3 | steer | run)
            [ -r "$PROBLEMS" ] || echo "the problems: $PROBLEMS"
            break
            ;;
        esac
    done
    for phase; do
        case $phase in
        pile | phase2 | phase3 | steer | run)
            name=$(find "$SAE_DIR/" \( -name params.npz -o -name '*.safetensors' \) -print -quit 2>/dev/null)
            [ -n "$name" ] || echo "the autoencoders: $SAE_DIR holds no params.npz (layer_N/width_16k/average_l0_X/params.npz)"
            break
            ;;
        esac
    done
    for phase; do
        case $phase in
        pile | run)
            [ -r "$PILE" ] || echo "general text: $PILE"
            break
            ;;
        esac
    done
}

missing_model() {
    local name
    for name in config.json tokenizer.model; do
        [ -r "$MODEL_DIR/$name" ] || echo "the model: $MODEL_DIR/$name"
    done
    if [ -r "$MODEL_DIR/model.safetensors.index.json" ]; then
        grep -o '"[^"]*\.safetensors"' "$MODEL_DIR/model.safetensors.index.json" | tr -d '"' | sort -u | while read -r name; do
            [ -r "$MODEL_DIR/$name" ] || echo "the model: $MODEL_DIR/$name (its index names it)"
        done
    elif [ ! -r "$MODEL_DIR/model.safetensors" ]; then
        echo "the model: $MODEL_DIR/model.safetensors, or model.safetensors.index.json"
    fi
}

# --- Submitting ----------------------------------------------------------------------------------------------------------------------------------------
log_pattern() { echo "$RUN_DIR/logs/slurm-%x-%j.out"; }

# A phase script that is run by hand, outside a job, submits itself with site.env's resources. Then it does not return.
submit_self() { # PHASE SCRIPT arguments...
    local phase=$1 script=$2 missing
    shift 2
    load_site
    case "${1:-}" in --help | -h) usage_of_phase "$phase"; exit 0 ;; esac
    command -v sbatch >/dev/null || die 4 "there is no sbatch here: this belongs on a login node of a SLURM cluster"
    missing=$(missing_inputs "$phase")
    [ -z "$missing" ] || die 3 "not submitted, missing are:"$'\n'"$missing"
    resources "$phase"
    mkdir -p "$RUN_DIR/logs" || die 4 "$RUN_DIR/logs cannot be made"
    say "sbatch ${options[*]} $script $*"
    JOB_SCRIPTS=$here exec sbatch --output="$(log_pattern)" "${options[@]}" "$script" "$@"
}

usage_of_phase() {
    cat <<END
usage: slurm/$1.sh [options of pva-mpi $1]                      submits itself, with the resources that site.env gives
       sbatch [options of sbatch] slurm/$1.sh [options]         submits with the resources written in the script
END
}

# --- In the job ----------------------------------------------------------------------------------------------------------------------------------------
# How many ranks: those asked for; but where the job has more GPUs than tasks, one per GPU. Sets ranks, per_node, cpus, changed.
count_ranks() {
    local gpus=0 nodes=${SLURM_JOB_NUM_NODES:-${SLURM_NNODES:-1}} on_node=${SLURM_CPUS_ON_NODE:-1} list
    if [ -n "${SLURM_GPUS_ON_NODE:-}" ]; then
        gpus=$SLURM_GPUS_ON_NODE
    elif list=${SLURM_JOB_GPUS:-${CUDA_VISIBLE_DEVICES:-}} && [ -n "$list" ]; then
        list=${list//[^,]/}
        gpus=$((${#list} + 1))
    fi
    ranks=${SLURM_NTASKS:-$nodes} changed=0
    if [ $((gpus * nodes)) -gt "$ranks" ]; then ranks=$((gpus * nodes)) changed=1; fi
    per_node=$(((ranks + nodes - 1) / nodes))
    cpus=${SLURM_CPUS_PER_TASK:-$((on_node / per_node))}
    [ $changed = 1 ] && cpus=$((on_node / per_node))
    [ "$cpus" -ge 1 ] || cpus=1
}

# One copy per node, sent through SLURM's own tree: the shared file system is read once.
stage_weights() {
    local place=$SCRATCH/pva-weights-${SLURM_JOB_ID} name path start=$SECONDS
    [ -n "$SCRATCH" ] || { say "STAGE_WEIGHTS needs SCRATCH in site.env: reading $MODEL_DIR"; return; }
    if ! on_each_node mkdir -p "$place"; then say "$place cannot be made: reading $MODEL_DIR"; return; fi
    staged=$place
    for path in "$MODEL_DIR"/*.safetensors "$MODEL_DIR"/*.json "$MODEL_DIR"/tokenizer.model; do
        [ -e "$path" ] || continue
        name=${path##*/}
        if ! sbcast --force "$(readlink -f "$path")" "$place/$name"; then
            say "sbcast of $name failed (is $SCRATCH full?): reading $MODEL_DIR"
            unstage
            return
        fi
    done
    say "weights: broadcast to $place in $((SECONDS - start)) s"
    MODEL_DIR=$place
}
unstage() {
    [ -n "${staged:-}" ] || return 0
    on_each_node rm -rf "$staged"
    staged=
}
on_each_node() { srun --ntasks="${SLURM_JOB_NUM_NODES:-1}" --ntasks-per-node=1 --cpus-per-task=1 --mpi=none "$@"; }

job_field() { # NAME: from SLURM's own record of this job
    scontrol show job "$SLURM_JOB_ID" 2>/dev/null | tr ' ' '\n' | sed -n "s/^$1=//p" | head -n 1
}

# Sets launcher to the words before the program.
make_launcher() {
    if [ "$LAUNCHER" = mpirun ]; then
        local words=${MPIRUN//%ranks/$ranks}
        words=${words//%per_node/$per_node}
        words=${words//%cpus/$cpus}
        # shellcheck disable=SC2206 # words
        launcher=($words)
        # Open MPI takes its slots from here.
        [ $changed = 1 ] && export SLURM_NTASKS=$ranks SLURM_TASKS_PER_NODE="$per_node(x${SLURM_JOB_NUM_NODES:-1})" && unset SLURM_CPUS_PER_TASK
    else
        # Since 22.05 a step no longer inherits the CPUs of a task: they are said again.
        launcher=(srun --mpi="$SRUN_MPI" --kill-on-bad-exit=1 --cpus-per-task="$cpus")
        # Where SLURM manages no affinity it warns of every request for it.
        scontrol show config 2>/dev/null | grep -qE '^TaskPlugin *= *(task/none|\(null\))?$' || launcher+=(--cpu-bind="$CPU_BIND")
        if [ $changed = 1 ]; then
            unset SLURM_NTASKS SLURM_NPROCS SLURM_NTASKS_PER_NODE SLURM_TASKS_PER_NODE SLURM_CPUS_PER_TASK SLURM_TRES_PER_TASK SLURM_GPUS_PER_TASK
            launcher+=(--ntasks="$ranks" --ntasks-per-node="$per_node")
        fi
    fi
}

# Starts the words given and waits. A stop signal to this script is passed on as USR1, which srun and mpirun relay to every rank. Sets status.
launch_and_wait() {
    local child
    if [ -n "$stop_signal" ]; then
        status=75
        return
    fi
    "$@" &
    child=$!
    while :; do
        wait $child
        status=$?
        # A trap ends `wait` with the signal's number; then the child still runs, or its status is fetched by the next round.
        [ -n "$woken" ] || break
        woken=
        say "$(date '+%F %T') job $SLURM_JOB_ID: SIG$stop_signal: telling the ranks to stop"
        kill -USR1 $child 2>/dev/null
    done
}

# The job has stopped before its work was done. Back into the queue, when it was the time limit or a job of higher priority that stopped it.
come_back() {
    local why='' count=${SLURM_RESTART_COUNT:-0}
    if [ "$stop_signal" = USR1 ]; then
        why="the time limit is near"
    elif [ -z "$stop_signal" ]; then
        # The ranks were told before this script: either a person did (scancel --signal), or SLURM makes room for another job.
        case $(job_field PreemptTime) in '' | None) ;; *) why="another job takes the nodes" ;; esac
    fi
    if [ -z "$why" ]; then
        say "stopped; to resume, submit the same again"
        return
    fi
    if [ "$count" -ge "$MOST_REQUEUES" ]; then
        say "$why, and this job was requeued $count times already (MOST_REQUEUES): it stays down. Submit the same again to resume"
        return
    fi
    trap - TERM
    if scontrol requeue "$SLURM_JOB_ID"; then
        say "$why: requeued, it resumes in the same job id"
        sleep 300 & # SLURM ends this script
        wait
    else
        say "$why, and requeueing was refused: submit the same again to resume"
    fi
}

# The options of a phase that site.env and the job know better than the program's defaults: those the phase has and the user has not set.
# Sets `given`.
known_options() { # PHASE options...
    local config key value
    config=$("$PVA_PROGRAM" "$@" --show-config) || exit $?
    given=()
    while read -r key value; do
        case $key in
        run) given+=(--run "$RUN_DIR") ;;
        model) given+=(--model "$MODEL_DIR") ;;
        sae) given+=(--sae "$SAE_DIR") ;;
        problems) given+=(--problems "$PROBLEMS") ;;
        pile) given+=(--pile "$PILE") ;;
        threads) [ "$value" = 0 ] && given+=(--threads "$cpus") ;;
        grade-jobs) [ "$value" = 0 ] && [ "$cpus" -gt 2 ] && given+=(--grade-jobs $((cpus / 2))) ;;
        esac
    done < <(sed -nE 's/^# ([a-z-]+): unset$/\1/p; s/^(threads|grade-jobs): /\1 /p' <<<"$config")
}

# run_phase PHASE options...: one phase of pva-mpi on all of the job's ranks. Ends the script.
run_phase() {
    local phase=$1
    shift
    in_job
    load_modules
    find_program PVA_PROGRAM pva-mpi || die 3 "${PVA_PROGRAM:-pva-mpi} is not there or not executable on $(hostname -s): set PVA_PROGRAM in site.env"
    case $STAGE_WEIGHTS:$phase in yes:phase1 | yes:pile | yes:phase3 | yes:steer | yes:run) stage_weights ;; esac
    known_options "$phase" "$@"
    run_program "$PVA_PROGRAM" "$phase" "${given[@]}" "$@"
}

in_job() {
    [ -n "${SLURM_JOB_ID:-}" ] || die 2 "this is no job: submit it with sbatch"
    # A job submitted with --export=NONE would pass nothing on to its ranks.
    export SLURM_EXPORT_ENV=ALL RANK_SCRATCH=$SCRATCH
    staged='' stop_signal='' woken=''
    trap 'stop_signal=USR1 woken=1' USR1
    trap 'stop_signal=${stop_signal:-TERM} woken=1' TERM INT
    count_ranks
    export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$cpus}
}

# run_program PROGRAM arguments...: with ranks, signals and requeueing. Ends the script with the program's status.
run_program() {
    local command=("$@")
    make_launcher
    say "$(date '+%F %T') job $SLURM_JOB_ID${SLURM_ARRAY_TASK_ID:+ (task $SLURM_ARRAY_TASK_ID of array $SLURM_ARRAY_JOB_ID)}, start $((${SLURM_RESTART_COUNT:-0} + 1)):" \
        "$ranks ranks x $cpus CPUs on ${SLURM_JOB_NODELIST:-?}, GPUs here: ${CUDA_VISIBLE_DEVICES:-none}"
    say "${launcher[*]} ${command[*]}"
    launch_and_wait "${launcher[@]}" "$here/rank.sh" "${command[@]}"
    say "$(date '+%F %T') job $SLURM_JOB_ID: ${command[0]##*/} ${command[1]:-} ended with $status after $SECONDS s"
    unstage
    # 75: stopped in order. Other numbers after a stop signal: it came while a rank was starting or loading.
    if [ $status = 75 ] || { [ -n "$stop_signal" ] && [ $status != 0 ] && { [ $status -gt 5 ] || [ $status = 4 ]; }; }; then
        come_back
        status=75
    fi
    exit $status
}
