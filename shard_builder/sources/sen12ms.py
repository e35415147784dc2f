"""SEN12MS: co-located Sentinel-1 and Sentinel-2 patches of four seasons, 256 px at 10 m.

Schmitt et al., "SEN12MS - a curated dataset of georeferenced multi-spectral Sentinel-1/2 imagery", ISPRS Annals 2019.
Published as `ROIs1158_spring_s1.tar.gz`, `..._s2.tar.gz`, `..._lc.tar.gz` and so on, with members like
`ROIs1158_spring/s1_7/ROIs1158_spring_s1_7_p30.tif`; the same unpacked is read as well. A pair is what agrees in season,
scene and patch.
"""

from __future__ import annotations

import re
from typing import ClassVar

from gfm_pipeline.errors import ArchiveError
from shard_builder.archive import MemberRef, archive_kind
from shard_builder.images import decode_tiff
from shard_builder.source import SOURCES, Decoded, Ignored, InputView, PlannedRaster, PlannedSample

_ARCHIVE = re.compile(r"ROIs\d+_(spring|summer|fall|winter)(_[a-z0-9_]+?)?(\.tar\.gz|\.tgz|\.tar)?$")
_PATCH = re.compile(r"(?:.*/)?(ROIs\d+_(?:spring|summer|fall|winter))_(s1|s2|lc|s2_cloudy)_(\d+)_p(\d+)\.tif$")
_NOT_READ = {
    "lc": "land-cover labels, not packed for pretraining",
    "s2_cloudy": "cloudy Sentinel-2 of SEN12MS-CR, not part of SEN12MS",
}


@SOURCES.register("sen12ms")
class Sen12MS:
    """Pairs of `s1` (VV, VH in dB) and `s2` (13 bands)."""

    sensors: ClassVar[tuple[str, ...]] = ("s1", "s2")
    tiled: ClassVar[bool] = False

    def scan(self, view: InputView) -> None:
        """Plan one sample per place, in the order of the archives."""
        places: dict[str, dict[str, MemberRef]] = {}
        for name in view.names():
            match = _ARCHIVE.fullmatch(name)
            what = (match[2] or "").lstrip("_") if match else ""
            if match is None or archive_kind(view.root / name) not in ("tar", "tar.gz", "folder"):
                view.scan.ignored.append(Ignored(name, "not part of sen12ms"))
            elif what in _NOT_READ:
                view.scan.ignored.append(Ignored(name, _NOT_READ[what]))
            else:
                self._scan_archive(view, name, places)
        for key, refs in places.items():
            view.scan.samples.append(
                PlannedSample(key, {sensor: PlannedRaster(refs[sensor]) for sensor in self.sensors if sensor in refs})
            )

    def decode(self, data: bytes, ref: MemberRef, sensor: str) -> Decoded:
        """Return the raster of a patch, bands first."""
        return decode_tiff(data, ref)

    def _scan_archive(self, view: InputView, name: str, places: dict[str, dict[str, MemberRef]]) -> None:
        found = 0
        left_out: dict[str, int] = {}
        listing = view.open(name)
        if not listing.members and not listing.refused:
            raise ArchiveError(f"{view.root / name} holds no files. Copy or download it again, or remove it.")
        for ref in listing.members:
            match = _PATCH.fullmatch(ref.member)
            if match is None or match[2] in _NOT_READ:
                reason = _NOT_READ[match[2]] if match else "no SEN12MS patch by its name"
                left_out[reason] = left_out.get(reason, 0) + 1
                continue
            key, sensor = f"{match[1]}_{match[3]}_p{match[4]}", match[2]
            place = places.setdefault(key, {})
            if sensor in place:
                view.reject(key, ref.source_file, f"duplicate of {place[sensor].source_file}")
                continue
            place[sensor] = ref
            found += 1
        view.scan.items += found
        view.scan.ignored += [Ignored(name, reason, files) for reason, files in sorted(left_out.items())]
        view.add_input(name, found)
