"""The pages in docs do what they say."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gfm_pipeline.config import load_config
from gfm_pipeline.sensors import builtin_sensor
from gfm_pipeline.shards.manifest import load_manifest
from gfm_pipeline.storage import open_store
from shard_builder.cli import COMMANDS, shard_builder
from shard_builder.config import BuildConfig, resolve_sensors
from shard_builder.sources.base import make_source
from tests.conftest import BIN, ROOT
from tests.contracts.test_sources import digests
from tests.make_collection import make_collection, random_samples


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
    text = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)  # code may look like a link
    targets = re.findall(r"\]\((?!https?://)([^)#]+)[#)]", text)
    assert [target for target in targets if not (path.parent / target).exists()] == []


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "build").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_build_configuration_is_one(path: Path) -> None:
    source = make_source(config := load_config(path, BuildConfig))
    resolve_sensors(config, source.sensors)


def write_yaml(page: str, folder: Path) -> None:
    """Write the configurations of a page under the names that their first lines give."""
    for language, text in blocks(page):
        if language == "yaml":
            (folder / text.splitlines()[0].removeprefix("# ")).write_text(text)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("train", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_add_a_sensor_from_nothing_to_a_trained_model(
    train: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    for folder in ("configs", "launch"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    (python,) = (text for language, text in blocks("add-a-sensor.md") if language == "python")
    subprocess.run([sys.executable, "-c", python], check=True)
    write_yaml("add-a-sensor.md", tmp_path)
    printed = {}
    for language, text in blocks("add-a-sensor.md"):
        for command in text.splitlines() if language == "bash" else ():
            program, *arguments = command.split()
            if not train and (program == "python" or "visualize" in arguments):
                continue
            path = sys.executable if program == "python" else BIN / program
            done = subprocess.run([path, *arguments], capture_output=True, text=True, check=False, timeout=400)
            assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
            printed[command] = done.stdout
    assert "fields/decay" in printed["gfm config show --config thermal.yaml --model"]
    if not train:
        return
    rows = [json.loads(line) for line in (tmp_path / "runs/thermal/metrics.jsonl").read_text().splitlines()]
    directions = {direction for row in rows for direction in row["streams"]["fields"]["losses"]}
    assert directions == {"rgb->rgb", "rgb->thermal", "thermal->rgb", "thermal->thermal"}
    assert (tmp_path / "pictures" / "fields-thermal-to-rgb.png").is_file()


def test_add_an_objective_as_the_page_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from gfm_pipeline.models.step_view import StepView
    from gfm_pipeline.objectives.objective import OBJECTIVES
    from gfm_pipeline.train.config import TrainConfig
    from tests.make_batch import build_one, make_batch, tiny_model

    (tmp_path / "configs").symlink_to(ROOT / "configs")
    write_yaml("add-an-objective.md", tmp_path)
    known = set(OBJECTIVES.names())
    assert known == {
        name for name in re.findall(r"^\| `(\w+)` \|", (ROOT / "docs/add-an-objective.md").read_text(), re.M)
    }
    (python,) = (text for language, text in blocks("add-an-objective.md") if language == "python")
    monkeypatch.setattr(OBJECTIVES, "_parts", dict(OBJECTIVES._parts))
    exec(compile(python, "agreement.py", "exec", dont_inherit=True), {"__name__": "agreement"})
    config = load_config(tmp_path / "agree.yaml", TrainConfig)
    assert config.objectives["agreement"] == {"weight": 0.1, "width": 32}
    assert "cross_sensor_mim" in config.objectives
    load_config(tmp_path / "distil.yaml", TrainConfig)
    streams = {"places": ["s1", "s2", "rgb"], "photos": ["rgb"]}
    model = tiny_model(streams)
    objective = build_one("agreement", config.objectives["agreement"], model, streams)
    losses = objective(StepView(model), make_batch(streams), torch.Generator())
    assert 0 < losses.streams["places"].item() < 2
    assert losses.streams["photos"].item() == 0
    losses.streams["places"].backward()
    assert model.objectives["agreement"].weight.grad.any()  # type: ignore[operator, union-attr]


def test_webdataset_pipelines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    specs = [builtin_sensor("s1"), builtin_sensor("s2")]
    make_collection(tmp_path / "shards" / "sen12ms", random_samples(specs, 20, side=40), specs, samples_per_shard=7)
    monkeypatch.chdir(tmp_path)
    programs = [text for language, text in blocks("webdataset.md") if language == "python"]
    assert len(programs) == 2
    for text in programs:
        exec(compile(text, "webdataset.md", "exec"), {"__name__": "__main__"})
    assert capsys.readouterr().out == "20 samples, each once\n"
