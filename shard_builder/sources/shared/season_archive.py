"""Patches of seasons and scenes: what SEN12MS and SEN12MS-CR have in common."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from typing import ClassVar

from gfm_pipeline.errors import ArchiveError
from shard_builder.planned import PlannedRaster
from shard_builder.sources.base import InputView, Source

_ARCHIVE = re.compile(r"ROIs\d+_(spring|summer|fall|winter)(_[a-z0-9_]+?)?(\.tar\.gz|\.tgz|\.tar)?$")
_SCENE = re.compile(r"(?:ROIs\d+_\w+_)?(s1|s2|lc|s2_cloudy)_\d+$")
_PATCH = re.compile(r"(?:.*/)?(ROIs\d+_(?:spring|summer|fall|winter))_(s1|s2|lc|s2_cloudy)_(\d+)_p(\d+)\.tif$")
_SPLIT = re.compile(r"(train|val|test)_list\.txt")


class SeasonArchive(Source):
    """A source of patches that agree in season, scene and number. A subclass says which of them it packs."""

    not_read: ClassVar[dict[str, str]]
    """Why patches of a kind are left out, by what names call them."""
    published_splits: ClassVar[Mapping[str, Mapping[str, frozenset[int]]]] = {}
    """{split: {season: scenes}} of the archive's authors, which count where no list of patches is given."""

    def scan(self, view: InputView) -> None:
        """Plan one sample per place, in the order of the archives."""
        names = view.names()
        lists = [name for name in names if _SPLIT.fullmatch(name)]
        for name in lists:
            _read_list(view, name)
        self._splits = {} if lists else self.published_splits
        if any(_SCENE.fullmatch(name) and view.kind(name) == "folder" for name in names):
            self._scan_archive(view, "")  # the input is the folder of one season
            return
        for name in sorted(set(names) - set(lists)):
            match = _ARCHIVE.fullmatch(name)
            what = (match[2] or "").lstrip("_") if match else ""
            if match is None or view.kind(name) not in ("tar", "tar.gz", "folder"):
                view.ignore(name, f"not part of {view.config.source}")
            elif what in self.not_read:
                view.ignore(name, self.not_read[what])
            else:
                self._scan_archive(view, name)

    def _scan_archive(self, view: InputView, name: str) -> None:
        for ref in view.open(name):
            match = _PATCH.fullmatch(ref.member)
            if match is None or match[2] in self.not_read:
                reason = self.not_read[match[2]] if match else f"no patch of {view.config.source} by its name"
                view.ignore(name or ref.member, reason)
            else:
                labels = self._labels(match[1], int(match[3]))
                view.add(f"{match[1]}_{match[3]}_p{match[4]}", match[2], PlannedRaster((ref,)), **labels)

    def _labels(self, season: str, scene: int) -> dict[str, str]:
        return next(({"split": name} for name, scenes in self._splits.items() if scene in scenes.get(season, ())), {})


def _read_list(view: InputView, name: str) -> None:
    """Tell the split of the patches in a list, one name of a patch of any kind in a line."""
    split = name.partition("_")[0]
    with view.store.open(name) as file, io.TextIOWrapper(file, "utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, start=1):
            match = _PATCH.fullmatch(line.strip())
            if match:
                view.label(f"{match[1]}_{match[3]}_p{match[4]}", name, split=split)
            elif line.strip():
                raise ArchiveError(
                    f"{view.where}/{name}, line {number}: found {line.strip()[:80]!r}, expected the name of a patch "
                    "like ROIs1158_spring_s2_1_p30.tif. Copy or download it again, or remove it."
                )
