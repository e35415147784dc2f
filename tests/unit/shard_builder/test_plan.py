"""The plan decides shards from the scan alone, and tiles count with their own pixels."""

from __future__ import annotations

from pathlib import Path

import pytest

from gfm_pipeline.errors import ItemError
from gfm_pipeline.shards.manifest import InputFile
from shard_builder.archive import MemberRef
from shard_builder.config import BuildConfig
from shard_builder.plan import plan_build
from shard_builder.source import InputView, PlannedRaster, PlannedSample, Scan, Window, _check_keys

SENSORS = ("s1", "s2")


def config(**more: object) -> BuildConfig:
    return BuildConfig(source="sen12ms", input="x", output="y", **more)  # type: ignore[arg-type]


def sample(key: str, *sensors: str, size: int = 100, window: Window | None = None) -> PlannedSample:
    return PlannedSample(
        key, {s: PlannedRaster(MemberRef("a.tar", "tar", f"{key}_{s}", size), window) for s in sensors or SENSORS}
    )


def test_order_names_and_sets_of_sensors() -> None:
    samples = [sample("a"), sample("b", "s2"), sample("c"), sample("d"), sample("e", "s1")]
    plan = plan_build(config(max_samples=2), Scan(samples=samples), SENSORS)
    assert [(task.name, task.sensors, [s.key for s in task.samples]) for task in plan.tasks] == [
        ("sen12ms-000000", ("s1", "s2"), ["a", "c"]),
        ("sen12ms-000001", ("s1", "s2"), ["d"]),
        ("sen12ms-000002", ("s1",), ["e"]),
        ("sen12ms-000003", ("s2",), ["b"]),
    ]
    assert plan == plan_build(config(max_samples=2, workers=7, executor="z"), Scan(samples=samples), SENSORS)


def test_every_setting_that_decides_bytes_changes_every_digest() -> None:
    scan = Scan(samples=[sample("a")])
    plans = [
        plan_build(config(**change), scan, SENSORS)
        for change in ({}, {"tile_px": 64}, {"sensors": {"s1": {"codec": "npy"}}}, {"on_error": "skip"}, {"name": "n"})
    ]
    assert len({plan.digest for plan in plans}) == len({plan.tasks[0].digest for plan in plans}) == len(plans)


def test_another_size_of_an_archive_changes_every_digest() -> None:
    scans = [Scan(samples=[sample("a")], inputs=[InputFile(path="a.tar", bytes=size, items=2)]) for size in (10, 11)]
    one, other = (plan_build(config(), scan, SENSORS) for scan in scans)
    assert one.tasks[0].digest != other.tasks[0].digest
    assert one.digest != other.digest


def test_a_shard_is_full_by_bytes() -> None:
    scan = Scan(samples=[sample(str(i), size=100) for i in range(5)])
    plan = plan_build(config(max_bytes=400), scan, SENSORS)
    assert [len(task.samples) for task in plan.tasks] == [2, 2, 1]
    assert [len(task.samples) for task in plan_build(config(max_bytes=1), scan, SENSORS).tasks] == [1] * 5


def test_tiles_of_a_large_file_share_a_shard() -> None:
    tiles = [sample(f"t{i}", size=10**9, window=(0, 64 * i, 64, 64)) for i in range(10)]
    pixels = 64 * 64 * (2 * 4 + 13 * 2)
    plan = plan_build(config(max_bytes=5 * pixels), Scan(samples=tiles), SENSORS)
    assert [len(task.samples) for task in plan.tasks] == [5, 5]


@pytest.mark.parametrize("second", ["a", "A", "a.b", "x" * 73, "ü"])
def test_keys_that_clash_or_are_none_are_rejected_by_name(second: str) -> None:
    for policy in ("fail", "skip"):
        scan = Scan(samples=[sample("a"), sample(second), sample("z")])
        view = InputView(Path(), None, Path(), config(on_error=policy), scan)
        if policy == "fail":
            with pytest.raises(ItemError, match=r"a\.tar!.*_s1: .* key"):
                _check_keys(view)
        else:
            _check_keys(view)
            assert [s.key for s in scan.samples] == ["a", "z"]
            assert [row.item for row in scan.rejected] == [second]
