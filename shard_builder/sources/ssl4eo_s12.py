"""SSL4EO-S12: Sentinel-1 and Sentinel-2 (L1C and L2A) of 251,079 places at up to four seasons each, 264 px at 10 m.

Wang et al., "SSL4EO-S12: a large-scale multimodal, multitemporal dataset for self-supervised learning in Earth
observation", IEEE GRSM 2023. Published as `s1_grd.tar.gz`, `s2_l1c.tar.gz`, `s2_l2a.tar.gz`, each split in parts that
are read as they are, with members like `s2c/0000000/20200323T162931_20200323T163750_T15QXA/B10.tif`: a folder for each
sensor, place and acquisition, a file for each band at its own resolution. The same unpacked is read as well. What
agrees in the number of the place is one sample; the folder names date the acquisitions, earliest first, and the sensors
of a place may have different numbers of them.

Stated rule: the 20 m and 60 m bands are brought to the 10 m grid by repeating their pixels 2 x 2 and 6 x 6.
"""

from __future__ import annotations

import re
from typing import ClassVar

from gfm_pipeline.errors import ItemError
from gfm_pipeline.sensors import SensorSpec, builtin_sensor
from shard_builder.archives import ArchiveReader, MemberRef, kind_of
from shard_builder.archives.parts import is_later_part
from shard_builder.planned import PlannedRaster
from shard_builder.rasters.images import decode_tiff
from shard_builder.rasters.raster import Decoded
from shard_builder.sources.base import SOURCES, InputView, Source
from shard_builder.sources.shared.patterns import iso_date
from shard_builder.sources.shared.stacking import load_stack

_NAME = re.compile(r"(s1|s2a|s2c|s12)(\.(zip|tar|tgz).*)?$|s1_grd|s2_l1c|s2_l2a|ssl4eo", re.IGNORECASE)
_BAND = re.compile(r"(?:.*/)?(s1|s2c|s2a)/(\d+)/([^/]+)/([A-Z]+\d*A?)\.tif$")
_SENSOR = {"s1": "s1", "s2c": "s2", "s2a": "s2_l2a"}
Acquisitions = dict[str, dict[str, MemberRef]]
"""By folder name and band."""


@SOURCES.register("ssl4eo_s12")
class SSL4EOS12(Source):
    """Series of `s1`, `s2` (L1C) and `s2_l2a`."""

    reads: ClassVar[str] = "s1_grd.tar.gz, s2_l1c.tar.gz and s2_l2a.tar.gz"
    sensors = (builtin_sensor("s1"), builtin_sensor("s2"), builtin_sensor("s2_l2a"))

    def scan(self, view: InputView) -> None:
        """Plan the places of one archive or folder after the other, as they come."""
        used = [name for name in view.names() if view.kind(name) and (view.only or _NAME.match(name))]
        for name in used:
            _Places(self, view).scan(name)
        parts = [name for name in view.names() if is_later_part(name)]
        view.ignore_rest([*used, *parts], "not part of ssl4eo_s12")

    def load(self, planned: PlannedRaster, spec: SensorSpec, files: ArchiveReader) -> Decoded:
        """Return the series [T,C,H,W] of a sensor."""
        return load_stack(planned, spec.bands, lambda ref: decode_tiff(files.read(ref), ref), published=True)

    def plan(self, view: InputView, sensor: str, place: str, found: Acquisitions) -> None:
        """Plan the series of a sensor at a place, if every acquisition has all bands and a date."""
        spec = next(spec for spec in self.sensors if spec.name == sensor)
        refs = [ref for bands in found.values() for ref in bands.values()]
        try:
            dated = sorted((iso_date(name), name) for name in found)
            for _, name in dated:
                lacking = [band for band in spec.bands if band not in found[name]]
                if lacking:
                    raise ItemError(f"{sensor} of {place} lacks {', '.join(lacking)} in {name}")
        except ItemError as error:
            view.reject(place, refs[0].source_file, str(error), len(refs))
            return
        files = tuple(found[name][band] for _, name in dated for band in spec.bands)
        view.add(place, sensor, PlannedRaster(files, dates=tuple(date for date, _ in dated)))


class _Places:
    """The files of one archive, place by place: those of a place follow each other."""

    def __init__(self, source: SSL4EOS12, view: InputView) -> None:
        self._source = source
        self._view = view
        self._held: tuple[str, str] | None = None
        self._found: Acquisitions = {}

    def scan(self, name: str) -> None:
        """Plan all places of an archive or folder of the input, and of archives in the folder."""
        for ref in self._view.open(name):
            if not ref.archive and kind_of(ref.member):
                _Places(self._source, self._view).scan(ref.member)
            else:
                self._take(name, ref)
        self._flush()

    def _take(self, name: str, ref: MemberRef) -> None:
        match = _BAND.fullmatch(ref.member)
        if match is None and is_later_part(ref.member):
            return
        if match is None:
            self._view.ignore(name, "no band of SSL4EO-S12 by its name")
            return
        place = (_SENSOR[match[1]], match[2])
        if place != self._held:
            self._flush()
            self._held = place
        bands = self._found.setdefault(match[3], {})
        if match[4] in bands:
            known = bands[match[4]].source_file
            self._view.reject(match[2], ref.source_file, f"duplicate of {known}")
            return
        bands[match[4]] = ref

    def _flush(self) -> None:
        if self._held:
            self._source.plan(self._view, *self._held, self._found)
        self._held, self._found = None, {}
