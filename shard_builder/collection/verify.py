"""Is a collection what its records say? Every byte, every link between its documents, every number.

manifest -> sidecars (sha256) -> tars (sha256, size) -> members (header, offset, crc32) -> pixels (dtype, shape,
statistics); beside them the catalog, the list of failures, and whatever else lies below the URL.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context

import numpy as np
from pydantic import ValidationError

from gfm_pipeline.errors import GfmError, ShardError, StorageError
from gfm_pipeline.sensors import SensorSpec
from gfm_pipeline.shards import CATALOG_PATH, FAILURES_PATH, MANIFEST_PATH
from gfm_pipeline.shards.manifest import (
    Manifest,
    Rejected,
    ShardEntry,
    load_manifest,
    load_sidecar,
    sidecar_path,
    tar_path,
)
from gfm_pipeline.shards.stats import BandStats, merge
from gfm_pipeline.storage import Store, open_store
from gfm_pipeline.storage.local import TEMPORARY_PREFIX
from shard_builder.collection.catalog_rows import CatalogRows
from shard_builder.collection.choose import choose_samples, parse_share
from shard_builder.collection.problem import Place, Problem, ProblemList
from shard_builder.collection.shard_check import ShardChecker, ShardResult, compare_statistics

CARD_PATHS = ("README.md", "card/")
"""The dataset card may lie beside the shards that it describes."""


@dataclass
class VerifyReport:
    """What was checked and what was found."""

    url: str
    problems: int = 0
    shards: int = 0
    samples: int = 0
    """Samples whose checksums were recomputed and whose rasters were decoded."""
    members: int = 0
    bytes: int = 0
    """Bytes of tars that were read."""
    not_checked: list[str] = field(default_factory=list)
    """What this run left out, or what no run can check."""


Found = Callable[[Problem], None]
Progress = Callable[[int, int], None]
"""Told (shards done, shards in all)."""


def verify_collection(url: str, sample: str | None, workers: int, found: Found, progress: Progress) -> VerifyReport:
    """Check the collection at `url`, telling `found` of every problem, the first 20 of each object.

    `sample` ("1%" or a number) checks that many samples instead of all, the same ones every time.
    """
    report = VerifyReport(url)
    store = open_store(url)
    try:
        manifest = load_manifest(store)
    except ShardError as error:
        report.problems = 1
        found(Problem(url=f"{url}/{MANIFEST_PATH}", what="manifest", expected="a readable one", found=str(error)))
        return report
    count = parse_share(sample, manifest.num_samples) if sample else None
    report.not_checked = _not_checked(count, manifest)
    problems = ProblemList(store.url, MANIFEST_PATH)
    _check_manifest(store, manifest, problems)
    _check_listing(store, manifest, problems, report)
    _check_failures(store, manifest, problems)
    with_catalog = _check_catalog(store, manifest, problems)
    totals = _Totals(manifest)
    for done, result in enumerate(_check_shards(store.url, manifest, count, workers, with_catalog), 1):
        for problem in result.problems:
            found(problem)
        _tell_rest(store.url, tar_path(manifest.shards[done - 1].name), result, found)
        report.problems += result.num_problems
        report.shards += 1
        report.samples += result.samples
        report.members += result.members
        report.bytes += result.bytes_read
        totals.add(result)
        progress(done, len(manifest.shards))
    totals.check(store, with_catalog, problems)
    for problem in problems.kept:
        found(problem)
    _tell_rest(store.url, MANIFEST_PATH, ShardResult(problems.kept, problems.count), found)
    report.problems += problems.count
    return report


def _tell_rest(url: str, path: str, result: ShardResult, found: Found) -> None:
    if (more := result.num_problems - len(result.problems)) > 0:
        found(Problem(url=f"{url}/{path}", what="problems", expected="none", found=f"{more} more than listed"))


def _not_checked(count: int | None, manifest: Manifest) -> list[str]:
    always = ["whether the raw archives hold the same pixels"]
    if count is None:
        return always
    rest = manifest.num_samples - count
    return [
        f"bytes, pixels and catalog values of {rest} of {manifest.num_samples} samples",
        "sha256 of tars, tar headers between the chosen samples, statistics against pixels",
        *always,
    ]


def _check_shards(
    url: str, manifest: Manifest, count: int | None, workers: int, with_catalog: bool
) -> Iterator[ShardResult]:
    chosen: list[list[int] | None] = [None] * len(manifest.shards)
    if count is not None:
        seed = int(manifest.digest[:16], 16)
        picks = choose_samples([shard.samples for shard in manifest.shards], count, seed)
        chosen = [picks.get(shard, []) for shard in range(len(manifest.shards))]
    if workers == 1:
        checker = ShardChecker(url, manifest.sensors, with_catalog)
        yield from map(checker.check, manifest.shards, chosen)
        return
    start = partial(_start_worker, url, manifest.sensors, with_catalog)
    # Spawned, not forked: a store may hold threads and connections that do not survive a fork.
    with ProcessPoolExecutor(workers, get_context("spawn"), start) as pool:
        try:
            yield from pool.map(_check_in_worker, manifest.shards, chosen)
        except BrokenProcessPool as error:
            raise GfmError(
                f"a process that verified {url} died, for want of memory perhaps. Run again with fewer --workers."
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


_checker: ShardChecker | None = None
"""Of this worker process."""


def _start_worker(url: str, specs: dict[str, SensorSpec], with_catalog: bool) -> None:
    global _checker
    _checker = ShardChecker(url, specs, with_catalog)


def _check_in_worker(entry: ShardEntry, chosen: list[int] | None) -> ShardResult:
    assert _checker is not None
    return _checker.check(entry, chosen)


def _check_manifest(store: Store, manifest: Manifest, problems: ProblemList) -> None:
    # Not of the parsed manifest: a field that a later version of this program adds is no change of the file.
    data = store.get(MANIFEST_PATH)
    if data != (json.dumps(json.loads(data), sort_keys=True, separators=(",", ":")) + "\n").encode():
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
    for name, spec in manifest.sensors.items():
        problems.compare("name of the sensor", name, spec.name)


def _check_listing(store: Store, manifest: Manifest, problems: ProblemList, report: VerifyReport) -> None:
    """Compare what lies below the URL with what the manifest lists."""
    missing = {MANIFEST_PATH, CATALOG_PATH, FAILURES_PATH}
    missing |= {path(shard.name) for shard in manifest.shards for path in (tar_path, sidecar_path)}
    try:
        for path in store.list(""):
            if path in missing:
                missing.discard(path)
            elif not path.startswith(CARD_PATHS):
                problems.add("object", "none that the manifest does not list", "a foreign or left-over one", _at(path))
    except StorageError as error:  # plain web servers do not list
        report.not_checked.append(f"foreign objects: {error}")
        return
    for path in sorted(missing):
        problems.add("object", "one, as the manifest lists it", "none", _at(path))
    if (folder := store.local_path("")) is not None:
        for leftover in sorted(folder.rglob(f"{TEMPORARY_PREFIX}*")):
            path = leftover.relative_to(folder).as_posix()
            problems.add("object", "no unfinished write", "one of a process that died", _at(path))


def _check_failures(store: Store, manifest: Manifest, problems: ProblemList) -> None:
    try:
        lines = store.get(FAILURES_PATH).splitlines()
    except StorageError:
        return  # the listing has said so
    for number, line in enumerate(lines, 1):
        try:
            Rejected.model_validate_json(line)
        except ValidationError as error:
            problems.add(f"line {number}", "a rejected item", error.errors()[0]["msg"], _at(FAILURES_PATH))


def _check_catalog(store: Store, manifest: Manifest, problems: ProblemList) -> bool:
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


class _Totals:
    """What the shards must add up to."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self._statistics: dict[str, list[BandStats]] = {}
        self._rejected = 0
        self._rows = 0
        self._hashes: list[np.ndarray[tuple[int], np.dtype[np.uint64]]] = []
        self._complete = True
        """Whether every sidecar could be read."""

    def add(self, result: ShardResult) -> None:
        self._complete &= bool(result.statistics)
        for sensor, bands in result.statistics.items():
            self._statistics[sensor] = merge([part for part in (self._statistics.get(sensor), bands) if part])
        self._rejected += result.rejected
        self._rows += result.catalog_rows
        self._hashes.append(result.key_hashes)

    def check(self, store: Store, with_catalog: bool, problems: ProblemList) -> None:
        if self._complete:
            for sensor in self._manifest.sensors:
                recorded = self._manifest.statistics.get(sensor, [])
                compare_statistics(sensor, recorded, self._statistics.get(sensor, []), problems, Place())
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
