#!/bin/sh
# One shard for each element of a Slurm job array:
#
#     sbatch --array=1-16 docs/clusters/slurm.sh scenarios/map-sync-ext4.toml DIRECTORY
#
# DIRECTORY is one that all nodes see. An element that was killed, preempted or requeued goes on where it was.
#SBATCH --job-name=pmemsim
#SBATCH --cpus-per-task=2
#SBATCH --mem=1G
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --signal=TERM@60
set -u
scenario=$1
directory=$2
shard=$SLURM_ARRAY_TASK_ID
# exec: the signals of Slurm go to pmemsim.
exec "${PMEMSIM:-pmemsim}" run "$scenario" \
    --shard "$shard/$SLURM_ARRAY_TASK_COUNT" \
    --json "$directory/shard-$shard.json" \
    --resume "$directory/shard-$shard.results" \
    --jobs "${SLURM_CPUS_PER_TASK:-1}" \
    --memory "${SLURM_MEM_PER_NODE:-1024}M"
