"""Anybody's own data: a file pattern for each sensor, and what the files of one place have in common is its key.

Nothing is assumed of the layout. `options.sensors` names each sensor, the pattern of its files and what is in them;
files whose patterns give the same key become one sample. Read are TIFF, PNG and JPEG images, .npy arrays (never
pickled ones), and arrays in HDF5, NetCDF 4 and zarr files (zipped or folders), loose or inside zip and tar archives,
which count as if they were unpacked where they lie. The mask of an image may lie beside it, as x.tif.msk.

Stated rules: bands in files of their own are stacked in the order of the sensor's bands, a coarser band repeated by an
exact factor; dates in files of their own become a series, earliest first, and so do the images of one file with `axes`
of T; float16 becomes float32; an alpha channel beside the bands is a mask. Scaled integers become values where the
sensor is floating point, else they stay as they are. With `tile_px` images are cut to tiles, by the rules of
`shared/tiling.py`. See docs/your-own-data.md.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, ClassVar

from gfm_pipeline.config import StrictModel
from gfm_pipeline.errors import ArchiveError, ConfigError, ItemError, nearest
from gfm_pipeline.sensors import SensorSpec
from shard_builder.archives import ArchiveReader, MemberRef, item_error
from shard_builder.config import BuildConfig
from shard_builder.planned import PlannedRaster
from shard_builder.rasters.band_names import in_declared_order
from shard_builder.rasters.images import decode_tiff, read_size
from shard_builder.rasters.location import with_side_files
from shard_builder.rasters.raster import Decoded
from shard_builder.sources.base import SOURCES, InputView, Source, strange_keys
from shard_builder.sources.shared.cubes import Cube, arrange, is_cube
from shard_builder.sources.shared.group import Gathered, Part, trouble_of
from shard_builder.sources.shared.image import as_series, decode_image
from shard_builder.sources.shared.npy import decode_npy
from shard_builder.sources.shared.own_files import FoundFile, find_files
from shard_builder.sources.shared.patterns import RESERVED, FilePattern, iso_date, key_of, labels_of
from shard_builder.sources.shared.sensor import OwnSensor, specs_of
from shard_builder.sources.shared.stacking import load_stack
from shard_builder.sources.shared.tiling import TILE_SUFFIX, Tiles, Whole, cut_tile


class LabelTable(StrictModel):
    """A CSV file, UTF-8 with a header, that says something of each place."""

    file: str
    """Its path below the input."""
    key: str = "key"
    """The column that holds what `{key}` captures (or what options.key makes of it)."""
    columns: tuple[str, ...] | None = None
    """The columns that become labels, as text; all others when not given."""


class FolderOptions(StrictModel):
    """Where the files are and what they hold."""

    sensors: dict[str, OwnSensor]
    """By sensor name."""
    key: str = "{key}"
    """How the parts that the patterns capture make the key of a place, e.g. "{scene}_{patch}"."""
    archives: bool = False
    """Whether to look inside the zip and tar archives of the input."""
    table: LabelTable | None = None
    """Labels of the places, e.g. their split or class."""


@SOURCES.register("folder")
class Folder(Source):
    """The sensors of the configuration, one sample for each key."""

    reads: ClassVar[str] = "files that fit the patterns of options.sensors"
    tiled: ClassVar[bool] = True
    lists_more: ClassVar[bool] = False

    def __init__(self, config: BuildConfig) -> None:
        """Raise ConfigError for patterns and sensors that cannot be."""
        self.options = config.parse_options(FolderOptions)
        self.sensors = specs_of(self.options.sensors, config.source)
        self.patterns = patterns_of(self.options.sensors, self.sensors, self.options.key)
        self.cuts = bool({"tile_px", "stride_px", "edge"} & config.model_fields_set)
        self.room = TILE_SUFFIX if self.cuts else 0

    @property
    def stated_gsd_m(self) -> dict[str, float]:
        """What the sensors of the options say of their pixels."""
        return {name: own.gsd_m for name, own in self.options.sensors.items() if own.gsd_m is not None}

    @property
    def required(self) -> tuple[str, ...]:
        """Names of the sensors that are neither labels nor declared optional."""
        own = self.options.sensors
        return tuple(s.name for s in self.sensors if s.kind == "image" and not own[s.name].optional)

    def scan(self, view: InputView) -> None:
        """Plan what is whole in one file as it comes, and what is not at the end, by key."""
        gathered, tiles = Gathered(), Tiles()
        try:
            optional = [name for name, own in self.options.sensors.items() if own.optional]
            for found in find_files(view, self.patterns, self.options.archives, optional):
                self._plan(view, found, gathered, tiles)
            bands = {spec.name: spec.bands for spec in self.sensors}
            for key, sensor, parts, labels in gathered.rasters(bands):
                self._plan_parts(view, key, sensor, parts, labels, tiles)
            table = read_table(view, self.options.table, self.room) if self.options.table else iter(())
            if self.cuts:
                known = dict(table)
                strange = tiles.plan(view, known)
                if self.options.table and strange:
                    view.warn(strange_keys(self.options.table.file, len(known), len(strange), strange[0]))
            elif self.options.table:
                for key, said in table:
                    view.label(key, self.options.table.file, **said)
        finally:
            gathered.close()
            tiles.close()

    def load(self, planned: PlannedRaster, spec: SensorSpec, files: ArchiveReader) -> Decoded:
        """Return the raster of a sensor from however many files, or a tile of it."""
        if planned.window is None:
            return self._whole(planned, spec, files)
        whole: Decoded = files.keep(spec.name, planned.files[0], lambda _: self._whole(planned, spec, files))
        return cut_tile(whole, planned.window)

    def _whole(self, planned: PlannedRaster, spec: SensorSpec, files: ArchiveReader) -> Decoded:
        sensor, names = self.options.sensors[spec.name], self.patterns[spec.name].names
        if self._is_cube(planned, spec.name):
            return load_cube(planned.files, spec, sensor, files)  # a zarr folder is many files
        bands = spec.bands if "band" in names else ()
        if bands:
            return load_stack(planned, bands, lambda ref: _load_file(ref, spec, sensor, files))
        return load_stack(
            planned, (), lambda ref: in_declared_order(_load_file(ref, spec, sensor, files), spec, ref.source_file)
        )

    def _plan(self, view: InputView, found: FoundFile, gathered: Gathered, tiles: Tiles) -> None:
        key = key_of(self.options.key.format(**found.parts), self.room)
        labels = labels_of(found.parts)
        source_file = found.refs[0].source_file
        try:
            if self.patterns[found.sensor].names & set(RESERVED):
                date = iso_date(found.parts["date"]) if "date" in found.parts else ""
                part = Part(date, found.parts.get("band", ""), found.refs)
                known = gathered.add(key, found.sensor, part, labels)
                if known:
                    view.reject(key, source_file, f"duplicate of {known.source_file}", len(found.refs))
                return
            dates = self._dates(view, found)
        except Exception as error:
            view.reject(key, source_file, str(item_error(error, source_file)), len(found.refs))
        else:
            self._add(view, key, found.sensor, PlannedRaster(found.refs, dates=dates), labels, tiles)

    def _add(
        self, view: InputView, key: str, sensor: str, planned: PlannedRaster, labels: dict[str, Any], tiles: Tiles
    ) -> None:
        """Plan a raster, or file it until all of its place are known."""
        if not self.cuts:
            view.add(key, sensor, planned, **labels)
            return
        spec = next(spec for spec in self.sensors if spec.name == sensor)
        refs = [planned.files] if self._is_cube(planned, sensor) else [(ref,) for ref in planned.files]
        try:
            sizes = [_size(files, spec, self.options.sensors[sensor], view.reader) for files in refs]
            tiles.add(key, sensor, Whole(planned, *max(sizes), labels))
        except Exception as error:
            view.reject(key, planned.source_file, str(item_error(error, planned.source_file)), len(planned.files))

    def _is_cube(self, planned: PlannedRaster, sensor: str) -> bool:
        """Return whether the files of a raster are one zarr folder, or one HDF5, NetCDF or zarr file."""
        return not self.patterns[sensor].names & set(RESERVED) and is_cube(planned.files[0].member)

    def _dates(self, view: InputView, found: FoundFile) -> tuple[str, ...]:
        sensor = self.options.sensors[found.sensor]
        if sensor.dates is None:
            return ()
        spec = next(spec for spec in self.sensors if spec.name == found.sensor)
        cube = Cube(found.refs, spec, sensor, view.reader)
        try:
            return cube.dates(sensor.dates)
        finally:
            cube.close()

    def _plan_parts(
        self, view: InputView, key: str, sensor: str, parts: list[Part], labels: dict[str, Any], tiles: Tiles
    ) -> None:
        """Plan a raster of several files, if they are all there and once."""
        names = self.patterns[sensor].names
        spec = next(spec for spec in self.sensors if spec.name == sensor)
        bands = spec.bands if "band" in names else ("",)
        dates = tuple(dict.fromkeys(part.date for part in parts))
        refs = tuple(ref for part in parts for ref in part.refs)
        trouble = trouble_of(parts, bands)
        if trouble:
            view.reject(key, refs[0].source_file, f"{sensor} of {key} {trouble}", len(refs))
            return
        planned = PlannedRaster(refs, dates=dates if "date" in names else ())
        self._add(view, key, sensor, planned, labels, tiles)


def patterns_of(sensors: dict[str, OwnSensor], specs: tuple[SensorSpec, ...], key: str) -> dict[str, FilePattern]:
    """Return the compiled patterns; raise ConfigError for one that does not capture what the key is made of."""
    patterns: dict[str, FilePattern] = {}
    for spec in specs:
        where = f"options.sensors.{spec.name}.files"
        pattern = FilePattern(sensors[spec.name].files, spec.bands, where)
        try:
            text = key.format(**dict.fromkeys(pattern.names, "x"))
        except (KeyError, IndexError, ValueError) as error:
            raise ConfigError(
                f"{where}: {pattern.text!r} captures {', '.join(sorted(pattern.names)) or 'nothing'}, and options.key "
                f"is {key!r}. Capture what the key is made of, as in 'S2/{{key}}.tif'."
            ) from error
        if text == key:
            raise ConfigError(f"options.key: {key!r} has no named part, so that all files would be one place.")
        patterns[spec.name] = pattern
    return patterns


def load_cube(refs: tuple[MemberRef, ...], spec: SensorSpec, sensor: OwnSensor, files: ArchiveReader) -> Decoded:
    """Return the raster [C,H,W] or [T,C,H,W] in an HDF5, NetCDF or zarr file."""
    cube = Cube(refs, spec, sensor, files)
    try:
        return cube.whole()
    finally:
        cube.close()


def read_table(view: InputView, table: LabelTable, room: int) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield (key, labels) of a table's rows, keys with `room` for a suffix.

    Raises ArchiveError or ConfigError for a table that cannot be used.
    """
    where = f"{view.where}/{table.file}"
    try:
        text = view.store.get(table.file).decode("utf-8-sig")
        rows = csv.DictReader(io.StringIO(text), strict=True)
        header = rows.fieldnames or []
        for name in (table.key, *(table.columns or ())):
            if name not in header:
                raise ConfigError(f"{where} has no column '{name}' for options.table. {nearest(name, header)}")
        columns = table.columns or [name for name in header if name != table.key]
        for row in rows:
            if None in row or None in row.values():
                raise ArchiveError(f"{where}, line {rows.line_num}: found {len(row)} fields, expected {len(header)}.")
            yield key_of(row[table.key], room), {name: row[name] for name in columns}
    except (UnicodeDecodeError, csv.Error) as error:
        raise ArchiveError(f"{where} is no CSV file in UTF-8: {error}.") from error


