"""Filters on the catalog: exactly the samples that pass, another digest, and only their bytes."""

from __future__ import annotations

import json
import shutil
import zlib
from pathlib import Path

import numpy as np
import pytest

from gfm_pipeline.data.config import DataConfig, FilterConfig, MaskConfig, StreamConfig
from gfm_pipeline.data.loader import Loader
from gfm_pipeline.data.mixture import make_plan, open_mixture
from gfm_pipeline.data.select import select_samples
from gfm_pipeline.errors import ConfigError, ShardError
from gfm_pipeline.sensors import builtin_sensor
from gfm_pipeline.shards import CATALOG_PATH
from gfm_pipeline.shards.manifest import load_sidecar
from gfm_pipeline.storage import LocalStore
from tests.make_collection import make_collection, random_samples

S1, S2 = builtin_sensor("s1"), builtin_sensor("s2")


def data_config(root: Path, wanted: dict[str, object] | None, **changes: object) -> DataConfig:
    stream = StreamConfig(collections=("pairs",), sub_batch=4, lr=1, filter=FilterConfig(**wanted) if wanted else None)
    more = {"image_px": 16, "lanes": 2, "chunk_samples": 4, "window_chunks": 2, "mask": MaskConfig(cell_px=4)}
    return DataConfig(root=str(root), streams={"a": stream}, **(more | changes))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("root")
    samples = random_samples([S1, S2], 30) + random_samples([S1, S2], 30, prefix="spot", seed=1)
    make_collection(root / "pairs", samples, [S1, S2], samples_per_shard=7)
    return root


def place(key: str) -> tuple[float, float]:
    """Return (east, north) of the lower left corner that make_collection gives a key."""
    return zlib.crc32(key.encode()) % 3000 / 10 - 150, zlib.crc32(key.encode()) % 1200 / 10 - 60


