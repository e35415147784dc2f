"""Batches say which pixels were measured, through crops, flips, resizing and series; nothing where all were."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from gfm_pipeline.data.batch import StreamBatch
from gfm_pipeline.data.config import AugmentConfig, DataConfig, MaskConfig, StreamConfig, TimeConfig
from gfm_pipeline.data.dataset import BatchDataset
from gfm_pipeline.data.loader import Loader
from gfm_pipeline.data.mixture import Mixture, open_mixture
from gfm_pipeline.data.resize import resize_missing, resize_taps
from gfm_pipeline.data.scratch import Scratch
from gfm_pipeline.sensors import SensorSpec
from tests.make_collection import Sample, make_collection

WHOLE = AugmentConfig(scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=False)
FLOATS = SensorSpec(name="x", bands=("a", "b"), dtype="float32", units="m", nodata=-9999.0)
INTEGERS = SensorSpec(name="y", bands=("a",), dtype="int16", units="m", nodata=-1)


def samples(side: int = 24, share: float = 0.3, dates: int = 0) -> list[Sample]:
    """Eight samples; every second one has pixels that were not measured, of NaN and of the nodata value."""
    rng = np.random.default_rng(0)
    out: list[Sample] = []
    for number in range(8):
        x = rng.normal(50, 20, ((dates, 2, side, side) if dates else (2, side, side))).astype(np.float32)
        y = rng.integers(0, 100, (1, side, side)).astype(np.int16)
        if number % 2:
            x[rng.random(x.shape) < share] = np.nan
            x[..., 0, :3, :3] = -9999
            y[rng.random(y.shape) < share] = -1
        out.append((f"k{number}", {"x": x, "y": y}))
    return out


def config(root: Path, **changes: Any) -> DataConfig:
    sensors = changes.pop("sensors", ("x", "y"))
    stream = StreamConfig(collections=("c",), sensors=sensors, sub_batch=4 * len(sensors), lr=1.0)
    mask = MaskConfig(cell_px=4, ratio=0.5)
    return DataConfig(
        **{"root": str(root), "lanes": 2, "image_px": 24, "mask": mask, "streams": {"s": stream}} | changes
    )


def batches(settings: DataConfig, steps: int = 1) -> tuple[Mixture, list[StreamBatch]]:
    mixture = open_mixture(settings)
    with Loader(mixture, settings, seed=0, rank=0, world=1) as loader:
        return mixture, [lane.streams["s"] for _ in range(steps) for lane in next(loader)]


def missing_of(raster: NDArray[Any], nodata: float) -> NDArray[np.bool_]:
    return np.isnan(raster) | (raster == nodata)


def test_every_pixel_says_whether_it_was_measured(tmp_path: Path) -> None:
    made = dict(samples())
    make_collection(tmp_path / "c", list(made.items()), [FLOATS, INTEGERS])
    _, found = batches(config(tmp_path, augment=WHOLE))
    for batch in found:
        for spec in (FLOATS, INTEGERS):
            assert batch.valid[spec.name].shape == batch.images[spec.name].shape
            assert batch.valid[spec.name].dtype == torch.bool
            for row, key in enumerate(batch.keys):
                missing = missing_of(made[key][spec.name], spec.nodata or 0)
                assert np.array_equal(batch.valid[spec.name][row].numpy(), ~missing)
                assert (batch.images[spec.name][row].numpy()[missing] == 0).all()
                assert np.isfinite(batch.images[spec.name][row].numpy()).all()


def test_nothing_is_said_where_everything_was_measured(tmp_path: Path) -> None:
    make_collection(tmp_path / "c", samples()[::2] + [(f"m{k}", v) for k, v in samples()[::2]], [FLOATS, INTEGERS])
    assert all(batch.valid == {} for batch in batches(config(tmp_path), 2)[1])


def test_only_sensors_with_missing_pixels_are_named(tmp_path: Path) -> None:
    made = [(key, {"x": rasters["x"], "y": np.abs(rasters["y"])}) for key, rasters in samples()]
    make_collection(tmp_path / "c", made, [FLOATS, INTEGERS])
    assert [list(batch.valid) for batch in batches(config(tmp_path, augment=WHOLE))[1]] == [["x"], ["x"]]


@pytest.mark.parametrize("augment", [AugmentConfig(), AugmentConfig(kind="crop")])
@pytest.mark.parametrize("side", [24, 40])
def test_crops_flips_and_resizing_carry_it_along(tmp_path: Path, augment: AugmentConfig, side: int) -> None:
    """A pixel holds the number of its column: what a batch has of the measured half cannot be from the other one."""
    place = np.tile(np.arange(side, dtype=np.float32), (side, 1))
    hole = np.zeros((side, side), bool)
    hole[:, : side // 2] = True  # the left half
    raster = np.where(hole, np.nan, place)[None]
    spec = SensorSpec(name="x", bands=("a",), dtype="float32", units="m")
    make_collection(tmp_path / "c", [(f"k{n}", {"x": raster}) for n in range(8)], [spec])
    mixture, found = batches(config(tmp_path, sensors=("x",), augment=augment), 2)
    mean, std = (column.item() for column in mixture.normalisation["x"].columns())
    mixed = 0
    for batch in found:
        if "x" not in batch.valid:
            continue
        values = batch.images["x"].numpy() * std + mean
        valid = batch.valid["x"].numpy()
        assert (values[valid] > side // 2 - 1e-3).all()
        assert (batch.images["x"].numpy()[~valid] == 0).all()
        mixed += int((~valid).any(axis=(1, 2, 3)).sum())
    assert mixed > 4


def test_a_resized_pixel_is_the_mean_of_the_measured_ones_under_it(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    raster = rng.normal(1000, 50, (2, 40, 40)).astype(np.float32)
    raster[:, 5:23, 8:30] = -9999
    raster[1, 30:] = np.nan
    make_collection(tmp_path / "c", [(f"k{n}", {"x": raster}) for n in range(8)], [FLOATS])
    mixture, found = batches(config(tmp_path, sensors=("x",), augment=WHOLE))
    mean, std = mixture.normalisation["x"].columns()
    weights = np.zeros((24, 40))
    for taps in resize_taps(40, 24):
        weights[taps.first : taps.last, taps.low : taps.high] = taps.weights
    known = ~missing_of(raster, -9999)
    share = weights @ known.astype(float) @ weights.T
    total = weights @ np.where(known, raster.astype(float), 0) @ weights.T
    valid = found[0].valid["x"][0].numpy()
    assert np.array_equal(valid, share >= 0.5 - 1e-6)
    got = found[0].images["x"][0].numpy() * std + mean
    np.testing.assert_allclose(got[valid], (total / np.maximum(share, 1e-9))[valid], rtol=1e-5)


def test_pixels_far_from_missing_ones_keep_their_bits(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    raster = rng.normal(1000, 50, (2, 40, 40)).astype(np.float32)
    holed = raster.copy()
    holed[:, :10] = np.nan
    for name, pixels in (("whole", raster), ("holed", holed)):
        make_collection(tmp_path / name / "c", [(f"k{n}", {"x": pixels}) for n in range(8)], [FLOATS])
    given = {"x": {"mean": (1000.0, 1000.0), "std": (50.0, 50.0)}}
    one, other = (
        batches(config(tmp_path / name, sensors=("x",), augment=WHOLE, statistics=given))[1][0]
        for name in ("whole", "holed")
    )
    assert torch.equal(one.images["x"][:, :, 8:], other.images["x"][:, :, 8:])
    assert one.valid == {}
    assert other.valid["x"][:, :, 8:].all()


def test_the_share_of_missing_weight_is_exactly_0_or_1_where_it_should_be() -> None:
    missing = np.zeros((3, 50, 50), bool)
    missing[:, 20:] = True
    share = resize_missing(missing, 33, False, Scratch())
    assert share.shape == (1, 33, 33)  # bands that miss the same are resized once
    assert (share[0, :12] == 0).all()
    np.testing.assert_allclose(share[0, 15:], 1, atol=1e-6)
    missing[1, 0, 0] = True
    assert resize_missing(missing, 33, False, Scratch()).shape == (3, 33, 33)


def test_a_series_says_it_by_date_and_padding_was_not_measured(tmp_path: Path) -> None:
    made = samples(dates=2)
    made = [(key, {"x": rasters["x"]}) for key, rasters in made]
    make_collection(tmp_path / "c", made, [FLOATS])
    settings = config(tmp_path, sensors=("x",), augment=WHOLE, time={"x": TimeConfig(frames=3)})
    for batch in batches(settings)[1]:
        valid = batch.valid["x"]
        assert valid.shape == batch.images["x"].shape == (4, 3, 2, 24, 24)
        assert not valid[:, 2].any()
        for row, key in enumerate(batch.keys):
            assert np.array_equal(valid[row, :2].numpy(), ~missing_of(dict(made)[key]["x"], -9999))


def test_stored_pixels_come_with_it(tmp_path: Path) -> None:
    make_collection(tmp_path / "c", samples(), [FLOATS, INTEGERS])
    _, found = batches(config(tmp_path, augment=AugmentConfig(kind="crop"), pixels="stored"))
    for batch in found:
        for spec in (FLOATS, INTEGERS):
            stored = batch.images[spec.name].numpy()
            assert stored.dtype == spec.dtype
            assert np.array_equal(batch.valid[spec.name].numpy(), ~missing_of(stored, spec.nodata or 0))


def test_workers_and_threads_change_none_of_it(tmp_path: Path) -> None:
    make_collection(tmp_path / "c", samples(side=31), [FLOATS, INTEGERS])
    settings = config(tmp_path, threads=4)
    alone = [lane for lane in batches(settings)[1]]
    dataset = BatchDataset(settings, seed=0, rank=0, world=1, steps=1)
    worked = [
        b.streams["s"] for b in DataLoader(dataset, batch_size=None, num_workers=1, multiprocessing_context="fork")
    ]
    for one, other in zip(alone, worked, strict=True):
        assert one.valid.keys() == other.valid.keys() == {"x", "y"}
        assert all(torch.equal(one.valid[sensor], other.valid[sensor]) for sensor in one.valid)
        moved = one.to("cpu")
        assert moved.valid.keys() == one.valid.keys()
