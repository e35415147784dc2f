"""`gfm data bench`: every contender delivers the same work, and the numbers are of what was delivered."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner

from gfm_pipeline.cli import gfm
from gfm_pipeline.data.bench.config import DataBenchConfig
from gfm_pipeline.data.bench.inputs import installed, works, write_copies
from gfm_pipeline.data.bench.measure import measure
from gfm_pipeline.data.bench.report import describe
from gfm_pipeline.data.bench.work import CONTENDERS
from gfm_pipeline.errors import ConfigError, GfmError
from gfm_pipeline.sensors import builtin_sensor
from tests.make_collection import make_collection, random_samples

S1, S2 = (builtin_sensor(name) for name in ("s1", "s2"))
SIZES = {"crop_px": 24, "batch": 4, "passes": 2, "repeats": 1, "workers": 2}
CROP_BYTES = 4 * 24 * 24 * (2 * 4 + 13 * 2)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench") / "pairs"
    make_collection(folder, random_samples([S1, S2], 16, 32), [S1, S2], samples_per_shard=4)
    return folder


@pytest.mark.parametrize(
    ("name", "task"),
    [(name, "crop") for name in ("ours", "webdataset", "geotiff", "limit", "limit-threads")]
    + [("ours", "train"), ("webdataset", "train")],
)
def test_each_contender_delivers_whole_batches_of_crops(pairs, tmp_path, name, task):
    work, _ = works([str(pairs)], tmp_path, DataBenchConfig(task=task, **SIZES))
    write_copies({name: CONTENDERS.get(name)}, work, lambda text: None)
    stages: dict[str, float] = {}
    batches = list(CONTENDERS.get(name).load(work, stages))
    size = CROP_BYTES if task == "crop" else 4 * 24 * 24 * 15 * 4
    assert [batch.samples for batch in batches] == [4] * 8
    assert {batch.num_bytes for batch in batches} == {size}
    assert (name == "ours") == bool(stages)


def test_a_sensor_alone_is_measured_once_beside_all_of_them(pairs, tmp_path):
    found = works([str(pairs), str(pairs)], tmp_path, DataBenchConfig(**SIZES))
    assert [list(work.sensors) for work in found] == [["s1", "s2"], ["s1"], ["s1", "s2"]]


def test_a_run_is_timed_after_its_first_batch(pairs, tmp_path):
    work, _ = works([str(pairs)], tmp_path, DataBenchConfig(**SIZES))
    timing = measure("ours", work)
    assert timing.samples == 4 * 7
    assert timing.num_bytes == 7 * CROP_BYTES
    assert timing.first_batch_s > 0
    assert timing.seconds > 0
    assert timing.stages.keys() == {"read", "checksum", "decode", "augment", "collate", "wait"}


def test_remote_collections_leave_out_who_cannot_read_them(pairs, tmp_path):
    work, _ = works([str(pairs)], tmp_path, DataBenchConfig(**SIZES))
    far = work.model_copy(update={"url": "s3://bucket/pairs"})
    assert "webdataset" in installed(None, work)
    assert "webdataset" not in installed(None, far)
    assert {"ours", "limit"} <= installed(None, far).keys()


def test_images_of_several_shapes_are_refused(tmp_path):
    odd = [(f"b{key}", {"s1": rasters["s1"][:, :16]}) for key, rasters in random_samples([S1], 3, 32)]
    make_collection(tmp_path / "odd", [*random_samples([S1], 4, 32), *odd], [S1])
    with pytest.raises(ConfigError, match=r"sensor s1 is stored as .*the bench compares images of one shape"):
        works([str(tmp_path / "odd")], tmp_path, DataBenchConfig(**SIZES))


def run_bench(tmp_path, *collections, **sizes):
    overrides = [part for name, value in (SIZES | sizes).items() for part in ("--set", f"{name}={value}")]
    found = tmp_path / "found.json"
    command = ["data", "bench", *collections, *overrides, "--out", str(tmp_path / "work"), "--json", str(found)]
    done = CliRunner().invoke(gfm, command)
    assert done.exit_code == 0, done.output
    return done.output, json.loads(found.read_text())["scores"]


def test_the_command_runs_each_contender_by_itself_and_prints_ratios(pairs, tmp_path):
    output, (ours, limit) = run_bench(tmp_path, str(pairs), contenders="[ours, limit]", alone="none")
    assert "gfm-pipeline" in output
    assert "the limit, 1 thread" in output
    assert (ours["contender"], limit["contender"]) == ("ours", "limit")
    (run,) = ours["runs"]
    assert run["samples"] == 4 * 7
    assert run["peak_bytes"] > run["base_bytes"] > 10**7
    assert ours["samples_per_s"] == pytest.approx(run["samples"] / run["seconds"])


@pytest.mark.slow
def test_the_command_makes_its_input(tmp_path):
    sizes = {"places": 16, "tile_px": 32, "encodings": "[npy, blosc2]"}
    output, scores = run_bench(tmp_path, **sizes)
    worked = {(score["work"]["encoding"], len(score["work"]["sensors"]), score["contender"]) for score in scores}
    for name in ("ours", "webdataset", "geotiff", "limit", "limit-threads"):
        assert {("npy", 2, name), ("npy", 1, name), ("blosc2", 2, name)} <= worked
    assert "making 16 places of 32 px" in output


def test_a_contender_that_is_not_known_is_named(pairs):
    done = CliRunner().invoke(gfm, ["data", "bench", str(pairs), "--set", "contenders=[our]"])
    assert isinstance(done.exception, GfmError)
    assert "Did you mean 'ours'?" in str(done.exception)


def test_ratios_are_of_medians(pairs, tmp_path):
    from gfm_pipeline.data.bench.measure import Timing
    from gfm_pipeline.data.bench.race import Score

    work, _ = works([str(pairs)], tmp_path, DataBenchConfig(**SIZES))

    stages = {"read": 1.0, "decode": 3.0, "wait": 0.5}

    def score(name, rates):
        runs = tuple(
            Timing(first_batch_s=0.5, seconds=1, samples=r, num_bytes=r, cpu_s=r, base_bytes=1, stages=stages)
            for r in rates
        )
        return Score(contender=name, label=name, work=work, runs=runs)

    lines = list(describe([score("limit", [100, 200, 900]), score("ours", [50, 100, 110]), score("webdataset", [25])]))
    cells = {line.split()[0]: line.split() for line in lines[2:-1]}
    assert cells["limit"][1:4] == ["200", "1.00", "0.50x"]
    assert cells["ours"][1:4] == ["100", "0.50", "1.00x"]
    assert cells["webdataset"][1:4] == ["25", "0.12", "4.00x"]
    assert lines[-1] == "  time of our threads: read 25%, decode 75%; the consumer waited 0.50 s"
    assert np.isclose(score("x", [1, 5, 3]).samples_per_s, 3)
