"""`shard-builder plan`: what a build would do."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from shard_builder.build.forecast import describe_forecast, forecast
from shard_builder.cli.common import PARTLY_FAILED, build_options, nothing_packed, read_config, telling


@click.command()
@build_options
@click.option("--save", is_flag=True, help="Leave the plan in the output, for build --task to use.")
@click.option("--json", "as_machine", is_flag=True, help="Print one JSON object.")
def plan(path: Path, overrides: tuple[str, ...], save: bool, as_machine: bool) -> None:
    """Say what a build would do: samples, shards, bytes, time, problems. Writes nothing without --save.

    Some samples, or all of a small input, are read and checked as a build does it. Exit code 0 when nothing is wrong,
    else that of the build: 3 with on_error=skip, 1 with on_error=fail or when nothing can be packed.
    """
    config = read_config(path, overrides)
    with telling(config.source) as tell:
        found = forecast(config, save, tell)
    if as_machine:
        click.echo(json.dumps(found.model_dump(mode="json", exclude={"plan": {"tasks", "ignored", "versions"}})))
    else:
        for line in describe_forecast(found, config):
            click.echo(line)
    if found.packs_nothing:
        raise nothing_packed(config, (*found.problems, *found.left_out, *found.plan.unpaired), found.tried)
    if found.problems:
        sys.exit(PARTLY_FAILED if config.on_error == "skip" else 1)
