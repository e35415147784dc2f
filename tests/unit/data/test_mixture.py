"""Opening mixtures: what is used, what is left out, and what is refused."""

from __future__ import annotations

import logging
import shutil
from itertools import permutations

import numpy as np
import pytest

from gfm_pipeline.data.config import BandStatistics, DataConfig, StreamConfig
from gfm_pipeline.data.mixture import make_plan, open_mixture
from gfm_pipeline.errors import ConfigError, PlanError, ShardError
from gfm_pipeline.sensors import builtin_sensor
from gfm_pipeline.shards.manifest import sidecar_path
from gfm_pipeline.shards.stats import BandStats, measure
from tests.make_collection import make_collection, random_samples

S1, S2, RGB = (builtin_sensor(name) for name in ("s1", "s2", "rgb"))


def data_config(root, *collections, **stream):
    stream = {"sub_batch": 2, "lr": 1e-4} | stream
    return DataConfig(root=str(root), lanes=2, streams={"a": StreamConfig(collections=collections, **stream)})


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Collections: pairs (12 pairs, 3 lone s1), s1_more (5 of other statistics), rgb (6)."""
    root = tmp_path_factory.mktemp("root")
    pairs = random_samples([S1, S2], 12) + random_samples([S1], 3, prefix="lone", seed=5)
    make_collection(root / "pairs", pairs, [S1, S2], samples_per_shard=5)
    more = [(key, {"s1": rasters["s1"] * 3 - 500}) for key, rasters in random_samples([S1], 5, prefix="more", seed=6)]
    make_collection(root / "s1_more", more, [S1])
    make_collection(root / "rgb", random_samples([RGB], 6, prefix="photo"), [RGB])
    return root


def test_all_sensors_are_the_default_and_incomplete_samples_are_reported(root, caplog):
    with caplog.at_level(logging.WARNING):
        mixture = open_mixture(data_config(root, "pairs"))
    stream = mixture.streams["a"]
    assert stream.sensors == ("s1", "s2")
    assert stream.samples_per_step == 1
    assert stream.num_samples == 12
    assert [(left.collection, left.samples, left.missing) for left in stream.left_out] == [("pairs", 3, ("s2",))]
    assert "stream a leaves out 3 samples of pairs, which have no s2" in caplog.text
    assert mixture.sensors == {"s1": S1, "s2": S2}


def test_one_sensor_uses_every_sample_that_has_it(root):
    stream = open_mixture(data_config(root, "pairs", "s1_more", sensors=("s1",))).streams["a"]
    assert (stream.num_samples, stream.left_out, stream.samples_per_step) == (20, (), 2)


def test_statistics_are_those_of_all_pixels_of_all_collections(root):
    config = DataConfig(
        root=str(root),
        streams={
            "a": StreamConfig(collections=("pairs",), sub_batch=2, lr=1),
            "b": StreamConfig(collections=("s1_more", "pairs"), sensors=("s1",), sub_batch=2, lr=1),
        },
    )
    everything = [*random_samples([S1, S2], 12), *random_samples([S1], 3, seed=5)]
    rasters = [sample["s1"] for _, sample in everything]
    rasters += [sample["s1"] * 3 - 500 for _, sample in random_samples([S1], 5, seed=6)]
    expected = measure(np.concatenate(rasters, axis=2), S1.bands)
    found = open_mixture(config).normalisation["s1"]
    assert np.allclose(found.mean, [band.mean for band in expected], rtol=1e-9)
    assert np.allclose(found.std, [band.std for band in expected], rtol=1e-9)


def test_statistics_do_not_depend_on_the_order_of_collections(tmp_path):
    names = ("a", "b", "c", "d")
    for seed, name in enumerate(names):
        make_collection(tmp_path / name, random_samples([S1], 3 + seed, seed=seed), [S1])
    found = {open_mixture(data_config(tmp_path, *order)).normalisation["s1"] for order in permutations(names)}
    assert len(found) == 1


def test_given_statistics_take_the_place_of_measured_ones(root):
    given = {"s1": BandStatistics(mean=(-12.5, -18.0), std=(5.0, 6.0))}
    mixture = open_mixture(data_config(root, "pairs").model_copy(update={"statistics": given}))
    assert mixture.normalisation["s1"].mean == (-12.5, -18.0)
    assert mixture.normalisation["s2"].mean != mixture.normalisation["s1"].mean


def test_the_digests_follow_the_content_not_the_place(root, tmp_path):
    moved = tmp_path / "elsewhere"
    shutil.copytree(root, moved)
    config = data_config(root, "pairs")
    here, there = open_mixture(config), open_mixture(data_config(moved, "pairs"))
    assert here.digest == there.digest
    assert make_plan(here, config, 0).digest == make_plan(there, config, 0).digest
    assert here.digest != open_mixture(data_config(root, "pairs", sensors=("s1",))).digest
    assert here.manifest_digests == there.manifest_digests
    assert list(here.manifest_digests) == ["pairs"]
    assert here.steps_per_epoch == make_plan(here, config, 0).steps_per_epoch == 6


@pytest.mark.parametrize(
    ("collections", "stream", "message"),
    [
        (("pairs",), {"sensors": ("s11",)}, r"data.streams.a.sensors: no sensor 's11' in pairs. Did you mean 's1'"),
        (("pairs",), {"sub_batch": 3}, r"sub_batch is 3 images, expected a multiple of its 2 sensors \(s1, s2\)"),
        (("pairs",), {"sensors": ("s1", "s1")}, "distinct names"),
        (("pairs", "pairs"), {}, "one collection twice"),
        (("pairs", "rgb"), {"sub_batch": 3}, "no sample of pairs, rgb carries all of rgb, s1, s2"),
    ],
)
def test_impossible_streams_are_refused(root, collections, stream, message):
    with pytest.raises(ConfigError, match=message):
        open_mixture(data_config(root, *collections, **stream))


def test_a_folder_without_manifest_is_no_collection(tmp_path):
    with pytest.raises(ShardError, match="its build has not finished"):
        open_mixture(data_config(tmp_path, "nothing"))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("units", "linear power", "units are dB in one and linear power in the other. Build one"),
        ("kind", "labels", "kind is image in one and labels in the other. Build one"),
        ("bands", ("VV", "HH"), r"VV, VH in one and VV, HH in the other. Set the stream's bands.s1 to .*: \[VV\]"),
        ("bands", ("VV", "VH", "HH"), r"VV, VH in one and VV, VH, HH in the other. .*: \[VV, VH\]"),
        ("bands", ("HV", "HH"), "VV, VH in one and HV, HH in the other. Build one of them with another name"),
    ],
)
def test_collections_must_agree_about_a_sensor(root, tmp_path, field, value, message):
    other = S1.model_copy(update={field: value, "display": S1.display})
    make_collection(tmp_path / "other", random_samples([other], 4), [other], name="s1")  # as another build called it
    where = f"collections pairs and {tmp_path}/other disagree about sensor s1: .*"
    with pytest.raises(ConfigError, match=f"{where}{message}.*data.streams.a"):
        open_mixture(data_config(root, "pairs", str(tmp_path / "other"), sensors=("s1",)))


def bands(**changes):
    good = {"count": 10, "mean": 1.0, "m2": 5.0, "min": 0.0, "max": 2.0}
    return [BandStats(band=band, **(good | changes.get(band, {}))) for band in S1.bands]


@pytest.mark.parametrize(
    ("statistics", "message"),
    [
        ({}, "collection bare has no statistics for band VV, VH of sensor s1"),
        ({"s1": bands()[:1]}, "collection bare has no statistics for band VH of sensor s1"),
        ({"s1": bands(VH={"m2": 0.0})}, "band VH of sensor s1 has mean 1.0 and std 0.0"),
        ({"s1": bands(VV={"count": 0})}, "band VV of sensor s1 has mean 1.0 and std nan over 0 pixels"),
    ],
)
def test_a_band_without_statistics_is_an_error_that_names_band_key_and_command(tmp_path, statistics, message):
    make_collection(tmp_path / "bare", random_samples([S1], 4), [S1], statistics=statistics)
    with pytest.raises(ConfigError, match=message + r".*data.statistics.s1.mean and .std.*shard-builder build"):
        open_mixture(data_config(tmp_path, "bare"))


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("s1", BandStatistics(mean=(1.0,), std=(1.0, 1.0)), "data.statistics.s1.mean has 1 values"),
        ("s1", BandStatistics(mean=(1.0, 1.0), std=(1.0, 0.0)), "data.statistics.s1: band VH has mean 1.0 and std 0.0"),
        ("s11", BandStatistics(mean=(), std=()), "data.statistics.s11: no stream uses this sensor. Did you mean 's1'"),
    ],
)
def test_given_statistics_must_fit(root, name, given, message):
    with pytest.raises(ConfigError, match=message):
        open_mixture(data_config(root, "pairs").model_copy(update={"statistics": {name: given}}))


def test_too_few_samples_for_the_lanes(root):
    config = data_config(root, "s1_more").model_copy(update={"lanes": 8})
    with pytest.raises(PlanError, match="5 samples for 8 lanes"):
        make_plan(open_mixture(config), config, 0)


def test_opening_reads_manifests_only(root, tmp_path):
    shutil.copytree(root / "pairs", tmp_path / "pairs")
    for path in (tmp_path / "pairs" / sidecar_path("x")).parent.iterdir():
        path.unlink()
    assert open_mixture(data_config(tmp_path, "pairs")).streams["a"].num_samples == 12
