"""Raw input to measure with: SEN12MS-like pairs and RGB images, packed as published and unpacked.

A part of the images is rendered by the demo and stored several times under other names: what is timed neither knows
nor gains by it, and rendering would take longer than all that is measured.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from pathlib import Path
from typing import Literal

from gfm_pipeline.config import StrictModel
from gfm_pipeline.errors import UsageError
from shard_builder.demo.archives import ArchiveSet
from shard_builder.demo.families import FAMILIES, Member, Request

_NUMBER = {"SEN12MS": re.compile(r"(?<=[/_]s[12]_)(\d+)(?=[/_])"), "MillionAID": re.compile(r"(?<=/P)(\d+)")}
_COPY = 100_000
"""Added to the scene or image number for every copy."""


class Raw(StrictModel):
    """One input."""

    name: str
    source: Literal["sen12ms", "millionaid"]
    packed: bool
    places: int
    rendered: int
    """Different ones among them."""
    tile_px: int


def inputs(places: int, rendered: int) -> tuple[Raw, ...]:
    """Return the inputs of a bench with so many SEN12MS places, and 16 times as many RGB images: as many bytes."""
    pairs = {"source": "sen12ms", "places": places, "rendered": min(places, rendered), "tile_px": 256}
    images = {"source": "millionaid", "places": 16 * places, "rendered": min(16 * places, rendered), "tile_px": 512}
    return tuple(
        Raw.model_validate({"name": name, "packed": packed, **described})
        for name, packed, described in (
            ("sen12ms-folders", False, pairs),
            ("sen12ms-tar.gz", True, pairs),
            ("rgb-folder", False, images),
            ("rgb-zip", True, images),
        )
    )


def make(raw: Raw, folder: Path, progress: Callable[[int, int], None]) -> None:
    """Write an input into `folder`, or find it there; raise UsageError for a folder that holds something else."""
    wanted = raw.model_dump_json()
    record = folder.with_name(f"{folder.name}.json")
    if record.is_file() and folder.is_dir():
        if record.read_text() != wanted:
            raise UsageError(f"{folder} was made for another bench. Remove it and {record}, or set another --out.")
        return
    if folder.exists():
        raise UsageError(f"{folder} is in the way, and without {record} may be anything. Remove it.")
    folder.mkdir(parents=True)
    if raw.packed:
        with ArchiveSet(folder) as archives:
            for archive, member, data in _members(raw, progress):
                archives.add(archive, member, data)
    else:
        for archive, member, data in _members(raw, progress):
            path = folder / archive.partition(".")[0] / member
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    record.write_text(wanted)


def _members(raw: Raw, progress: Callable[[int, int], None]) -> Iterator[Member]:
    name = "SEN12MS" if raw.source == "sen12ms" else "MillionAID"
    rendered = []
    for index in range(raw.rendered):
        rendered.append(_render(name, raw.tile_px, index))
        progress(index + 1, raw.rendered)
    for index in range(raw.places):
        copy, original = divmod(index, raw.rendered)
        for archive, member, data in rendered[original]:
            yield archive, _NUMBER[name].sub(partial(_renumber, copy), member), data


def _renumber(copy: int, match: re.Match[str]) -> str:
    return f"{int(match[1]) + copy * _COPY:0{len(match[1])}}"


@lru_cache(maxsize=256)  # the same images make the packed input and the unpacked one
def _render(name: str, tile_px: int, index: int) -> tuple[Member, ...]:
    family = next(family for family in FAMILIES if family.name == name)
    items = family.item(Request(1, tile_px, 0), index)
    return tuple(item for item in items if not re.search(r"_lc\.tar|\.csv$", item[0]))
