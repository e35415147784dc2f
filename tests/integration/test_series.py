"""Series of uneven length, dates and places in batches."""

from __future__ import annotations

from datetime import date

import numpy as np
import pytest
import torch

from gfm_pipeline.config import parse_config
from gfm_pipeline.data.config import AugmentConfig, DataConfig, MaskConfig, StreamConfig, TimeConfig
from gfm_pipeline.data.frames import NO_DAY
from gfm_pipeline.data.loader import Loader
from gfm_pipeline.data.mixture import open_mixture
from gfm_pipeline.errors import ConfigError, ShardError
from gfm_pipeline.sensors import builtin_sensor
from gfm_pipeline.train.config import TrainConfig
from tests.make_collection import make_collection

S1, S2 = builtin_sensor("s1"), builtin_sensor("s2")
PX = 8
NEUTRAL = AugmentConfig(scale=(1, 1), ratio=(1, 1), flip=False)


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """A collection of 10 places: s1 with 1 to 5 dates, s2 a single image. Returns its root and its rasters by key."""
    root, rng = tmp_path_factory.mktemp("series"), np.random.default_rng(0)
    samples = [
        (
            f"place-{i}",
            {
                "s1": rng.normal(-12, 4, (1 + i % 5, 2, PX, PX)).astype(np.float32),
                "s2": rng.integers(1, 9000, (13, PX, PX)).astype(np.uint16),
            },
        )
        for i in range(10)
    ]
    make_collection(root / "series", samples, [S1, S2], samples_per_shard=4)
    return root, dict(samples)


def data_config(root, **changes):
    stream = StreamConfig(collections=("series",), sub_batch=10, lr=1)
    base = {"root": str(root), "streams": {"a": stream}, "image_px": PX, "lanes": 2, "augment": NEUTRAL}
    return DataConfig(**(base | {"mask": MaskConfig(cell_px=4)} | changes))


def parts(config, steps=1, seed=0):
    """Return the sub-batches of both lanes, step by step."""
    with Loader(open_mixture(config), config, seed, 0, 1) as loader:
        return [batch.streams["a"] for _ in range(steps) for batch in next(loader)]


def pixels(config, part, sensor):
    """Return the images of a sensor in its own units."""
    mean, std = open_mixture(config).normalisation[sensor].columns()
    return part.images[sensor].numpy() * std + mean


def test_short_series_are_padded_and_told_apart_long_ones_drawn_from(raw):
    root, samples = raw
    config = data_config(root, time={"s1": TimeConfig(frames=3)})
    drawn = set()
    for part in parts(config, 6):
        assert part.images["s1"].shape == (5, 3, 2, PX, PX)
        assert part.images["s2"].shape == (5, 13, PX, PX)
        assert list(part.times) == ["s1"]
        found = pixels(config, part, "s1")
        for row, key in enumerate(part.keys):
            series = samples[key]["s1"]
            there = part.times["s1"][row].tolist()
            assert there == [place < len(series) for place in range(3)]
            frames = [
                next(t for t, image in enumerate(series) if np.allclose(image, found[row, place], atol=1e-3))
                for place in range(sum(there))
            ]
            assert frames == sorted(set(frames))
            assert not part.images["s1"][row, sum(there) :].any()
            drawn.add((key, tuple(frames)))
    assert len({frames for key, frames in drawn if key == "place-4"}) > 2  # of 5 dates, others in other passes


def test_short_series_may_repeat_dates_instead(raw):
    root, samples = raw
    config = data_config(root, time={"s1": TimeConfig(frames=4, short="repeat")})
    (first, second) = parts(config)
    for part in (first, second):
        assert part.times["s1"].all()
        found = pixels(config, part, "s1")
        for row, key in enumerate(part.keys):
            series = samples[key]["s1"]
            if len(series) == 2:
                assert np.allclose(found[row], series[[0, 0, 1, 1]], atol=1e-3)


