"""SEN12MS: co-located Sentinel-1 and Sentinel-2 patches of four seasons with land cover, 256 px at 10 m.

Schmitt et al., "SEN12MS - a curated dataset of georeferenced multi-spectral Sentinel-1/2 imagery", ISPRS Annals 2019.
Published as `ROIs1158_spring_s1.tar.gz`, `..._s2.tar.gz`, `..._lc.tar.gz` and so on, with members like
`ROIs1158_spring/s1_7/ROIs1158_spring_s1_7_p30.tif`; the same unpacked is read as well, all of it or one season. A pair
is what agrees in season, scene and patch. `train_list.txt` and `test_list.txt` beside the archives give the split.

The land cover is a label raster: the MODIS classes by IGBP, and by LCCS of cover, use and surface hydrology.
"""

from __future__ import annotations

from typing import ClassVar

from gfm_pipeline.sensors import SensorSpec, builtin_sensor
from shard_builder.sources.base import SOURCES
from shard_builder.sources.shared.season_archive import SeasonArchive


@SOURCES.register("sen12ms")
class Sen12MS(SeasonArchive):
    """Pairs of `s1` (VV, VH in dB) and `s2` (13 bands), with the label raster `lc`."""

    reads: ClassVar[str] = "ROIs*_s1.tar.gz and ROIs*_s2.tar.gz"
    sensors = (
        builtin_sensor("s1"),
        builtin_sensor("s2"),
        SensorSpec(
            name="lc",
            bands=("IGBP", "LCCS_cover", "LCCS_use", "LCCS_hydrology"),
            dtype="uint16",
            units="class",
            gsd_m=10.0,
            kind="labels",
        ),
    )
    not_read: ClassVar[dict[str, str]] = {"s2_cloudy": "cloudy Sentinel-2 of SEN12MS-CR, not part of SEN12MS"}
