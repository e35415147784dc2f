"""Both command lines: fast without torch, few options, one line per error."""

import subprocess
import sys
from pathlib import Path

import click
import pytest

from gfm_pipeline.cli import gfm
from gfm_pipeline.command_line import EXTRA_PACKAGES
from launch.cli import gfm_launch
from shard_builder.cli import shard_builder

ROOT = Path(__file__).parents[2]

# Configuration is --config and --set; an option for a field would be one of a hundred. Extend this list with care.
LAUNCH = {"--config", "--set", "--env", "--cpu", "--print"}
OPTIONS = {
    "gfm config show": {"--config", "--set", "--model"},
    "gfm config list": set(),
    "gfm config copy": {"--out"},
    "gfm config schema": set(),
    "gfm config check": {"--config", "--set", "--world", "--per-node"},
    "gfm doctor": {"--config", "--set", "--nodes", "--per-node", "--json"},
    "gfm data bench": {"--set", "--out", "--json"},
    "gfm data check": {"--config", "--set"},
    "gfm data order": {"--config", "--set", "--rank", "--world", "--step", "--steps"},
    "gfm evaluate": {"--run", "--set", "--untrained", "--json"},
    "gfm bench step": {"--config", "--set", "--steps", "--only", "--compile", "--data", "--json"},
    "gfm bench layer": {"--config", "--set", "--tokens", "--repeats", "--json"},
    "gfm export": {"--run", "--out", "--dense", "--set"},
    "gfm embed": {"--model", "--collection", "--out", "--sensors", "--batch", "--threads"},
    "gfm visualize": {"--run", "--out", "--samples", "--set"},
    "gfm-launch local": LAUNCH | {"--processes", "--restarts"},
    "gfm-launch hostfile": LAUNCH | {"--hostfile", "--master-addr", "--ssh-port"},
    "gfm-launch slurm": LAUNCH | {"--nodes", "--per-node", "--time"},
    "gfm-launch kubernetes": LAUNCH | {"--nodes", "--per-node", "--image", "--secret", "--claim", "--restarts"},
    "shard-builder demo": {"--out", "--places", "--tile-px", "--seed", "--families", "--workers"},
    "shard-builder plan": {"--config", "--set", "--save", "--json"},
    "shard-builder build": {"--config", "--set", "--fresh", "--executor", "--scheduler", "--task", "--json"},
    "shard-builder status": {"--config", "--set", "--json"},
    "shard-builder merge": {"--config", "--set", "--json"},
    "shard-builder retry": {"--config", "--set", "--json"},
    "shard-builder verify": {"--sample", "--workers", "--json"},
    "shard-builder stats": {"--catalog", "--classes", "--json"},
    "shard-builder show": {"--out", "--samples", "--seed", "--keys", "--sensors"},
    "shard-builder card": {"--out", "--licence"},
    "shard-builder bench": {"--out", "--places", "--repeats", "--quick", "--memory", "--json"},
}


def leaves(command: click.Command, name: str) -> dict[str, set[str]]:
    if isinstance(command, click.Group):
        context = click.Context(command)
        out: dict[str, set[str]] = {}
        for child in command.list_commands(context):
            found = command.get_command(context, child)
            assert found is not None
            out |= leaves(found, f"{name} {child}")
        return out
    return {name: {opt for param in command.params for opt in param.opts if opt.startswith("--")}}


def test_options_are_these_and_no_others() -> None:
    assert leaves(gfm, "gfm") | leaves(gfm_launch, "gfm-launch") | leaves(shard_builder, "shard-builder") == OPTIONS


@pytest.mark.parametrize("module", ["gfm_pipeline.cli", "launch.cli", "shard_builder.cli"])
def test_help_needs_no_heavy_import(module: str) -> None:
    code = (
        f"import sys; from {module} import main; sys.argv = ['x', '--help']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print('HEAVY', sorted({'torch', 'numpy', 'pydantic', 'deepspeed', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Commands" in done.stdout
    assert done.stdout.strip().endswith("HEAVY []")


@pytest.mark.parametrize(
    "arguments",
    [
        ["config", "show", "--config", "configs/pretrain/quickstart.yaml"],
        ["config", "check", "--help"],
        ["data", "order", "--help"],
    ],
)
def test_dry_runs_do_not_load_torch(arguments: list[str]) -> None:
    code = (
        f"import sys; from gfm_pipeline.cli import main; sys.argv = ['gfm', *{arguments!r}]\n"
        "try:\n    main()\nexcept SystemExit as done:\n    assert not done.code, done.code\n"
        "print('HEAVY', sorted({'torch', 'deepspeed'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("HEAVY []")


@pytest.mark.parametrize(
    ("program", "arguments", "code", "words"),
    [
        ("gfm_pipeline.cli", ["trian"], 2, "No such command 'trian'"),
        ("gfm_pipeline.cli", ["config", "show", "--config", "nowhere.yaml"], 2, "error: cannot read"),
        ("shard_builder.cli", ["build", "--config", "nowhere.yaml"], 2, "error: cannot read"),
        ("gfm_pipeline.cli", ["visualize", "--run", "nowhere", "--out", "x"], 2, "nowhere"),
    ],
)
def test_nonsense_costs_one_line(program: str, arguments: list[str], code: int, words: str) -> None:
    script = f"import sys; from {program} import main; sys.argv = ['x', *{arguments!r}]; main()"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("program", "arguments"),
    [
        ("gfm_pipeline.cli", ["embed", "--model", "x", "--collection", "x", "--out", "x"]),
        ("gfm_pipeline.cli", ["bench", "layer", "--config", "configs/pretrain/quickstart.yaml"]),
    ],
)
def test_the_base_installation_names_the_extra_that_is_missing(program: str, arguments: list[str]) -> None:
    absent = f"for name in {EXTRA_PACKAGES!r}: sys.modules[name] = None"
    script = f"import sys\n{absent}\nfrom {program} import main\nsys.argv = ['x', *{arguments!r}]\nmain()"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 2, done.stderr
    assert "pip install 'gfm-pipeline[train]'" in done.stderr
    assert "Traceback" not in done.stderr
