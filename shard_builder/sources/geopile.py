"""GeoPile: 600K RGB images of several collections (NAIP, RSD46-WHU, MLRSNet, RESISC45, PatternNet ...).

Mendieta et al., "Towards geospatial foundation models via continual pretraining", ICCV 2023. Published as
`GeoPileV0.zip` with a folder per collection and folders per class below.
"""

from __future__ import annotations

import re
from typing import ClassVar

from shard_builder.sources.base import SOURCES
from shard_builder.sources.shared.image_archive import ImageArchive


@SOURCES.register("geopile")
class GeoPile(ImageArchive):
    """`GeoPile*.zip`, a tar or a folder of that name."""

    reads: ClassVar[str] = "GeoPile*.zip, a tar or a folder of that name"
    archive_names: ClassVar[re.Pattern[str]] = re.compile(r"geopile[^.]*(\.zip|\.tar|\.tar\.gz|\.tgz)?$")
