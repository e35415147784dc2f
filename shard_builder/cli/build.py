"""`shard-builder build`: one collection from one raw archive family."""

from __future__ import annotations

import re
from pathlib import Path

import click

from gfm_pipeline.errors import UsageError
from shard_builder.build.build import BuildReport, build_collection, build_share
from shard_builder.cli.common import build_options, finish, read_config, telling


@click.command()
@build_options
@click.option("--fresh", is_flag=True, help="Replace what the output folder holds.")
@click.option("--executor", help="Who writes the shards: processes of this machine, or dask.")
@click.option("--scheduler", metavar="ADDRESS", help="Of the Dask scheduler; without it, a cluster on this machine.")
@click.option("--task", metavar="I/N", help="Write only share I (from 0) of N; shard-builder merge ends the build.")
@click.option("--json", "as_machine", is_flag=True, help="Print the account as one JSON object.")
def build(
    path: Path,
    overrides: tuple[str, ...],
    fresh: bool,
    executor: str | None,
    scheduler: str | None,
    task: str | None,
    as_machine: bool,
) -> None:
    """Pack a raw archive into a collection of paired shards.

    A build that was stopped goes on where it was. Exit code 3: done, but for the items that could not be packed,
    which failures.jsonl lists.
    """
    given = {"executor": executor, "scheduler": scheduler}
    config = read_config(path, (*overrides, *(f"{key}={value}" for key, value in given.items() if value)))
    share = _share(task) if task is not None else None
    if share and fresh:
        raise UsageError("--fresh replaces the whole collection and --task writes a part of it. Give one of them.")
    with telling(config.source) as tell:
        report: BuildReport
        if share:
            report = build_share(config, *share, tell)
        else:
            report = build_collection(config, "fresh" if fresh else "build", tell)
    finish(report, config, as_machine)


def _share(task: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)/(\d+)", task)
    if match is None or int(match[1]) >= int(match[2]):
        raise UsageError(f"--task {task}: expected I/N with I from 0 to N-1, as 0/3, 1/3 and 2/3.")
    return int(match[1]), int(match[2])
