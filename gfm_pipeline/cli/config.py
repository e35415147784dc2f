"""`gfm config`: look at a training configuration before a GPU is asked for."""

from __future__ import annotations

from pathlib import Path

import click

from gfm_pipeline.config import dump_config, load_config
from gfm_pipeline.train.config import TrainConfig


@click.group()
def config() -> None:
    """Check and show a training configuration."""


@config.command()
@click.option("--config", "path", type=click.Path(path_type=Path), required=True, help="YAML file of the run.")
@click.option("--set", "overrides", multiple=True, metavar="SECTION.KEY=VALUE", help="Change a value; repeatable.")
def show(path: Path, overrides: tuple[str, ...]) -> None:
    """Print the configuration with every default filled in, or the first error in it."""
    click.echo(dump_config(load_config(path, TrainConfig, overrides)), nl=False)
