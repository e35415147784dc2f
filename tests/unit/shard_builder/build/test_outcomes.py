"""What plan reports is what build meets, and a build that packs nothing fails; its collection breaks no other verb."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import yaml
from click.testing import CliRunner, Result

from gfm_pipeline.data.config import DataConfig, StreamConfig
from gfm_pipeline.data.mixture import open_mixture
from gfm_pipeline.errors import ConfigError, GfmError
from shard_builder.cli import shard_builder

SENSORS = {"dem": {"files": "{key}.tif", "bands": ["h"], "dtype": "float32", "units": "m", "nodata": 0}}


def run(*arguments: str) -> Result:
    return CliRunner().invoke(shard_builder, list(arguments))


def configured(folder: Path, **more: Any) -> str:
    path = folder / "build.yaml"
    tree = {"source": "folder", "input": str(folder / "raw"), "output": str(folder / "out")}
    tree["options"] = {"sensors": more.pop("sensors", SENSORS)}
    path.write_text(yaml.safe_dump({**tree, **more}))
    return str(path)


def image(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(exist_ok=True)
    tifffile.imwrite(path, pixels, photometric="minisblack")


def good(path: Path, seed: int = 1) -> None:
    image(path, np.random.default_rng(seed).normal(100, 5, (16, 16)).astype(np.float32))


def wrong_type(path: Path) -> None:
    image(path, np.ones((16, 16), np.uint8))


def two_bands(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    tifffile.imwrite(path, np.ones((16, 16, 2), np.float32), photometric="minisblack", planarconfig="contig")


def infinite(path: Path) -> None:
    image(path, np.full((16, 16), np.inf, np.float32))


def truncated(path: Path) -> None:
    good(path)
    path.write_bytes(path.read_bytes()[:700])


def no_image(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"nothing of the kind")


def empty(path: Path) -> None:
    image(path, np.zeros((16, 16), np.float32))


BAD = [wrong_type, two_bands, infinite, truncated, no_image]


@pytest.mark.parametrize("on_error", ["fail", "skip"])
@pytest.mark.parametrize("spoil", BAD)
def test_one_bad_file_is_planned_as_it_is_built(spoil: Callable[[Path], None], on_error: str, tmp_path: Path) -> None:
    good(tmp_path / "raw/a.tif")
    spoil(tmp_path / "raw/b.tif")
    good(tmp_path / "raw/c.tif", 2)
    config = configured(tmp_path, on_error=on_error)
    plan = run("plan", "--config", config, "--json")
    build = run("build", "--config", config, "--json")
    assert plan.exit_code == (3 if on_error == "skip" else 1)
    told = json.loads(plan.stdout)
    assert (told["tried"], told["packed"]) == (3, 2)
    (problem,) = told["problems"]
    assert "b.tif" in problem
    if on_error == "skip":
        assert build.exit_code == 3
        assert json.loads(build.stdout)["samples"] == told["packed"]
        (row,) = map(json.loads, (tmp_path / "out/failures.jsonl").read_text().splitlines())
        assert problem == f"{row['item']}: {row['reason']}"
    else:
        assert isinstance(build.exception, GfmError)
        assert str(build.exception) in problem


@pytest.mark.parametrize("spoil", [*BAD, empty])
def test_a_build_that_packs_nothing_fails_and_so_does_its_plan(spoil: Callable[[Path], None], tmp_path: Path) -> None:
    for name in "ab":
        spoil(tmp_path / f"raw/{name}.tif")
    config = configured(tmp_path, on_error="skip")
    for verb in ("plan", "build", "build", "retry"):  # the second build finds the first one's
        done = run(verb, "--config", config)
        assert isinstance(done.exception, GfmError), verb
        assert done.exception.exit_code == 1
        assert "can be packed: 2 samples were tried" in str(done.exception)
    assert len((tmp_path / "out/failures.jsonl").read_text().splitlines()) == 2


def test_what_max_nodata_leaves_out_is_no_failure_where_others_are_packed(tmp_path: Path) -> None:
    good(tmp_path / "raw/a.tif")
    empty(tmp_path / "raw/b.tif")
    config = configured(tmp_path)
    plan = run("plan", "--config", config)
    assert plan.exit_code == 0
    assert "1 of the 2 would be left out (max_nodata), e.g. b: 100% of dem was not measured" in plan.stdout
    build = run("build", "--config", config)
    assert build.exit_code == 0
    assert "b: 100% of dem was not measured" in build.stdout


def test_dropping_all_that_lacks_a_partner_packs_nothing(tmp_path: Path) -> None:
    good(tmp_path / "raw/a.tif")
    good(tmp_path / "raw/x_b.tif")
    sensors = {"dem": SENSORS["dem"] | {"files": "{key:[a-z]}.tif"}, "other": SENSORS["dem"] | {"files": "x_{key}.tif"}}
    config = configured(tmp_path, sensors=sensors, unpaired="drop")
    for verb in ("plan", "build"):
        done = run(verb, "--config", config)
        assert isinstance(done.exception, GfmError)
        assert "a has no other" in str(done.exception) or "a: no other of this place" in str(done.exception)


def test_a_file_of_unusual_size_is_tried_among_many(tmp_path: Path) -> None:
    for number in range(300):
        good(tmp_path / f"raw/{number:03d}.tif", number)
    truncated(tmp_path / "raw/157.tif")
    plan = run("plan", "--config", configured(tmp_path, on_error="skip", max_samples=300), "--json")
    told = json.loads(plan.stdout)
    assert told["tried"] == 64
    (problem,) = told["problems"]
    assert problem.startswith("157: ")
    assert plan.exit_code == 3


def test_a_collection_without_samples_breaks_no_verb(tmp_path: Path) -> None:
    labels = {"files": "{key}.png", "bands": ["class"], "dtype": "uint8", "units": "class", "kind": "labels"}
    empty(tmp_path / "raw/a.tif")
    image(tmp_path / "raw/a.png", np.zeros((16, 16), np.uint8))
    run("build", "--config", configured(tmp_path, on_error="skip", sensors=SENSORS | {"map": labels}))
    out = str(tmp_path / "out")
    assert run("verify", out).exit_code == 0
    assert "dem" in run("stats", out).stdout
    shown = run("show", out, "--out", str(tmp_path / "shown.png"))
    assert "no sample" in str(shown.exception)
    card = run("card", out, "--out", str(tmp_path / "card"))
    assert card.exit_code == 0, card.exception
    assert "0 places" in (tmp_path / "card/README.md").read_text()
    streams = {"a": StreamConfig(collections=("out",), sub_batch=2, lr=1e-4)}
    with pytest.raises(ConfigError, match=r"streams\.a: out holds no samples: its build packed nothing"):
        open_mixture(DataConfig(root=str(tmp_path), lanes=2, streams=streams))


def test_the_error_of_an_empty_build_names_the_commonest_cause(tmp_path: Path) -> None:
    for name in ("a_1", "a_01", "b_1"):
        truncated(tmp_path / "raw" / f"{name}.tif")
    for number in range(2, 5):
        wrong_type(tmp_path / "raw" / f"c_{number}.tif")
    sensors = {"dem": SENSORS["dem"] | {"files": "{key}_{_n:0*}{n:[0-9]}.tif"}}
    path = configured(tmp_path, sensors=sensors, on_error="skip", options={"sensors": sensors, "key": "{key}_{n}"})
    for verb in ("plan", "build"):
        found = run(verb, "--config", path)
        assert found.exit_code == 1
        assert "dem has uint8 pixels" in str(found.exception), found.exception
        assert "5 more)" in str(found.exception)
