#!/bin/bash
# Phase 1: a program for each problem, graded, with the residual stream of its prompt.
#   slurm/phase1.sh [options of pva-mpi phase1]                  on a login node: submits itself with the resources that site.env gives
#   sbatch [options of sbatch] slurm/phase1.sh [options]     submits with the resources below, which hold a 2b or a 9b on one GPU
#SBATCH --job-name=pva-phase1
#SBATCH --output=%x-%j.out
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:USR1@300
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --gres=gpu:1
#SBATCH --mem=48G
#SBATCH --time=08:00:00

# SLURM runs a copy of this script, so it asks where the original lies.
here=$(dirname "$(readlink -f "$0")")
[ -r "$here/common.sh" ] || here=${JOB_SCRIPTS:-$(scontrol show job "$SLURM_JOB_ID" | sed -n 's|^ *Command=\(.*\)/phase1\.sh.*|\1|p')}
if [ ! -r "$here/common.sh" ]; then
    echo "phase1.sh: common.sh is not in ${here:-?}: export JOB_SCRIPTS=/the/clone/slurm" >&2
    exit 3
fi
# shellcheck source=common.sh
. "$here/common.sh"

[ -n "${SLURM_JOB_ID:-}" ] || submit_self phase1 "$here/phase1.sh" "$@"
load_site
# shellcheck disable=SC2086 # options are words
run_phase phase1 $PHASE1_OPTIONS "$@"
