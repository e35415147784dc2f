"""SEN12MS: co-located Sentinel-1 and Sentinel-2 patches of four seasons, 256 px at 10 m.

Schmitt et al., "SEN12MS - a curated dataset of georeferenced multi-spectral Sentinel-1/2 imagery", ISPRS Annals 2019.
Published as `ROIs1158_spring_s1.tar.gz`, `..._s2.tar.gz`, `..._lc.tar.gz` and so on, with members like
`ROIs1158_spring/s1_7/ROIs1158_spring_s1_7_p30.tif`; the same unpacked is read as well. A pair is what agrees in season,
scene and patch.
"""

from __future__ import annotations

import re

from gfm_pipeline.sensors import builtin_sensor
from shard_builder.planned import PlannedRaster
from shard_builder.source import SOURCES, InputView, Source

_ARCHIVE = re.compile(r"ROIs\d+_(spring|summer|fall|winter)(_[a-z0-9_]+?)?(\.tar\.gz|\.tgz|\.tar)?$")
_PATCH = re.compile(r"(?:.*/)?(ROIs\d+_(?:spring|summer|fall|winter))_(s1|s2|lc|s2_cloudy)_(\d+)_p(\d+)\.tif$")
_NOT_READ = {
    "lc": "land-cover labels, not packed for pretraining",
    "s2_cloudy": "cloudy Sentinel-2 of SEN12MS-CR, not part of SEN12MS",
}


@SOURCES.register("sen12ms")
class Sen12MS(Source):
    """Pairs of `s1` (VV, VH in dB) and `s2` (13 bands)."""

    sensors = (builtin_sensor("s1"), builtin_sensor("s2"))

    def scan(self, view: InputView) -> None:
        """Plan one sample per place, in the order of the archives."""
        for name in view.names():
            match = _ARCHIVE.fullmatch(name)
            what = (match[2] or "").lstrip("_") if match else ""
            if match is None or view.kind(name) not in ("tar", "tar.gz", "folder"):
                view.ignore(name, "not part of sen12ms")
            elif what in _NOT_READ:
                view.ignore(name, _NOT_READ[what])
            else:
                self._scan_archive(view, name)

    def _scan_archive(self, view: InputView, name: str) -> None:
        for ref in view.open(name):
            match = _PATCH.fullmatch(ref.member)
            if match is None or match[2] in _NOT_READ:
                view.ignore(name, _NOT_READ[match[2]] if match else "no SEN12MS patch by its name")
            else:
                view.add(f"{match[1]}_{match[3]}_p{match[4]}", match[2], PlannedRaster((ref,)))
