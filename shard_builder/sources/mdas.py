"""MDAS: aerial RGB and a surface model of Augsburg on one grid.

Hu et al., "MDAS: a new multimodal benchmark dataset for remote sensing", ESSD 2023. Published as
`Augsburg_data_4_publication.zip` with `sub_area_N/3K_RGB_sub_areaN.tif` and `sub_area_N/3K_DSM_sub_areaN.tif`; the same
unpacked is read as well. Each sub-area is cut into tiles.
"""

from __future__ import annotations

import re
from typing import ClassVar

from gfm_pipeline.errors import ItemError
from shard_builder.archive import ArchiveReader, MemberRef, archive_kind
from shard_builder.images import decode_rgb, decode_tiff, image_size, tile_windows
from shard_builder.source import SOURCES, Decoded, Ignored, InputView, PlannedRaster, PlannedSample, ignore_rest

_ARCHIVE = re.compile(r"(augsburg|mdas)[^.]*(\.zip)?$|sub_area_?\d+$")
_RASTER = re.compile(r"(?:.*/)?sub_area_?(\d+)/3K_(RGB|DSM)_sub_?area_?(\d+)\.tiff?$", re.IGNORECASE)
_SENSOR = {"RGB": "rgb", "DSM": "dsm"}


@SOURCES.register("mdas")
class MDAS:
    """Tiles of `rgb` and `dsm`."""

    sensors: ClassVar[tuple[str, ...]] = ("rgb", "dsm")
    tiled: ClassVar[bool] = True

    def scan(self, view: InputView) -> None:
        """Plan the tiles of every sub-area, row by row."""
        used = [name for name in view.names() if self._is_mine(name, view)]
        for name in used:
            self._scan_archive(view, name)
        ignore_rest(view, used, {}, "not part of mdas")

    def decode(self, data: bytes, ref: MemberRef, sensor: str) -> Decoded:
        """Return the raster of a whole sub-area."""
        return decode_rgb(data, ref) if sensor == "rgb" else decode_tiff(data, ref)

    def _is_mine(self, name: str, view: InputView) -> bool:
        kind = archive_kind(view.root / name)
        return kind in ("zip", "folder") and (view.only is not None or _ARCHIVE.match(name.lower()) is not None)

    def _scan_archive(self, view: InputView, name: str) -> None:
        areas: dict[int, dict[str, MemberRef]] = {}
        others = 0
        for ref in view.open(name).members:
            match = _RASTER.fullmatch(ref.member)
            if match is None:
                others += 1
            else:
                refs, sensor = areas.setdefault(int(match[1]), {}), _SENSOR[match[2].upper()]
                if sensor in refs:
                    view.reject(f"sub_area_{match[1]}", ref.source_file, f"duplicate of {refs[sensor].source_file}")
                else:
                    refs[sensor] = ref
        if others:
            view.scan.ignored.append(Ignored(name, "rasters other than 3K RGB and DSM of a sub-area", others))
        reader = view.reader()
        try:
            for number, refs in sorted(areas.items()):
                self._plan_area(view, f"sub_area_{number}", refs, reader)
        finally:
            reader.close()
        view.add_input(name, sum(len(refs) for refs in areas.values()))

    def _plan_area(self, view: InputView, area: str, refs: dict[str, MemberRef], reader: ArchiveReader) -> None:
        first = next(iter(refs.values()))
        try:
            sizes = {sensor: image_size(reader.read(ref), ref) for sensor, ref in refs.items()}
            if len(set(sizes.values())) > 1:
                raise ItemError(f"rgb and dsm differ in size: {sizes['rgb']} and {sizes['dsm']} px, expected one grid")
            windows = tile_windows(*next(iter(sizes.values())), view.config)
        except ItemError as error:
            view.reject(area, first.source_file, str(error), len(refs))
            return
        view.scan.items += len(refs)
        view.scan.samples += [
            PlannedSample(
                f"{area}_r{window[0]}_c{window[1]}",
                {sensor: PlannedRaster(refs[sensor], window) for sensor in self.sensors if sensor in refs},
                {"area": area},
            )
            for window in windows
        ]
