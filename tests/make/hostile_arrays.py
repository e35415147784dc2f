"""Array and image files that nobody should trust: one file of each kind of lie, by the name of its folder and key.

`good` ones stand among them. All are small; what they claim is not.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import imagecodecs
import numcodecs
import numpy as np

from tests.make.archives import tiff
from tests.make.hostile import HUGE_PNG, IMAGE, huge_tiff

PIXELS = np.arange(128, dtype=np.uint16).reshape(2, 8, 8)
SERIES = np.arange(384, dtype=np.uint16).reshape(3, 2, 8, 8)
NESTED = 1_000_000
"""Brackets in each other."""
FLIPS = 12
"""Damaged copies of each format, with a few bits changed or cut short; some may still be whole."""
BOMB = 2**27
"""Bytes a chunk of 128 unpacks to: enough to show in a process's memory."""


def files() -> Iterator[tuple[str, str, bytes]]:
    """Yield (folder, key, bytes). The key begins with "good", "bad", or "flip" for damage that may mean nothing."""
    for folder, makers in (("h5", _hdf5()), ("dated", _dated()), ("npy", _npy()), ("zarr", _zarr()), ("tif", _tiff())):
        for key, data in makers:
            yield folder, key, data
    yield from (("png", key, data) for key, data in _png())


