"""SpaceNet 2: WorldView-3 panchromatic (0.3 m) and 8-band multispectral (1.2 m) chips of four cities.

Van Etten et al., "SpaceNet: a remote sensing dataset and challenge series", 2018. Published as
`SN2_buildings_train_AOI_2_Vegas.tar.gz` (earlier `AOI_2_Vegas_Train.tar.gz`, `AOI_2_Vegas_Test_public.tar.gz`) with
`AOI_2_Vegas_Train/PAN/PAN_AOI_2_Vegas_img1.tif` (650 x 650 px) and `AOI_2_Vegas_Train/MUL/MUL_AOI_2_Vegas_img1.tif`
(163 x 163 px), in newer copies with `SN2_buildings_train_AOI_2_Vegas_PAN_img1.tif` for names; the same unpacked is read
as well. A sample is what agrees in city, part and number. All keep their own pixels; 0 means that nothing was measured.

The pan-sharpened copies are there too: all eight bands at 0.3 m (`MUL-PanSharpen`), which pan-sharpening and
super-resolution are measured against, and red, green and blue alone on request (`RGB-PanSharpen`). Not read: building
outlines, which are vectors.
"""

from __future__ import annotations

import re
from typing import ClassVar, Literal

from gfm_pipeline.config import StrictModel
from gfm_pipeline.sensors import Display, SensorSpec
from shard_builder.config import BuildConfig
from shard_builder.planned import PlannedRaster
from shard_builder.sources.base import SOURCES, InputView, Source
from shard_builder.sources.shared.walk import files_of

_NAME = re.compile(
    r"(SN2_buildings_(train|test)\w*|AOI_\d_\w+_(Train|Test)\w*)(\.tar\.gz|\.tgz|\.tar|\.zip)?", re.IGNORECASE
)
_KINDS = {"PAN": "pan", "MUL": "ms", "MUL-PANSHARPEN": "ms_ps", "RGB-PANSHARPEN": "rgb_ps"}
_KIND = "|".join(sorted(map(re.escape, _KINDS), key=len, reverse=True))
_PART = re.compile(_KIND, re.IGNORECASE)
_IMAGE = re.compile(
    rf"(?:.*/)?AOI_\d_\w+_(?P<part>Train|Test)\w*/(?P<kind>{_KIND})/"
    rf"(?:(?:{_KIND})_(?P<old>AOI_\d_[A-Za-z]+)|SN2_buildings_\w+?_(?P<new>AOI_\d_[A-Za-z]+)_(?:{_KIND}))_img(?P<n>\d+)\.tif",
    re.IGNORECASE,
)
_EIGHT = ("Coastal", "Blue", "Green", "Yellow", "Red", "RedEdge", "NIR1", "NIR2")


def _sensor(name: str, bands: tuple[str, ...], gsd_m: float) -> SensorSpec:
    grey = Display(mode="grey", bands=bands)
    return SensorSpec(
        name=name,
        bands=bands,
        dtype="uint16",
        units="digital number",
        gsd_m=gsd_m,
        nodata=0.0,
        display=grey if len(bands) == 1 else Display(mode="colour", bands=("Red", "Green", "Blue")),
    )


_ALL = (
    _sensor("pan", ("PAN",), 0.31),
    _sensor("ms", _EIGHT, 1.24),
    _sensor("ms_ps", _EIGHT, 0.31),
    _sensor("rgb_ps", ("Red", "Green", "Blue"), 0.31),
)


class SpaceNetOptions(StrictModel):
    """Which of the images of a chip are packed."""

    sensors: tuple[Literal["pan", "ms", "ms_ps", "rgb_ps"], ...] = ("pan", "ms", "ms_ps")
    """Panchromatic, multispectral, and the pan-sharpened copies: of all bands, of red, green and blue."""


@SOURCES.register("spacenet")
class SpaceNet(Source):
    """Chips of `pan`, `ms` and `ms_ps`, with `rgb_ps` on request."""

    reads: ClassVar[str] = "SN2_buildings_*.tar.gz or AOI_*_Train.tar.gz"
    sensors: tuple[SensorSpec, ...] = _ALL[:3]
    optional: ClassVar[frozenset[str]] = frozenset({"ms_ps", "rgb_ps"})

    def __init__(self, config: BuildConfig) -> None:
        """Raise ConfigError for options that the source does not know."""
        options = config.parse_options(SpaceNetOptions)
        self.sensors = tuple(spec for spec in _ALL if spec.name in options.sensors)

    def scan(self, view: InputView) -> None:
        """Plan one sample per chip, in the order of the archives."""
        wanted = {spec.name for spec in self.sensors}
        for name, ref in files_of(view, _NAME, _PART):
            match = _IMAGE.fullmatch(ref.member if name else f"{view.folder_name}/{ref.member}")
            if match is None:
                view.ignore(name or ref.member, "no chip of SpaceNet 2 by its name")
                continue
            sensor = _KINDS[match["kind"].upper()]
            if sensor not in wanted:
                view.ignore(name or ref.member, "chips that options.sensors does not ask for")
                continue
            part, place = match["part"].lower(), match["old"] or match["new"]
            view.add(f"{place}_{part}_img{match['n']}", sensor, PlannedRaster((ref,)), split=part, city=place[6:])
