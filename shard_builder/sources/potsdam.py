"""ISPRS Potsdam: 38 areas of a German city, orthophotos and a surface model at 5 cm, six classes.

Published as `Potsdam.zip`, an archive of archives: `1_DSM.zip` with `dsm_potsdam_02_10.tif`, `2_Ortho_RGB.zip` with
`top_potsdam_2_10_RGB.tif`, `3_Ortho_IRRG.zip`, `4_Ortho_RGBIR.zip`, `5_Labels_all.zip` with
`top_potsdam_2_10_label.tif` and `5_Labels_all_noBoundary.zip`; any of them alone, or unpacked, is read as well. Rules:
see shard_builder.sources.shared.isprs.

Not read: normalised surface models (8-bit pictures), the maps for participants (copies) and .tfw files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar

from shard_builder.config import BuildConfig
from shard_builder.sources.base import SOURCES
from shard_builder.sources.shared.isprs import Image, IsprsBenchmark, IsprsOptions

_DSM = re.compile(r"(?:.*/)?dsm_potsdam_0?(\d+)_0?(\d+)\.tif")
_TOP = re.compile(r"(?:(.*)/)?top_potsdam_(\d+)_(\d+)_(RGB|IRRG|RGBIR|label|label_noBoundary)\.tif")
_WHAT = {"RGB": "rgb", "IRRG": "irrg", "RGBIR": "rgbir", "label": "all", "label_noBoundary": "no_boundary"}


def _areas(rows: Mapping[int, tuple[int, int]]) -> frozenset[str]:
    """Return the names of areas by row, each with its first and last column."""
    return frozenset(f"potsdam_{row}_{n}" for row, (first, last) in rows.items() for n in range(first, last + 1))


class PotsdamOptions(IsprsOptions):
    """Which of the published orthophotos and maps are packed."""

    image: Image = "rgb"
    """rgb, irrg or rgbir: the same photograph, published in three choices of bands."""


@SOURCES.register("potsdam")
class Potsdam(IsprsBenchmark):
    """Tiles of `rgb` (or `irrg`, `rgbir`) and `dsm`, with the label raster `classes`."""

    reads: ClassVar[str] = "Potsdam.zip or the zips in it"
    archive_names: ClassVar[re.Pattern[str]] = re.compile(
        r"(ISPRS_)?Potsdam\w*(\.zip)?|[1-5]_(DSM|Ortho|Labels)\w*(\.zip)?", re.I
    )
    part_names: ClassVar[re.Pattern[str]] = archive_names

    splits: ClassVar[Mapping[str, frozenset[str]]] = {
        "train": _areas({2: (10, 12), 3: (10, 12), 4: (10, 12), 5: (10, 12), 6: (7, 12), 7: (7, 12)}),
        "test": _areas({2: (13, 14), 3: (13, 14), 4: (13, 15), 5: (13, 15), 6: (13, 15), 7: (13, 13)}),
    }

    def __init__(self, config: BuildConfig) -> None:
        """Raise ConfigError for unknown options."""
        options = config.parse_options(PotsdamOptions)
        super().__init__(options.image, options)

    def identify(self, member: str) -> tuple[str, str] | None:
        """Return (area, what) of a file."""
        if match := _DSM.fullmatch(member):
            return f"potsdam_{match[1]}_{match[2]}", "dsm"
        match = _TOP.fullmatch(member)
        if match is None or "for_participants" in (match[1] or ""):
            return None
        return f"potsdam_{match[2]}_{match[3]}", _WHAT[match[4]]
