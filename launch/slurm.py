"""A run as a Slurm job: a batch script with srun and torchrun, which needs no ssh and goes back into the queue."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from gfm_pipeline.errors import ConfigError, GfmError
from gfm_pipeline.train.outcome import OUTCOME_FILE
from launch.job import TRAINER, Job
from launch.template import fill_template

SCRIPT = "slurm.sh"
"""Name of the batch script in the run folder."""
GRACE_SECONDS = 300
"""How long before its time is up Slurm asks the job to stop."""


def batch_script(job: Job, time: str, options: Sequence[str]) -> str:
    """Return the batch script; raise ConfigError for a time or an option that sbatch would not take."""
    if not re.fullmatch(r"(\d+-)?\d+(:\d\d){0,2}", time):
        raise ConfigError(f"--time {time}: expected minutes, HH:MM:SS or D-HH:MM:SS.")
    for option in options:
        if not option.startswith("-") or "\n" in option:
            raise ConfigError(f"{option!r} is no option of sbatch, expected words such as --partition=gpu after --.")
    run_dir = Path(job.config.run_dir).resolve()
    return fill_template(
        "slurm.sh",
        name=job.name,
        nodes=str(job.nodes),
        devices=_devices(job, options),
        time=time,
        grace=str(GRACE_SECONDS),
        log=f'"{run_dir}/slurm-%j.log"',
        options="".join(f"#SBATCH {option}\n" for option in options),
        folder=shlex.quote(str(Path.cwd())),
        exports="\n".join(f"export {name}={shlex.quote(value)}" for name, value in _environment(job).items()),
        python=shlex.quote(sys.executable),
        per_node=str(job.per_node),
        trainer=TRAINER,
        arguments=shlex.join(job.arguments()),
        asks_requeue=f'grep -qs \'"outcome": "requeue"\' {shlex.quote(str(run_dir / OUTCOME_FILE))}',
    )


def submit(job: Job, script: str) -> str:
    """Write the script to the run folder, submit it and return what sbatch says."""
    if shutil.which("sbatch") is None:
        raise ConfigError("found no sbatch here; run this where jobs are submitted, or take --print for the script.")
    path = Path(job.config.run_dir).resolve() / SCRIPT
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(script, encoding="utf-8")
    done = subprocess.run(["sbatch", str(path)], capture_output=True, text=True, check=False)  # noqa: S603, S607
    if done.returncode:
        raise GfmError(f"sbatch refused {path}: {' '.join(done.stderr.split())}")
    return done.stdout.strip()


def _devices(job: Job, options: Sequence[str]) -> str:
    """Return the lines that ask for GPUs and CPUs; those of `options` count, and sbatch takes one way to say it."""
    lines = [] if job.on_cpu else [f"#SBATCH --gpus-per-node={job.per_node}\n"]
    if not any(re.match(r"--cpus-per-|-c", option) for option in options):
        lines.append(f"#SBATCH --cpus-per-task={job.cpus}\n")
    return "".join(lines)


def _environment(job: Job) -> dict[str, str]:
    return {"TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(GRACE_SECONDS - 30), **job.exports}
