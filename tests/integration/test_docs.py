"""The pages in docs do what they say."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from gfm_pipeline.config import load_config
from gfm_pipeline.shards.manifest import load_manifest
from gfm_pipeline.storage import open_store
from shard_builder.cli import COMMANDS, shard_builder
from shard_builder.config import BuildConfig, resolve_sensors
from shard_builder.source import make_source
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "your-own-data.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", PAGE, re.DOTALL)


def test_your_own_data_from_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (python,) = (text for language, text in BLOCKS if language == "python")
    subprocess.run([sys.executable, "-c", python], check=True, cwd=tmp_path)
    for language, text in BLOCKS:
        if language == "yaml":
            (tmp_path / text.splitlines()[0].removeprefix("# ")).write_text(text)
    (commands,) = (text.splitlines() for language, text in BLOCKS if language == "bash")
    for command in commands:
        program, verb, *arguments = command.split()
        assert program == "shard-builder"
        if verb in COMMANDS:
            shard_builder([verb, *arguments], standalone_mode=False)
    manifest = load_manifest(open_store("shards/mine"))
    assert manifest.num_samples == 8
    assert {name: (spec.bands, spec.units) for name, spec in manifest.sensors.items()} == {
        "rgb": (("R", "G", "B"), "digital number"),
        "thermal": (("T10", "T11"), "K"),
    }
    make_source(load_config("scenes.yaml", BuildConfig))


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "build").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_build_configuration_is_one(path: Path) -> None:
    source = make_source(config := load_config(path, BuildConfig))
    resolve_sensors(config, source.sensors)
