"""MDAS: aerial RGB and a surface model of Augsburg, with radar, multispectral and hyperspectral images on request.

Hu et al., "MDAS: a new multimodal benchmark dataset for remote sensing", ESSD 2023. Published as
`Augsburg_data_4_publication.zip` with three sub-areas, `sub_area_N/3K_RGB_sub_areaN.tif` and so on, and the whole
scene, `entire_city/3K_RGB.tif` and so on, which shows the ground of the sub-areas again. The same unpacked is read as
well, as is a folder inside it. What is published holds 0.2 m RGB, a 0.3 m surface model, 2.2 m HySpex and 10 m Sentinel
images. Scenes are cut to tiles in the pixels of the RGB image, by windows: the whole one is larger than memory.

Stated rules: tiles are cut where all chosen sensors of a scene overlap. With `align: grid` a sensor whose pixels are
those of the RGB image up to whole steps is cut bit for bit; any other is resampled to them, by the mean where it is
finer and bilinear where it is coarser (see `rasters/resample.py`). With `align: own` it keeps its own pixels, and a
tile is what covers the RGB tile to half a pixel, which wants a tile_px of whole pixels of both: 550 for all of them. A
fourth band of the RGB image is dropped.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import ClassVar, Literal

from gfm_pipeline.config import StrictModel
from gfm_pipeline.sensors import Display, SensorSpec, builtin_sensor
from shard_builder.archives import ArchiveReader, MemberRef, item_error
from shard_builder.config import BuildConfig
from shard_builder.planned import PlannedRaster
from shard_builder.rasters.images import tile_windows
from shard_builder.rasters.raster import Decoded
from shard_builder.rasters.scene import load_scene, read_scene_header
from shard_builder.sources.base import SOURCES, InputView, Source
from shard_builder.sources.shared.footprint import Align, Scene, aligned, overlap

_ARCHIVE = re.compile(r"(augsburg|mdas)[^.]*(\.zip)?$|sub_area_?\d+$|entire_city$")
_PRODUCT = r"(?P<product>3K_RGB|3K_DSM|Sentinel[-_]1|Sentinel[-_]2|HySpex)"
_RASTER = re.compile(
    rf"(?:.*/)?(?:{_PRODUCT}_sub_?area_?(?P<area>\d+)|entire_city/{_PRODUCT.replace('product', 'city')})\.tiff?$",
    re.IGNORECASE,
)
_SENSOR = {"3k_rgb": "rgb", "3k_dsm": "dsm", "sentinel_1": "s1", "sentinel_2": "s2_l2a", "hyspex": "hyspex"}
CITY = "entire_city"
_HYSPEX_BANDS = 368
_HYSPEX = SensorSpec(
    name="hyspex",
    bands=tuple(f"H{number}" for number in range(1, _HYSPEX_BANDS + 1)),
    dtype="int16",
    units="surface reflectance x 1e4",
    gsd_m=2.2,
    display=Display(mode="colour", bands=("H65", "H37", "H15")),
)
_MORE = {"s1": builtin_sensor("s1"), "s2_l2a": builtin_sensor("s2_l2a"), "hyspex": _HYSPEX}


class MDASOptions(StrictModel):
    """What of MDAS becomes tiles."""

    scenes: Literal["sub_areas", "whole", "all"] = "sub_areas"
    """The three sub-areas, the whole scene, or both: then the ground of the sub-areas is there twice."""
    sensors: tuple[Literal["s1", "s2_l2a", "hyspex"], ...] = ()
    """Beside `rgb` and `dsm`: Sentinel-1, Sentinel-2 (L2A, 12 bands) and the airborne HySpex (368 bands)."""
    align: Align = "grid"
    """grid: all sensors in the pixels of the RGB image. own: every sensor in its own pixels."""


@SOURCES.register("mdas")
class MDAS(Source):
    """Tiles of `rgb`, `dsm` and what is asked for."""

    reads: ClassVar[str] = "Augsburg_data_4_publication.zip or what is in it"
    sensors: tuple[SensorSpec, ...] = (builtin_sensor("rgb"), builtin_sensor("dsm"))
    tiled: ClassVar[bool] = True

    def __init__(self, config: BuildConfig) -> None:
        """Raise ConfigError for options that the source does not know."""
        self.options = config.parse_options(MDASOptions)
        self.sensors = (*MDAS.sensors, *(spec for name, spec in _MORE.items() if name in self.options.sensors))

    def scan(self, view: InputView) -> None:
        """Plan the tiles of every scene, row by row."""
        used = [name for name in view.names() if self._is_mine(name, view)]
        for name in used:
            self._scan_files(view, name, view.open(name))
        loose = [name for name in view.names() if view.kind(name) is None and _RASTER.fullmatch(name)]
        if loose:
            self._scan_files(view, "", (ref for ref in view.open("") if ref.member in loose))
        view.ignore_rest([*used, *loose], "not part of mdas")

    def load(self, planned: PlannedRaster, spec: SensorSpec, files: ArchiveReader) -> Decoded:
        """Return a tile of a scene."""
        return load_scene(planned, spec, files, rgb=spec.name == "rgb")

    def _is_mine(self, name: str, view: InputView) -> bool:
        return view.kind(name) in ("zip", "folder") and (view.only is not None or bool(_ARCHIVE.match(name.lower())))

    def _scan_files(self, view: InputView, name: str, files: Iterable[MemberRef]) -> None:
        areas: dict[str, dict[str, MemberRef]] = {}
        for ref in files:
            area, sensor = _what(ref.member)
            if not self._is_wanted(area, sensor):
                view.ignore(name or ref.member, "rasters that options.scenes and options.sensors do not ask for")
                continue
            refs = areas.setdefault(area, {})
            if sensor in refs:
                view.reject(area, ref.source_file, f"duplicate of {refs[sensor].source_file}")
            else:
                refs[sensor] = ref
        for area, refs in sorted(areas.items()):
            try:
                self._plan_area(view, area, refs)
            except Exception as error:
                first = next(iter(refs.values()))
                view.reject(area, first.source_file, str(item_error(error, first.source_file)), len(refs))

    def _is_wanted(self, area: str, sensor: str) -> bool:
        scenes = self.options.scenes
        chosen = scenes == "all" or (area == CITY) == (scenes == "whole")
        return chosen and any(spec.name == sensor for spec in self.sensors)

    def _plan_area(self, view: InputView, area: str, refs: dict[str, MemberRef]) -> None:
        order = [spec.name for spec in self.sensors if spec.name in refs]
        scenes = {sensor: Scene((refs[sensor],), *read_scene_header(refs[sensor], view.reader)[:3]) for sensor in order}
        home, *others = scenes.values()
        row, column, height, width = overlap(home, others)
        for down, right, *size in tile_windows(height, width, view.config):
            window = (row + down, column + right, size[0], size[1])
            for sensor, scene in scenes.items():
                planned = aligned(window, home, scene, self.options.align, "mean")
                view.add(f"{area}_r{window[0]}_c{window[1]}", sensor, planned, area=area)


def _what(member: str) -> tuple[str, str]:
    """Return the scene and the sensor that a file is of; ("", "") for none."""
    match = _RASTER.fullmatch(member)
    if match is None:
        return "", ""
    product = (match["product"] or match["city"]).lower().replace("-", "_")
    return f"sub_area_{int(match['area'])}" if match["area"] else CITY, _SENSOR[product]