def flipped(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield copies with bits changed and copies that are cut."""
    rng = np.random.default_rng(len(data))
    for number in range(FLIPS):
        changed = bytearray(data)
        for at, bit in zip(rng.integers(0, len(data), 3), rng.integers(0, 8, 3), strict=True):
            changed[at] ^= 1 << bit
        yield f"flip{number}", bytes(changed)
    for number in range(4):
        yield f"bad-cut{number}", data[: len(data) * number // 4]


def hdf5(write: Callable[[h5py.File], object]) -> bytes:
    """Return an HDF5 file in memory."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        write(file)
    return buffer.getvalue()


def _hdf5() -> Iterator[tuple[str, bytes]]:
    good = hdf5(lambda f: f.create_dataset("a", data=PIXELS))
    yield "good", good
    yield from flipped(good)
    for name, dtype in {
        "object": h5py.string_dtype(),
        "compound": [("x", "u2"), ("y", "u2")],
        "opaque": np.dtype("V16"),
        "reference": h5py.ref_dtype,
        "vlen": h5py.vlen_dtype(np.uint16),
        "text": "S8",
        "complex": "c8",
        "inner": np.dtype((np.uint16, (4,))),
    }.items():
        yield f"bad-{name}", hdf5(lambda f, dtype=dtype: f.create_dataset("a", (2, 8, 8), dtype))
    for name, shape in {
        "scalar": (),
        "line": (8,),
        "five": (1, 1, 2, 8, 8),
        "empty": (0, 8, 8),
        "hollow": (2, 0, 8),
        "wide": (2, 2**40, 2**20),
        "large": (2, 2**20, 2**20),
        "many": (2**31, 8, 8),
        "absurd": (2**62, 1, 1),
    }.items():
        yield f"bad-{name}", hdf5(lambda f, shape=shape: f.create_dataset("a", shape, "u2"))
    for name, chunks in {"tiny": (1, 1, 1), "thin": (1, 1, 2**13), "huge": (2, 2**14, 2**14)}.items():
        shape = (2, 2**14, 2**14)
        yield f"bad-chunks-{name}", hdf5(lambda f, c=chunks, s=shape: f.create_dataset("a", s, "f8", chunks=c))
    yield "bad-bomb", packed(bombs()["zlib"], compression="gzip")
    yield "bad-bomb-lzf", packed(b"\0\0" + b"\xe0\xff\0" * 2**20, compression="lzf")
    yield "bad-bomb-checked", packed(bombs()["zlib"] + bytes(4), compression="gzip", shuffle=True, fletcher32=True)
    yield "bad-bomb-twice", hdf5(_packed_twice)
    yield "bad-null", hdf5(lambda f: f.create_dataset("a", data=h5py.Empty("u2")))
    yield "bad-group", hdf5(lambda f: f.create_group("a"))
    yield "bad-lacking", hdf5(lambda f: f.create_dataset("b", data=PIXELS))
    yield "bad-soft", hdf5(lambda f: f.__setitem__("a", h5py.SoftLink("/a")))
    yield "bad-link", hdf5(lambda f: f.__setitem__("a", h5py.ExternalLink("/etc/passwd", "/")))
    yield "bad-external", hdf5(lambda f: f.create_dataset("a", (2, 8, 8), "u2", external=[("/etc/passwd", 0, 256)]))
    yield "bad-virtual", hdf5(_virtual)
    yield "bad-magic", b"\x89HDF\r\n\x1a\n" + bytes(512)
    yield "bad-brackets", b"[" * 5000


def packed(chunk: bytes, **filters: Any) -> bytes:
    """Return an array of one chunk whose stored bytes are these."""

    def write(file: h5py.File) -> None:
        array = file.create_dataset("a", (2, 8, 8), "u2", chunks=(2, 8, 8), **filters)
        array.id.write_direct_chunk((0, 0, 0), chunk)

    return hdf5(write)


def _packed_twice(file: h5py.File) -> None:
    """Make a chunk that unpacks to one that unpacks to very much."""
    settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    settings.set_chunk((2, 8, 8))
    settings.set_deflate(1)
    settings.set_deflate(1)
    space = h5py.h5s.create_simple((2, 8, 8))
    array = h5py.h5d.create(file.id, b"a", h5py.h5t.STD_U16LE, space, settings)
    array.write_direct_chunk((0, 0, 0), zlib.compress(bombs()["zlib"]))


def _virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((2, 8, 8), "u2")
    layout[:] = h5py.VirtualSource("/etc/passwd", "a", (2, 8, 8))
    file.create_virtual_dataset("a", layout)


def dated(values: Any, units: Any = "days since 2020-01-01", **attributes: Any) -> bytes:
    """Return a series with times beside it."""

    def write(file: h5py.File) -> None:
        file.create_dataset("a", data=SERIES)
        time = values(file) if callable(values) else file.create_dataset("time", data=values)
        if units is not None:
            time.attrs["units"] = units
        for name, value in attributes.items():
            time.attrs[name] = value

    return hdf5(write)


def _dated() -> Iterator[tuple[str, bytes]]:
    yield "good", dated([0.0, 1.0, 2.0])
    for name, number in {
        "late": 1e300,
        "early": -1e300,
        "nan": np.nan,
        "inf": np.inf,
        "far": 1e12,
        "ago": -1e9,
    }.items():
        yield f"bad-{name}", dated([0.0, 1.0, number])
    for name, units in {
        "none": None,
        "odd": "fortnights since 2020-01-01",
        "zero": "days since 0000-00-00",
        "month": "days since 2020-13-45",
        "words": "days since the flood",
        "number": 7,
        "list": [1, 2],
        "long": "days since 2020-01-01" + "9" * 5000,
        "bytes": np.bytes_(b"\xff\xfe"),
    }.items():
        yield f"bad-units-{name}", dated([0.0, 1.0, 2.0], units)
    yield "bad-count", dated([0.0, 1.0])
    yield "bad-whole", dated(np.array([99999999, 1, 2]), None)
    yield "bad-text", dated(np.array([b"x", b"y", b"z"]), None)
    yield "bad-utf8", dated(np.array([b"\xff\xff", b"\xfe", b"\x80"]), None)
    yield "bad-days", dated(np.array([b"20209999", b"20200231", b"20200101"]), None)
    yield "bad-null", dated(lambda f: f.create_dataset("time", data=h5py.Empty("f8")))
    yield "bad-scalar", dated(1.0)
    yield "bad-milliard", dated(lambda f: f.create_dataset("time", (2**36,), "f8", chunks=(2**10,)))
    yield "bad-plane", dated(lambda f: f.create_dataset("time", (2**18, 2**18), "f8", chunks=(1, 2**10)))
    yield "bad-group", dated(lambda f: f.create_group("time"))
    yield "bad-pairs", dated(lambda f: f.create_dataset("time", (3,), [("x", "f8")]))
    yield "bad-calendar", dated([0.0, 1.0, 2.0], calendar="of the moon")


def npy(
    header: str, data: bytes = PIXELS.tobytes(), version: tuple[int, int] = (1, 0), length: int | None = None
) -> bytes:
    """Return a .npy file with any header."""
    text = header.encode("latin-1")
    code = "<H" if version[0] == 1 else "<I"
    return (
        b"\x93NUMPY"
        + bytes(version)
        + struct.pack(code, len(text) if length is None else length)
        + text
        + PIXELS.tobytes()
    )


def _npy() -> Iterator[tuple[str, bytes]]:
    head = "{{'descr': {}, 'fortran_order': {}, 'shape': {}, }}\n"
    good = npy(head.format("'<u2'", False, (2, 8, 8)))
    yield "good", good
    yield from flipped(good)
    for name, shape in {
        "negative": "(-2, 8, 8)",
        "twice": "(-2, -8, 8)",
        "float": "(2.0, 8, 8)",
        "text": "('2', 8, 8)",
        "none": "None",
        "list": "[2, 8, 8]",
        "nothing": "()",
        "empty": "(0, 8, 8)",
        "huge": f"({2**40}, {2**40})",
        "longer": f"({2**80}, 8, 8)",
        "nested": "(" * 200 + ")" * 200,
        "sum": "(1 + 1, 8, 8)",
        "call": "(__import__('os').getpid(), 8, 8)",
    }.items():
        yield f"bad-{name}", npy(head.format("'<u2'", False, shape))
    for name, descr in {
        "object": "'|O'",
        "fields": "[('x', '<u2')]",
        "string": "'<U8'",
        "void": "'V2'",
        "date": "'<M8[s]'",
        "complex": "'<c8'",
        "unknown": "'<q9'",
        "subarray": f"('<u2', ({2**40},))",
        "nested": "[" * 300 + "]" * 300,
        "number": "7",
    }.items():
        yield f"bad-dtype-{name}", npy(head.format(descr, False, (2, 8, 8)))
    yield "bad-order", npy(head.format("'<u2'", "'x'", (2, 8, 8)))
    yield "bad-keys", npy("{'descr': '<u2'}\n")
    yield "bad-more", npy("{'descr': '<u2', 'fortran_order': False, 'shape': (2, 8, 8), 'x': 1}\n")
    yield "bad-tuple", npy("(1, 2, 3)\n")
    yield "bad-length", npy(head.format("'<u2'", False, (2, 8, 8)), version=(2, 0), length=2**32 - 1)
    yield "bad-version", npy(head.format("'<u2'", False, (2, 8, 8)), version=(9, 9))
    yield "bad-long", npy(" " * 100_000 + head.format("'<u2'", False, (2, 8, 8)), version=(2, 0))
    yield "bad-brackets", npy("[" * NESTED, version=(2, 0))


ZARR2: dict[str, Any] = {
    "zarr_format": 2,
    "shape": [2, 8, 8],
    "chunks": [2, 8, 8],
    "dtype": "<u2",
    "compressor": None,
    "fill_value": 0,
    "order": "C",
    "filters": None,
}
ZARR3: dict[str, Any] = {
    "zarr_format": 3,
    "node_type": "array",
    "shape": [2, 8, 8],
    "data_type": "uint16",
    "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [2, 8, 8]}},
    "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
    "fill_value": 0,
    "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
    "attributes": {},
}


def zipped(**members: bytes | str) -> bytes:
    """Return a zip of members, whose names have __ for a dot and -- for a slash."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name.replace("__", ".").replace("--", "/"), data)
    return buffer.getvalue()


def zarr2(chunk: bytes = PIXELS.tobytes(), **changes: Any) -> bytes:
    """Return a zipped array of format 2 with some of its metadata replaced."""
    return zipped(__zarray=json.dumps(ZARR2 | changes), **{"0.0.0": chunk})


def zarr3(chunk: bytes = PIXELS.tobytes(), **changes: Any) -> bytes:
    """Return a zipped array of format 3 with some of its metadata replaced."""
    return zipped(**{"zarr__json": json.dumps(ZARR3 | changes), "c--0--0--0": chunk})


def _zarr() -> Iterator[tuple[str, bytes]]:
    yield "good", zarr2()
    yield "good3", zarr3()
    yield from flipped(zarr2())
    shapes: dict[str, Any] = {
        "negative": [-2, 8, 8],
        "float": [2.5, 8, 8],
        "text": ["2", 8, 8],
        "null": None,
        "word": "2,8,8",
        "none": [],
        "line": [8],
        "wide": [2, 2**40, 2**40],
        "huge": [2**70, 8, 8],
        "object": {"a": 1},
    }
    chunks: dict[str, Any] = {
        "zero": [0, 8, 8],
        "negative": [-1, 8, 8],
        "huge": [2, 2**20, 2**20],
        "rank": [8, 8],
        "null": None,
        "text": ["a", "b", "c"],
        "float": [0.5, 8, 8],
    }
    for name, shape in shapes.items():
        yield f"bad-shape-{name}", zarr2(shape=shape)
        yield f"bad-shape3-{name}", zarr3(shape=shape)
    for name, cut in chunks.items():
        yield f"bad-chunks-{name}", zarr2(chunks=cut)
        grid = {"name": "regular", "configuration": {"chunk_shape": cut}}
        yield f"bad-chunks3-{name}", zarr3(chunk_grid=grid)
    for name, dtype in {
        "object": "|O",
        "unknown": "<q7",
        "text": "<U8",
        "fields": [["x", "<u2"]],
        "null": None,
    }.items():
        yield f"bad-dtype-{name}", zarr2(dtype=dtype)
    for name, value in {"text": "none at all", "list": [1, 2], "object": {"a": 1}}.items():
        yield f"bad-fill-{name}", zarr2(fill_value=value)
        yield f"bad-fill3-{name}", zarr3(fill_value=value)
    for name, codec in {
        "unknown": {"id": "nobody-knows"},
        "pickle": {"id": "pickle"},
        "json": {"id": "json2"},
        "number": 7,
        "no-id": {"level": 1},
        "options": {"id": "zlib", "level": "much"},
    }.items():
        yield f"bad-codec-{name}", zarr2(compressor=codec)
    for name, codecs in {
        "unknown": [{"name": "nobody-knows"}],
        "none": [],
        "text": "bytes",
        "shards": [{"name": "sharding_indexed", "configuration": {"chunk_shape": [0, 0, 0], "codecs": []}}],
        "pickle": [{"name": "numcodecs.pickle"}],
    }.items():
        yield f"bad-codec3-{name}", zarr3(codecs=codecs)
    yield "bad-type3", zarr3(data_type="r4096")
    yield "bad-type3-object", zarr3(data_type={"name": "object"})
    yield "bad-grid3", zarr3(chunk_grid={"name": "odd"})
    yield "bad-node3", zarr3(node_type="planet")
    yield "bad-order", zarr2(order="X")
    yield "bad-format", zarr2(zarr_format=9)
    yield "bad-short", zarr2(chunk=b"12")
    yield "bad-brackets", zipped(__zarray="[" * NESTED)
    yield "bad-brackets3", zipped(zarr__json='{"a":' * NESTED)
    yield "bad-twice", zipped(__zarray=json.dumps(ZARR2)[:-1] + ', "shape": [4, 4]}')
    yield "bad-attributes", zipped(__zarray=json.dumps(ZARR2), __zattrs="[" * NESTED, **{"0.0.0": PIXELS.tobytes()})
    yield "bad-nothing", zipped(readme="no array")
    for name, packed in bombs().items():
        ids = {"gzip": {"id": "gzip", "level": 1}, "blosc": {"id": "blosc"}}
        yield f"bad-bomb-{name}", zarr2(chunk=packed, compressor=ids.get(name, {"id": name}))
    zstd, small = bombs()["zstd"], imagecodecs.zstd_encode(PIXELS.tobytes(), level=1)
    yield "bad-bomb-zstd-second", zarr2(chunk=small + zstd, compressor={"id": "zstd"})
    yield "bad-bomb-zstd-skipped", zarr2(chunk=b"\x5a\x2a\x4d\x18\x04\0\0\0abcd" + zstd, compressor={"id": "zstd"})
    yield "bad-bomb-lz4", zarr2(chunk=numcodecs.LZ4().encode(bytes(BOMB)), compressor={"id": "lz4"})
    yield "bad-bomb-lz4-lie", zarr2(chunk=b"\xff\xff\xff\x7f\0", compressor={"id": "lz4"})
    twice = {"compressor": {"id": "zlib"}, "filters": [{"id": "bz2"}]}
    yield "bad-bomb-twice", zarr2(chunk=zlib.compress(bombs()["bz2"]), **twice)
    yield (
        "bad-bomb3-zstd",
        zarr3(
            chunk=bombs()["zstd"],
            codecs=[*ZARR3["codecs"], {"name": "zstd", "configuration": {"level": 1, "checksum": False}}],
        ),
    )


@cache
def bombs() -> dict[str, bytes]:
    """Chunks of a few kilobytes that hold BOMB zero bytes, some of them in several streams."""
    part, parts = bytes(2**24), BOMB >> 24
    whole = zlib.compressobj(1)
    return {
        "zlib": b"".join([*(whole.compress(part) for _ in range(parts)), whole.flush()]),
        "gzip": gzip.compress(part, 1) * parts,
        "bz2": bz2.compress(part, 1) * parts,
        "lzma": lzma.compress(part, preset=0) * parts,
        "zstd": imagecodecs.zstd_encode(bytes(BOMB), level=1),
        "blosc": numcodecs.Blosc("zstd", 1).encode(bytes(BOMB)),
    }


def _tiff() -> Iterator[tuple[str, bytes]]:
    good = tiff(np.moveaxis(PIXELS, 0, -1).astype(np.uint16))
    yield "good", good
    yield from flipped(good)
    yield "bad-huge", huge_tiff()
    yield "bad-tall", huge_tiff(8, 2**30)
    yield "bad-loop", b"II*\x00\x08\x00\x00\x00" + struct.pack("<H", 0) + struct.pack("<I", 8)
    yield "bad-far", b"II*\x00" + struct.pack("<I", 2**31)
    yield "bad-many", b"II*\x00\x08\x00\x00\x00" + struct.pack("<H", 65535)
    yield "bad-big", b"II+\x00\x08\x00\x00\x00" + struct.pack("<Q", 2**62)
    yield "bad-text", b"<?xml version='1.0'?>" + b"<a>" * 10_000
    yield "bad-brackets", b"{" * 10_000


def _png() -> Iterator[tuple[str, bytes]]:
    yield "good", IMAGE
    yield from flipped(IMAGE)
    yield "bad-huge", HUGE_PNG
    yield "bad-magic", IMAGE[:8]
    yield "bad-tail", IMAGE[:-20] + bytes(20)
    yield "bad-chunk", IMAGE[:8] + struct.pack(">I", 2**31 - 1) + IMAGE[12:]
    yield "bad-zero", IMAGE[:16] + struct.pack(">II", 0, 0) + IMAGE[24:]
    bomb = zlib.compress(bytes(2**26), 9)
    text = b"zTXt" + b"k\x00\x00" + bomb
    yield (
        "flip-text",
        IMAGE[:33] + struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text)) + IMAGE[33:],
    )


def special_files(folder: Path) -> list[str]:
    """Make a pipe, links and a socket in a folder; return their keys."""
    import os
    import socket

    os.mkfifo(folder / "bad-pipe.npy")
    (folder / "bad-device.npy").symlink_to("/dev/zero")
    (folder / "bad-loop.npy").symlink_to(folder / "bad-loop.npy")
    (folder / "bad-passwd.npy").symlink_to("/etc/passwd")
    here = os.open(folder, os.O_RDONLY)
    try:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(f"/proc/self/fd/{here}/bad-socket.npy")
    finally:
        os.close(here)
    return ["bad-pipe", "bad-device", "bad-loop", "bad-passwd", "bad-socket"]
