"""Collections that store a sensor differently in one stream: types, nodata, order and spelling of bands."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gfm_pipeline.data.config import AugmentConfig, DataConfig, MaskConfig, StreamConfig
from gfm_pipeline.data.loader import Loader
from gfm_pipeline.data.mixture import open_mixture
from gfm_pipeline.errors import ConfigError
from gfm_pipeline.sensors import Display, SensorSpec
from gfm_pipeline.shards.quantise import quantise
from tests.make_collection import Sample, make_collection

SIDE = 8
WHOLE = AugmentConfig(scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=False)
UNSIGNED = SensorSpec(
    name="s2",
    bands=("B1", "B2", "B3", "B8A"),
    dtype="uint16",
    units="reflectance x 1e4",
    nodata=0,
    display=Display(mode="colour", bands=("B3", "B2", "B1")),
)
SIGNED = SensorSpec(
    name="s2", bands=("b8a", "B03", "B02", "B01"), dtype="int16", units="Reflectance  x 1e4", nodata=-32768
)
"""The same bands, the other way round."""


def values(spec: SensorSpec, order: tuple[int, ...], prefix: str, offset: int = 0) -> list[Sample]:
    """Images whose pixels tell the sample and the band: 1000 * band + sample, the first pixel of each not measured."""
    out: list[Sample] = []
    for number in range(6):
        raster = np.stack([np.full((SIDE, SIDE), 1000 * (1 + band) + number + offset) for band in order])
        raster = raster.astype(spec.dtype)
        raster[:, 0, 0] = spec.nodata if spec.nodata is not None else np.nan
        out.append((f"{prefix}-{number}", {spec.name: raster}))
    return out


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make_collection(tmp_path / "one", values(UNSIGNED, (0, 1, 2, 3), "one"), [UNSIGNED])
    make_collection(tmp_path / "two", values(SIGNED, (3, 2, 1, 0), "two", 100), [SIGNED])
    return tmp_path


def config(root: Path, *collections: str, **stream: Any) -> DataConfig:
    streams = {"a": StreamConfig(**{"collections": collections, "sub_batch": 6, "lr": 1.0} | stream)}
    mask = MaskConfig(cell_px=4, ratio=0.5)
    return DataConfig(root=str(root), lanes=1, image_px=SIDE, mask=mask, streams=streams, augment=WHOLE)


def images(settings: DataConfig) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Return by key (pixels in units [C], valid [C,H,W]) of one pass."""
    mixture = open_mixture(settings)
    mean, std = (torch.from_numpy(column) for column in mixture.normalisation["s2"].columns())
    out = {}
    with Loader(mixture, settings, seed=0, rank=0, world=1) as loader:
        while len(out) < mixture.streams["a"].num_samples:
            (lane,) = next(loader)
            part = lane.streams["a"]
            for row, key in enumerate(part.keys):
                out[key] = ((part.images["s2"][row] * std + mean)[:, -1, -1], part.valid["s2"][row])
    return out


def test_pixels_of_both_are_read_by_their_own_specification_in_one_order(root: Path) -> None:
    for order in (("one", "two"), ("two", "one")):
        mixture = open_mixture(config(root, *order))
        bands = (0, 1, 2, 3) if order[0] == "one" else (3, 2, 1, 0)
        assert mixture.sensors["s2"].bands == (UNSIGNED.bands if order[0] == "one" else SIGNED.bands)
        found = images(config(root, *order))
        assert len(found) == 12
        for key, (pixel, valid) in found.items():
            name, number = key.split("-")
            expected = [1000 * (1 + band) + int(number) + (100 if name == "two" else 0) for band in bands]
            assert pixel.tolist() == pytest.approx(expected, abs=0.01)
            assert not valid[:, 0, 0].any()
            assert int((~valid).sum()) == 4


def test_bands_are_chosen_by_name_whatever_a_collection_stores(root: Path) -> None:
    settings = config(root, "two", "one", bands={"s2": ["B8A", "B01"]})
    mixture = open_mixture(settings)
    assert mixture.sensors["s2"].bands == ("b8a", "B01")  # as the first collection spells them
    for key, (pixel, valid) in images(settings).items():
        name, number = key.split("-")
        extra = int(number) + (100 if name == "two" else 0)
        assert pixel.tolist() == pytest.approx([4000 + extra, 1000 + extra], abs=0.01)
        assert valid.shape == (2, SIDE, SIDE)


