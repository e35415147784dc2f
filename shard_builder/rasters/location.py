"""Where a file says that its raster lies, in its tags or beside it. What it does not say is not guessed."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from gfm_pipeline.errors import ItemError
from shard_builder.archives import ArchiveReader, MemberRef
from shard_builder.rasters.gdal import gdal, open_dataset
from shard_builder.rasters.georeference import Affine, Georeference, crs_text
from shard_builder.rasters.raster import Facts

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

_WORLD = {"tif": "tfw", "tiff": "tfw", "jpg": "jgw", "jpeg": "jgw", "png": "pgw", "jp2": "j2w"}
"""Endings of world files by those of images, beside the image's own with a w and wld."""
SYSTEM = "prj"
"""The ending of a file that holds the WKT of a coordinate reference system, ESRI's or any other."""
SIDE_FILES = frozenset({*_WORLD.values(), *(f"{ending}w" for ending in _WORLD), "wld", SYSTEM})
"""Endings, in lower case, of the files beside an image that say where it lies."""
MAX_SIDE_BYTES = 2**16
RPC_POINTS = 5
"""Points along a side that rational polynomials are read at."""
TRANSFORM_TAGS = (33550, 34264)
"""Of GeoTIFF: pixel scale and transformation."""
LOCATION_TAGS = (*TRANSFORM_TAGS, 33922, 34735, 50844)
"""Of GeoTIFF, and of rational polynomials."""
NO_SYSTEM = "transform without a usable coordinate reference system: location not known"
DAMAGED = "damaged transform: location not known"
BY_POINTS = "no grid: location by ground control points or rational polynomials"
POINTS_ALONE = "ground control points without a usable coordinate reference system: location not known"
_PLAIN_KEYS = {
    "KeyDirectoryVersion",
    "KeyRevision",
    "KeyRevisionMinor",
    "GTModelTypeGeoKey",
    "GTRasterTypeGeoKey",
    "GTCitationGeoKey",
    "GeogCitationGeoKey",
    "GeogAngularUnitsGeoKey",
    "ProjLinearUnitsGeoKey",
    "ProjectedCSTypeGeoKey",
    "ModelPixelScale",
    "ModelTiepoint",
}


def read_georeference(page: Any, file: IO[bytes], ref: MemberRef) -> Georeference | None:
    """Return where the first page of an opened TIFF lies, as GDAL reads it; None where it has no tags of a location.

    The commonest tags, those of a UTM zone of WGS 84, are read without GDAL. Raises ItemError for tags that GDAL
    refuses.
    """
    if not any(code in page.tags for code in LOCATION_TAGS):
        return None
    plain = plain_georeference(page)
    if plain is not None:
        return plain
    with open_dataset(file, file.seek(0, 2), ref) as dataset:
        return georeference_of(dataset)


def plain_georeference(page: Any) -> Georeference | None:
    """Return the georeference of a page in a UTM zone of WGS 84 with a scale and one tie point; None for any other."""
    tags = page.geotiff_tags or {}
    code, scale, tie = (tags.get(name) for name in ("ProjectedCSTypeGeoKey", "ModelPixelScale", "ModelTiepoint"))
    kind, raster_type, unit = (tags.get(f"{name}GeoKey") for name in ("GTModelType", "GTRasterType", "ProjLinearUnits"))
    if set(tags) - _PLAIN_KEYS or code is None or scale is None or tie is None or 50844 in page.tags:
        return None
    if any("=" in str(value) or "ESRI" in str(value) for name, value in tags.items() if "Citation" in name):
        return None  # GDAL looks for definitions in there
    known = 32601 <= int(code) <= 32660 or 32701 <= int(code) <= 32760
    if not known or kind != 1 or raster_type not in (1, 2) or unit not in (None, 9001) or len(tie) != 6:
        return None
    column, row, _, x, y, _ = (float(value) for value in tie)
    width, height = float(scale[0]), float(scale[1])
    if not (0 < width < math.inf and 0 < height < math.inf and all(map(math.isfinite, (column, row, x, y)))):
        return None
    a, c, e, f = width, x - column * width, -height, y + row * height
    transform: Affine = (a, 0.0, c, 0.0, e, f)
    if raster_type == 2:  # coordinates are of pixel centres
        transform = (a, 0.0, c - a * 0.5, 0.0, e, f - e * 0.5)
    return Georeference(f"EPSG:{int(code)}", transform)


