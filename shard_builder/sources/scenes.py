"""Large scenes of anybody's, co-located by a key in their names, cut to tiles on a common grid.

`options.sensors` names each sensor and the pattern of its scenes; scenes whose patterns give the same key lie over each
other. Read are GeoTIFF, JPEG 2000, zarr (zipped or folders), HDF5 and NetCDF 4 scenes, by windows: a scene may be
larger than memory. A sensor may have a file for each band, and for each date, which then make a series. Tiles of
`tile_px` start every `stride_px` pixels of the reference sensor, in the part that all scenes of a key cover.

Stated rules: with `align: grid` every sensor is brought to the reference sensor's pixels; one whose pixels are the same
up to whole steps is cut without resampling, others are resampled by GDAL (see `rasters/resample.py`), class
numbers to the nearest or the commonest. With `align: own` every sensor keeps its own pixels, and a tile is what covers
the reference tile to half a pixel. Footprints that agree to half a pixel count as equal. Scenes without a georeference
are taken to cover the same ground if none of their key has one; without a coordinate reference system their transforms
are compared.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

from pydantic import TypeAdapter

from gfm_pipeline.config import StrictModel
from gfm_pipeline.errors import ConfigError, ItemError, nearest
from gfm_pipeline.sensors import SensorSpec
from shard_builder.archives import ArchiveReader, MemberRef, item_error
from shard_builder.config import BuildConfig
from shard_builder.planned import PlannedRaster, Resampling, Window
from shard_builder.rasters.band_names import in_declared_order
from shard_builder.rasters.images import tile_windows
from shard_builder.rasters.raster import Decoded, OpenRaster
from shard_builder.rasters.resample import resample
from shard_builder.rasters.scene import load_scene, open_scene, read_scene_header
from shard_builder.sources.base import SOURCES, InputView, Source
from shard_builder.sources.folder import patterns_of
from shard_builder.sources.shared.cubes import Cube, is_cube
from shard_builder.sources.shared.footprint import Align, Scene, aligned, overlap
from shard_builder.sources.shared.group import Gathered, Part, trouble_of
from shard_builder.sources.shared.own_files import FoundFile, find_files
from shard_builder.sources.shared.patterns import iso_date, key_of, labels_of
from shard_builder.sources.shared.safe import Products
from shard_builder.sources.shared.scene_parts import cut, joined
from shard_builder.sources.shared.sensor import OwnSensor, specs_of
from shard_builder.sources.shared.stacking import load_stack

TILE_SUFFIX = len("_r100000_c100000")
OPEN_PARTS = 64
"""Files of one sensor that are kept open, as tiles of a scene follow each other."""
_SCENE = TypeAdapter(Scene)


class SceneSensor(OwnSensor):
    """One sensor, and how it is brought to another one's pixels."""

    resampling: Resampling | None = None
    """By GDAL's names; when not given, nearest for labels and bilinear for images."""


class SceneOptions(StrictModel):
    """Where the scenes are, what they hold, and on which grid they are cut."""

    sensors: dict[str, SceneSensor]
    """By sensor name."""
    grid: str | None = None
    """The sensor whose pixels count tiles and are the common grid. When not given, the first one, or where a place
    lacks that and it is optional, the next."""
    align: Align = "grid"
    """grid: all sensors in the pixels of that one. own: every sensor in its own pixels."""
    key: str = "{key}"
    """How the parts that the patterns capture make the key of a place."""
    archives: bool = False
    """Whether to look inside the zip and tar archives of the input."""


