#!/bin/bash
# One rank: started by srun or mpirun on a compute node, becomes the program given as arguments.
# Sees to it that the rank has one GPU, a local directory for short-lived files, and its own number of threads.

# Its number on this node, and how many there are: as srun, Open MPI, or another launcher says.
local_rank=${SLURM_LOCALID:-}
[ -n "${OMPI_COMM_WORLD_LOCAL_RANK:-}" ] && local_rank=$OMPI_COMM_WORLD_LOCAL_RANK
[ -n "${MPI_LOCALRANKID:-}" ] && local_rank=$MPI_LOCALRANKID
: "${local_rank:=0}"

# SLURM shows a rank either its own GPU (--gpus-per-task: one entry) or all of the node's. In the second case rank i takes the i-th.
# Under cgroups two ranks may both be told "0" and yet have different devices, so one entry is left as it is.
if [ -n "${CUDA_VISIBLE_DEVICES:-}" ]; then
    IFS=, read -ra gpus <<<"$CUDA_VISIBLE_DEVICES"
    if [ ${#gpus[@]} -gt 1 ]; then
        export CUDA_VISIBLE_DEVICES=${gpus[local_rank % ${#gpus[@]}]}
        if [ "$local_rank" -ge ${#gpus[@]} ]; then
            echo "rank.sh: $(hostname): rank $local_rank of this node shares GPU $CUDA_VISIBLE_DEVICES: there are ${#gpus[@]}" >&2
        fi
    fi
fi

# The sandbox of the generated programs and converted weights want a directory on this node: a network file system would be slow and crowded.
for place in "${RANK_SCRATCH:-}" "${SLURM_TMPDIR:-}" "${TMPDIR:-}" /tmp; do
    if [ -n "$place" ] && mkdir -p "$place" 2>/dev/null && [ -w "$place" ]; then
        export TMPDIR=$place
        break
    fi
done

exec "$@"
