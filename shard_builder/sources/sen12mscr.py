"""SEN12MS-CR: triplets of Sentinel-1, Sentinel-2 and the same under clouds, 256 px at 10 m, for cloud removal.

Ebel et al., "Multisensor data fusion for cloud removal in global and all-season Sentinel-2 imagery", IEEE TGRS 2021.
Published as `ROIs1158_spring_s1.tar.gz`, `..._s2.tar.gz`, `..._s2_cloudy.tar.gz` and so on, with members like
`ROIs1158_spring_s2_cloudy/s2_cloudy_7/ROIs1158_spring_s2_cloudy_7_p30.tif`; the same unpacked is read as well, all of
it or one season. A triplet is what agrees in season, scene and patch; the two Sentinel-2 images are two sensors.

The label `split` is that of the scene in the authors' own loader (Ebel et al., "UnCRtainTS: uncertainty quantification
for cloud removal in optical satellite time series", CVPRW 2023): 155 scenes to train, 10 to validate, 10 to test.
Lists of patches beside the archives, `train_list.txt`, `val_list.txt`, `test_list.txt`, take its place.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from gfm_pipeline.sensors import builtin_sensor
from shard_builder.sources.base import SOURCES
from shard_builder.sources.shared.season_archive import SeasonArchive


def _scenes(text: str) -> frozenset[int]:
    return frozenset(map(int, text.split()))


_SPLITS = {
    "train": {
        "ROIs1158_spring": _scenes(
            "1 6 8 9 15 21 26 39 40 45 58 63 66 75 77 97 100 101 109 110 113 115 117 119 120 121 124 126 128 132 134 "
            "141 142 145 147"
        ),
        "ROIs1868_summer": _scenes(
            "4 7 11 15 25 27 31 36 40 42 43 47 55 56 72 76 86 87 89 90 93 95 100 101 102 113 114 115 120 121 123 124 "
            "125 126 132 133 135 137 139 140 143 146 147"
        ),
        "ROIs1970_fall": _scenes(
            "1 3 4 6 11 14 19 22 26 27 28 30 31 33 35 37 39 40 41 42 57 64 71 77 81 82 83 85 88 91 93 100 104 105 107 "
            "109 110 112 114 116 119 120 122 125 128 131 133 134 135 136 141 142 144 147 148 149"
        ),
        "ROIs2017_winter": _scenes("8 21 25 42 47 49 55 59 61 62 64 68 75 81 94 102 104 112 116 135 146"),
    },
    "val": {
        "ROIs1158_spring": _scenes("17"),
        "ROIs1868_summer": _scenes("17 19 80 127"),
        "ROIs1970_fall": _scenes("65"),
        "ROIs2017_winter": _scenes("22 84 107 130"),
    },
    "test": {
        "ROIs1158_spring": _scenes("31 44 106 123 140"),
        "ROIs1868_summer": _scenes("73 119"),
        "ROIs1970_fall": _scenes("139"),
        "ROIs2017_winter": _scenes("63 108"),
    },
}


@SOURCES.register("sen12mscr")
class Sen12MSCR(SeasonArchive):
    """Triplets of `s1`, `s2` and `s2_cloudy`."""

    reads: ClassVar[str] = "ROIs*_s1.tar.gz, ROIs*_s2.tar.gz and ROIs*_s2_cloudy.tar.gz"
    sensors = (
        builtin_sensor("s1"),
        builtin_sensor("s2"),
        builtin_sensor("s2").model_copy(update={"name": "s2_cloudy"}),
    )
    published_splits: ClassVar[Mapping[str, Mapping[str, frozenset[int]]]] = _SPLITS
    not_read: ClassVar[dict[str, str]] = {"lc": "land cover of SEN12MS, not part of SEN12MS-CR"}
