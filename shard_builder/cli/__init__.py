"""The `shard-builder` command line."""

from __future__ import annotations

import click

from gfm_pipeline import __version__
from gfm_pipeline.command_line import LazyGroup, run
from shard_builder.executors.process import do_without_pandas

COMMANDS = {
    "demo": ("shard_builder.cli.demo:demo", "Make synthetic raw archives in the published layouts."),
    "plan": ("shard_builder.cli.plan:plan", "Say what a build would do; writes nothing."),
    "build": ("shard_builder.cli.build:build", "Pack a raw archive into a collection of paired shards."),
    "status": ("shard_builder.cli.status:status", "Say how far a build is."),
    "merge": ("shard_builder.cli.merge:merge", "End a build whose shares several machines wrote."),
    "retry": ("shard_builder.cli.retry:retry", "Try again what could not be packed, or what has changed."),
    "verify": ("shard_builder.cli.verify:verify", "Prove that a collection is whole: every checksum, every pixel."),
    "stats": ("shard_builder.cli.stats:stats", "Say what a collection holds."),
    "show": ("shard_builder.cli.show:show", "Draw samples of a collection, all sensors side by side."),
    "card": ("shard_builder.cli.card:card", "Write the dataset card of a collection."),
    "bench": ("shard_builder.cli.bench:bench", "Time the builder on this machine, beside tar and ShardWriter."),
}


@click.group(cls=LazyGroup, commands_at=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="shard-builder")
def shard_builder() -> None:
    """Turn raw satellite archives into paired, checksummed WebDataset shards."""


def main() -> None:
    """Entry point of the console script."""
    do_without_pandas()
    run(shard_builder, "shard-builder")
