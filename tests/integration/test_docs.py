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
from tests.contracts.test_sources import digests


def blocks(page: str) -> list[tuple[str, str]]:
    """Return (language, text) of the code on a page."""
    found: list[tuple[str, str]] = re.findall(r"```(\w+)\n(.*?)```", (ROOT / "docs" / page).read_text(), re.DOTALL)
    return found


def run_all(page: str) -> None:
    """Run the commands of a page's bash blocks, as far as they are verbs of the builder."""
    for language, text in blocks(page):
        for command in text.splitlines() if language == "bash" else ():
            program, verb, *arguments = command.split()
            assert program == "shard-builder"
            if verb in COMMANDS:
                shard_builder([verb, *arguments], standalone_mode=False)


def test_your_own_data_from_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (python,) = (text for language, text in blocks("your-own-data.md") if language == "python")
    subprocess.run([sys.executable, "-c", python], check=True, cwd=tmp_path)
    for language, text in blocks("your-own-data.md"):
        if language == "yaml":
            (tmp_path / text.splitlines()[0].removeprefix("# ")).write_text(text)
    run_all("your-own-data.md")
    manifest = load_manifest(open_store("shards/mine"))
    assert manifest.num_samples == 8
    assert {name: (spec.bands, spec.units) for name, spec in manifest.sensors.items()} == {
        "rgb": (("R", "G", "B"), "digital number"),
        "thermal": (("T10", "T11"), "K"),
    }
    make_source(load_config("scenes.yaml", BuildConfig))


def test_many_machines(demo_archives: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "raw").symlink_to(demo_archives)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    run_all("many-machines.md")
    assert digests(tmp_path / "shards" / "local") == digests(tmp_path / "shards" / "shares")


@pytest.mark.parametrize("page", [*sorted(path.name for path in (ROOT / "docs").glob("*.md")), "../README.md"])
def test_links_lead_somewhere(page: str) -> None:
    path = ROOT / "docs" / page
    targets = re.findall(r"\]\((?!https?://)([^)#]+)\)", path.read_text())
    assert [target for target in targets if not (path.parent / target).exists()] == []


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "build").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_build_configuration_is_one(path: Path) -> None:
    source = make_source(config := load_config(path, BuildConfig))
    resolve_sensors(config, source.sensors)
