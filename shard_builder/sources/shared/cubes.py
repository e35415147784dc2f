"""Arrays in HDF5, NetCDF and zarr files: windows of them as rasters, with their dates and their place."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from gfm_pipeline.errors import ItemError
from gfm_pipeline.sensors import SensorSpec
from gfm_pipeline.shards.codec import Raster
from shard_builder.archives import ArchiveReader, MemberRef, item_error
from shard_builder.planned import Window
from shard_builder.rasters.georeference import Georeference
from shard_builder.rasters.location import rules_of
from shard_builder.rasters.raster import Decoded, Facts, Scaling
from shard_builder.rasters.tiff_page import MAX_PIXELS
from shard_builder.sources.shared.cf import band_names_of, grid_of
from shard_builder.sources.shared.cf_time import read_dates
from shard_builder.sources.shared.cf_values import CfValues, read_values, with_sign
from shard_builder.sources.shared.cube_limits import check_array, check_lookups, check_stored, check_table
from shard_builder.sources.shared.npy import native
from shard_builder.sources.shared.packed_size import compressor_of
from shard_builder.sources.shared.patterns import FilePattern
from shard_builder.sources.shared.sensor import OwnSensor
from shard_builder.sources.shared.zarr_store import is_zarr, open_zarr

HDF5_EXTENSIONS = (".h5", ".hdf5", ".he5", ".nc", ".nc4")
_AXES = {2: "HW", 3: "CHW", 4: "TCHW"}


def is_cube(path: str) -> bool:
    """Return whether a path is that of an HDF5, NetCDF or zarr file, or lies in a zarr folder."""
    return is_zarr(path) or path.lower().endswith(HDF5_EXTENSIONS)


def _open_hdf5(file: IO[bytes], ref: MemberRef, path: Path | None) -> Any:
    """Open a file, by its path where that is trusted: links lead on from there."""
    import h5py

    head = file.read(3)
    file.seek(0)
    if head == b"CDF":
        file.close()
        raise ItemError(
            f"{ref.source_file} is NetCDF 3, expected NetCDF 4: convert it, e.g. nccopy -k nc4 old.nc new.nc."
        )
    try:
        return h5py.File(file if path is None else path, "r")
    except OSError as error:
        file.close()
        raise ItemError(f"{ref.source_file} is no readable HDF5 or NetCDF 4: {error}.") from error


def arrange(array: Raster, axes: str | None, where: str) -> Raster:
    """Return an array [C,H,W] or [T,C,H,W], as its axes say; raise ItemError for axes that it has not."""
    axes = axes or _AXES.get(array.ndim, "")
    if len(axes) != array.ndim:
        raise ItemError(
            f"{where} has {array.ndim} axes, {array.shape}, expected {axes or 'HW, CHW or TCHW'}: set axes."
        )
    if any(letter == "_" and length != 1 for letter, length in zip(axes, array.shape, strict=True)):
        raise ItemError(f"{where} has the shape {array.shape}, which is not of length 1 where axes {axes} say so.")
    kept = array[tuple(0 if letter == "_" else slice(None) for letter in axes)]
    letters = axes.replace("_", "")
    order = [letter for letter in "TCHW" if letter in letters]
    kept = kept.transpose([letters.index(letter) for letter in order])
    return kept if "C" in order else np.expand_dims(kept, -3)


class Cube:
    """The array of a sensor in an opened file (or the arrays of its bands): an `OpenRaster`, of a series as well."""

    def __init__(self, refs: tuple[MemberRef, ...], spec: SensorSpec, sensor: OwnSensor, files: ArchiveReader) -> None:
        """Open the file; raise ItemError when it lacks the array, or the array is no image."""
        self._where = refs[0].source_file
        self._bytes = sum(ref.size for ref in refs)
        self._file = None if is_zarr(self._where) else files.open(refs[0])
        trusted = files.trusted_path(refs[0])
        self._linked = trusted is not None
        self._root = _open_hdf5(self._file, refs[0], trusted) if self._file else open_zarr(refs, files)
        path = sensor.dataset or ""
        paths = [path]
        if "{band}" in path:
            paths = [_path_of(self._root, path, band, self._where, self._linked) for band in spec.bands]
        self._arrays = [_array(self._root, path, self._where, linked=self._linked) for path in paths]
        self._checked: dict[int, set[tuple[int, ...]]] = {}
        self._by_band = len(paths) > 1 or "{band}" in path
        first = self._arrays[0]
        self._axes = sensor.axes or _AXES.get(len(first.shape), "")
        if len(self._axes) != len(first.shape):
            found = f"{self._where}: {paths[0]!r} has the shape {tuple(first.shape)}"
            raise ItemError(f"{found}, expected {self._axes or 'HW, CHW or TCHW'}. Set axes.")
        if self._by_band and "C" in self._axes:
            raise ItemError(
                f"{self._where}: axes {self._axes} have C, but dataset {path!r} gives an array to each band."
            )
        if any(array.shape != first.shape for array in self._arrays):
            raise ItemError(f"{self._where}: the arrays of the bands differ in shape.")
        size = dict(zip(self._axes, first.shape, strict=True))
        channels = len(paths) if self._by_band else int(size.get("C", 1))
        self.shape: tuple[int, int, int] = (channels, int(size["H"]), int(size["W"]))
        self.steps: int | None = int(size["T"]) if "T" in size else None
        self.dtype: np.dtype[np.generic] = first.dtype
        names = band_names_of(self._group(paths[0]), first, self._axes.index("C")) if "C" in self._axes else ()
        self._said = [read_values(array) for array in self._arrays]
        self.facts = _facts(self._said, self._georeference(paths[0]), names)

    def read(self, window: Window) -> Decoded:
        """Return the part inside `window`, all bands and dates of it."""
        raster, mask = self._read(window)
        return Decoded(raster, self.facts.at(window[0], window[1]), None, mask)

    def whole(self) -> Decoded:
        """Return all of it; raise ItemError for a file that claims thousands of times the bytes that it has."""
        claimed = (self.steps or 1) * math.prod(self.shape) * self.dtype.itemsize
        if claimed > 4096 * self._bytes:
            raise ItemError(f"{self._where} claims {claimed} bytes of pixels in {self._bytes}: refused as a bomb.")
        raster, mask = self._read((0, 0, *self.shape[1:]))
        return Decoded(raster, self.facts, None, mask)

    def dates(self, path: str) -> tuple[str, ...]:
        """Return the dates of the time steps from the array `path`; raise ItemError when they are not as many."""
        where = f"{self._where}: {path!r}"
        try:
            dates = read_dates(_array(self._root, path, self._where, text=True, linked=self._linked), where)
        except ItemError:
            raise
        except Exception as error:  # numbers that are no dates, text that is no text
            raise item_error(error, where) from error
        if len(dates) != (self.steps or 1):
            raise ItemError(f"{self._where}: {path!r} has {len(dates)} dates for {self.steps or 1} time steps.")
        return dates

    def close(self) -> None:
        """Close an HDF5 file; a zarr store has nothing to close."""
        if self._file:
            self._root.close()
            self._file.close()

    def _read(self, window: Window) -> tuple[Raster, NDArray[np.bool_] | None]:
        row, column, height, width = window
        if (self.steps or 1) * self.shape[0] * height * width > 4 * MAX_PIXELS:
            raise ItemError(f"{self._where} claims {self.steps or 1} x {self.shape} pixels: refused.")
        slices = {"H": slice(row, row + height), "W": slice(column, column + width)}
        chosen = tuple(slices.get(letter, slice(None)) for letter in self._axes)
        sizes = {"H": height, "W": width}
        lengths = tuple(sizes.get(letter, n) for letter, n in zip(self._axes, self._arrays[0].shape, strict=True))
        for number, array in enumerate(self._arrays):
            check_lookups(array, lengths, self._where)
            if self._file and array.chunks:
                ranges = zip(chosen, array.shape, strict=True)
                whole = tuple(part if part.stop else slice(0, length) for part, length in ranges)
                check_stored(array, whole, self._where, self._checked.setdefault(number, set()))
        try:
            parts = [
                arrange(with_sign(array, np.asarray(array[chosen])), self._axes, self._where) for array in self._arrays
            ]
            masks = [said.mask(part) for said, part in zip(self._said, parts, strict=True)]
        except ItemError:
            raise
        except Exception as error:  # damaged chunks raise types of several libraries
            reason = " ".join(str(error).split())[:200]
            raise ItemError(f"{self._where} cannot be decoded: {reason or type(error).__name__}.") from error
        raster = native(np.ascontiguousarray(np.concatenate(parts, axis=-3)))
        if all(mask is None for mask in masks):
            return raster, None
        shaped = [
            np.broadcast_to(np.True_ if mask is None else mask, part.shape)
            for mask, part in zip(masks, parts, strict=True)
        ]
        return raster, np.concatenate(shaped, axis=-3)

    def _group(self, path: str) -> Any:
        folder = path.rpartition("/")[0]
        return self._root[folder] if folder else self._root

    def _georeference(self, path: str) -> Georeference | None:
        group = self._group(path)
        axes = self._axes.index("H"), self._axes.index("W")
        return grid_of(group, self._arrays[0], axes, self.shape[1:]) if hasattr(group, "keys") else None


def _facts(said: list[CfValues], georeference: Georeference | None, bands: tuple[str, ...]) -> Facts:
    """Return the facts of arrays that hold a band each, or of one that holds all."""
    nodata = tuple(values.nodata[0] if values.nodata else None for values in said)
    scales, offsets = tuple(values.scale for values in said), tuple(values.offset for values in said)
    scaled = any(scale != 1 for scale in scales) or any(offsets)
    return Facts(
        georeference,
        nodata if any(value is not None for value in nodata) else (),
        (*dict.fromkeys(rule for values in said for rule in values.rules), *rules_of(georeference)),
        bands=bands,
        scaling=Scaling(scales, offsets, of_floats=True) if scaled else None,
    )


def _path_of(root: Any, template: str, band: str, where: str, linked: bool) -> str:
    """Return the path of a band's array, in whose names the band may be spelt another way (B1, B01)."""
    node, names = root, []
    for part in filter(None, template.split("/")):
        name = part.replace("{band}", band)
        is_group = hasattr(node, "keys")
        if is_group and name != part and name not in node:
            pattern = FilePattern(part, (band,), "dataset")
            fits = [other for other in node.keys() if pattern.match(other)]  # noqa: SIM118  zarr has no other iterator
            name = fits[0] if len(fits) == 1 else name
        names.append(name)
        node = _child(node, name, where, linked) if is_group and name in node else None
    return "/".join(names)


