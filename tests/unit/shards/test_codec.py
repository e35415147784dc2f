"""Every encoding gives back what it was given, or an error."""

from __future__ import annotations

import io

import imagecodecs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gfm_pipeline.errors import ShardError
from gfm_pipeline.shards.codec import decode, encode

DTYPES = ["uint8", "int16", "uint16", "int32", "uint32", "float32", "float64"]


@pytest.mark.parametrize("extension", ["blosc2", "npy"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1, 1), (13, 17, 5), (3, 2, 8, 8), (1, 64, 64)])
def test_round_trip(extension: str, dtype: str, shape: tuple[int, ...]) -> None:
    raster = np.random.default_rng(0).integers(0, 200, shape).astype(dtype)
    data = encode(raster, extension)
    assert data == encode(raster.copy(), extension)
    back = decode(data, extension, dtype, shape)
    assert back.dtype == raster.dtype
    np.testing.assert_array_equal(back, raster)


def test_rasters_that_are_views_are_stored_as_seen() -> None:
    raster = np.arange(60, dtype=np.uint16).reshape(3, 4, 5).transpose(2, 0, 1)[:, ::-1]
    for extension in ("blosc2", "npy"):
        np.testing.assert_array_equal(decode(encode(raster, extension), extension, "uint16", (5, 3, 4)), raster)


@pytest.mark.parametrize("extension", ["blosc2", "npy"])
@given(cut=st.integers(0, 400), flip=st.integers(0, 399))
@settings(max_examples=60, deadline=None)
def test_damaged_bytes_are_an_error_or_an_array_of_the_recorded_shape(extension: str, cut: int, flip: int) -> None:
    raster = np.arange(300, dtype=np.uint16).reshape(3, 10, 10)
    data = bytearray(encode(raster, extension))
    data[flip % len(data)] ^= 0xFF
    for damaged in (bytes(data), bytes(data[: cut % len(data)])):
        try:
            back = decode(damaged, extension, "uint16", (3, 10, 10))
        except ShardError:
            continue
        assert (back.shape, back.dtype) == ((3, 10, 10), np.dtype("uint16"))


def test_other_shapes_and_types_than_recorded_are_refused() -> None:
    data = encode(np.zeros((2, 4, 4), np.uint16), "npy")
    for dtype, shape in (("uint16", (2, 4, 5)), ("int16", (2, 4, 4))):
        with pytest.raises(ShardError, match="the record says"):
            decode(data, "npy", dtype, shape)


@pytest.mark.parametrize("shape", [(2, 4, 3), (2, 4, 5), (2, 40, 400)])
def test_blosc2_members_of_another_size_than_recorded_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShardError, match=r"the record says|cannot decode"):
        decode(encode(np.ones((2, 4, 4), np.uint16), "blosc2"), "blosc2", "uint16", shape)


def test_pickled_arrays_are_refused() -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ShardError, match="which is never loaded"):
        decode(buffer.getvalue(), "npy", "object", (1,))


def test_jpeg_originals_decode_and_are_never_made() -> None:
    image = np.random.default_rng(0).integers(0, 255, (16, 24, 3), dtype=np.uint8)
    data = imagecodecs.jpeg8_encode(image)
    np.testing.assert_array_equal(
        decode(data, "jpg", "uint8", (3, 16, 24)), imagecodecs.jpeg8_decode(data).transpose(2, 0, 1)
    )
    with pytest.raises(ShardError, match="original bytes"):
        encode(image, "jpg")


def test_an_unknown_codec_names_the_known() -> None:
    with pytest.raises(ShardError, match="Did you mean 'blosc2'"):
        encode(np.zeros((1, 1, 1)), "blosc")


@pytest.mark.parametrize("extension", ["pickle", "pkl", "pyd", "pth"])
def test_members_that_would_be_unpickled_have_no_codec(extension: str) -> None:
    with pytest.raises(ShardError, match=f"no codec for members of type '{extension}'"):
        decode(b"cos\nsystem\n(S'false'\ntR.", extension, "uint8", (1, 2, 2))
