"""SEN12MS-CR: triplets of Sentinel-1, Sentinel-2 and the same under clouds, 256 px at 10 m, for cloud removal.

Ebel et al., "Multisensor data fusion for cloud removal in global and all-season Sentinel-2 imagery", IEEE TGRS 2021.
Published as `ROIs1158_spring_s1.tar.gz`, `..._s2.tar.gz`, `..._s2_cloudy.tar.gz` and so on, with members like
`ROIs1158_spring_s2_cloudy/s2_cloudy_7/ROIs1158_spring_s2_cloudy_7_p30.tif`; the same unpacked is read as well, all of
it or one season. A triplet is what agrees in season, scene and patch; the two Sentinel-2 images are two sensors.
"""

from __future__ import annotations

from typing import ClassVar

from gfm_pipeline.sensors import builtin_sensor
from shard_builder.sources.base import SOURCES
from shard_builder.sources.shared.season_archive import SeasonArchive


@SOURCES.register("sen12mscr")
class Sen12MSCR(SeasonArchive):
    """Triplets of `s1`, `s2` and `s2_cloudy`."""

    reads: ClassVar[str] = "ROIs*_s1.tar.gz, ROIs*_s2.tar.gz and ROIs*_s2_cloudy.tar.gz"
    sensors = (
        builtin_sensor("s1"),
        builtin_sensor("s2"),
        builtin_sensor("s2").model_copy(update={"name": "s2_cloudy"}),
    )
    not_read: ClassVar[dict[str, str]] = {"lc": "land cover of SEN12MS, not part of SEN12MS-CR"}
