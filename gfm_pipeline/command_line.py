"""What both command lines share: sub-commands imported on use, and errors told in one line.

Importing a sub-command pulls in numpy, pydantic or torch; `--help` must not. So a group knows only the names of its
commands, one line of help for each, and where to find them.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

import click

from gfm_pipeline.errors import GfmError

EXTRA = "train"
"""The extra that installs what the base installation leaves out."""
EXTRA_PACKAGES = ("deepspeed", "safetensors", "scipy", "tensorboard", "timm", "torch", "torchmetrics")
"""Packages of that extra by the names under which they are imported."""


class LazyGroup(click.Group):
    """A click group whose commands are "module:attribute" strings until one of them is run."""

    def __init__(self, *args: Any, commands_at: dict[str, tuple[str, str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._commands_at = commands_at

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order they were declared, which is the order of a typical session."""
        return list(self._commands_at)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command, or None when there is no such name."""
        if cmd_name not in self._commands_at:
            return None
        module, _, attribute = self._commands_at[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in self._commands_at.items()])


def run(command: click.Command, program: str) -> None:
    """Run a command line; a GfmError becomes one line on stderr and its exit code, Ctrl-C exits 130."""
    try:
        code = command.main(prog_name=program, standalone_mode=False)
    except GfmError as error:
        click.echo(f"error{_rank()}: {error}", err=True)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRA_PACKAGES:
            raise
        click.echo(
            f"error{_rank()}: this needs the Python package {package}, which the base installation leaves out. Install "
            f"it: pip install 'gfm-pipeline[{EXTRA}]'",
            err=True,
        )
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted.", err=True)
        sys.exit(130)
    sys.exit(code if isinstance(code, int) else 0)


def _rank() -> str:
    """Say which of several launched processes speaks."""
    return f" on rank {os.environ.get('RANK')}" if os.environ.get("WORLD_SIZE", "1") != "1" else ""
