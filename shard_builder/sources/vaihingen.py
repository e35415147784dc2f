"""ISPRS Vaihingen: 33 areas of a German town, near-infrared orthophotos and a surface model at 9 cm, six classes.

Published as `ISPRS_semantic_labeling_Vaihingen.zip` with `top/top_mosaic_09cm_area1.tif` (near infrared, red, green),
`dsm/dsm_09cm_matching_area1.tif` and `gts_for_participants/top_mosaic_09cm_area1.tif` (maps of 16 areas), and
`ISPRS_semantic_labeling_Vaihingen_ground_truth_COMPLETE.zip` with the maps of all areas, or `..._noBoundary.zip`
without boundaries; both may lie in one `Vaihingen.zip`. The same unpacked is read as well. Rules: `shared/isprs.py`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar

from shard_builder.config import BuildConfig
from shard_builder.sources.base import SOURCES
from shard_builder.sources.shared.isprs import IsprsBenchmark, parse

_DSM = re.compile(r"(?:.*/)?dsm_09cm_matching_area(\d+)\.tif")
_TOP = re.compile(r"(?:(.*)/)?top_mosaic_09cm_area(\d+)(_noBoundary)?\.tif")


@SOURCES.register("vaihingen")
class Vaihingen(IsprsBenchmark):
    """Tiles of `irrg` and `dsm`, with the label raster `classes`."""

    reads: ClassVar[str] = "ISPRS_semantic_labeling_Vaihingen*.zip"
    archive_names: ClassVar[re.Pattern[str]] = re.compile(
        r"(ISPRS_semantic_labeling_)?Vaihingen\w*(\.zip)?", re.IGNORECASE
    )
    part_names: ClassVar[re.Pattern[str]] = re.compile(r"top|dsm|ISPRS_semantic_labeling_Vaihingen\w*(\.zip)?")

    splits: ClassVar[Mapping[str, frozenset[str]]] = {
        "train": frozenset(f"area{n}" for n in (1, 3, 5, 7, 11, 13, 15, 17, 21, 23, 26, 28, 30, 32, 34, 37)),
        "test": frozenset(f"area{n}" for n in (2, 4, 6, 8, 10, 12, 14, 16, 20, 22, 24, 27, 29, 31, 33, 35, 38)),
    }

    def __init__(self, config: BuildConfig) -> None:
        """Raise ConfigError for unknown options."""
        super().__init__("irrg", parse(config))

    def identify(self, member: str) -> tuple[str, str] | None:
        """Return (area, what) of a file: orthophotos lie in `top`, maps of the same name elsewhere."""
        if match := _DSM.fullmatch(member):
            return f"area{match[1]}", "dsm"
        match = _TOP.fullmatch(member)
        folder = (match[1] or "").rpartition("/")[2] if match else ""
        if match is None or folder == "gts_for_participants":
            return None  # copies of some of the maps
        what = "no_boundary" if match[3] else "irrg" if folder == "top" else "all"
        return f"area{match[2]}", what
