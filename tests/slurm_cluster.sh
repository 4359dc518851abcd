#!/usr/bin/env bash
# A real SLURM on this one machine, as root: slurmctld, several slurmd and munged, all on the loopback address, no system file touched.
#   slurm_cluster.sh start DIR [NODES=3] [CPUS=2]   prints the line that lets SLURM's commands find it: export SLURM_CONF=...
#   slurm_cluster.sh stop DIR                       ends what start began, by the process ids it wrote down; removes DIR
#   slurm_cluster.sh                                the test: starts one, runs a step on each node, stops it
# CLUSTER_GPUS: devices that look like GPUs to SLURM, per node (2; 0: none).
# Exit 77 when the machine cannot (not root, or no SLURM installed; Debian: slurmctld slurmd slurm-client munge).
set -u

need() {
    local name
    [ "$(id -u)" = 0 ] || { echo "SKIP SLURM tests: starting a cluster takes root"; exit 77; }
    for name in slurmctld slurmd sbatch munged unmunge; do
        command -v $name >/dev/null || { echo "SKIP SLURM tests: there is no $name (Debian and Ubuntu: apt-get install slurmctld slurmd slurm-client munge)"; exit 77; }
    done
}

alive() { [ -n "$1" ] && kill -0 "$1" 2>/dev/null; }
idle_nodes() { timeout 10 sinfo -h -N -p main -t idle -o %N 2>/dev/null | wc -l; }

# Ports nobody listens on: $1 of them in a row, below the range from which connections get theirs.
free_ports() {
    local base taken
    taken=" $(awk '$4 == "0A" { split($2, a, ":"); print a[2] }' /proc/net/tcp /proc/net/tcp6 2>/dev/null | while read -r hex; do printf '%d ' "0x$hex"; done) "
    for ((base = 12000 + (RANDOM % 180) * 100; ; base = 12000 + (RANDOM % 180) * 100)); do
        for ((i = 0; i < $1; i++)); do [[ $taken == *" $((base + i)) "* ]] && continue 2; done
        echo $base
        return
    done
}

write_configuration() { # DIR NODES CPUS PORT
    local dir=$1 nodes=$2 cpus=$3 port=$4 gpus=${CLUSTER_GPUS:-2} names=n1 ports=$(($4 + 1)) memory gres='' types='' i
    memory=$(awk -v n="$nodes" '/^MemTotal:/ { printf "%d", $2 / 1024 * 0.9 / n }' /proc/meminfo)
    if [ "$nodes" -gt 1 ]; then names="n[1-$nodes]" ports="[$((port + 1))-$((port + nodes))]"; fi
    if [ "$gpus" -gt 0 ]; then
        gres=Gres=gpu:$gpus types=GresTypes=gpu
        # SLURM wants device nodes: these are /dev/null under other names.
        for ((i = 0; i < gpus; i++)); do mknod -m 666 "$dir/dev/gpu$i" c 1 3 || return 1; done
        printf 'AutoDetect=off\nNodeName=%s Name=gpu File=%s/dev/gpu[0-%d]\n' "$names" "$dir" $((gpus - 1)) >"$dir/gres.conf"
    fi
    : >"$dir/plugstack.conf"
    # The nodes share one /tmp and one /dev/shm. Open MPI names its files there after the host, so each node gets its own place.
    cat >"$dir/task-prolog" <<END
#!/bin/sh
place=$dir/tmp/\$SLURMD_NODENAME
echo "export TMPDIR=\$place"
for part in btl_vader osc_sm osc_rdma; do echo "export OMPI_MCA_\${part}_backing_directory=\$place"; done
echo "export OMPI_MCA_btl_tcp_if_include=lo"
echo "export OMPI_MCA_oob_tcp_if_include=lo"
echo "export OMPI_MCA_mpi_yield_when_idle=1"
END
    chmod 755 "$dir/task-prolog"
    cat >"$dir/slurm.conf" <<END
ClusterName=test
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort=$port
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
# A requeued job waits until its old credential has expired; 5 s is the least.
AuthInfo=socket=$dir/munge/socket,cred_expire=5
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool/%n
# The PMIx plugin keeps its files there under names without the node's.
TmpFS=$dir/tmp/%n
SlurmctldPidFile=$dir/pids/slurmctld
SlurmdPidFile=$dir/pids/slurmd.%n
SlurmctldLogFile=$dir/log/slurmctld
SlurmdLogFile=$dir/log/slurmd.%n
PlugStackConfig=$dir/plugstack.conf
MailProg=/bin/true
ProctrackType=proctrack/linuxproc
# The nodes have as many processors as they say, whatever the machine has.
SlurmdParameters=config_overrides
TaskProlog=$dir/task-prolog
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=200
$types
PriorityType=priority/basic
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
ReturnToService=2
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,sched_min_interval=0,bf_interval=1,batch_sched_delay=0,kill_invalid_depend
KillWait=5
MinJobAge=3600
InactiveLimit=0
SlurmctldTimeout=30
SlurmdTimeout=${CLUSTER_NODE_TIMEOUT:-60}
MessageTimeout=20
TCPTimeout=2
UnkillableStepTimeout=100
NodeName=$names NodeHostname=localhost NodeAddr=127.0.0.1 Port=$ports CPUs=$cpus Boards=1 SocketsPerBoard=1 CoresPerSocket=$cpus ThreadsPerCore=1 RealMemory=$memory $gres State=UNKNOWN
PartitionName=main Nodes=$names Default=YES MaxTime=1-00:00:00 DefaultTime=10 PriorityTier=10 PreemptMode=OFF State=UP
PartitionName=low Nodes=$names MaxTime=1-00:00:00 DefaultTime=10 PriorityTier=1 PreemptMode=REQUEUE GraceTime=${CLUSTER_GRACE:-5} State=UP
END
}

