"""`shard-builder retry`: another try for what could not be packed, or a look at archives that have changed."""

from __future__ import annotations

from pathlib import Path

import click

from shard_builder.build.build import build_collection
from shard_builder.cli.common import build_options, finish, read_config, telling


@click.command()
@build_options
@click.option("--json", "as_machine", is_flag=True, help="Print the account as one JSON object.")
def retry(path: Path, overrides: tuple[str, ...], as_machine: bool) -> None:
    """Write again the shards that lack items of failures.jsonl, or whose archives have changed.

    Shards that would come out the same are kept. The result is what a fresh build of the input as it is now gives.
    """
    config = read_config(path, overrides)
    with telling(config.source) as tell:
        report = build_collection(config, "retry", tell)
    finish(report, config, as_machine)
