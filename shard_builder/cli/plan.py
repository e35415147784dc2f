"""`shard-builder plan`: what a build would do."""

from __future__ import annotations

import json
from pathlib import Path

import click

from shard_builder.build.forecast import describe_forecast, forecast
from shard_builder.cli.common import build_options, read_config, telling


@click.command()
@build_options
@click.option("--save", is_flag=True, help="Leave the plan in the output, for build --task to use.")
@click.option("--json", "as_machine", is_flag=True, help="Print one JSON object.")
def plan(path: Path, overrides: tuple[str, ...], save: bool, as_machine: bool) -> None:
    """Say what a build would do: samples, shards, bytes, time, problems. Writes nothing without --save."""
    config = read_config(path, overrides)
    with telling(config.source) as tell:
        found = forecast(config, save, tell)
    if as_machine:
        click.echo(json.dumps(found.model_dump(mode="json", exclude={"plan": {"tasks", "ignored", "versions"}})))
        return
    for line in describe_forecast(found, config):
        click.echo(line)
