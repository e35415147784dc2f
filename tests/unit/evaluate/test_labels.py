"""Label rasters are read as the loader reads: checked, again when bytes come wrong, and never as what they are not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gfm_pipeline.data.choose import ShardRef
from gfm_pipeline.errors import ChecksumError, ConfigError
from gfm_pipeline.evaluate.labels import read_labels
from gfm_pipeline.sensors import SensorSpec
from gfm_pipeline.shards.manifest import load_sidecar, tar_path
from gfm_pipeline.storage import LocalStore
from tests.make_collection import make_collection

COVER = SensorSpec(name="lc", bands=("IGBP",), dtype="uint8", units="class", kind="labels", nodata=255)
SIDE = 8


def cover(number: int) -> np.ndarray:
    raster = np.full((1, SIDE, SIDE), number % 3, np.uint8)
    raster[:, :2] = 255
    return raster


class Flaky(LocalStore):
    """A store whose reads bring wrong bytes so many times."""

    def __init__(self, folder: Path, wrong: int) -> None:
        super().__init__(folder)
        self.wrong = wrong

    def local_path(self, path: str) -> None:
        return None

    def get_ranges(self, path: str, ranges: Any, stop: Any = None) -> list[bytes]:
        parts = [bytes(part) for part in super().get_ranges(path, ranges, stop)]
        if self.wrong > 0:
            self.wrong -= 1
            return [bytes(len(part)) for part in parts]
        return parts


def shards_of(folder: Path, store: LocalStore, **changes: Any) -> list[ShardRef]:
    samples = [(f"k{number}", {"lc": cover(number)}) for number in range(6)]
    manifest = make_collection(folder, samples, [COVER], samples_per_shard=4, **changes)
    return [ShardRef(store, entry, manifest.sensors) for entry in manifest.shards]


EXPECTED = {f"k{number}": {str(number % 3): 1.0} for number in range(6)}
KEYS = frozenset(EXPECTED)


@pytest.mark.parametrize("wrong", [0, 1, 2])
def test_bytes_that_come_wrong_are_read_again(tmp_path: Path, wrong: int) -> None:
    store = Flaky(tmp_path / "c", wrong)
    assert read_labels(shards_of(tmp_path / "c", store), "lc.IGBP", KEYS, "evaluate.probes.p") == EXPECTED
    assert store.wrong == 0


def test_bytes_that_stay_wrong_are_reported_by_sample_sensor_and_place(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "c")
    shards = shards_of(tmp_path / "c", store)
    member = load_sidecar(store, shards[0].entry.name).samples[1].sensors["lc"]
    path = tmp_path / "c" / tar_path(shards[0].entry.name)
    data = bytearray(path.read_bytes())
    data[member.offset + member.size // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(ChecksumError, match=f"sample k1, sensor lc at byte {member.offset}: .* after 4 reads"):
        read_labels(shards, "lc.IGBP", KEYS, "evaluate.probes.p")


def test_a_raster_in_which_nothing_is_known_is_no_label(tmp_path: Path) -> None:
    blank = np.full((1, SIDE, SIDE), 255, np.uint8)
    manifest = make_collection(tmp_path / "c", [("k0", {"lc": blank}), ("k1", {"lc": cover(1)})], [COVER])
    refs = [ShardRef(LocalStore(tmp_path / "c"), entry, manifest.sensors) for entry in manifest.shards]
    with pytest.raises(ConfigError, match=r"1 samples have no lc.IGBP, the first is k0"):
        read_labels(refs, "lc.IGBP", {"k0", "k1"}, "evaluate.probes.p")


def test_only_the_wanted_samples_are_read(tmp_path: Path) -> None:
    refs = shards_of(tmp_path / "c", LocalStore(tmp_path / "c"))
    assert read_labels(refs, "lc.IGBP", {"k1", "k5"}, "p") == {"k1": {"1": 1.0}, "k5": {"2": 1.0}}
