"""`gfm-launch`: start a pretraining run. Every verb says what it runs; `--print` says only that."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gfm_pipeline import __version__
from gfm_pipeline.cli.options import of_a_config
from gfm_pipeline.command_line import run

if TYPE_CHECKING:
    from launch.job import Job

_COMMON = (
    click.option("--env", "asked", multiple=True, metavar="NAME[=VALUE]", help="Variable that every process gets."),
    click.option("--cpu", "on_cpu", is_flag=True, help="Train on CPUs, whatever GPUs there are."),
    click.option("--print", "only_print", is_flag=True, help="Say what would be run, and run nothing."),
)


@dataclass(frozen=True)
class Wanted:
    """What every verb is told."""

    path: Path
    overrides: tuple[str, ...]
    asked: tuple[str, ...]
    on_cpu: bool
    only_print: bool

    def job(self, nodes: int, per_node: int, inherited: Mapping[str, str], elsewhere: str | None = None) -> Job:
        """Return the checked job of `nodes` machines; variables that matter are taken from `inherited` too."""
        from launch.exports import chosen_exports
        from launch.job import prepare_job

        exports = chosen_exports(inherited, self.asked)
        return prepare_job(self.path, self.overrides, nodes, per_node, self.on_cpu, exports, elsewhere)


def _common(function: Callable[..., int | None]) -> Callable[..., int | None]:
    """Give a verb the common options, as its first argument."""

    @wraps(function)
    def verb(**options: Any) -> int | None:
        told = {field.name: options.pop(field.name) for field in fields(Wanted)}
        return function(Wanted(**told), **options)

    for option in reversed(_COMMON):
        verb = option(verb)
    return of_a_config(verb)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="gfm-launch")
def gfm_launch() -> None:
    """Start a pretraining run here, on the hosts of a file, under Slurm or in Kubernetes.

    The same command continues a run that was stopped. What cannot work is refused before a GPU is asked for.
    """


@gfm_launch.command()
@_common
@click.option("--processes", type=click.IntRange(min=1), help="Processes; default: one per GPU, 1 without.")
@click.option("--restarts", default=0, show_default=True, type=click.IntRange(min=0), help="Tries after a failure.")
def local(wanted: Wanted, processes: int | None, restarts: int) -> int:
    """Train on this machine."""
    from launch import local as here

    gpus = 0 if wanted.on_cpu else _count_gpus()
    if not wanted.on_cpu and processes is not None and gpus and processes > gpus:
        raise click.UsageError(f"--processes {processes}: this machine has {gpus} GPUs. Take fewer, or --cpu.")
    count = processes or gpus or 1
    job = replace(wanted, on_cpu=wanted.on_cpu or not gpus).job(1, count, {})
    environment, words = here.local_command(job)
    click.echo(here.describe(environment, words))
    return 0 if wanted.only_print else here.supervise(job, environment, words, restarts)


@gfm_launch.command()
@_common
@click.option("--hostfile", required=True, type=click.Path(path_type=Path), help="Lines 'HOST slots=N'.")
@click.option("--master-addr", metavar="ADDRESS", help="Address of the first host, as the others reach it.")
@click.option("--ssh-port", type=click.IntRange(1, 65535), help="Port of ssh on the hosts.")
def hostfile(wanted: Wanted, hostfile: Path, master_addr: str | None, ssh_port: int | None) -> int:
    """Train on several machines over ssh, with DeepSpeed's launcher."""
    import subprocess

    from launch import hostfile as hosts_room

    hosts = hosts_room.read_hostfile(hostfile)
    job = wanted.job(len(hosts), next(iter(hosts.values())), os.environ)
    environment, words = hosts_room.hostfile_command(job, hostfile, master_addr, ssh_port)
    click.echo(hosts_room.describe(job, hosts, environment, words))
    if wanted.only_print:
        return 0
    hosts_room.check_hosts(hosts, ssh_port)
    hosts_room.write_environment(job)
    return subprocess.run(words, env={**os.environ, **environment}, check=False).returncode  # noqa: S603


@gfm_launch.command()
@_common
@click.option("--nodes", default=1, show_default=True, type=click.IntRange(min=1), help="Machines.")
@click.option("--per-node", required=True, type=click.IntRange(min=1), help="Processes per machine: its GPUs.")
@click.option("--time", default="24:00:00", show_default=True, help="Longest time of the job until it is requeued.")
@click.argument("options", nargs=-1)
def slurm(wanted: Wanted, nodes: int, per_node: int, time: str, options: tuple[str, ...]) -> None:
    """Submit a job to Slurm; options of sbatch after --, as in -- --partition=gpu --account=geo."""
    from launch.slurm import batch_script, submit

    job = wanted.job(nodes, per_node, {})
    script = batch_script(job, time, options)
    click.echo(script, nl=False)
    if not wanted.only_print:
        click.echo(submit(job, script))


@gfm_launch.command()
@_common
@click.option("--nodes", default=1, show_default=True, type=click.IntRange(min=1), help="Pods.")
@click.option("--per-node", required=True, type=click.IntRange(min=1), help="Processes per pod: its GPUs.")
@click.option("--image", required=True, help="Container image with this package installed.")
@click.option("--secret", help="Secret whose entries become environment variables, for the bucket.")
@click.option("--claim", help="Volume claim shared by all pods, mounted at /data, not seen from here.")
@click.option("--restarts", default=100, show_default=True, type=click.IntRange(min=0), help="Failed pods in all.")
def kubernetes(
    wanted: Wanted, nodes: int, per_node: int, image: str, secret: str | None, claim: str | None, restarts: int
) -> None:
    """Apply an indexed Job to a Kubernetes cluster."""
    from launch.kubernetes import VOLUME_PATH, Cluster, apply, job_manifest

    job = wanted.job(nodes, per_node, {}, elsewhere=VOLUME_PATH if claim else None)
    manifest = job_manifest(job, Cluster(image, secret, claim, restarts))
    click.echo(manifest, nl=False)
    if not wanted.only_print:
        click.echo(apply(manifest))


def _count_gpus() -> int:
    import torch  # here: a look at the machine needs it, --help does not

    return torch.cuda.device_count()


def main() -> None:
    """Entry point of the console script."""
    run(gfm_launch, "gfm-launch")
