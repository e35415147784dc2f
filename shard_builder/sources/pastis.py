"""PASTIS and PASTIS-R: time series of 2433 places in France with crop types, 128 px at 10 m.

Garnot and Landrieu, "Panoptic segmentation of satellite image time series with convolutional temporal attention
networks", ICCV 2021; with radar: Garnot et al., "Multi-modal temporal attention models for crop mapping from satellite
time series", ISPRS Journal 2022. Published as `PASTIS.zip` and `PASTIS-R.zip` with `DATA_S2/S2_<id>.npy` (int16
[T,10,128,128]), in PASTIS-R `DATA_S1A/S1A_<id>.npy` and `DATA_S1D/S1D_<id>.npy` (float16 [T,3,128,128], ascending and
descending), `ANNOTATIONS/TARGET_<id>.npy` and `metadata.geojson`, which dates the steps and gives the fold; the same
unpacked is read as well. What agrees in the id is one sample; every sensor has dates of its own.

Stated rules: float16 becomes float32; of the planes of a target the first, the crop type (0 background, 19 void), is
the label raster. Not read: instance annotations and normalisation values. The outline of a place in `metadata.geojson`
is the footprint of its sample; the pixels themselves have no georeference.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar

from gfm_pipeline.config import load_json
from gfm_pipeline.errors import ArchiveError, ItemError, StorageError
from gfm_pipeline.sensors import Display, SensorSpec
from shard_builder.archives import ArchiveReader, MemberRef, item_error
from shard_builder.planned import OUTLINE, PlannedRaster
from shard_builder.rasters.raster import Decoded
from shard_builder.sources.base import SOURCES, InputView, Source
from shard_builder.sources.shared.geojson_outline import crs_of, outline
from shard_builder.sources.shared.npy import decode_npy

_NAME = re.compile(r"pastis(-?r)?(_benchmark)?(\.zip|\.tar(\.gz)?|\.tgz)?$", re.IGNORECASE)
_PARTS = ("ANNOTATIONS", "DATA_S1A", "DATA_S1D", "DATA_S2", "metadata.geojson")
_FILE = re.compile(r"(?:.*/)?(?:DATA_(S2|S1A|S1D)/\1|ANNOTATIONS/(TARGET))_(\d+)\.npy$")
_SENSOR = {"S2": "s2_theia", "S1A": "s1a", "S1D": "s1d", "TARGET": "crops"}
_DATES = {"s2_theia": "dates-S2", "s1a": "dates-S1A", "s1d": "dates-S1D"}


def _radar(name: str) -> SensorSpec:
    return SensorSpec(
        name=name,
        bands=("VV", "VH", "VV_VH"),
        dtype="float32",
        units="dB",
        gsd_m=10.0,
        display=Display(mode="grey", bands=("VV",)),
    )


@SOURCES.register("pastis")
class Pastis(Source):
    """Series of `s2_theia`, `s1a` and `s1d`, and the label raster `crops`."""

    reads: ClassVar[str] = "PASTIS.zip or PASTIS-R.zip"
    sensors = (
        SensorSpec(
            name="s2_theia",
            bands=("B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B11", "B12"),
            dtype="int16",
            units="surface reflectance x 1e4",
            gsd_m=10.0,
            display=Display(mode="colour", bands=("B4", "B3", "B2")),
        ),
        _radar("s1a"),
        _radar("s1d"),
        SensorSpec(name="crops", bands=("crop",), dtype="uint8", units="class", gsd_m=10.0, kind="labels"),
    )
    optional: ClassVar[frozenset[str]] = frozenset({"s1a", "s1d"})

    def scan(self, view: InputView) -> None:
        """Plan the places of each archive, or of the unpacked folder."""
        used = [name for name in view.names() if view.kind(name) and (view.only or _NAME.match(name))]
        for name in used:
            refs = list(view.open(name))
            if name in view.left_out:
                continue
            try:
                self._plan(view, name, refs)
            except ArchiveError as error:
                view.leave_out(name, error)
        if not used and set(view.names()) & set(_PARTS):
            # The input is the unpacked folder itself. The table lies loose in it, so that all of it has to be listed.
            self._plan(view, "", list(view.open("")))
        else:
            view.ignore_rest(used, "not part of pastis")

    def load(self, planned: PlannedRaster, spec: SensorSpec, files: ArchiveReader) -> Decoded:
        """Return the series [T,C,H,W] of a sensor, or the map [1,H,W] of crops."""
        (ref,) = planned.files
        array = decode_npy(files.read(ref), ref)
        if spec.kind == "labels":
            return Decoded(array[:1] if array.ndim == 3 else array[None])
        if array.ndim != 4 or len(planned.dates) not in (0, array.shape[0]):
            raise ItemError(
                f"{ref.source_file} has the shape {array.shape}, expected [T,C,H,W] with {len(planned.dates)} steps "
                "as metadata.geojson says."
            )
        return Decoded(array)

    def _plan(self, view: InputView, name: str, refs: list[MemberRef]) -> None:
        tables = [ref for ref in refs if ref.member.rpartition("/")[2] == "metadata.geojson"]
        if not tables:
            where = f"{view.where}/{name}" if name else view.where
            raise ArchiveError(f"{where} has no metadata.geojson, which dates the series. Copy or download it again.")
        places, crs = _read_table(view.reader, tables[0])
        for ref in refs:
            match = _FILE.fullmatch(ref.member)
            if match is None:
                if ref != tables[0]:
                    view.ignore(name or ".", "neither a series nor a map of crops")
                continue
            sensor, number = _SENSOR[match[1] or match[2]], match[3]
            about = places.get(int(number))
            if about is None:
                view.reject(number, ref.source_file, f"{tables[0].source_file} does not know this place")
                continue
            labels = {"fold": about["Fold"]} | ({"tile": about["TILE"]} if "TILE" in about else {})
            try:
                dates = _dates(about.get(_DATES.get(sensor, ""), {}))
                ring = outline(about["geometry"], crs, tables[0].source_file)
            except Exception as error:
                view.reject(number, ref.source_file, str(item_error(error, tables[0].source_file)))
                continue
            view.add(number, sensor, PlannedRaster((ref,), dates=dates), **labels, **({OUTLINE: ring} if ring else {}))


def _read_table(files: ArchiveReader, ref: MemberRef) -> tuple[dict[int, dict[str, Any]], str]:
    """Return what metadata.geojson says of each place, its "geometry" beside the properties, and in which CRS.

    Raises ArchiveError when it is not as published.
    """
    try:
        table = load_json(files.read(ref), constants=True)
        told = [{**feature["properties"], "geometry": feature.get("geometry")} for feature in table["features"]]
        return {int(about["ID_PATCH"]): about | {"Fold": int(about["Fold"])} for about in told}, crs_of(table)
    except Exception as error:  # damaged where it lies, or anything but what is expected
        if isinstance(error, StorageError):
            raise
        raise ArchiveError(
            f"{ref.source_file} is no GeoJSON with ID_PATCH and Fold of each place: {type(error).__name__} "
            f"{str(error)[:200]}. Copy or download it again."
        ) from error


def _dates(steps: dict[str, int]) -> tuple[str, ...]:
    """Return the dates of {"0": 20180924, ...} in the order of the steps."""
    days = [str(steps[step]) for step in sorted(steps, key=int)]
    return tuple(f"{day[:4]}-{day[4:6]}-{day[6:8]}" for day in days)