def test_a_choice_of_bands_lets_collections_with_other_ones_be_mixed(root: Path, tmp_path: Path) -> None:
    more = UNSIGNED.model_copy(update={"bands": ("B10", *UNSIGNED.bands[:2]), "display": Display()})
    make_collection(tmp_path / "more", values(more, (9, 0, 1), "more"), [more])
    with pytest.raises(
        ConfigError, match=r"collections one and more disagree .* Set the stream's bands.s2 to .*\[B1, B2\]"
    ):
        open_mixture(config(root, "one", "more"))
    found = images(config(root, "one", "more", bands={"s2": ("B2",)}))
    assert {round(float(pixel[0])) // 1000 for pixel, _ in found.values()} == {2}


def test_the_joint_specification_holds_what_both_have(root: Path) -> None:
    spec = open_mixture(config(root, "one", "two")).sensors["s2"]
    assert (spec.dtype, spec.nodata, spec.display) == ("int32", None, UNSIGNED.display)
    less = open_mixture(config(root, "one", bands={"s2": ("B1", "B2")})).sensors["s2"]
    assert less.display == Display(mode="grey")
    assert (less.dtype, less.nodata) == ("uint16", 0)


def test_a_nodata_value_that_only_one_declares_is_that_of_both(root: Path, tmp_path: Path) -> None:
    floats = UNSIGNED.model_copy(update={"dtype": "float32", "nodata": None})
    make_collection(tmp_path / "floats", values(floats, (0, 1, 2, 3), "floats"), [floats])
    spec = open_mixture(config(root, "floats", "one")).sensors["s2"]
    assert (spec.dtype, spec.nodata) == ("float32", 0)


def test_several_nodata_values_are_reported(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        open_mixture(config(root, "one", "two"))
    assert "several nodata values of sensor s2 (-32768, 0)" in caplog.text


def test_statistics_are_merged_by_the_name_of_the_band(root: Path) -> None:
    mixture = open_mixture(config(root, "one", "two"))
    assert mixture.normalisation["s2"].mean == pytest.approx([1052.5, 2052.5, 3052.5, 4052.5])
    turned = open_mixture(config(root, "two", "one"))
    assert turned.normalisation["s2"].mean == pytest.approx([4052.5, 3052.5, 2052.5, 1052.5])


def test_one_specification_stays_as_it_is(root: Path) -> None:
    assert open_mixture(config(root, "one")).sensors["s2"] == UNSIGNED


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        ({"bands": {"s2": ("B1", "B12")}}, r"data.streams.a.bands.s2: collection one: found B1, .*B12 is not among"),
        ({"bands": {"s2": ("B1", "B01")}}, "B1 and B01 are the same band"),
        ({"bands": {"s1": ("VV",)}}, "data.streams.a.bands.s1: the stream reads no such sensor. Known: s2"),
    ],
)
def test_bands_that_cannot_be_read_are_refused(root: Path, stream: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        open_mixture(config(root, "one", **stream))


def test_two_streams_read_the_same_bands_of_a_sensor(root: Path) -> None:
    settings = config(root, "one", bands={"s2": ("B1", "B2")})
    other = StreamConfig(collections=("two",), sub_batch=2, lr=1.0, bands={"s2": ("B2", "B1")})
    with pytest.raises(ConfigError, match=r"data.streams.a.bands.s2 is B1, B2 and data.streams.b.bands.s2 is B2, B1"):
        open_mixture(settings.model_copy(update={"streams": settings.streams | {"b": other}}))
    silent = other.model_copy(update={"bands": {}})
    mixture = open_mixture(settings.model_copy(update={"streams": settings.streams | {"b": silent}}))
    assert mixture.sensors["s2"].bands == ("B1", "B2")


def test_a_collection_that_no_stream_reads_the_sensor_of_need_not_agree(root: Path, tmp_path: Path) -> None:
    x = SensorSpec(name="x", bands=("a",), dtype="uint8", units="m")
    metres = UNSIGNED.model_copy(update={"units": "m"})
    both = [
        (key, rasters | {"x": np.ones((1, SIDE, SIDE), np.uint8) + number})
        for number, (key, rasters) in enumerate(values(metres, (0, 1, 2, 3), "three"))
    ]
    make_collection(tmp_path / "three", both, [metres, x])
    settings = config(root, "one")
    other = StreamConfig(collections=("three",), sensors=("x",), sub_batch=2, lr=1.0)
    mixture = open_mixture(settings.model_copy(update={"streams": settings.streams | {"b": other}}))
    alone = open_mixture(settings)
    assert mixture.normalisation["s2"] == alone.normalisation["s2"]


def test_stored_pixels_have_one_type(root: Path) -> None:
    changes = {"pixels": "stored", "augment": AugmentConfig(kind="crop")}
    with pytest.raises(ConfigError, match=r"data.pixels is stored, and sensor s2 is uint16 in one, int16 in two"):
        open_mixture(config(root, "one", "two").model_copy(update=changes))


def test_quantised_and_plain_decibels_are_mixed(tmp_path: Path) -> None:
    plain = SensorSpec(name="s2", bands=("VV",), dtype="float32", units="dB")
    steps = SensorSpec(name="s2", bands=("VV",), dtype="float32", units="dB", quantised={"step": 0.5})
    made = make_collection(tmp_path / "plain", values(plain, (0,), "plain"), [plain])
    stored = [(key, {"s2": quantise(rasters["s2"], steps)}) for key, rasters in values(steps, (0,), "steps")]
    make_collection(tmp_path / "steps", stored, [steps], statistics=made.statistics)
    found = images(config(tmp_path, "plain", "steps"))
    assert {key: round(float(pixel[0])) for key, (pixel, _) in found.items()} == {
        f"{name}-{number}": 1000 + number for name in ("plain", "steps") for number in range(6)
    }


def test_bands_whose_names_are_spellings_of_one_keep_their_own_statistics(tmp_path: Path) -> None:
    """A collection may name one band B1 and another B01; the one that is the same to the letter is meant."""
    spec = UNSIGNED.model_copy(update={"bands": ("B1", "B01", "B2"), "display": Display()})
    make_collection(tmp_path / "alike", values(spec, (0, 1, 2), "alike"), [spec])
    statistics = open_mixture(config(tmp_path, "alike")).normalisation["s2"]
    assert statistics.mean == pytest.approx((1002.5, 2002.5, 3002.5))
    chosen = open_mixture(config(tmp_path, "alike", bands={"s2": ("B01",)}))
    assert chosen.normalisation["s2"].mean == pytest.approx((2002.5,))
    with pytest.raises(ConfigError, match="b1 could be B1 or B01"):
        open_mixture(config(tmp_path, "alike", bands={"s2": ("b1",)}))
