#!/bin/bash
# Every phase in one job, each skipped when it is complete: from queue to report.
#   slurm/run.sh [options of pva-mpi run]                  on a login node: submits itself with the resources that site.env gives
#   sbatch [options of sbatch] slurm/run.sh [options]     submits with the resources below, which hold a 2b or a 9b on one GPU
#SBATCH --job-name=pva-run
#SBATCH --output=%x-%j.out
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:USR1@300
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --gres=gpu:1
#SBATCH --mem=48G
#SBATCH --time=24:00:00

# SLURM runs a copy of this script, so it asks where the original lies.
here=$(dirname "$(readlink -f "$0")")
[ -r "$here/common.sh" ] || here=${JOB_SCRIPTS:-$(scontrol show job "$SLURM_JOB_ID" | sed -n 's|^ *Command=\(.*\)/run\.sh.*|\1|p')}
if [ ! -r "$here/common.sh" ]; then
    echo "run.sh: common.sh is not in ${here:-?}: export JOB_SCRIPTS=/the/clone/slurm" >&2
    exit 3
fi
# shellcheck source=common.sh
. "$here/common.sh"

[ -n "${SLURM_JOB_ID:-}" ] || submit_self run "$here/run.sh" "$@"
load_site
# shellcheck disable=SC2086 # options are words
run_phase run $RUN_OPTIONS "$@"
