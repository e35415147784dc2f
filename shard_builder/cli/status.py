"""`shard-builder status`: how far a build is."""

from __future__ import annotations

import json
from pathlib import Path

import click

from shard_builder.build.status import describe_status, read_status
from shard_builder.cli.common import build_options, read_config


@click.command()
@build_options
@click.option("--json", "as_machine", is_flag=True, help="Print one JSON object.")
def status(path: Path, overrides: tuple[str, ...], as_machine: bool) -> None:
    """Say how far a build is: nothing there, so many shards of so many, or complete. Changes nothing."""
    found = read_status(read_config(path, overrides))
    if as_machine:
        click.echo(json.dumps(found.model_dump(mode="json")))
        return
    for line in describe_status(found):
        click.echo(line)
