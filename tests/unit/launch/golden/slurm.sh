#!/usr/bin/env bash
#SBATCH --job-name=gfm-my-run
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=16
#SBATCH --time=24:00:00
#SBATCH --signal=B:USR1@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output="/scratch/runs/first/slurm-%j.log"
#SBATCH --partition=gpu
#SBATCH --account=geo
# Made by: gfm-launch slurm. One torchrun per node, no ssh. Before the time is up every process writes a checkpoint and
# ends; the job then goes back into the queue and continues from there. To make room: scancel --signal=USR1 --batch JOB
set -uo pipefail
cd /home/me/project
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=270
first_host=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
port=$((20000 + SLURM_JOB_ID % 10000))    # jobs that share a node must not meet
asked_to_stop=no cancelled=no

# srun takes no --cpus-per-task from sbatch (Slurm 22.05 to 23.02): without it a node's processes share one core.
srun --kill-on-bad-exit=1 ${SLURM_CPUS_PER_TASK:+--cpus-per-task="$SLURM_CPUS_PER_TASK"} /venv/bin/python -m torch.distributed.run \
    --nnodes "$SLURM_JOB_NUM_NODES" --nproc-per-node 4 \
    --rdzv-backend c10d --rdzv-endpoint "$first_host:$port" --rdzv-id "$SLURM_JOB_ID-${SLURM_RESTART_COUNT:-0}" \
    -m launch.pretrain --config '/etc/my runs/run.yaml' --set optim.grad_clip=1.0 &
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

if [ "$code" != 0 ] && [ "$cancelled" = no ] && { [ "$asked_to_stop" = yes ] || grep -qs '"outcome": "requeue"' /scratch/runs/first/outcome.json; }; then
    echo "gfm-launch: stopped before its end; job $SLURM_JOB_ID goes back into the queue."
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
