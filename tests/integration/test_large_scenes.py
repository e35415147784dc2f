"""Scenes that are larger than what a build may take of memory."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile

from tests.conftest import run_command
from tests.contracts.test_sources import read_with_public_libraries
from tests.make.archives import tiff, utm

SIDE = 12000
SCENE_BYTES = SIDE * SIDE * 3
SENSORS = {
    "big": {"files": "{key}_big.tif", "bands": ["r", "g", "b"], "dtype": "uint8", "units": "1"},
    "small": {"files": "{key}_small.tif", "bands": ["v"], "dtype": "uint16", "units": "1"},
}
BUILD = """
import json, re, sys
from shard_builder.build.build import build_collection
from shard_builder.config import BuildConfig

def build(name, grid, stride):
    options = {"sensors": json.loads(sys.argv[2]), "grid": grid}
    config = BuildConfig(source="scenes", input=f"{sys.argv[1]}/{name}", output=f"{sys.argv[1]}/{name}_{grid}",
                         options=options, tile_px=64, stride_px=stride)
    build_collection(config, "build", lambda _: None)
    with open("/proc/self/status") as status:  # of this program only: ru_maxrss begins with the parent's
        return int(re.search("VmHWM:\\s+(\\d+)", status.read())[1]) * 1024

build("warm", "big", 64), build("warm", "small", 64)
before = build("warm", "big", 64)
print(json.dumps([build("scene", "big", 64) - before, build("scene", "small", 64) - before]))
"""


def tiles() -> Iterator[np.ndarray]:
    tile = np.add.outer(np.arange(512), np.arange(512))
    for i in range((-(-SIDE // 512)) ** 2):
        yield np.stack([tile + i, tile, tile - i], axis=-1).astype(np.uint8)


def write_scene(path: Path, kind: str) -> None:
    place = utm(600000, 5400000, 32)
    if kind == "tiles":
        shape = (SIDE, SIDE, 3)
        tifffile.imwrite(
            path, tiles(), shape=shape, dtype=np.uint8, tile=(512, 512), compression="zlib", photometric="rgb", **place
        )
        return
    scene = tifffile.memmap(path, shape=(SIDE, SIDE, 3), dtype=np.uint8, photometric="rgb", **place)
    scene[6000:6400, 6000:6400] = np.arange(400)[:, None, None] % 251  # the rest takes no disk


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the peak of a process is read from /proc")
@pytest.mark.parametrize("kind", ["tiles", "one strip"])
def test_memory_stays_flat(kind: str, tmp_path: Path) -> None:
    for name, middle in (("warm", 0), ("scene", 6000)):
        (tmp_path / name).mkdir()
        small = np.arange(1, 150 * 150 + 1).reshape(150, 150).astype(np.uint16)
        place = utm(600000 + 10 * middle + 4, 5400000 - 10 * middle - 4, 32)
        (tmp_path / name / "x_small.tif").write_bytes(tiff(small, **place))
    warm = np.zeros((200, 200, 3), np.uint8)
    (tmp_path / "warm" / "x_big.tif").write_bytes(tiff(warm, **utm(600000, 5400000, 32)))
    write_scene(tmp_path / "scene" / "x_big.tif", kind)
    done = run_command(sys.executable, "-c", BUILD, str(tmp_path), json.dumps(SENSORS))
    grown = json.loads(done.stdout.splitlines()[-1])
    print(f"{kind}: {SCENE_BYTES / 2**20:.0f} MiB of pixels, memory grew by {[round(g / 2**20) for g in grown]} MiB")
    assert max(grown) < SCENE_BYTES / 4
    scene = tifffile.memmap(tmp_path / "scene" / "x_big.tif") if kind == "one strip" else None
    found = list(read_with_public_libraries(tmp_path / "scene_big"))
    assert len(found) == 9
    for key, rasters, _ in found:
        row, column = (int(part[1:]) for part in key.split("_")[1:])
        if scene is not None:
            cut = scene[row : row + 64, column : column + 64].transpose(2, 0, 1)
            np.testing.assert_array_equal(rasters["big"], cut)
        assert rasters["big"].any()
