"""Numbers in a PNG are those of the file: of few bits, of a palette, transparent ones not measured."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np
import pytest

from gfm_pipeline.sensors import SensorSpec
from shard_builder.archives import MemberRef
from shard_builder.config import SensorOverride
from shard_builder.planned import PlannedRaster
from shard_builder.rasters.radiometry import Pixels, prepare
from shard_builder.sources.shared.image import decode_image

REF = MemberRef("", "folder", "k1.png", 1)
GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6


def png(rows: np.ndarray[Any, Any], bits: int, colour: int, clear: bytes = b"") -> bytes:
    """Return a PNG of the numbers [H,W,C], `clear` its list of transparent ones."""
    height, width, _ = rows.shape
    if bits == 16:
        lines = [row.astype(">u2").tobytes() for row in rows]
    else:
        plane = np.unpackbits(rows.astype(np.uint8)[..., None], axis=-1)[..., 8 - bits :].reshape(height, -1)
        lines = [np.packbits(row).tobytes() for row in plane]
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))]
    if colour == PALETTE:
        chunks.append((b"PLTE", bytes(range(2**bits)) * 3))
    if clear:
        chunks.append((b"tRNS", clear))
    chunks += [(b"IDAT", zlib.compress(b"".join(b"\0" + line for line in lines))), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body


def packed(data: bytes, bands: int = 1, dtype: str = "uint8", **more: Any) -> Pixels:
    known: dict[str, Any] = {"dtype": dtype, "units": "class", "kind": "labels", **more}
    spec = SensorSpec(name="x", bands=tuple("abcd"[:bands]), **known)
    return prepare(decode_image(data, REF, spec), PlannedRaster((REF,)), spec, SensorOverride())


def numbers(bits: int, channels: int = 1) -> np.ndarray[Any, Any]:
    return (np.arange(11 * 13 * channels).reshape(11, 13, channels) * 7) % 2**bits


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("kind", ["labels", "image"])
def test_grey_of_any_bits_is_as_in_the_file(bits: int, kind: str) -> None:
    dtype = "uint16" if bits == 16 else "uint8"
    found = packed(png(numbers(bits), bits, GREY), dtype=dtype, kind=kind, units="1")
    np.testing.assert_array_equal(found.raster[0], numbers(bits)[..., 0])


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_the_transparent_number_of_grey_was_not_measured(bits: int) -> None:
    dtype = "int32" if bits == 16 else "int16"
    found = packed(png(numbers(bits), bits, GREY, struct.pack(">H", 1)), dtype=dtype, nodata=-1)
    np.testing.assert_array_equal(found.raster[0], np.where(numbers(bits) == 1, -1, numbers(bits))[..., 0])


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("clear", [b"", b"\xff\0", b"\0\0", b"\x80\xff"])
def test_numbers_of_a_palette_are_kept(bits: int, clear: bytes) -> None:
    found = packed(png(numbers(bits), bits, PALETTE, clear), dtype="int16", nodata=-1)
    gone = np.isin(numbers(bits), [i for i, alpha in enumerate(clear) if alpha == 0])
    np.testing.assert_array_equal(found.raster[0], np.where(gone, -1, numbers(bits))[..., 0])


@pytest.mark.parametrize(("colour", "bands"), [(GREY_ALPHA, 1), (RGBA, 3)])
@pytest.mark.parametrize("bits", [8, 16])
def test_alpha_beside_the_bands_is_a_mask(colour: int, bands: int, bits: int) -> None:
    image = numbers(bits, bands + 1)
    image[..., -1] = 2**bits - 1
    image[:4, ..., -1] = 0
    image[4, ..., -1] = 1  # hardly there, but there
    dtype = "uint16" if bits == 16 else "uint8"
    found = packed(png(image, bits, colour), bands, dtype, kind="image", units="1", nodata=2**bits - 1)
    np.testing.assert_array_equal(found.raster[:, 4:], image[4:, :, :-1].transpose(2, 0, 1))
    assert (found.raster[:, :4] == 2**bits - 1).all()
    both = packed(png(image, bits, colour), bands + 1, dtype, kind="image", units="1")
    np.testing.assert_array_equal(both.raster, image.transpose(2, 0, 1))


def test_an_opaque_alpha_changes_nothing() -> None:
    image = numbers(8, 4)
    image[..., -1] = 255
    found = packed(png(image, 8, RGBA), 3, kind="image", units="1")
    np.testing.assert_array_equal(found.raster, image[..., :3].transpose(2, 0, 1))
    assert found.rules == ("alpha channel dropped",)
    image[0, 0, 3] = 0
    said = packed(png(image, 8, RGBA), 3, kind="image", units="1").rules
    assert said == (
        "alpha channel dropped",
        "x: file carries a mask, sensor has no nodata: taken as data; set sensors.x.nodata",
    )


@pytest.mark.parametrize(("colour", "clear"), [(RGB, bytes([0, 9, 0, 9, 0, 9])), (PALETTE, b"\xff" * 9 + b"\0")])
def test_a_transparent_colour_of_rgb_was_not_measured(colour: int, clear: bytes) -> None:
    image = np.full((11, 13, 1 if colour == PALETTE else 3), 7)
    image[:4] = 9
    found = packed(png(image, 8, colour, clear), 3, kind="image", units="1", nodata=0)
    assert found.nodata_share == pytest.approx(4 / 11)
    assert (found.raster[:, 4:] != 0).all()
    assert not found.raster[:, :4].any()
