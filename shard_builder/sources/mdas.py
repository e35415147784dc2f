"""MDAS: aerial RGB and a surface model of Augsburg on one grid.

Hu et al., "MDAS: a new multimodal benchmark dataset for remote sensing", ESSD 2023. Published as
`Augsburg_data_4_publication.zip` with `sub_area_N/3K_RGB_sub_areaN.tif` and `sub_area_N/3K_DSM_sub_areaN.tif`; the same
unpacked is read as well. Each sub-area is cut into tiles.
"""

from __future__ import annotations

import re
from typing import ClassVar

from gfm_pipeline.errors import ItemError
from gfm_pipeline.sensors import SensorSpec, builtin_sensor
from shard_builder.archives import ArchiveReader, MemberRef
from shard_builder.images import load_rgb, load_tiff, read_size, tile_windows
from shard_builder.planned import PlannedRaster
from shard_builder.raster import Decoded
from shard_builder.source import SOURCES, InputView, Source

_ARCHIVE = re.compile(r"(augsburg|mdas)[^.]*(\.zip)?$|sub_area_?\d+$")
_RASTER = re.compile(r"(?:.*/)?sub_area_?(\d+)/3K_(RGB|DSM)_sub_?area_?(\d+)\.tiff?$", re.IGNORECASE)
_SENSOR = {"RGB": "rgb", "DSM": "dsm"}


@SOURCES.register("mdas")
class MDAS(Source):
    """Tiles of `rgb` and `dsm`."""

    sensors = (builtin_sensor("rgb"), builtin_sensor("dsm"))
    tiled: ClassVar[bool] = True

    def scan(self, view: InputView) -> None:
        """Plan the tiles of every sub-area, row by row."""
        used = [name for name in view.names() if self._is_mine(name, view)]
        for name in used:
            self._scan_archive(view, name)
        view.ignore_rest(used, "not part of mdas")

    def load(self, planned: PlannedRaster, spec: SensorSpec, files: ArchiveReader) -> Decoded:
        """Return a tile of a sub-area."""
        return (load_rgb if spec.name == "rgb" else load_tiff)(planned, spec, files)

    def _is_mine(self, name: str, view: InputView) -> bool:
        return view.kind(name) in ("zip", "folder") and (view.only is not None or bool(_ARCHIVE.match(name.lower())))

    def _scan_archive(self, view: InputView, name: str) -> None:
        areas: dict[int, dict[str, MemberRef]] = {}
        for ref in view.open(name):
            match = _RASTER.fullmatch(ref.member)
            if match is None:
                view.ignore(name, "rasters other than 3K RGB and DSM of a sub-area")
                continue
            refs, sensor = areas.setdefault(int(match[1]), {}), _SENSOR[match[2].upper()]
            if sensor in refs:
                view.reject(f"sub_area_{match[1]}", ref.source_file, f"duplicate of {refs[sensor].source_file}")
            else:
                refs[sensor] = ref
        for number, refs in sorted(areas.items()):
            try:
                self._plan_area(view, f"sub_area_{number}", refs)
            except ItemError as error:
                first = next(iter(refs.values()))
                view.reject(f"sub_area_{number}", first.source_file, str(error), len(refs))

    def _plan_area(self, view: InputView, area: str, refs: dict[str, MemberRef]) -> None:
        sizes = {sensor: read_size(ref, view.reader) for sensor, ref in refs.items()}
        if len(set(sizes.values())) > 1:
            raise ItemError(f"rgb and dsm differ in size: {sizes['rgb']} and {sizes['dsm']} px, expected one grid")
        for window in tile_windows(*next(iter(sizes.values())), view.config):
            for sensor in ("rgb", "dsm"):
                if sensor in refs:
                    key = f"{area}_r{window[0]}_c{window[1]}"
                    view.add(key, sensor, PlannedRaster((refs[sensor],), window), area=area)