def _array(root: Any, path: str, where: str, text: bool = False, linked: bool = False) -> Any:
    """Return the array at a path; raise ItemError when it is not there or not numbers.

    And, unless links are trusted (`linked`), when it is not in this very file.
    """
    node = root
    for name in filter(None, path.split("/")):
        if not hasattr(node, "keys") or name not in node:
            raise ItemError(f"{where} has no array {path!r}; it holds {_names(node)}.")
        node = _child(node, name, where, linked)
    if not hasattr(node, "shape"):
        raise ItemError(f"{where}: {path or 'its top'!r} is no array; it holds {_names(node)}. Set dataset to one.")
    if not linked and type(node).__module__.startswith("h5py") and (node.external or node.is_virtual):
        raise ItemError(f"{where}: {path!r} keeps its pixels in other files: refused. Set trusted to read them.")
    (check_table if text else check_array)(node, f"{where}: {path!r}")
    limits = getattr(getattr(node, "store", None), "chunks", None)
    if limits is not None:  # zarr, whose decompressors allocate whatever a chunk says
        said = node.metadata.to_dict()
        codecs = said.get("codecs") or [*(said.get("filters") or ()), said.get("compressor")]
        compressor = compressor_of(codecs, f"{where}: {path!r}")
        shards = getattr(node, "shards", None)  # chunks in a shard are known by their first bytes
        size = math.prod(shards or node.chunks) * node.dtype.itemsize
        limits[f"{node.path}/" if node.path else ""] = size, None if shards else compressor
    if node.dtype.kind not in ("SOUMmif" if text else "buif"):
        raise ItemError(f"{where}: {path!r} holds {node.dtype} values, expected numbers.")
    return node


def _child(group: Any, name: str, where: str, linked: bool) -> Any:
    """Return what has a name in a group; raise ItemError for a link of HDF5, unless links are trusted."""
    if not linked and type(group).__module__.startswith("h5py"):
        import h5py

        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise ItemError(
                f"{where}: {name!r} is a link, which could lead to another file: refused. Set trusted to read it."
            )
    return group[name]


def _names(node: Any) -> str:
    names: Sequence[str] = sorted(node.keys())[:8] if hasattr(node, "keys") else []
    return ", ".join(names) or "nothing below it"
