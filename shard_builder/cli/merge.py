"""`shard-builder merge`: the end of a build whose shares were written by several machines."""

from __future__ import annotations

from pathlib import Path

import click

from shard_builder.build.build import merge_collection
from shard_builder.cli.common import build_options, finish, read_config, telling


@click.command()
@build_options
@click.option("--json", "as_machine", is_flag=True, help="Print the account as one JSON object.")
def merge(path: Path, overrides: tuple[str, ...], as_machine: bool) -> None:
    """Make the collection of the shards that `build --task I/N` wrote: catalog, list of failures, manifest."""
    config = read_config(path, overrides)
    with telling(config.source) as tell:
        report = merge_collection(config, tell)
    finish(report, config, as_machine)
