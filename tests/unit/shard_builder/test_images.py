"""Tiles and images that are not what they claim."""

from __future__ import annotations

import numpy as np
import pytest

from gfm_pipeline.errors import ItemError
from shard_builder.archive import MemberRef
from shard_builder.config import BuildConfig
from shard_builder.image_archive import unique_keys
from shard_builder.images import decode_rgb, decode_tiff, tile_windows
from tests.make.archives import tiff


def config(**more: object) -> BuildConfig:
    return BuildConfig(source="mdas", input="x", output="y", **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(("height", "width"), [(384, 384), (520, 1176), (385, 767), (800, 800)])
def test_shifted_tiles_cover_every_pixel(height: int, width: int) -> None:
    covered = np.zeros((height, width), int)
    windows = tile_windows(height, width, config(tile_px=384))
    for row, column, h, w in windows:
        assert (h, w) == (384, 384)
        covered[row : row + h, column : column + w] += 1
    assert covered.min() == 1
    assert len(set(windows)) == len(windows) == -(-height // 384) * -(-width // 384)


def test_dropped_edges_leave_whole_steps_only() -> None:
    assert tile_windows(520, 1176, config(tile_px=384, edge="drop")) == [(0, c, 384, 384) for c in (0, 384, 768)]
    assert len(tile_windows(512, 512, config(tile_px=256, stride_px=128))) == 9


def test_an_image_smaller_than_a_tile_is_an_item_error() -> None:
    with pytest.raises(ItemError, match="100 x 400 px is too small"):
        tile_windows(100, 400, config(tile_px=384))


def test_a_tiff_that_claims_terabytes_is_refused() -> None:
    data = bytearray(tiff(np.zeros((16, 16), np.uint8)))
    for tag in (256, 257):  # ImageWidth, ImageLength
        at = data.index(tag.to_bytes(2, "little"), 8)
        data[at + 8 : at + 12] = (2**20).to_bytes(4, "little")
    with pytest.raises(ItemError, match=r"bomb|cannot be decoded"):
        decode_tiff(bytes(data), MemberRef("a.zip", "zip", "x.tif", len(data)))


@pytest.mark.parametrize("data", [b"", b"GIF89a", b"\xff\xd8\xff\xe0 no jpeg", b"\x89PNG\r\n\x1a\n", b"II*\0"])
def test_bytes_that_are_no_image_are_item_errors(data: bytes) -> None:
    with pytest.raises(ItemError, match=r"a\.zip!x\.jpg"):
        decode_rgb(data, MemberRef("a.zip", "zip", "x.jpg", len(data)))


def test_keys_are_unique_short_and_stable() -> None:
    members = ["a b.jpg", "a_b.jpg", "A_b.jpg", "c.jpg", "x" * 300 + ".jpg", "ü.png", "ä.png"]
    keys = unique_keys(members)
    assert len({key.lower() for key in keys}) == len(members)
    assert keys[3] == "c"
    assert max(map(len, keys)) <= 48
    assert unique_keys(members[3:4]) == ["c"]
