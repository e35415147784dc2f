#!/usr/bin/env bash
#SBATCH --job-name=@{name}
#SBATCH --nodes=@{nodes}
#SBATCH --ntasks-per-node=1
@{devices}#SBATCH --time=@{time}
#SBATCH --signal=B:USR1@@@{grace}
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=@{log}
@{options}# Made by: gfm-launch slurm. One torchrun per node, no ssh. Before the time is up every process writes a checkpoint and
# ends; the job then goes back into the queue and continues from there. To make room: scancel --signal=USR1 --batch JOB
set -uo pipefail
cd @{folder}
@{exports}
first_host=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
port=$((20000 + SLURM_JOB_ID % 10000))    # jobs that share a node must not meet
asked_to_stop=no cancelled=no

# srun takes no --cpus-per-task from sbatch (Slurm 22.05 to 23.02): without it a node's processes share one core.
srun --kill-on-bad-exit=1 ${SLURM_CPUS_PER_TASK:+--cpus-per-task="$SLURM_CPUS_PER_TASK"} @{python} -m torch.distributed.run \
    --nnodes "$SLURM_JOB_NUM_NODES" --nproc-per-node @{per_node} \
    --rdzv-backend c10d --rdzv-endpoint "$first_host:$port" --rdzv-id "$SLURM_JOB_ID-${SLURM_RESTART_COUNT:-0}" \
    -m @{trainer} @{arguments} &
step=$!
# Not to srun, which would kill the step: to its processes.
trap 'asked_to_stop=yes; scancel --signal=TERM "$SLURM_JOB_ID"' USR1
trap 'cancelled=yes' TERM    # by scancel, or by a preemption that requeues by itself; the step is told by Slurm

# `wait` returns when a signal is handled, too.
while true; do
    wait "$step"
    code=$?
    kill -0 "$step" 2>/dev/null || break
done

if [ "$code" != 0 ] && [ "$cancelled" = no ] && { [ "$asked_to_stop" = yes ] || @{asks_requeue}; }; then
    echo "gfm-launch: stopped before its end; job $SLURM_JOB_ID goes back into the queue."
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
