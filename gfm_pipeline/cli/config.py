"""`gfm config`: list and copy the shipped configurations; check and show one before it needs a GPU."""

from __future__ import annotations

import json
from pathlib import Path

import click
from pydantic import BaseModel

from gfm_pipeline.cli.options import of_a_config
from gfm_pipeline.config import dump_config, load_config
from gfm_pipeline.errors import ConfigError
from gfm_pipeline.train.config import TrainConfig


@click.group()
def config() -> None:
    """List, copy, check and show configurations."""


@config.command("list")
def list_configs() -> None:
    """List the configurations that ship with the product."""
    from gfm_pipeline.config.shipped import shipped_configs, summary_of

    for name, path in shipped_configs().items():
        click.echo(f"{name:<45} {summary_of(path)}")


@config.command()
@click.argument("name")
@click.option(
    "--out", default=Path("configs"), show_default=True, type=click.Path(path_type=Path), help="Folder to copy to."
)
def copy(name: str, out: Path) -> None:
    """Copy a shipped configuration, and those it builds on, to a folder of yours."""
    from gfm_pipeline.config.shipped import copy_config

    for path in copy_config(name, out):
        click.echo(path)


@config.command()
@click.argument("kind", type=click.Choice(["pretrain", "build"]), default="pretrain")
def schema(kind: str) -> None:
    """Print the JSON schema of a configuration, for editors that complete and check YAML."""
    model: type[BaseModel] = TrainConfig
    if kind == "build":
        from importlib import import_module

        # The builder is beside this package, not below it: by name, so that no import points there.
        model = import_module("shard_builder.config").BuildConfig
    tree = model.model_json_schema()
    tree["properties"]["base"] = {"type": "string", "description": "Path of a configuration that this one changes."}
    click.echo(json.dumps(tree, indent=1))


@config.command()
@of_a_config
@click.option("--model", is_flag=True, help="Also count parameters and list the optimiser's groups, as comments.")
def show(path: Path, overrides: tuple[str, ...], model: bool) -> None:
    """Print the configuration with every default filled in, or the first error in it.

    What is printed is a configuration again, with --model too.
    """
    loaded = load_config(path, TrainConfig, overrides)
    click.echo(dump_config(loaded), nl=False)
    if model:
        from gfm_pipeline.train.describe import describe_model

        click.echo("".join(f"# {line}\n" for line in describe_model(loaded)), nl=False)


@config.command()
@of_a_config
@click.option("--world", default=1, show_default=True, type=click.IntRange(min=1), help="Number of processes.")
@click.option("--per-node", type=click.IntRange(min=1), help="Processes on each machine; all of them by default.")
def check(path: Path, overrides: tuple[str, ...], world: int, per_node: int | None) -> None:
    """Say what keeps the run from starting on so many processes: sizes that do not divide, data that is not there."""
    from gfm_pipeline.train.topology import check_topology

    loaded = load_config(path, TrainConfig, overrides)
    problems = check_topology(loaded, world, per_node)
    if problems:
        raise ConfigError(f"{path} cannot run on {world} processes: " + " ".join(problems))
    experts = loaded.model.moe.num_experts
    ranks = loaded.engine.expert_ranks(experts, world, per_node)
    shared = f", {experts} experts of a layer over {ranks}" if experts > 1 else ""
    click.echo(f"{path} can run on {world} processes: {loaded.data.lanes // world} lanes each{shared}.")