def _size(refs: tuple[MemberRef, ...], spec: SensorSpec, sensor: OwnSensor, files: ArchiveReader) -> tuple[int, int]:
    """Return (height, width) of a file of a sensor, of images and cubes from their headers."""
    if is_cube(refs[0].member):
        cube = Cube(refs, spec, sensor, files)
        try:
            return cube.shape[1], cube.shape[2]
        finally:
            cube.close()
    if refs[0].member.lower().endswith(".npy"):
        height, width = _load_file(refs[0], spec, sensor, files).raster.shape[-2:]
        return height, width
    return read_size(refs[0], files)


def _load_file(ref: MemberRef, spec: SensorSpec, sensor: OwnSensor, files: ArchiveReader) -> Decoded:
    if is_cube(ref.member):
        return load_cube((ref,), spec, sensor, files)
    if ref.member.lower().endswith(".npy"):
        return Decoded(arrange(decode_npy(files.read(ref), ref), sensor.axes, ref.source_file))
    decoded = decode_image(files.read(ref), ref, spec)
    decoded = replace(decoded, facts=with_side_files(decoded.facts, ref, files))
    decoded = _with_mask(decoded, ref.mask, files) if ref.mask is not None else decoded
    return as_series(decoded, sensor.axes) if sensor.axes and "T" in sensor.axes else decoded


def _with_mask(decoded: Decoded, mask: MemberRef, files: ArchiveReader) -> Decoded:
    """Return an image [C,H,W] with the mask that lies in a file beside it."""
    valid = decode_tiff(files.read(mask), mask).raster != 0
    if valid.shape[-2:] != decoded.raster.shape[-2:] or len(valid) not in (1, len(decoded.raster)):
        raise ItemError(f"{mask.source_file} has the shape {valid.shape}, expected a mask of {decoded.raster.shape}.")
    return replace(decoded, mask=valid if decoded.mask is None else valid & decoded.mask, original=None)
