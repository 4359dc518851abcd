#!/bin/bash
# Phase 2: the latents that separate right from wrong.
#   slurm/phase2.sh [options of pva-mpi phase2]                  on a login node: submits itself with the resources that site.env gives
#   sbatch [options of sbatch] slurm/phase2.sh [options]     submits with the resources below, which hold a 2b or a 9b on one GPU
#SBATCH --job-name=pva-phase2
#SBATCH --output=%x-%j.out
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:USR1@300
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --gres=gpu:1
#SBATCH --mem=48G
#SBATCH --time=04:00:00

# SLURM runs a copy of this script, so it asks where the original lies.
here=$(dirname "$(readlink -f "$0")")
[ -r "$here/common.sh" ] || here=${JOB_SCRIPTS:-$(scontrol show job "$SLURM_JOB_ID" | sed -n 's|^ *Command=\(.*\)/phase2\.sh.*|\1|p')}
if [ ! -r "$here/common.sh" ]; then
    echo "phase2.sh: common.sh is not in ${here:-?}: export JOB_SCRIPTS=/the/clone/slurm" >&2
    exit 3
fi
# shellcheck source=common.sh
. "$here/common.sh"

[ -n "${SLURM_JOB_ID:-}" ] || submit_self phase2 "$here/phase2.sh" "$@"
load_site
# shellcheck disable=SC2086 # options are words
run_phase phase2 $PHASE2_OPTIONS "$@"
