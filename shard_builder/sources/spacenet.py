"""SpaceNet 2: WorldView-3 panchromatic (0.3 m) and 8-band multispectral (1.2 m) chips of four cities.

Van Etten et al., "SpaceNet: a remote sensing dataset and challenge series", 2018. Published as
`SN2_buildings_train_AOI_2_Vegas.tar.gz` (earlier `AOI_2_Vegas_Train.tar.gz`, `AOI_2_Vegas_Test_public.tar.gz`) with
`AOI_2_Vegas_Train/PAN/PAN_AOI_2_Vegas_img1.tif` (650 x 650 px) and `AOI_2_Vegas_Train/MUL/MUL_AOI_2_Vegas_img1.tif`
(163 x 163 px), in newer copies with `SN2_buildings_train_AOI_2_Vegas_PAN_img1.tif` for names; the same unpacked is read
as well. A pair is what agrees in city, part and number. Both keep their own pixels; 0 means that nothing was measured.

Not read: pan-sharpened copies (MUL-PanSharpen, RGB-PanSharpen) and building outlines, which are vectors.
"""

from __future__ import annotations

import re
from typing import ClassVar

from gfm_pipeline.sensors import Display, SensorSpec
from shard_builder.planned import PlannedRaster
from shard_builder.sources.base import SOURCES, InputView, Source
from shard_builder.sources.shared.walk import files_of

_NAME = re.compile(
    r"(SN2_buildings_(train|test)\w*|AOI_\d_\w+_(Train|Test)\w*)(\.tar\.gz|\.tgz|\.tar|\.zip)?", re.IGNORECASE
)
_PART = re.compile(r"MUL|PAN")
_IMAGE = re.compile(
    r"(?:.*/)?AOI_\d_\w+_(?P<part>Train|Test)\w*/(?P<kind>MUL|PAN)/"
    r"(?:(?:MUL|PAN)_(?P<old>AOI_\d_[A-Za-z]+)|SN2_buildings_\w+?_(?P<new>AOI_\d_[A-Za-z]+)_(?:MUL|PAN))_img(?P<n>\d+)\.tif",
    re.IGNORECASE,
)


@SOURCES.register("spacenet")
class SpaceNet(Source):
    """Pairs of `pan` and `ms`."""

    reads: ClassVar[str] = "SN2_buildings_*.tar.gz or AOI_*_Train.tar.gz"
    sensors = (
        SensorSpec(
            name="pan",
            bands=("PAN",),
            dtype="uint16",
            units="digital number",
            gsd_m=0.31,
            nodata=0.0,
            display=Display(mode="grey", bands=("PAN",)),
        ),
        SensorSpec(
            name="ms",
            bands=("Coastal", "Blue", "Green", "Yellow", "Red", "RedEdge", "NIR1", "NIR2"),
            dtype="uint16",
            units="digital number",
            gsd_m=1.24,
            nodata=0.0,
            display=Display(mode="colour", bands=("Red", "Green", "Blue")),
        ),
    )

    def scan(self, view: InputView) -> None:
        """Plan one sample per chip, in the order of the archives."""
        for name, ref in files_of(view, _NAME, _PART):
            match = _IMAGE.fullmatch(ref.member if name else f"{view.folder_name}/{ref.member}")
            if match is None:
                view.ignore(name or ref.member, "no panchromatic or multispectral chip of SpaceNet 2 by its name")
                continue
            part, place = match["part"].lower(), match["old"] or match["new"]
            sensor = {"MUL": "ms", "PAN": "pan"}[match["kind"].upper()]
            view.add(f"{place}_{part}_img{match['n']}", sensor, PlannedRaster((ref,)), split=part, city=place[6:])
