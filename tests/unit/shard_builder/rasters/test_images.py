"""Tiles and images that are not what they claim."""

from __future__ import annotations

import contextlib
import io
import zlib
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from gfm_pipeline.errors import ItemError
from shard_builder.archives import MemberRef
from shard_builder.config import BuildConfig
from shard_builder.rasters.images import _jpeg_header, _pillow_header, decode_rgb, decode_tiff, image_size, tile_windows
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


REF = MemberRef("a.zip", "zip", "x.img", 1)
SMOOTH = (np.add.outer(np.arange(64), np.arange(64))[..., None] * np.array([1, 2, 0.5]) % 256).astype(np.uint8)


def saved(mode: str, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(SMOOTH).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("mode", "kind", "options"),
    [
        ("RGB", "JPEG", {}),
        ("RGB", "JPEG", {"progressive": True}),
        ("L", "JPEG", {}),
        ("P", "PNG", {}),
        ("P", "PNG", {"transparency": 3}),
        ("1", "PNG", {}),
        ("LA", "PNG", {}),
        ("RGBA", "PNG", {}),
        ("RGB", "TIFF", {}),
        ("RGBA", "TIFF", {}),
        ("L", "TIFF", {"compression": "tiff_lzw"}),
        ("RGB", "TIFF", {"compression": "jpeg"}),
    ],
)
def test_colours_are_those_that_another_library_reads(mode: str, kind: str, options: dict[str, Any]) -> None:
    data = saved(mode, kind, **options)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).transpose(2, 0, 1)
    decoded = decode_rgb(data, REF)
    np.testing.assert_array_equal(decoded.raster, expected)
    assert (decoded.original is not None) == (mode == "RGB" and kind == "JPEG")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (saved("P", "TIFF"), "photometric PALETTE"),
        (saved("CMYK", "TIFF"), "photometric SEPARATED"),
        (tiff(SMOOTH[..., 0]).replace(b"\x06\x01\x03\0\1\0\0\0\1\0", b"\x06\x01\x03\0\1\0\0\0\0\0"), "MINISWHITE"),
        (saved("CMYK", "JPEG"), "has 4 bands"),
        (imagecodecs.png_encode(SMOOTH.astype(np.uint16)), "uint16 pixels, expected 8-bit RGB"),
    ],
)
def test_numbers_that_are_no_intensities_are_refused(data: bytes, words: str) -> None:
    with pytest.raises(ItemError, match=words):
        decode_rgb(data, REF)


@pytest.mark.parametrize("data", [saved("RGB", "JPEG"), saved("RGB", "PNG"), saved("RGB", "TIFF")])
def test_an_image_that_is_cut_short_is_never_half_an_image(data: bytes) -> None:
    for length in range(0, len(data) - 1, 41):
        try:
            raster = decode_rgb(data[:length], REF).raster
        except ItemError:
            continue
        np.testing.assert_array_equal(raster, decode_rgb(data, REF).raster)  # what was cut were no pixels


def test_strips_without_data_are_refused() -> None:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, SMOOTH[..., 0], rowsperstrip=8, compression="zlib")
    data = bytearray(buffer.getvalue())
    with tifffile.TiffFile(io.BytesIO(bytes(data))) as file:
        at = file.pages.first.tags["StripByteCounts"].valueoffset
    data[at : at + 4] = bytes(4)
    with pytest.raises(ItemError, match="without data"):
        decode_tiff(bytes(data), REF)


def test_a_volume_is_no_image() -> None:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, np.zeros((16, 32, 32), np.uint8), volumetric=True, tile=(16, 16, 16))
    for decode in (decode_rgb, decode_tiff):
        with pytest.raises(ItemError, match="axes ZYX"):
            decode(buffer.getvalue(), REF)


def huge(kind: str) -> bytes:
    if kind == "tif":
        data = bytearray(tiff(np.zeros((16, 16), np.uint8)))
        for tag in (256, 257):
            at = data.index(tag.to_bytes(2, "little"), 8)
            data[at + 8 : at + 12] = (2**20).to_bytes(4, "little")
        return bytes(data)
    if kind == "png":
        data = bytearray(saved("RGB", "PNG"))
        data[16:24] = (2**20).to_bytes(4, "big") * 2
        data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
        return bytes(data)
    data = bytearray(saved("RGB", "JPEG"))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = b"\xff\xff\xff\xff"
    return bytes(data)