@SOURCES.register("scenes")
class Scenes(Source):
    """Tiles of the sensors of the configuration."""

    reads: ClassVar[str] = "files that fit the patterns of options.sensors"
    tiled: ClassVar[bool] = True
    asks_products: ClassVar[bool] = True

    def __init__(self, config: BuildConfig) -> None:
        """Raise ConfigError for patterns and sensors that cannot be."""
        self.options = config.parse_options(SceneOptions)
        own = self.options.sensors
        self.sensors = specs_of(own, config.source)
        self.patterns = patterns_of(dict(own), self.sensors, self.options.key)
        grid = self.options.grid
        if grid is not None and grid not in own:
            raise ConfigError(f"options.grid: no sensor is called '{grid}'. {nearest(grid, own)}")
        for spec in self.sensors:
            how = own[spec.name].resampling
            if spec.kind == "labels" and how not in (None, "nearest", "mode"):
                raise ConfigError(
                    f"options.sensors.{spec.name}.resampling is {how}, and means of class numbers are no classes. Set "
                    "it to nearest, or leave it out."
                )

    @property
    def _optional(self) -> frozenset[str]:
        return frozenset(name for name, own in self.options.sensors.items() if own.optional)

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
        """Plan the tiles of every place, row by row, once all files of all places are known."""
        gathered, products = Gathered(), Products()
        asked = any(override.offset_evidence == "product" for override in view.config.sensors.values())
        used = products.note if asked else lambda _: False
        try:
            for found in find_files(view, self.patterns, self.options.archives, self._optional, used=used):
                self._gather(view, found, gathered)
            for key, parts, labels in gathered.places({spec.name: spec.bands for spec in self.sensors}):
                self._plan_place(view, key, parts, labels, products)
        finally:
            gathered.close()

    def load(self, planned: PlannedRaster, spec: SensorSpec, files: ArchiveReader) -> Decoded:
        """Return a tile of a scene."""
        if self._in_parts(spec.name, planned.dates):
            return self._load_parts(planned, spec, files)
        if not is_cube(planned.files[0].member):
            return load_scene(planned, spec, files)
        assert planned.window is not None
        cube: Cube = files.keep(spec.name, planned.files[0], lambda _: self._cube(planned.files, spec, files))
        return cube.read(planned.window) if planned.grid is None else resample(cube, planned, spec)

    def _in_parts(self, sensor: str, dates: tuple[str, ...]) -> bool:
        """Return whether a raster of a sensor is put together from files of a band or a date each."""
        names = self.patterns[sensor].names
        return "band" in names or ("date" in names and len(dates) > 1 and self.options.sensors[sensor].dates is None)

    def _load_parts(self, planned: PlannedRaster, spec: SensorSpec, files: ArchiveReader) -> Decoded:
        """Return a tile [C,H,W] of files of a band each, or [T,C,H,W] of files of several dates."""
        bands = spec.bands if "band" in self.patterns[spec.name].names else ()
        slots = {ref: f"{spec.name}/{i % OPEN_PARTS}" for i, ref in enumerate(planned.files)}

        def opened(ref: MemberRef) -> OpenRaster:
            if is_cube(ref.member):
                return self._cube((ref,), spec, files)
            return open_scene(ref, files)

        def one(ref: MemberRef) -> Decoded:
            part = cut(files.keep(slots[ref], ref, opened), replace(planned, files=(ref,)), spec)
            return part if bands else in_declared_order(part, spec, ref.source_file)

        return load_stack(planned if len(planned.dates) > 1 else replace(planned, dates=()), bands, one)

    def _cube(self, refs: tuple[MemberRef, ...], spec: SensorSpec, files: ArchiveReader) -> Cube:
        return Cube(refs, spec, self.options.sensors[spec.name], files)

    def _open(self, found: FoundFile, files: ArchiveReader) -> Scene:
        """Return what the header of a scene says."""
        spec = next(spec for spec in self.sensors if spec.name == found.sensor)
        dates = (iso_date(found.parts["date"]),) if "date" in found.parts else ()
        if not is_cube(found.refs[0].member):
            return Scene(found.refs, *read_scene_header(found.refs[0], files)[:3], dates)
        refs = found.refs if found.refs[0].archive else found.refs[:1]  # a folder is listed where it is read
        cube = self._cube(refs, spec, files)
        sensor = self.options.sensors[found.sensor]
        try:
            told = cube.dates(sensor.dates) if sensor.dates else dates
            return Scene(refs, cube.shape[1], cube.shape[2], cube.facts.georeference, told)
        finally:
            cube.close()

    def _gather(self, view: InputView, found: FoundFile, gathered: Gathered) -> None:
        key = key_of(self.options.key.format(**found.parts), TILE_SUFFIX)
        try:
            scene = self._open(found, view.reader)
            several = "date" in found.parts and self.options.sensors[found.sensor].dates is None
            date = scene.dates[0] if several and scene.dates else ""
            part = Part(date, found.parts.get("band", ""), scene.refs, _SCENE.dump_json(scene))
            known = gathered.add(key, found.sensor, part, labels_of(found.parts))
            if known:
                raise ItemError(f"duplicate of {known.source_file}")
        except Exception as error:
            source_file = found.refs[0].source_file
            view.reject(key, source_file, str(item_error(error, source_file)))

    def _plan_place(
        self, view: InputView, key: str, found: dict[str, list[Part]], labels: dict[str, Any], products: Products
    ) -> None:
        scenes: dict[str, Scene] = {}
        offsets: dict[str, tuple[bool, ...]] = {}
        for sensor, parts in found.items():
            try:
                scene = self._joined(key, sensor, parts)
                override = view.config.override(sensor)
                if override.offset_evidence == "product":
                    offsets[sensor] = _offsets(scene, override.offset, products, view.reader)
                scenes[sensor] = scene
            except Exception as error:
                source_file = parts[0].refs[0].source_file
                view.reject(key, source_file, str(item_error(error, source_file)), len(parts))
        if not scenes:
            return
        try:
            self._plan(view, key, scenes, labels, offsets)
        except Exception as error:
            source_file = next(iter(scenes.values())).source_file
            members = sum(len(found[sensor]) for sensor in scenes)
            view.reject(key, source_file, str(item_error(error, source_file)), members)

    def _joined(self, key: str, sensor: str, parts: list[Part]) -> Scene:
        """Return the scene of a sensor, if all files are there that it consists of."""
        names = self.patterns[sensor].names
        spec = next(spec for spec in self.sensors if spec.name == sensor)
        several = "band" in names or len(parts) > 1
        trouble = trouble_of(parts, spec.bands if "band" in names else ("",)) if several else None
        if trouble:
            raise ItemError(f"{sensor} of {key} {trouble}")
        scenes = [_SCENE.validate_json(part.about) for part in parts]
        return joined(scenes) if several else scenes[0]

    def _home(self, key: str, scenes: dict[str, Scene]) -> Scene:
        """Return the scene in whose pixels the tiles of a place are cut."""
        if self.options.grid is None:
            for name, own in self.options.sensors.items():
                if name in scenes or not own.optional:
                    break
        else:
            name = self.options.grid
        if name not in scenes:
            raise ItemError(f"{key} has no {name}, in whose pixels the tiles are cut")
        return scenes[name]

    def _plan(
        self,
        view: InputView,
        key: str,
        scenes: dict[str, Scene],
        labels: dict[str, Any],
        offsets: dict[str, tuple[bool, ...]],
    ) -> None:
        home = self._home(key, scenes)
        others = [part for scene in scenes.values() for part in scene.parts or (scene,) if part is not home]
        row, column, height, width = overlap(home, others)
        for down, right, *size in tile_windows(height, width, view.config):
            window = (row + down, column + right, size[0], size[1])
            for sensor, scene in scenes.items():
                planned = self._tile(sensor, scene, home, window)
                planned = replace(planned, carries_offset=offsets.get(sensor, ()))
                view.add(f"{key}_r{window[0]}_c{window[1]}", sensor, planned, **(labels | {"scene": key}))

    def _tile(self, sensor: str, scene: Scene, home: Scene, window: Window) -> PlannedRaster:
        spec = next(spec for spec in self.sensors if spec.name == sensor)
        how = self.options.sensors[sensor].resampling or ("nearest" if spec.kind == "labels" else "bilinear")
        return aligned(window, home, scene, self.options.align, how)


def _offsets(scene: Scene, offset: float, products: Products, files: ArchiveReader) -> tuple[bool, ...]:
    """Return, per date of a scene (once for an image), whether its products say that its numbers carry an offset.

    Raises ItemError for a product that does not say it, and for files of one date of which only some do.
    """
    found: dict[tuple[str, ...], tuple[bool, str]] = {}
    for part in scene.parts or (scene,):
        for ref in part.refs[:1]:
            carries = products.carries_offset(ref, offset, files)
            first, other = found.setdefault(part.dates, (carries, ref.source_file))
            if first != carries:
                raise ItemError(f"of {other} and {ref.source_file} only one carries an offset, by their products")
    return tuple(carries for carries, _ in found.values())