def rules_of(place: Georeference | None) -> tuple[str, ...]:
    """Return what is to be said of a georeference that is no plain one."""
    if place is None or (place.transform is not None and place.crs is not None):
        return ()
    if place.transform is None:
        return (BY_POINTS if place.crs is not None else POINTS_ALONE,)
    return (NO_SYSTEM,)


def georeference_of(dataset: DatasetReader) -> Georeference | None:
    """Return where a raster lies, as its file says: by a transform, else by ground control points, else by RPCs.

    Of rational polynomials (RPCs) points at their mean height are taken. None where the file says nothing.
    """
    with gdal():
        values = tuple(float(value) for value in dataset.transform[:6])
        if not dataset.transform.is_identity:
            a, b, c, d, e, f = values
            if not all(map(math.isfinite, values)) or a * e == b * d:
                return None  # damaged: no place, or no area
            return Georeference(_crs(dataset.crs), (a, b, c, d, e, f))
        points, crs = dataset.gcps
        if len(points) > 2:
            return Georeference(_crs(crs), None, tuple((p.row, p.col, p.x, p.y) for p in points))
        return _by_polynomials(dataset.rpcs, dataset.height, dataset.width) if dataset.rpcs else None


def _crs(crs: Any) -> str | None:
    return _crs_of(crs.to_wkt(version="WKT2_2019")) if crs else None


@lru_cache(maxsize=256)
def _crs_of(wkt: str) -> str | None:
    """Return a system as georeferences name it; looking for the code of one that states none takes PROJ 0.3 s."""
    from rasterio.crs import CRS

    code = CRS.from_wkt(wkt).to_authority(confidence_threshold=100)
    return crs_text(":".join(code) if code and code[0] in ("EPSG", "ESRI") else wkt)


def _by_polynomials(rpcs: Any, height: int, width: int) -> Georeference:
    from rasterio.transform import RPCTransformer

    steps = np.linspace(0, 1, RPC_POINTS)
    rows, columns = (axis.ravel().tolist() for axis in np.meshgrid(steps * height, steps * width, indexing="ij"))
    with RPCTransformer(rpcs) as warp:
        x, y = warp.xy(rows, columns, zs=[float(rpcs.height_off)] * len(rows), offset="ul")
    return Georeference("EPSG:4326", None, tuple(zip(rows, columns, map(float, x), map(float, y), strict=True)))


def side_endings(path: str) -> tuple[str, ...]:
    """Return the endings of the files that may say where the image at `path` lies, the first one first."""
    ending = ending_of(path)
    return (_WORLD[ending], f"{ending}w", "wld", SYSTEM) if ending in _WORLD else ()


def ending_of(path: str) -> str:
    """Return what follows the last dot of a path, in lower case."""
    return path.rpartition(".")[2].lower()


def with_side_files(facts: Facts, ref: MemberRef, files: ArchiveReader) -> Facts:
    """Return the facts of an image with the location that the files beside it give, where its own tags have none.

    A world file is a transform. Of a .prj comes the system of a transform without any. Raises ItemError for a world
    file that is no six numbers of an area, and for a file of a size that none has.
    """
    place = facts.georeference
    world = next((other for other in ref.beside if ending_of(other.member) != SYSTEM), None)
    system = next((other for other in ref.beside if ending_of(other.member) == SYSTEM), None)
    if place is None and world is not None:
        place = _world_file(_side_text(world, files), world, ref)
    if place is not None and place.crs is None and system is not None:
        place = replace(place, crs=crs_text(_side_text(system, files).strip()))
    if place == facts.georeference:
        return facts
    rules = tuple(rule for rule in facts.rules if rule not in (NO_SYSTEM, POINTS_ALONE))
    return replace(facts, georeference=place, rules=(*rules, *rules_of(place)))


def _side_text(ref: MemberRef, files: ArchiveReader) -> str:
    if ref.size > MAX_SIDE_BYTES:
        raise ItemError(f"{ref.source_file} has {ref.size} bytes, expected at most {MAX_SIDE_BYTES} beside an image.")
    return files.read(ref).decode("utf-8-sig", "replace")


def _world_file(text: str, world: MemberRef, ref: MemberRef) -> Georeference:
    try:
        a, d, b, e, x, y = map(float, text.split())
    except ValueError:
        raise ItemError(f"{world.source_file} is no world file of {ref.source_file}: expected six numbers.") from None
    if not all(map(math.isfinite, (a, d, b, e, x, y, a * e - b * d))) or a * e == b * d:
        raise ItemError(f"{world.source_file} is no world file of {ref.source_file}: its numbers give no area.")
    return Georeference(None, (a, b, x - (a + b) / 2, d, e, y - (d + e) / 2))  # x and y are of a pixel's centre
