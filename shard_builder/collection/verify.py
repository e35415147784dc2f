"""Is a collection what its records say? Every byte, every link between its documents, every number.

manifest -> sidecars (sha256) -> tars (sha256, size) -> members (header, offset, crc32) -> pixels (dtype, shape,
statistics); beside them the catalog, the list of failures, and whatever else lies below the URL.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context

from gfm_pipeline.errors import GfmError, ShardError
from gfm_pipeline.sensors import SensorSpec
from gfm_pipeline.shards import MANIFEST_PATH
from gfm_pipeline.shards.manifest import Manifest, ShardEntry, load_manifest, tar_path
from gfm_pipeline.storage import open_store
from shard_builder.collection.choose import choose_samples, parse_share
from shard_builder.collection.problem import Problem, ProblemList
from shard_builder.collection.shard_check import ShardChecker, ShardResult
from shard_builder.collection.whole_check import (
    Totals,
    check_catalog,
    check_failures,
    check_files,
    check_listing,
    check_manifest,
)
from shard_builder.executors.pool import end_with_parent, without_ctrl_c


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
        try:
            manifest = load_manifest(store, unproved=True)  # what was changed in it, then
        except ShardError:
            return report
    count = parse_share(sample, manifest.num_samples) if sample else None
    report.not_checked = _not_checked(count, manifest)
    problems = ProblemList(store.url, MANIFEST_PATH)
    check_manifest(store, manifest, problems)
    if reason := check_listing(store, manifest, problems):
        report.not_checked.append(reason)
    check_files(store, manifest, problems)
    check_failures(store, problems)
    with_catalog = check_catalog(store, manifest, problems)
    totals = Totals(manifest)
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
    if manifest.manifest_sha256 is None:
        always.append("units, ground sampling, inputs and counts of the manifest, which is older than its digest")
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
            with without_ctrl_c():
                results = pool.map(_check_in_worker, manifest.shards, chosen)
            yield from results
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
    end_with_parent()
    _checker = ShardChecker(url, specs, with_catalog)


def _check_in_worker(entry: ShardEntry, chosen: list[int] | None) -> ShardResult:
    assert _checker is not None
    return _checker.check(entry, chosen)