start() {
    local dir=$1 nodes=${2:-3} cpus=${3:-2} i until
    need
    mkdir -p "$dir"/{state,pids,log,spool,munge,dev,tmp} && chmod 755 "$dir" "$dir/munge" || exit 1
    write_configuration "$dir" "$nodes" "$cpus" "$(free_ports $((nodes + 1)))" || exit 1
    export SLURM_CONF=$dir/slurm.conf
    (umask 077 && head -c 128 /dev/urandom >"$dir/munge/key")
    munged --force --key-file="$dir/munge/key" --socket="$dir/munge/socket" --pid-file="$dir/pids/munged" --log-file="$dir/log/munged" \
        --seed-file="$dir/munge/seed" --num-threads=2 2>/dev/null
    munge -n -S "$dir/munge/socket" | unmunge -S "$dir/munge/socket" >/dev/null || { cat "$dir/log/munged" >&2; exit 1; }
    slurmctld -c >"$dir/log/start" 2>&1
    for ((i = 1; i <= nodes; i++)); do
        mkdir -p "$dir/spool/n$i" "$dir/tmp/n$i" && chmod 1777 "$dir/tmp/n$i"
        slurmd -N "n$i" >>"$dir/log/start" 2>&1
    done
    # While the controller lives: asking a dead one takes ten seconds each time.
    until=$((SECONDS + 60))
    while [ $SECONDS -lt $until ] && kill -0 "$(cat "$dir/pids/slurmctld" 2>/dev/null)" 2>/dev/null; do
        [ "$(idle_nodes)" = "$nodes" ] && break
        sleep 0.1
    done
    if [ "$(idle_nodes)" != "$nodes" ]; then
        echo "the cluster did not come up:" >&2
        timeout 10 sinfo >&2
        tail -n 15 "$dir"/log/* >&2
        stop "$dir"
        # The configuration was tried with Debian 12's. Another SLURM that does not take it is no fault of what is tested.
        [[ $(slurmctld -V) == *' 22.05'* ]] && exit 1
        echo "SKIP SLURM tests: $(slurmctld -V) did not start with a configuration made for 22.05 (see above)"
        exit 77
    fi
    echo "export SLURM_CONF=$dir/slurm.conf"
}

stop() {
    local dir=$1 pids p k
    [ -d "$dir/pids" ] || return 0
    export SLURM_CONF=$dir/slurm.conf
    if alive "$(cat "$dir/pids/slurmctld" 2>/dev/null)"; then
        timeout 10 squeue -h -o %A 2>/dev/null | sort -u | timeout 10 xargs -r scancel --full -s KILL 2>/dev/null
        timeout 10 squeue -h -o %A 2>/dev/null | sort -u | timeout 10 xargs -r scancel 2>/dev/null
        for ((k = 0; k < 100; k++)); do
            [ -z "$(timeout 5 squeue -h 2>/dev/null)" ] && break
            sleep 0.1
        done
    fi
    pids=$(cat "$dir"/pids/* 2>/dev/null)
    # shellcheck disable=SC2086 # a list
    kill $pids 2>/dev/null
    for ((k = 0; k < 100; k++)); do
        for p in $pids; do alive "$p" && { sleep 0.1; continue 2; }; done
        break
    done
    for p in $pids; do alive "$p" && kill -KILL "$p"; done
    rm -rf "$dir"
}

case "${1:-}" in
start) shift; start "$@" ;;
stop) stop "$2" ;;
'')
    need
    dir=$(mktemp -d /tmp/pva-slurm.XXXXXX) || exit 1
    trap 'stop "$dir"' EXIT
    started=$(start "$dir" 3 2)
    status=$?
    [ $status = 0 ] || { echo "$started"; exit $status; }
    eval "$started"
    sinfo
    names=$(timeout 60 srun -N 3 -n 3 bash -c 'echo $SLURMD_NODENAME' | sort | paste -sd' ')
    echo "a step ran on: $names"
    [ "$names" = 'n1 n2 n3' ]
    ;;
*) echo "usage: $0 [start DIR [NODES] [CPUS] | stop DIR]" >&2; exit 2 ;;
esac