@pytest.mark.parametrize("kind", ["tif", "png", "jpg"])
def test_a_header_that_claims_too_many_pixels_is_refused_before_it_is_tiled_or_decoded(kind: str) -> None:
    for read in (image_size, decode_rgb):
        with pytest.raises(ItemError, match=r"claims|bomb|no readable image"):
            read(huge(kind), REF)


def test_the_largest_genuine_images_are_welcome() -> None:
    data = bytearray(saved("RGB", "PNG"))
    data[16:24] = (31672).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    large = MemberRef("a.zip", "zip", "x.img", 2**28)
    assert image_size(bytes(data), large) == (31672, 31672)


def test_four_bands_of_a_tiff_are_not_called_alpha() -> None:
    assert decode_rgb(tiff(np.zeros((8, 8, 4), np.uint8)), REF).facts.rules == ("fourth band dropped",)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_damaged_images_raise_nothing_but_item_errors(kind: str) -> None:
    rng = np.random.default_rng(0)
    whole = saved("RGB", kind)
    for _ in range(150):
        data = bytearray(whole)
        reach = min(200, len(data))
        for at in rng.integers(-reach, reach, 3):  # headers are at the front, TIFF directories at either end
            data[at] = rng.integers(0, 256)
        for read in (decode_rgb, decode_tiff, image_size):
            with contextlib.suppress(ItemError):
                read(bytes(data), REF)


def _with_frame(**changes: int) -> bytes:
    """Return a JPEG with other bytes in the header of its frame."""
    data = bytearray(saved("RGB", "JPEG"))
    frame = data.index(b"\xff\xc0")
    for name, value in changes.items():
        data[frame + {"bits": 4, "sampling": 11}[name]] = value
    return bytes(data)


def test_a_jpeg_of_twelve_bits_is_refused() -> None:
    with pytest.raises(ItemError, match="is no readable image"):
        image_size(_with_frame(bits=12), REF)


def test_a_jpeg_of_rare_subsampling_is_read() -> None:
    assert image_size(_with_frame(sampling=0x14), REF) == image_size(_with_frame(), REF)


@settings(max_examples=200, deadline=None)
@given(
    mode=st.sampled_from(["RGB", "L", "CMYK"]),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    how=st.fixed_dictionaries(
        {},
        optional={
            "quality": st.integers(1, 100),
            "progressive": st.booleans(),
            "subsampling": st.integers(0, 2),
            "comment": st.binary(max_size=300),
            "exif": st.just(b"Exif\0\0" + bytes(40)),
        },
    ),
    at=st.floats(0, 1, exclude_max=True),
    damage=st.one_of(st.none(), st.integers(0, 255)),
)
def test_a_jpegs_header_says_what_pillow_reads(
    mode: str, size: tuple[int, int], how: dict[str, Any], at: float, damage: int | None
) -> None:
    stream = io.BytesIO()
    Image.new(mode, size, 77).save(stream, "JPEG", **how)
    data = bytearray(stream.getvalue())
    if damage is not None:
        data[int(at * len(data))] = damage
    try:
        expected = _pillow_header(bytes(data))
    except Exception:
        assert damage is not None
        with pytest.raises(Exception):  # noqa: B017, PT011 - every library has its own for bytes that are no image
            _jpeg_header(bytes(data))
        return
    height, width, bands = _jpeg_header(bytes(data))
    assert (height, width, bands == "RGB") == (*expected[:2], expected[2] == "RGB")


@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_a_claim_that_the_bytes_cannot_hold_is_refused_before_it_is_allocated(kind: str) -> None:
    data = bytearray(saved("L", kind))
    at = data.index(b"IHDR") + 4 if kind == "png" else data.index(b"\xff\xc0") + 5
    side = (16384).to_bytes(4 if kind == "png" else 2, "big")
    data[at : at + 2 * len(side)] = side * 2
    if kind == "png":
        data[at + 13 : at + 17] = zlib.crc32(data[at - 4 : at + 13]).to_bytes(4, "big")
    with pytest.raises(ItemError, match=r"claims 16384 x 16384 pixels in \d+ bytes"):
        decode_rgb(bytes(data), MemberRef("a.zip", "zip", "x.img", len(data)))


def test_an_image_of_one_colour_is_no_bomb() -> None:
    for kind, mode in (("png", "1"), ("png", "RGB"), ("jpeg", "L"), ("jpeg", "RGB")):
        buffer = io.BytesIO()
        Image.new(mode, (4096, 4096)).save(buffer, kind, **({"progressive": True} if kind == "jpeg" else {}))
        data = buffer.getvalue()
        assert image_size(data, MemberRef("a.zip", "zip", "x.img", len(data))) == (4096, 4096)
