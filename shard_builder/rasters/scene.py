"""Georeferenced scenes (GeoTIFF, JPEG 2000, PNG, JPEG), read by windows through GDAL: larger than memory if need be.

A file is somebody's claim. Every size in it is checked before anything is allocated.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gfm_pipeline.errors import ItemError
from gfm_pipeline.sensors import SensorSpec
from gfm_pipeline.shards.codec import Raster
from shard_builder.archives import ArchiveReader, MemberRef
from shard_builder.planned import PlannedRaster, Window
from shard_builder.rasters.damage import damage_of
from shard_builder.rasters.gdal import gdal, gdal_reason, is_led_elsewhere, open_dataset, open_trusted
from shard_builder.rasters.georeference import Georeference
from shard_builder.rasters.images import as_rgb
from shard_builder.rasters.location import georeference_of, rules_of, with_side_files
from shard_builder.rasters.raster import Decoded, Facts, Nodata
from shard_builder.rasters.resample import resample
from shard_builder.rasters.tiff import MAX_SCENE_PIXELS, facts_of, has_transform
from shard_builder.rasters.tiff_page import MAX_PIXELS, MAX_SEGMENT_BYTES, RATIO, Part

MAX_BANDS = 2**13
_SMALL_BLOCK = 2**24
"""Bytes; a GeoTIFF may leave out blocks of this size, as sparse GeoTIFFs do, but not their entries."""
_ENTRY_BYTES = 4


class SceneHeader(NamedTuple):
    """What planning needs to know of a scene."""

    height: int
    width: int
    georeference: Georeference | None
    bands: int
    """Bands, an alpha band too."""
    dtype: str
    nodata: Nodata
    names: tuple[str, ...]
    """What the file calls its bands, "" for one that it does not name; empty: it names none."""


def read_scene_header(ref: MemberRef, files: ArchiveReader) -> SceneHeader:
    """Return what the header of a scene says; raise ItemError for what is none, and for claims that cannot be."""
    scene = open_scene(ref, files)
    try:
        return scene.header
    finally:
        scene.close()


def open_scene(ref: MemberRef, files: ArchiveReader, rgb: bool = False) -> SceneRaster:
    """Open a scene, with the mask beside it and, where it has no location, that of files beside it.

    Raises ItemError for what is no scene.
    """
    scene = SceneRaster(files.open(ref), ref.size, ref, rgb, files.trusted_path(ref))
    try:
        scene.facts = with_side_files(scene.facts, ref, files)
        if ref.mask is not None:
            scene.add_mask(SceneRaster(files.open(ref.mask), ref.mask.size, ref.mask))
    except BaseException:
        scene.close()
        raise
    return scene


def load_scene(planned: PlannedRaster, spec: SensorSpec, files: ArchiveReader, rgb: bool = False) -> Decoded:
    """Return the scene of a planned sensor, cut to its window or brought to its grid; raise ItemError for none.

    With `rgb` by the rules of `as_rgb`.
    """
    (ref,) = planned.files
    scene = files.keep(spec.name, ref, lambda ref: open_scene(ref, files, rgb))
    if planned.grid is not None:
        return resample(scene, planned, spec)
    return scene.read(planned.window or (0, 0, *scene.shape[1:]))


class SceneRaster:
    """An opened scene of a file of `size` bytes: an `OpenRaster`. Closes the file when it is closed.

    Raises ItemError for what is no image of bands, and for claims that cannot be.
    """

    def __init__(
        self, file: IO[bytes], size: int, ref: MemberRef, rgb: bool = False, trusted: Path | None = None
    ) -> None:
        """Open the file; by its path where that is `trusted` and its format leads GDAL to other files."""
        self.ref = ref
        self._file = file
        self._rgb = rgb
        self._beside: SceneRaster | None = None
        try:
            self._trusted = is_led_elsewhere(file, trusted)
            if trusted is not None and self._trusted:
                self._dataset = open_trusted(trusted, ref)
            else:
                self._dataset = open_dataset(file, size, ref)
        except BaseException:
            file.close()
            raise
        try:
            self._check(size)
            data = self._dataset
            self.shape: tuple[int, int, int] = (data.count, data.height, data.width)
            self.dtype: np.dtype[np.generic] = np.dtype(data.dtypes[0])
            self.facts = self._facts()
            self._damage = damage_of(data.driver, file, size, ref)
        except BaseException:
            self.close()
            raise

    @property
    def header(self) -> SceneHeader:
        """What planning needs to know of it."""
        data = self._dataset
        return SceneHeader(
            data.height,
            data.width,
            self.facts.georeference,
            data.count,
            data.dtypes[0],
            self.facts.nodata,
            self.facts.bands,
        )

    def read(self, window: Window) -> Decoded:
        """Return the part inside `window`; raise ItemError when it is damaged or more than may be decoded at once."""
        from rasterio.windows import Window as Area

        row, column, height, width = window
        if self.shape[0] * height * width > 4 * MAX_PIXELS:
            raise ItemError(
                f"{self.ref.source_file} claims {self.shape[0]} x {height} x {width} pixels, at most {4 * MAX_PIXELS} "
                "are decoded at once. Cut it to tiles."
            )
        part = Area(column, row, width, height)
        try:
            self._damage.check(window)
            with gdal(self._trusted):
                raster: Raster = self._dataset.read(list(range(1, self.shape[0] + 1)), window=part)
                mask = self._mask(part, window)
        except ItemError:
            raise
        except Exception as error:  # damaged files raise types of several libraries
            raise ItemError(f"{self.ref.source_file} cannot be decoded: {gdal_reason(error)}") from error
        facts = self.facts.at(row, column)
        if not self._rgb:
            return Decoded(raster, facts, None, mask)
        shaped = None if mask is None else np.atleast_3d(mask.T).swapaxes(0, 1)  # [h,w,1] or [h,w,C]
        return as_rgb(Part(raster.transpose(1, 2, 0), shaped), facts, self.ref)

    def add_mask(self, mask: SceneRaster) -> None:
        """Read the mask in a file beside the scene with it; raise ItemError for one of another size."""
        self._beside = mask
        if mask.shape[1:] != self.shape[1:] or mask.shape[0] not in (1, self.shape[0]):
            raise ItemError(f"{mask.ref.source_file} has the shape {mask.shape}, expected a mask of {self.shape}.")

    def close(self) -> None:
        """Close the file."""
        if self._beside is not None:
            self._beside.close()
        with gdal(self._trusted):
            self._dataset.close()
        self._file.close()

    def _mask(self, part: object, window: Window) -> NDArray[np.bool_] | None:
        """Return where masks in the file and beside it say that something was measured, [h,w] or [C,h,w].

        Its nodata values are `facts`' to say.
        """
        own = self._own_mask(part)
        if self._beside is None:
            return own
        beside = self._beside.read(window).raster != 0
        found: NDArray[np.bool_] = beside[0] if len(beside) == 1 else beside
        return found if own is None else np.logical_and(found, own)

    def _own_mask(self, part: object) -> NDArray[np.bool_] | None:
        from rasterio.enums import MaskFlags

        flags = self._dataset.mask_flag_enums[0]
        if MaskFlags.per_dataset not in flags or MaskFlags.alpha in flags:
            return None
        found: NDArray[np.bool_] = self._dataset.read_masks(1, window=part) != 0
        return None if found.all() else found

    def _check(self, size: int) -> None:
        data, where = self._dataset, self.ref.source_file
        if not data.count or len(set(data.dtypes)) > 1 or "complex" in data.dtypes[0]:
            found = ", ".join(dict.fromkeys(data.dtypes)) or "no band"
            raise ItemError(f"{where} has pixels of {found}, expected bands of one real type.")
        if len(data.subdatasets) > 1:
            raise ItemError(
                f"{where} holds {len(data.subdatasets)} images, expected one. Split it to files of one each."
            )
        item = np.dtype(data.dtypes[0]).itemsize
        together = data.count if data.interleaving and data.interleaving.value == "PIXEL" else 1
        rows, columns = data.block_shapes[0]
        block = rows * columns * together * item
        pixels = data.height * data.width
        blocks = math.ceil(data.height / rows) * math.ceil(data.width / columns) * (data.count // together)
        listed = block <= _SMALL_BLOCK and blocks * _ENTRY_BYTES <= size and data.driver == "GTiff"
        if (
            not 0 < pixels <= (MAX_PIXELS if data.driver in ("PNG", "JPEG") else MAX_SCENE_PIXELS)
            or data.count > MAX_BANDS
            or (pixels * data.count * item > RATIO * size and not listed and not self._trusted)
        ):
            raise ItemError(
                f"{where} claims {data.count} x {data.height} x {data.width} pixels in {size} bytes: refused as a bomb."
            )
        if block > MAX_SEGMENT_BYTES:
            raise ItemError(
                f"{where} keeps its pixels in strips or tiles of {rows} x {columns} px, {block} bytes; at most "
                f"{MAX_SEGMENT_BYTES} are decoded at once. Store it in tiles, e.g. gdal_translate -co TILED=YES."
            )
        self._check_colours()

    def _check_colours(self) -> None:
        """Raise ItemError for numbers that are amounts of ink."""
        from rasterio.enums import ColorInterp

        inks = {ColorInterp.cyan, ColorInterp.magenta, ColorInterp.yellow, ColorInterp.black}
        if inks & set(self._dataset.colorinterp):
            raise ItemError(f"{self.ref.source_file} has inks for its bands, expected RGB or grey where black is 0.")

    def _facts(self) -> Facts:
        """Return what the file says of its numbers, as the reader of patches has it, and where GDAL says it lies."""
        from rasterio.enums import ColorInterp

        data, place = self._dataset, georeference_of(self._dataset)
        if data.driver == "GTiff":
            facts = facts_of(self._file, self.ref)
            if place is None and has_transform(self._file, self.ref):
                raise ItemError(
                    f"{self.ref.source_file} has a damaged transform, expected finite numbers that give its pixels an "
                    "area. Correct it, or take it out: gdal_edit.py -unsetgt"
                )
            return replace(facts, georeference=place, rules=facts.rules + rules_of(place))
        declared: Nodata = tuple(data.nodatavals)
        names = tuple(name or "" for name in data.descriptions)
        colours = data.colorinterp
        return Facts(
            place,
            declared if any(value is not None for value in declared) else (),
            rules_of(place),
            names if any(names) else (),
            alpha=colours.index(ColorInterp.alpha) if ColorInterp.alpha in colours else None,
            photometric="PALETTE" if colours[0] == ColorInterp.palette else None,
        )
