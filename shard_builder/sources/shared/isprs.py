"""The ISPRS semantic labelling benchmarks: aerial images with surface models and maps of six classes, cut to tiles.

Gerke, "Use of the stair vision library within the ISPRS 2D semantic labeling benchmark (Vaihingen)", 2014.

Stated rules: the files of an area are taken to begin in one corner and to have one pixel size; where they differ in
size by a few pixels, tiles come from the part that all of them have. The colours of the maps become class numbers, "no
class" (black, the boundaries that some maps leave out) becomes 255. The label `split` says whether the organisers gave
the map of an area to participants (train) or kept it (test).
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Literal

import numpy as np

from gfm_pipeline.config import StrictModel
from gfm_pipeline.errors import ItemError
from gfm_pipeline.sensors import Display, SensorSpec, builtin_sensor
from shard_builder.archives import ArchiveReader, MemberRef, item_error
from shard_builder.config import BuildConfig
from shard_builder.planned import PlannedRaster
from shard_builder.rasters.images import read_size, tile_windows
from shard_builder.rasters.raster import Decoded, Facts
from shard_builder.rasters.scene import load_scene
from shard_builder.sources.base import InputView, Source
from shard_builder.sources.shared.walk import files_of

CLASSES = {
    "impervious surfaces": (255, 255, 255),
    "building": (0, 0, 255),
    "low vegetation": (0, 255, 255),
    "tree": (0, 255, 0),
    "car": (255, 255, 0),
    "clutter": (255, 0, 0),
}
NO_CLASS = 255
MOST_PIXELS_APART = 8
"""Areas whose files differ more in size are no areas of one grid."""

Image = Literal["rgb", "irrg", "rgbir"]
_BANDS: dict[str, tuple[str, ...]] = {"rgb": ("R", "G", "B"), "irrg": ("IR", "R", "G"), "rgbir": ("R", "G", "B", "IR")}


class IsprsOptions(StrictModel):
    """Which of the published maps are packed."""

    labels: Literal["all", "no_boundary", "none"] = "all"
    """all: every pixel has a class. no_boundary: pixels within 3 px of a boundary have none. none: no maps."""


def image_spec(image: Image) -> SensorSpec:
    """Return the sensor that an orthophoto is."""
    if image == "rgb":
        return builtin_sensor("rgb")
    bands = _BANDS[image]
    colour = ("IR", "R", "G") if image == "irrg" else ("R", "G", "B")
    return SensorSpec(
        name=image,
        bands=bands,
        dtype="uint8",
        units="digital number",
        display=Display(mode="colour", bands=colour),
    )


class IsprsBenchmark(Source):
    """A source of areas. A subclass says how their files are called."""

    tiled: ClassVar[bool] = True
    archive_names: ClassVar[re.Pattern[str]]
    """Matches the names of its archives and folders."""
    part_names: ClassVar[re.Pattern[str]]
    """Matches the names of folders and archives in an unpacked one."""
    splits: ClassVar[Mapping[str, frozenset[str]]]
    """{split: areas} as published."""

    def __init__(self, image: Image, options: IsprsOptions) -> None:
        self.image = image
        self.options = options
        labels = SensorSpec(
            name="classes", bands=("class",), dtype="uint8", units="class", kind="labels", nodata=float(NO_CLASS)
        )
        self.sensors = (image_spec(image), builtin_sensor("dsm"), labels)

    @abstractmethod
    def identify(self, member: str) -> tuple[str, str] | None:
        """Return (area, what) of a file, `what` a sensor, "all" or "no_boundary"; None for other files."""

    def scan(self, view: InputView) -> None:
        """Plan the tiles of every area, row by row."""
        areas: dict[str, dict[str, MemberRef]] = {}
        for name, ref in files_of(view, self.archive_names, self.part_names):
            known = self.identify(ref.member)
            sensor = self._sensor(known[1]) if known else None
            if known is None or sensor is None:
                view.ignore(name or ref.member, f"not asked for, or no file of {view.config.source} by its name")
                continue
            area = areas.setdefault(known[0], {})
            if sensor in area:
                view.reject(known[0], ref.source_file, f"duplicate of {area[sensor].source_file}")
            else:
                area[sensor] = ref
        for area_name, files in sorted(areas.items()):
            try:
                self._plan_area(view, area_name, files)
            except Exception as error:
                view.reject(
                    area_name,
                    next(iter(files.values())).source_file,
                    str(item_error(error, next(iter(files.values())).source_file)),
                    len(files),
                )

    def load(self, planned: PlannedRaster, spec: SensorSpec, files: ArchiveReader) -> Decoded:
        """Return a tile of an orthophoto, a surface model or a map."""
        decoded = load_scene(planned, spec, files)
        return _classes(decoded, planned.source_file) if spec.kind == "labels" else decoded

    def _sensor(self, what: str) -> str | None:
        if what in ("all", "no_boundary"):
            return "classes" if what == self.options.labels else None
        return what if what in (self.image, "dsm") else None

    def _plan_area(self, view: InputView, area: str, files: dict[str, MemberRef]) -> None:
        sizes = [read_size(ref, view.reader) for ref in files.values()]
        for side in zip(*sizes, strict=True):
            if max(side) - min(side) > MOST_PIXELS_APART:
                told = ", ".join(
                    f"{ref.source_file} {h} x {w}" for ref, (h, w) in zip(files.values(), sizes, strict=True)
                )
                raise ItemError(f"the files of {area} have different sizes ({told} px), expected one pixel grid")
        height, width = (min(side) for side in zip(*sizes, strict=True))
        split = next(({"split": name} for name, areas in self.splits.items() if area in areas), {})
        for window in tile_windows(height, width, view.config):
            for sensor, ref in files.items():
                key = f"{area}_r{window[0]}_c{window[1]}"
                view.add(key, sensor, PlannedRaster((ref,), window), area=area, **split)


def _classes(decoded: Decoded, where: str) -> Decoded:
    """Return a map of colours [3,H,W] as one of class numbers [1,H,W].

    Stated rule: a channel from 128 on counts as 255, as a few published maps have colours that are off by some counts.
    Raises ItemError for colours of no class.
    """
    raster = decoded.raster
    if raster.shape[0] != 3 or raster.dtype != np.uint8:
        raise ItemError(f"{where} has {raster.shape[0]} bands of {raster.dtype}, expected a map in 8-bit colours.")
    red, green, blue = (np.asarray(raster, np.uint8) >= 128).astype(np.uint8)
    table = np.full(8, NO_CLASS - 1, np.uint8)
    table[0] = NO_CLASS
    for number, (r, g, b) in enumerate(CLASSES.values()):
        table[(r // 255) * 4 + (g // 255) * 2 + b // 255] = number
    classes = table[red * 4 + green * 2 + blue]
    if (classes == NO_CLASS - 1).any():
        row, column = (int(axis[0]) for axis in np.nonzero(classes == NO_CLASS - 1))
        raise ItemError(
            f"{where} has the colour {raster[:, row, column].tolist()} at row {row}, column {column} of the tile, "
            f"expected one of {', '.join(f'{colour} ({name})' for name, colour in CLASSES.items())}."
        )
    off = bool(((raster != 0) & (raster != 255)).any())
    rules = (*decoded.facts.rules, "classes: colours that are off set to the nearest") if off else decoded.facts.rules
    return Decoded(classes[None], Facts(decoded.facts.georeference, rules=rules))


def parse(config: BuildConfig) -> IsprsOptions:
    """Return the settings of a benchmark that has no others; raise ConfigError for ones it does not know."""
    return config.parse_options(IsprsOptions)
