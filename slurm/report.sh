#!/bin/bash
# The report and its figures, from the finished files: no model, no GPU.
#   slurm/report.sh [options of pva-mpi report]                  on a login node: submits itself with the resources that site.env gives
#   sbatch [options of sbatch] slurm/report.sh [options]     submits with the resources below, which hold a 2b or a 9b
#SBATCH --job-name=pva-report
#SBATCH --output=%x-%j.out
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:USR1@300
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=2
#SBATCH --mem=8G
#SBATCH --time=01:00:00

# SLURM runs a copy of this script, so it asks where the original lies.
here=$(dirname "$(readlink -f "$0")")
[ -r "$here/common.sh" ] || here=${JOB_SCRIPTS:-$(scontrol show job "$SLURM_JOB_ID" | sed -n 's|^ *Command=\(.*\)/report\.sh.*|\1|p')}
if [ ! -r "$here/common.sh" ]; then
    echo "report.sh: common.sh is not in ${here:-?}: export JOB_SCRIPTS=/the/clone/slurm" >&2
    exit 3
fi
# shellcheck source=common.sh
. "$here/common.sh"

[ -n "${SLURM_JOB_ID:-}" ] || submit_self report "$here/report.sh" "$@"
load_site
# shellcheck disable=SC2086 # options are words
run_phase report $REPORT_OPTIONS "$@"
