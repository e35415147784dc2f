"""MillionAID: a million RGB scenes for classification.

Long et al., "On creating benchmark dataset for aerial image interpretation", JSTARS 2021. Published as zips of
`test/P*.jpg` (no labels) and of class folders.
"""

from __future__ import annotations

import re
from typing import ClassVar

from shard_builder.sources.base import SOURCES
from shard_builder.sources.shared.image_archive import ImageArchive


@SOURCES.register("millionaid")
class MillionAID(ImageArchive):
    """`millionaid*.zip`, `Million-AID*.zip`, a tar or a folder of such a name, or `train.zip` and `test.zip` alone."""

    reads: ClassVar[str] = "millionaid*.zip, a tar or a folder of that name, or train.zip and test.zip"
    archive_names: ClassVar[re.Pattern[str]] = re.compile(r"million[-_ ]?aid[^.]*(\.zip|\.tar|\.tar\.gz|\.tgz)?$")
    split_names: ClassVar[frozenset[str]] = frozenset({"train", "test", "train.zip", "test.zip"})
