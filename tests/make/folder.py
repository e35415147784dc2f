"""Somebody's own data in a layout of its own, zipped, with the options that read it."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import Any, Literal

import h5py
import imagecodecs
import numpy as np
import zarr
from pyproj import CRS

from tests.make.archives import Raster, Truth, tiff, utm, zipped

PLACES = ("alp", "Bern süd", "chur_2")
"""The second one cannot be a key as it is."""
KEYS = {"alp": "alp", "Bern süd": "Bern_s_d-8e2d4838", "chur_2": "chur_2"}
DATES = ("20200103", "20200615", "20201224")
OPTIONS: dict[str, Any] = {
    "archives": True,
    "sensors": {
        "s2": {"files": "mine/S2/{key}_s2.tif", "bands": ["B2", "B3", "B4"], "dtype": "uint16"},
        "rgb": {"files": "mine/photos/{key}.jpg"},
        "thermal": {
            "files": "mine/thermal/{date}/{key}_{band}.tif",
            "bands": ["T10", "T11"],
            "dtype": "float32",
            "units": "K",
        },
        "dem": {
            "files": "mine/cubes/{key}.h5",
            "dataset": "ground/height",
            "bands": ["height"],
            "dtype": "float32",
            "units": "m",
        },
        "wind": {
            "files": "mine/cubes/{key}.h5",
            "dataset": "{band}",
            "axes": "HWT",
            "dates": "when",
            "bands": ["u", "v"],
            "dtype": "int16",
            "units": "cm/s",
        },
        "sar": {
            "files": "mine/sar/{key}.zarr.zip",
            "dataset": "bands",
            "axes": "C_HW",
            "bands": ["VV", "VH"],
            "dtype": "float32",
            "units": "dB",
        },
        "emb": {"files": "mine/npy/{class}/{key}.npy", "bands": ["a", "b"], "dtype": "float32", "units": "1"},
        "lc": {"files": "mine/lc/{key}.png", "bands": ["class"], "dtype": "uint8", "units": "class", "kind": "labels"},
    },
}


def folder(path: Path) -> Truth:
    """Write `mine.zip` and return what is in it."""
    rng = np.random.default_rng(7)
    members: dict[str, bytes] = {}
    truth: Truth = {}
    for i, place in enumerate(PLACES):
        rasters = _rasters(rng, series=3 - i)
        members |= _files(place, rasters)
        truth[KEYS[place]] = rasters
    members["mine/notes.txt"] = b"not an image"
    zipped(path / "mine.zip", members)
    return truth


def broken(path: Path) -> None:
    """Write a `mine.zip` with an array that is pickled and one that is too short."""
    stream = io.BytesIO()
    np.save(stream, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    members = {"mine/npy/x/pickled.npy": stream.getvalue(), "mine/npy/x/short.npy": npy(np.zeros((2, 8, 8)))[:-1]}
    rng = np.random.default_rng(8)
    zipped(path / "mine.zip", members | _files("good", _rasters(rng, 2)))


def npy(array: Raster) -> bytes:
    """Return an array as a .npy file."""
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def hdf5(rasters: dict[str, Raster]) -> bytes:
    """Return an HDF5 file with a raster and a series whose time axis comes last."""
    wind = {band: rasters["wind"][:, i].transpose(1, 2, 0) for i, band in enumerate(("u", "v"))}
    when = np.arange(len(rasters["wind"]), dtype=np.int32) * 5
    return hdf5_file({"ground/height": rasters["dem"][0], **wind, "when": when}, {"when": "days since 2021-02-25"})


def hdf5_file(
    arrays: dict[str, Raster], units: dict[str, str] | None = None, place: dict[str, Raster] | None = None
) -> bytes:
    """Return arrays as an HDF5 file, with CF coordinates in UTM zone 32 where a `place` gives x and y."""
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        for name, array in (arrays | (place or {})).items():
            file[name] = array
        for name, text in (units or {}).items():
            file[name].attrs["units"] = text
        if place:
            file["spatial_ref"] = 0
            file["spatial_ref"].attrs["crs_wkt"] = CRS("EPSG:32632").to_wkt()
    return stream.getvalue()


def zarr_zip(array: Raster, zarr_format: Literal[2, 3] = 2, place: dict[str, Raster] | None = None) -> bytes:
    """Return an array as a zipped zarr group with the array `bands`, and with CF coordinates as above."""
    with tempfile.TemporaryDirectory() as work:
        path = Path(work) / "a.zip"
        with zarr.storage.ZipStore(path, mode="w") as store:
            group = zarr.create_group(store=store, zarr_format=zarr_format)
            group.create_array("bands", data=array, chunks=(1,) * (array.ndim - 2) + (16, 16))
            for name, values in (place or {}).items():
                group.create_array(name, data=values)
            if place:
                group.create_array("spatial_ref", data=np.array(0), attributes={"crs_wkt": CRS("EPSG:32632").to_wkt()})
        return path.read_bytes()


def _rasters(rng: np.random.Generator, series: int) -> dict[str, Raster]:
    jpg = imagecodecs.jpeg8_encode(rng.integers(0, 255, (24, 24, 3)).astype(np.uint8), level=90)
    return {
        "s2": rng.integers(0, 9000, (3, 32, 32)).astype(np.uint16),
        "rgb": imagecodecs.jpeg8_decode(jpg).transpose(2, 0, 1),
        "thermal": rng.normal(290, 9, (series, 2, 16, 16)).astype(np.float32),
        "dem": rng.normal(500, 9, (1, 12, 14)).astype(np.float32),
        "wind": rng.integers(-900, 900, (series + 1, 2, 9, 10)).astype(np.int16),
        "sar": rng.normal(-12, 4, (2, 24, 20)).astype(np.float32),
        "emb": rng.normal(0, 1, (2, 8, 8)).astype(np.float32),
        "lc": rng.integers(0, 9, (1, 32, 32)).astype(np.uint8),
        "jpg": np.frombuffer(jpg, np.uint8),
    }


def _files(place: str, rasters: dict[str, Raster]) -> dict[str, bytes]:
    place_tags = utm(600000, 5400000, 32)
    files = {
        f"mine/S2/{place}_s2.tif": tiff(rasters["s2"].transpose(1, 2, 0), **place_tags),
        f"mine/photos/{place}.jpg": rasters.pop("jpg").tobytes(),
        f"mine/cubes/{place}.h5": hdf5(rasters),
        f"mine/sar/{place}.zarr.zip": zarr_zip(rasters["sar"][:, None]),
        f"mine/npy/{place[0]}/{place}.npy": npy(rasters["emb"]),
        f"mine/lc/{place}.png": imagecodecs.png_encode(rasters["lc"][0]),
    }
    for date, bands in zip(DATES, rasters["thermal"], strict=False):
        for name, band in zip(("T10", "T11"), bands, strict=True):
            files[f"mine/thermal/{date}/{place}_{name}.tif"] = tiff(band)
    return files
