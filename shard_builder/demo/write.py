"""Write the demo archives into a folder, and know whether that has been done before.

`.tmp-demo.json` marks a folder as ours before anything else is written; `demo.json` takes its place when every
archive is complete. A family whose archives are all there is not made again after an interruption.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path

from gfm_pipeline import __version__
from gfm_pipeline.config import StrictModel, parse_config
from gfm_pipeline.errors import ConfigError, StorageError, UsageError
from gfm_pipeline.storage import LocalStore
from gfm_pipeline.storage.local import TEMPORARY_PREFIX
from shard_builder.archives.origin import DEMO_RECORD
from shard_builder.demo.archives import ArchiveSet
from shard_builder.demo.encode import SYNTHETIC_NOTE
from shard_builder.demo.families import FAMILIES, LABELS_HEADER, Family, Request
from shard_builder.demo.render import render_items

RECIPE = 2
"""Version of the planet: raised whenever the same arguments give other bytes."""

RECORD = DEMO_RECORD
_MARKER = TEMPORARY_PREFIX + RECORD
ALL = tuple(family.name for family in FAMILIES)


class ArchiveRecord(StrictModel):
    """One finished file."""

    family: str
    members: int
    size: int
    """Bytes."""


class DemoRecord(StrictModel):
    """What a folder of demo archives holds; the completion record."""

    note: str = SYNTHETIC_NOTE
    version: str = __version__
    recipe: int = RECIPE
    places: int
    tile_px: int
    seed: int
    families: tuple[str, ...] = ALL
    archives: dict[str, ArchiveRecord] = {}

    def answers(self, request: Request) -> bool:
        """Return whether the record is of this request, made by this recipe."""
        asked = (RECIPE, request.places, request.tile_px, request.seed, request.families or ALL)
        return (self.recipe, self.places, self.tile_px, self.seed, self.families) == asked


def find_finished(folder: Path, request: Request) -> DemoRecord | None:
    """Return the record of a folder that holds exactly this request, or None for one that may be written to.

    Raises UsageError for a folder with anything else in it.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; --out must name a folder that is empty or does not exist.")
    present = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if RECORD in present:
        return _check_finished(folder, request)
    if present and _MARKER not in present:
        raise UsageError(
            f"{folder} is not empty and was not made by shard-builder demo (it holds {min(present)}). "
            "Give --out an empty or new folder."
        )
    return None


def write_archives(
    folder: Path, request: Request, progress: Callable[[str, int, int], None], workers: int = 1
) -> DemoRecord:
    """Write every archive of the request; `progress` hears (family, items done, items in all).

    Any number of `workers`, processes that render, gives the same bytes.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        record = _begin(folder, request)
        store = LocalStore(folder)
        for family in (family for family in FAMILIES if family.name in (request.families or ALL)):
            if any(entry.family == family.name for entry in record.archives.values()):
                progress(family.name, family.count(request.places), family.count(request.places))
                continue
            made = _write_family(folder, request, family, workers, progress)
            record = record.model_copy(update={"archives": {**record.archives, **made}})
            store.put(_MARKER, _dump(record))
        store.put(RECORD, _dump(record))
        store.delete(_MARKER)
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        raise StorageError(f"cannot write {error.filename or folder}: {error.strerror or error}.") from error
    return record


def _write_family(
    folder: Path, request: Request, family: Family, workers: int, progress: Callable[[str, int, int], None]
) -> dict[str, ArchiveRecord]:
    count = family.count(request.places)
    with ArchiveSet(folder) as archives:
        if family.labels:
            archives.add(family.labels, "", LABELS_HEADER.encode())
        for done, members in enumerate(render_items(request, family, workers), start=1):
            for archive, member, data in members:
                archives.add(archive, member, data)
            progress(family.name, done, count)
    return {
        name: ArchiveRecord(family=family.name, members=members, size=(folder / name).stat().st_size)
        for name, members in archives.members.items()
    }


def _begin(folder: Path, request: Request) -> DemoRecord:
    """Return what an interrupted run of the same request finished; remove everything else it left."""
    families = request.families or ALL
    fresh = DemoRecord(places=request.places, tile_px=request.tile_px, seed=request.seed, families=families)
    record = fresh
    with contextlib.suppress(OSError, ConfigError, json.JSONDecodeError):
        left = _read(folder / _MARKER)
        record = left if left.answers(request) else fresh
    for path in folder.iterdir():
        if path.is_file() and path.name != _MARKER and path.name not in record.archives:
            path.unlink()
    LocalStore(folder).put(_MARKER, _dump(record))
    return record


def _check_finished(folder: Path, request: Request) -> DemoRecord:
    try:
        record = _read(folder / RECORD)
    except (OSError, ConfigError, json.JSONDecodeError) as error:
        raise UsageError(f"{folder / RECORD} cannot be read ({error}). Delete {folder} and run again.") from error
    if not record.answers(request):
        raise UsageError(
            f"{folder} holds demo archives of --places {record.places} --tile-px {record.tile_px} "
            f"--seed {record.seed} --families {','.join(record.families)} (recipe {record.recipe}); asked for "
            f"--places {request.places} --tile-px {request.tile_px} --seed {request.seed} "
            f"--families {','.join(request.families or ALL)} (recipe {RECIPE}). "
            "Give --out another folder or delete this one."
        )
    for name, entry in record.archives.items():
        path = folder / name
        size = path.stat().st_size if path.is_file() else None
        if size != entry.size:
            found = "is missing" if size is None else f"has {size} bytes"
            raise UsageError(f"{path} {found}, {RECORD} records {entry.size}. Delete {folder} and run again.")
    return record


def _read(path: Path) -> DemoRecord:
    tree = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} is no record of demo archives")
    return parse_config(tree, DemoRecord, str(path))


def _dump(record: DemoRecord) -> bytes:
    return (json.dumps(record.model_dump(), indent=2) + "\n").encode()