def taken(config: DataConfig) -> set[str]:
    """Return the keys of one pass, each of which comes once."""
    mixture = open_mixture(config)
    passes = -(-mixture.streams["a"].num_samples // 4)
    with Loader(mixture, config, 0, 0, 1) as loader:
        parts = [batch.streams["a"] for _ in range(passes + 1) for batch in next(loader)]
    keys = [key for part in parts for key, number in zip(part.keys, part.passes, strict=True) if number == 0]
    assert len(keys) == len(set(keys)) == mixture.streams["a"].num_samples
    return set(keys)


KEYS = [f"{prefix}-{i:04d}" for prefix in ("place", "spot") for i in range(30)]


def test_a_box_takes_what_touches_it(root: Path) -> None:
    west, south, east, north = -60.0, -30.0, 70.0, 45.0
    expected = {k for k in KEYS if west - 0.1 <= place(k)[0] <= east and south - 0.1 <= place(k)[1] <= north}
    assert 5 < len(expected) < 55
    assert taken(data_config(root, {"region": (west, south, east, north)})) == expected


def test_a_box_across_the_antimeridian(root: Path) -> None:
    expected = {k for k in KEYS if place(k)[0] >= 99.9 or place(k)[0] <= -100}
    assert 3 < len(expected) < 57
    assert taken(data_config(root, {"region": (100.0, -90.0, -100.0, 90.0)})) == expected


def geojson(path: Path, *corners: tuple[float, float]) -> str:
    path.write_text(json.dumps({"type": "Polygon", "coordinates": [[*corners, corners[0]]]}))
    return str(path)


def test_a_polygon_may_be_drawn_beyond_180_degrees(root: Path, tmp_path: Path) -> None:
    corners = [(100, -90), (260, -90), (260, 90), (100, 90)]
    for shift in (0, -360):
        region = geojson(tmp_path / "pacific.json", *((east + shift, north) for east, north in corners))
        expected = taken(data_config(root, {"region": (100.0, -90.0, -100.0, 90.0)}))
        assert taken(data_config(root, {"region": region})) == expected
    metres = data_config(root, {"region": geojson(tmp_path / "utm.json", (5e5, 4e6), (6e5, 4e6), (6e5, 5e6))})
    with pytest.raises(ConfigError, match=r"reaches from 500000, 4e\+06 .* Reproject it to EPSG:4326"):
        open_mixture(metres)


def test_a_polygon_from_a_file(root: Path, tmp_path: Path) -> None:
    corners = [[-150.2, -90], [150, -90], [-150.2, 90], [-150.2, -90]]
    feature = {"type": "Feature", "properties": {}, "geometry": {"type": "Polygon", "coordinates": [corners]}}
    (tmp_path / "area.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    found = taken(data_config(root, {"region": str(tmp_path / "area.geojson")}))
    inside = {k for k in KEYS if (place(k)[0] + 150.2) / 300.2 + (place(k)[1] + 90) / 180 < 1}
    assert inside
    assert found == inside
    (tmp_path / "line.geojson").write_text('{"type": "LineString", "coordinates": [[0, 0], [1, 1]]}')
    with pytest.raises(ConfigError, match=r"line.geojson holds no area"):
        open_mixture(data_config(root, {"region": str(tmp_path / "line.geojson")}))
    (tmp_path / "bad.geojson").write_text("{")
    with pytest.raises(ConfigError, match=r"bad.geojson is no readable GeoJSON"):
        open_mixture(data_config(root, {"region": str(tmp_path / "bad.geojson")}))


def test_labels_and_all_of_several_conditions(root: Path) -> None:
    spots = {key for key in KEYS if key.startswith("spot")}  # nine letters, which make_collection calls "even"
    assert taken(data_config(root, {"labels": {"class": ("even",)}})) == spots
    assert taken(data_config(root, {"labels": {"class": ("even", "odd")}})) == set(KEYS)
    both = {"labels": {"class": ("even",)}, "region": (-180.0, -90.0, 0.0, 90.0)}
    assert taken(data_config(root, both)) == {key for key in spots if place(key)[0] <= 0}


@pytest.mark.parametrize(
    ("since", "until", "passing"),
    [
        ("2019", None, "0123"),
        ("2019-02", None, "123"),
        (None, "2019-01", "0123"),
        ("2019-03-16", None, "23"),
        ("2019-03-15", "2019-03-15", "123"),
        ("2019-08", "2019-12", "3"),
        ("2020", None, ""),
    ],
)
def test_dates(tmp_path: Path, since: str | None, until: str | None, passing: str) -> None:
    series = [(f"series-{i}", {"s1": np.ones((n, 2, 16, 16), np.float32)}) for i, n in enumerate((1, 3, 6, 9))]
    manifest = make_collection(tmp_path, series, [S1], samples_per_shard=3)
    found = select_samples(LocalStore(tmp_path), manifest.shards, FilterConfig(since=since, until=until))
    order = [index + 3 * shard for shard, entry in enumerate(manifest.shards) for index in found[entry.name]]
    assert order == [int(number) for number in passing]


def test_what_is_left_out_is_said_and_changes_the_digest(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    digests = set()
    for wanted in (None, {"labels": {"class": ("even",)}}, {"labels": {"class": ("odd",)}}):
        config = data_config(root, wanted)
        mixture = open_mixture(config)
        digests.add(make_plan(mixture, config, 0).digest)
        gone = [(left.samples, left.missing) for left in mixture.streams["a"].left_out]
        assert gone == ([] if wanted is None else [(30, ())])
    assert len(digests) == 3
    assert "stream a leaves out 30 samples of pairs, which do not pass its filter" in caplog.text


def test_samples_may_have_to_carry_sensors_that_are_not_read(tmp_path: Path) -> None:
    samples = random_samples([S1, S2], 12) + random_samples([S1], 9, prefix="lone", seed=5)
    make_collection(tmp_path / "pairs", samples, [S1, S2], samples_per_shard=5)
    (tmp_path / "pairs" / CATALOG_PATH).unlink()  # the manifest tells which shards carry what
    stream = StreamConfig(collections=("pairs",), sensors=("s1",), sub_batch=2, lr=1)
    found = []
    for asked in (None, FilterConfig(sensors=("s2",)), FilterConfig(sensors=("s1",))):
        config = DataConfig(root=str(tmp_path), lanes=2, streams={"a": stream.model_copy(update={"filter": asked})})
        mixture = open_mixture(config)
        assert mixture.streams["a"].sensors == ("s1",)
        found.append((mixture.streams["a"].num_samples, make_plan(mixture, config, 0).digest))
    everything, pairs, all_again = found
    assert (everything[0], pairs[0], all_again[0]) == (21, 12, 21)
    assert everything[1] == all_again[1] != pairs[1]
    wrong = stream.model_copy(update={"filter": FilterConfig(sensors=("s22",))})
    with pytest.raises(ConfigError, match=r"a.filter.sensors: no sensor 's22' in pairs. Did you mean 's2'"):
        open_mixture(DataConfig(root=str(tmp_path), streams={"a": wrong}))


def test_only_the_bytes_of_what_passes_are_read(root: Path) -> None:
    config = data_config(root, {"labels": {"class": ("even",)}})
    mixture = open_mixture(config)
    stream = mixture.streams["a"]
    sizes = 0
    for shard in stream.shards:
        sidecar = load_sidecar(shard.store, shard.entry.name)
        assert shard.selected is not None
        sizes += sum(m.size for index in shard.selected for m in sidecar.samples[index].sensors.values())
    with Loader(mixture, config, 0, 0, 1) as loader:
        for _ in range(stream.num_samples // 4 + 1):
            next(loader)
        windows = 2 * config.window_chunks * config.chunk_samples / stream.num_samples
        # Members of a sample lie 512 bytes of header and padding apart, and a json member between samples.
        assert sizes * 0.9 < loader.bytes_read < sizes * (1.6 + windows)


def test_what_cannot_be(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="carries all of s1, s2 and passes the filter"):
        open_mixture(data_config(root, {"labels": {"class": ("neither",)}}))
    for wrong in ({}, {"region": (0, 0, 0, 1)}, {"region": (0, 5, 1, 4)}, {"since": "June"}, {"labels": {}}):
        with pytest.raises(ValueError, match=r"empty filter|no \(west|pattern"):
            FilterConfig(**wrong)
    shutil.copytree(root / "pairs", tmp_path / "pairs")
    damaged = data_config(tmp_path, {"labels": {"class": ("even",)}})
    data = (tmp_path / "pairs" / CATALOG_PATH).read_bytes()
    (tmp_path / "pairs" / CATALOG_PATH).write_bytes(data[:100] + bytes(len(data) // 2 - 100) + data[len(data) // 2 :])
    with pytest.raises(ShardError, match=r"catalog.parquet is damaged: .* Run shard-builder verify"):
        open_mixture(damaged)
    other = make_collection(tmp_path / "other", random_samples([S1, S2], 5), [S1, S2])
    shutil.copy(tmp_path / "other" / CATALOG_PATH, tmp_path / "pairs" / CATALOG_PATH)
    with pytest.raises(ShardError, match=r"catalog.parquet has 0 rows for shard pairs-000000, the manifest says 7"):
        open_mixture(damaged)
    assert other.num_samples == 5