def test_one_frame_is_an_image_and_another_date_each_time(raw):
    root, samples = raw
    config = data_config(root, time={"s1": TimeConfig(frames=1)})
    seen = set()
    for part in parts(config, 30):
        assert part.images["s1"].shape == (5, 2, PX, PX)
        assert not part.times
        found = pixels(config, part, "s1")
        seen |= {
            (key, next(t for t, image in enumerate(samples[key]["s1"]) if np.allclose(image, found[row], atol=1e-3)))
            for row, key in enumerate(part.keys)
        }
    assert {frame for key, frame in seen if key == "place-4"} == {0, 1, 2, 3, 4}


def test_all_dates_have_one_crop(raw, tmp_path):
    ramp = np.arange(2 * 20 * 20, dtype=np.float32).reshape(1, 2, 20, 20)
    samples = [(f"p-{i}", {"s1": np.concatenate([ramp + i, ramp + i, ramp + i])}) for i in range(6)]
    make_collection(tmp_path / "series", samples, [S1])
    stream = StreamConfig(collections=("series",), sub_batch=3, lr=1)
    config = data_config(
        tmp_path, streams={"a": stream}, time={"s1": TimeConfig(frames=3)}, augment=AugmentConfig(scale=(0.3, 0.6))
    )
    found = [part.images["s1"] for part in parts(config, 4)]
    for image in found:
        assert torch.equal(image[:, 0], image[:, 1])
        assert torch.equal(image[:, 0], image[:, 2])
    assert not torch.equal(found[0][0], found[0][1])


def test_the_draw_depends_on_neither_threads_nor_lanes_nor_ranks(raw):
    root, _ = raw

    def views(**changes):
        config = data_config(root, time={"s1": TimeConfig(frames=2)}, **changes)
        return {
            (key, number): part.images["s1"][row].numpy().tobytes()
            for part in parts(config, 6)
            for row, (key, number) in enumerate(zip(part.keys, part.passes, strict=True))
        }

    calm, busy = views(threads=1), views(threads=3, lanes=1)
    assert len(calm.keys() & busy.keys()) >= 20
    assert all(calm[name] == busy[name] for name in calm.keys() & busy.keys())


def test_dates_and_places_come_along_when_asked_for(raw):
    root, samples = raw
    config = data_config(root, time={"s1": TimeConfig(frames=9)}, carry=("dates", "footprint"))
    plain = data_config(root, time={"s1": TimeConfig(frames=9)})
    assert all(not part.days and part.bounds is None for part in parts(plain))
    for part in parts(config):
        assert part.days["s1"].shape == (5, 9)
        assert part.days["s2"].shape == (5, 1)
        assert (part.days["s2"] == NO_DAY).all()  # make_collection dates series only
        assert part.bounds.dtype == torch.float64
        for row, key in enumerate(part.keys):
            count = len(samples[key]["s1"])
            expected = [(date(2019, month + 1, 15) - date(1970, 1, 1)).days for month in range(count)]
            assert part.days["s1"][row].tolist() == expected + [NO_DAY] * (9 - count)
            west, south, east, north = part.bounds[row].tolist()
            assert east - west == pytest.approx(0.1)
            assert north - south == pytest.approx(0.1)
        moved = part.to("meta")
        assert {t.device.type for t in (moved.days["s1"], moved.times["s1"], moved.bounds)} == {"meta"}


def test_a_series_without_a_setting_is_refused_with_the_setting(raw):
    root, _ = raw
    with pytest.raises(
        ShardError, match=r"sensor s1 at byte \d+: the raster is a series of \d dates.*data.time.s1.frames"
    ):
        parts(data_config(root), 2)
    with pytest.raises(ConfigError, match=r"data.time.s11: no stream uses this sensor. Did you mean 's1'"):
        open_mixture(data_config(root, time={"s11": TimeConfig(frames=1)}))


def test_the_model_takes_one_date(raw):
    root, _ = raw
    data = data_config(root, time={"s1": TimeConfig(frames=3)}).model_dump(mode="json") | {"image_px": 192}
    data["mask"]["cell_px"] = 32
    with pytest.raises(ConfigError, match=r"data.time.s1.frames is 3, the model takes images of one date: set it to 1"):
        parse_config({"data": data}, TrainConfig, "train.yaml")
    data["time"]["s1"]["frames"] = 1
    assert parse_config({"data": data}, TrainConfig, "train.yaml").data.time["s1"].frames == 1
