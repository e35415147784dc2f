"""Check what belongs to no single shard: the manifest itself, the listing, the catalog as a whole, and the sums."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from gfm_pipeline.config import load_json
from gfm_pipeline.errors import ShardError, StorageError
from gfm_pipeline.shards import CATALOG_PATH, FAILURES_PATH, MANIFEST_PATH
from gfm_pipeline.shards.manifest import Manifest, Rejected, canonical, load_sidecar, sidecar_path, tar_path
from gfm_pipeline.shards.stats import BandStats, merge
from gfm_pipeline.storage import Store
from gfm_pipeline.storage.local import TEMPORARY_PREFIX
from shard_builder.collection.catalog_rows import CatalogRows
from shard_builder.collection.problem import Place, ProblemList
from shard_builder.collection.shard_check import ShardResult, compare_statistics

CARD_PATHS = ("README.md", "card/")
"""The dataset card may lie beside the shards that it describes."""


def check_manifest(store: Store, manifest: Manifest, problems: ProblemList) -> None:
    """Check that the manifest agrees with itself, and was not edited."""
    # Not of the parsed manifest: a field that a later version of this program adds is no change of the file.
    data = store.get(MANIFEST_PATH)
    if data != canonical(load_json(data)):
        problems.add("bytes of the manifest", "the canonical form of its content", "another form: it was edited")
    names = Counter(shard.name for shard in manifest.shards)
    for name, times in names.items():
        if times > 1:
            problems.add("shard list", f"{name} once", f"{times} times")
    problems.compare("num_samples", sum(shard.samples for shard in manifest.shards), manifest.num_samples)
    held = {
        sensor: sum(shard.samples for shard in manifest.shards if sensor in shard.sensors)
        for sensor in manifest.sensors
    }
    problems.compare("samples_with", held, manifest.samples_with)
    if "samples_packed" in manifest.counts:
        problems.compare("counts.samples_packed", manifest.num_samples, manifest.counts["samples_packed"])
    for name, bands in manifest.statistics.items():
        measured = [band.band for band in bands]
        if measured:  # none where no sample could be packed
            problems.compare(f"bands with statistics of {name}", list(manifest.sensors[name].bands), measured)


def check_listing(store: Store, manifest: Manifest, problems: ProblemList) -> str | None:
    """Compare what lies below the URL with what the manifest lists; return why that was not possible, if so."""
    missing = {MANIFEST_PATH, CATALOG_PATH, FAILURES_PATH}
    missing |= {path(shard.name) for shard in manifest.shards for path in (tar_path, sidecar_path)}
    try:
        for path in store.list(""):
            if path in missing:
                missing.discard(path)
            elif not path.startswith(CARD_PATHS):
                problems.add("object", "none that the manifest does not list", "a foreign or left-over one", _at(path))
    except StorageError as error:  # plain web servers do not list; a missing tar or sidecar is its shard's to tell
        for path in (CATALOG_PATH, FAILURES_PATH):
            if not store.exists(path):
                problems.add("object", "one, as every collection has it", "none", _at(path))
        return f"foreign objects: {error}"
    for path in sorted(missing):
        problems.add("object", "one, as the manifest lists it", "none", _at(path))
    if (folder := store.local_path("")) is not None:
        for leftover in sorted(folder.rglob(f"{TEMPORARY_PREFIX}*")):
            path = leftover.relative_to(folder).as_posix()
            problems.add("object", "no unfinished write", "one of a process that died", _at(path))
    return None


def check_files(store: Store, manifest: Manifest, problems: ProblemList) -> None:
    """Check the files that belong to no shard against the manifest, byte for byte, where it records them."""
    for path, recorded in manifest.file_sha256.items():
        total = hashlib.sha256()
        try:
            with store.open(path) as file:
                while piece := file.read(2**22):
                    total.update(piece)
        except (OSError, ValueError) as error:
            problems.add("file", "one that can be read", str(error), _at(path))
        else:
            problems.compare("sha256", recorded, total.hexdigest(), _at(path))


def check_failures(store: Store, problems: ProblemList) -> None:
    """Check that every line of the list of failures can be read."""
    if not store.exists(FAILURES_PATH):
        return  # the listing has said so
    try:
        lines = store.get(FAILURES_PATH).splitlines()
    except StorageError as error:
        problems.add("list of failures", "one that can be read", str(error), _at(FAILURES_PATH))
        return
    for number, line in enumerate(lines, 1):
        try:
            Rejected.model_validate_json(line)
        except ValidationError as error:
            problems.add(f"line {number}", "a rejected item", error.errors()[0]["msg"], _at(FAILURES_PATH))


def check_catalog(store: Store, manifest: Manifest, problems: ProblemList) -> bool:
    """Return whether the catalog can be read."""
    try:
        catalog = CatalogRows(store)
    except (ShardError, StorageError) as error:
        if store.exists(CATALOG_PATH):
            problems.add("catalog", "a readable one", str(error), _at(CATALOG_PATH))
        return False
    problems.compare("number of rows", manifest.num_samples, catalog.num_rows, _at(CATALOG_PATH))
    return True


def _at(path: str) -> Place:
    return Place(path=path)


class Totals:
    """What the shards must add up to."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self._statistics: dict[str, list[BandStats]] = {}
        self._rejected = 0
        self._rows = 0
        self._hashes: list[NDArray[np.uint64]] = []
        self._complete = True
        """Whether every sidecar could be read."""

    def add(self, result: ShardResult) -> None:
        """Take in the next shard, in the manifest's order."""
        self._complete &= bool(result.statistics)
        try:
            for sensor, bands in result.statistics.items():
                self._statistics[sensor] = merge([part for part in (self._statistics.get(sensor), bands) if part])
        except ValueError:  # bands that differ between sidecars, one of which is damaged: its shard says so
            self._complete = False
        self._rejected += result.rejected
        self._rows += result.catalog_rows
        self._hashes.append(result.key_hashes)

    def check(self, store: Store, with_catalog: bool, problems: ProblemList) -> None:
        """Compare the sums with the manifest and the catalog, when all shards were taken in."""
        if self._complete:
            for sensor in self._manifest.sensors:
                recorded = self._manifest.statistics.get(sensor, [])
                # Exactly: the sum over shards is the same few operations everywhere.
                compare_statistics(sensor, recorded, self._statistics.get(sensor, []), problems, Place(), tolerance=0.0)
            counts = self._manifest.counts
            if names := [name for name in ("samples_rejected", "samples_without_data") if name in counts]:
                told = sum(counts[name] for name in names)
                problems.compare("counts." + " + counts.".join(names), self._rejected, told)
        if with_catalog:
            rows = CatalogRows(store).num_rows
            if rows > self._rows:
                problems.add("rows of shards that the manifest lists", rows, self._rows, _at(CATALOG_PATH))
        self._check_keys(store, problems)

    def _check_keys(self, store: Store, problems: ProblemList) -> None:
        """Note keys that two shards hold; within a shard, the shard's own check has seen to it."""
        everything = np.concatenate([np.zeros(0, np.uint64), *self._hashes])
        values, times = np.unique(everything, return_counts=True)
        repeated = values[times > 1]
        if not len(repeated):
            return
        shards = [i for i, hashes in enumerate(self._hashes) if np.isin(hashes, repeated).any()]
        first_of: dict[str, str] = {}
        for name in (self._manifest.shards[i].name for i in shards):
            for key in _keys(store, name):
                other = first_of.setdefault(key, name)
                if other != name:
                    problems.add(
                        "key",
                        f"one sample of this key, that of shard {other}",
                        f"another in {name}",
                        Place(key, path=sidecar_path(name)),
                    )


def _keys(store: Store, shard: str) -> Iterable[str]:
    return (sample.key for sample in load_sidecar(store, shard).samples)
