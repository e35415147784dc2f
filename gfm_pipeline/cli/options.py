"""Options that several commands take."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def of_a_config(function: F) -> F:
    """Give a command the arguments `path` and `overrides` of a run's configuration."""
    with_changes = click.option(
        "--set", "overrides", multiple=True, metavar="SECTION.KEY=VALUE", help="Change a value; repeatable."
    )(function)
    return click.option(
        "--config", "path", type=click.Path(path_type=Path), required=True, help="YAML file of the run."
    )(with_changes)


def of_a_run(example: str) -> Callable[[F], F]:
    """Give a command the arguments `run_dir` and `overrides`; `example` is a key that is worth changing."""

    def add(function: F) -> F:
        run = click.option(
            *("--run", "run_dir"),
            type=click.Path(exists=True, file_okay=False, path_type=Path),
            required=True,
            help="Folder of the run, wherever its checkpoints are.",
        )
        change = click.option(
            *("--set", "overrides"),
            multiple=True,
            metavar="SECTION.KEY=VALUE",
            help=f"Change the run's configuration, say {example}.",
        )
        return run(change(function))

    return add
