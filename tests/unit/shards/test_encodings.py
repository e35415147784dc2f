"""Every encoding gives back every raster it holds, whole and in windows, and refuses what is not its own."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import rasterio
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from gfm_pipeline.errors import ConfigError, ShardError
from gfm_pipeline.sensors import Dtype, Quantisation, SensorSpec, builtin_sensor
from gfm_pipeline.shards.codec import CODECS, ENCODINGS, decode, decode_window, encode
from gfm_pipeline.shards.quantise import decode_member, quantise, restore
from shard_builder.config import BuildConfig, resolve_sensors

NAMES = sorted(set(ENCODINGS) - {"jpg"})
DTYPES = get_args(Dtype)
SHAPES = st.one_of(
    st.tuples(st.integers(1, 14), st.integers(1, 140), st.integers(1, 70)),
    st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 70), st.integers(1, 40)),
)


def drawn(seed: int, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    bits = np.random.default_rng(seed).integers(0, 256, (*shape, np.dtype(dtype).itemsize), dtype=np.uint8)
    return bits.view(dtype)[..., 0]  # any bits at all: NaN with payloads, infinities, denormal numbers


def same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


@pytest.mark.parametrize("encoding", NAMES)
@pytest.mark.parametrize("dtype", DTYPES)
@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 99), shape=SHAPES, corner=st.tuples(*[st.floats(0, 1)] * 4))
def test_what_goes_in_comes_out(
    encoding: str, dtype: str, seed: int, shape: tuple[int, ...], corner: tuple[float, float, float, float]
) -> None:
    raster = drawn(seed, dtype, shape)
    extension, _ = ENCODINGS[encoding]
    held = CODECS[extension].dtypes
    if held is not None and dtype not in held:
        with pytest.raises(ShardError, match=f"not {dtype}"):
            encode(raster, encoding)
        return
    data = encode(raster, encoding)
    assert data == encode(raster.copy(), encoding)
    assert same(decode(data, extension, dtype, shape), raster)
    height, width = shape[-2:]
    row, column = int(corner[0] * (height - 1)), int(corner[1] * (width - 1))
    rows, columns = 1 + int(corner[2] * (height - row - 1)), 1 + int(corner[3] * (width - column - 1))
    part = decode_window(data, extension, dtype, shape, (row, column, rows, columns))
    assert same(part, np.ascontiguousarray(raster[..., row : row + rows, column : column + columns]))


@pytest.mark.parametrize("encoding", NAMES)
@settings(max_examples=150, deadline=None)
@given(at=st.floats(0, 1, exclude_max=True), value=st.binary(min_size=1, max_size=6), cut=st.booleans())
def test_damaged_bytes_raise_nothing_but_shard_errors(encoding: str, at: float, value: bytes, cut: bool) -> None:
    raster = drawn(0, "uint16", (3, 20, 17))
    extension, _ = ENCODINGS[encoding]
    data = bytearray(encode(raster, encoding))
    where = int(at * len(data))
    data[where:] = b"" if cut else value + data[where + len(value) :]
    for read in (
        lambda: decode(bytes(data), extension, "uint16", raster.shape),
        lambda: decode_window(bytes(data), extension, "uint16", raster.shape, (3, 3, 9, 9)),
    ):
        try:
            found = read()
        except ShardError:
            continue
        assert found.dtype == np.uint16  # checksums, not codecs, notice what still decodes


@pytest.mark.parametrize("encoding", NAMES)
def test_bytes_that_claim_more_are_refused(encoding: str) -> None:
    extension, _ = ENCODINGS[encoding]
    data = encode(np.zeros((2, 300, 300), np.uint16), encoding)
    for dtype, shape in (("uint16", (2, 30, 30)), ("uint8", (2, 300, 300)), ("uint16", (2, 300, 299))):
        with pytest.raises(ShardError):
            decode(data, extension, dtype, shape)


def test_a_window_that_leaves_the_raster_is_refused() -> None:
    data = encode(np.zeros((1, 8, 8), np.uint8), "npy")
    for window in ((0, 0, 9, 1), (7, 7, 2, 2), (-1, 0, 2, 2)):
        with pytest.raises(ShardError, match="leaves a raster of 8 x 8"):
            decode_window(data, "npy", "uint8", (1, 8, 8), window)


def test_a_window_of_a_tif_decodes_its_strips_only(monkeypatch: pytest.MonkeyPatch) -> None:
    raster = drawn(3, "uint16", (2, 640, 16))
    data = encode(raster, "tif")
    strips: list[int] = []
    whole = tifffile.TiffPage.decode

    def count(self: tifffile.TiffPage) -> object:
        inner = whole.__get__(self)

        def decode_strip(data: bytes, index: int, **more: object) -> object:
            strips.append(index)
            return inner(data, index, **more)

        return decode_strip

    monkeypatch.setattr(tifffile.TiffPage, "decode", property(count))
    assert same(decode_window(data, "tif", "uint16", raster.shape, (100, 2, 60, 9)), raster[:, 100:160, 2:11].copy())
    assert sorted(set(strips)) == [1, 2, 11, 12]


@pytest.mark.filterwarnings("ignore:Dataset has no geotransform")
@pytest.mark.parametrize("shape", [(1, 70, 65), (13, 70, 65), (3, 2, 70, 65)])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_tif_members_open_without_our_code(dtype: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    raster = drawn(1, dtype, shape)
    np.nan_to_num(raster, copy=False)
    data = encode(raster, "tif")
    assert same(tifffile.imread(io.BytesIO(data)).reshape(shape), raster)
    with tarfile.open(tmp_path / "shard.tar", "w") as archive:
        info = tarfile.TarInfo("place.s2.tif")
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
    pages = raster.reshape(-1, *shape[-3:])
    for number, page in enumerate(pages, 1):
        inside = f"/vsitar/{tmp_path}/shard.tar/place.s2.tif"
        with rasterio.open(f"GTIFF_DIR:{number}:{inside}") as opened:
            np.testing.assert_array_equal(opened.read(), page)


SAR = SensorSpec.model_validate(builtin_sensor("s1").model_dump() | {"quantised": {"step": 0.01}})


def test_quantised_values_keep_the_stated_bound() -> None:
    raster = np.random.default_rng(0).normal(-14, 6, (2, 90, 91)).astype(np.float32)
    raster[0, 3, 4] = np.nan
    stored = quantise(raster, SAR)
    assert stored.dtype == np.int16
    back = restore(stored, SAR)
    assert SAR.quantised is not None
    assert SAR.quantised.max_error == 0.005
    assert np.isnan(back[0, 3, 4])
    error = np.nanmax(np.abs(back.astype(np.float64) - raster))
    assert 0.004 < error <= SAR.quantised.max_error + 2e-6  # that of float32 itself
    data = encode(stored, "blosc2")
    np.testing.assert_array_equal(decode_member(data, "blosc2", "int16", raster.shape, SAR), back)
    with pytest.raises(ShardError, match="stored as float32, sensor s1 as int16"):
        decode_member(data, "blosc2", "float32", raster.shape, SAR)


def test_values_out_of_range_are_named() -> None:
    with pytest.raises(ShardError, match=r"s1 holds 400 dB, .* reaches from -327\.67 to 327\.67"):
        quantise(np.full((1, 2, 2), 400, np.float32), SAR)


def test_nonsense_in_a_configuration_is_told() -> None:
    s2 = builtin_sensor("s2")
    for changes, words in (
        ({"s2": {"quantised": {"step": 1}}}, "quantised is for float32 in dB, s2 is uint16"),
        ({"s2": {"codec": "jxl", "dtype": "uint32"}}, "jxl, which holds uint8, uint16, int16, float32; s2 is uint32"),
        ({"s2": {"codec": "zip"}}, "found 'zip', expected one of blosc2, blosc2-lz4, jxl, npy, tif"),
    ):
        config = BuildConfig(source="sen12ms", input="x", output="y", sensors=changes)  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match=words):
            resolve_sensors(config, [s2])
    with pytest.raises(ValueError, match=r"a step of 0\.5 makes it 0\.25"):
        Quantisation(step=0.5, max_error=0.1)
