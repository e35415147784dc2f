"""The plan decides shards from the scan alone, and tiles count with their own pixels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from gfm_pipeline.errors import ItemError
from gfm_pipeline.shards.manifest import InputFile
from gfm_pipeline.storage import LocalStore
from shard_builder.archives import MemberRef
from shard_builder.build.plan import BuildPlan, load_plan, load_rejected, load_task, make_plan
from shard_builder.build.scan import Scan
from shard_builder.config import BuildConfig, resolve_sensors
from shard_builder.planned import PlannedRaster, PlannedSample, Window
from shard_builder.sources.base import InputView, make_source
from tests.make.reading import reader

SENSORS = ("s1", "s2")


def config(**more: object) -> BuildConfig:
    return BuildConfig(source="sen12ms", input="x", output="y", **more)  # type: ignore[arg-type]


def sample(key: str, *sensors: str, size: int = 100, window: Window | None = None) -> PlannedSample:
    return PlannedSample(
        key, {s: PlannedRaster((MemberRef("a.tar", "tar", f"{key}_{s}", size),), window) for s in sensors or SENSORS}
    )


def plan(
    folder: Path, samples: Sequence[PlannedSample], inputs: Sequence[InputFile] = (), **more: object
) -> tuple[BuildPlan, LocalStore]:
    folder.mkdir(exist_ok=True)
    build, store = config(**more), LocalStore(folder)
    source = make_source(build)
    specs = resolve_sensors(build, source.sensors)
    scan = Scan(folder / "scan.sqlite", tuple(specs))
    for item in samples:
        for sensor, raster in item.rasters.items():
            assert scan.add(item.key, sensor, raster, item.labels) is None
    for found in inputs:
        scan.listed(found)
    scan.finish()
    return make_plan(build, scan, specs, SENSORS, store), store


def test_order_names_and_sets_of_sensors(tmp_path: Path) -> None:
    samples = [sample("a"), sample("b", "s2"), sample("c"), sample("d"), sample("e", "s1")]
    found, store = plan(tmp_path / "one", samples, max_samples=2)
    tasks = [load_task(store, entry.name) for entry in found.tasks]
    assert [(task.name, task.sensors, [s.key for s in task.samples]) for task in tasks] == [
        ("sen12ms-000000", ("s1", "s2"), ["a", "c"]),
        ("sen12ms-000001", ("s1", "s2"), ["d"]),
        ("sen12ms-000002", ("s1",), ["e"]),
        ("sen12ms-000003", ("s2",), ["b"]),
    ]
    assert [s for task in tasks for s in task.samples] == [samples[i] for i in (0, 2, 3, 4, 1)]
    assert load_plan(store) == found == plan(tmp_path / "two", samples, max_samples=2, workers=7, executor="z")[0]
    assert found.unpaired == ("e has no s2", "b has no s1")


def test_what_a_policy_drops_is_a_row(tmp_path: Path) -> None:
    found, store = plan(tmp_path, [sample("a"), sample("b", "s2")], unpaired="drop")
    assert [task.samples for task in found.tasks] == [1]
    assert [(row.item, row.reason, row.policy) for row in load_rejected(store)] == [
        ("b", "no s1 of this place", "unpaired=drop")
    ]


def test_every_setting_that_decides_bytes_changes_every_digest(tmp_path: Path) -> None:
    changes: list[dict[str, object]] = [{}, {"sensors": {"s1": {"codec": "npy"}}}, {"on_error": "skip"}, {"name": "n"}]
    plans = [plan(tmp_path / str(i), [sample("a")], **change)[0] for i, change in enumerate(changes)]
    assert len({plan.digest for plan in plans}) == len({plan.tasks[0].digest for plan in plans}) == len(plans)


def test_other_bytes_in_an_archive_change_the_digests_of_its_shards_only(tmp_path: Path) -> None:
    def changed(name: str, fingerprint: str) -> BuildPlan:
        inputs = [InputFile(path=name, bytes=10, items=2, fingerprint=fingerprint)]
        return plan(tmp_path / f"{name}{fingerprint}", [sample("a")], inputs)[0]

    assert changed("a.tar", "x").digest != changed("a.tar", "y").digest
    assert changed("b.tar", "x").digest == changed("b.tar", "y").digest


def test_a_shard_is_full_by_bytes(tmp_path: Path) -> None:
    samples = [sample(str(i), size=100) for i in range(5)]
    assert [task.samples for task in plan(tmp_path / "a", samples, max_bytes=400)[0].tasks] == [2, 2, 1]
    assert [task.samples for task in plan(tmp_path / "b", samples, max_bytes=1)[0].tasks] == [1] * 5


def test_tiles_of_a_large_file_share_a_shard(tmp_path: Path) -> None:
    tiles = [sample(f"t{i}", size=10**9, window=(0, 64 * i, 64, 64)) for i in range(10)]
    pixels = 64 * 64 * (2 * 4 + 13 * 2)
    assert [task.samples for task in plan(tmp_path, tiles, max_bytes=5 * pixels)[0].tasks] == [5, 5]


@pytest.mark.parametrize("policy", ["fail", "skip"])
@pytest.mark.parametrize("second", ["a", "A", "a.b", "x" * 73, "ü"])
def test_keys_that_clash_or_are_none_are_rejected_by_name(second: str, policy: str, tmp_path: Path) -> None:
    scan = Scan(tmp_path / "scan.sqlite", SENSORS)
    files = reader(tmp_path, tmp_path)
    view = InputView(LocalStore(tmp_path), None, files, config(on_error=policy), scan)
    view.add("a", "s1", PlannedRaster((MemberRef("a.tar", "tar", "first", 1),)))
    second_file = PlannedRaster((MemberRef("a.tar", "tar", "second", 1),))
    if policy == "fail":
        with pytest.raises(ItemError, match=r"a\.tar!second: .* key"):
            view.add(second, "s1", second_file)
        return
    view.add(second, "s1", second_file)
    view.add("z", "s1", second_file)
    assert [s.key for s in scan.samples(("s1",))] == ["a", "z"]
    assert [row.item for row in scan.rejected()] == [second]


def test_keys_of_names_are_unique_short_and_stable(tmp_path: Path) -> None:
    names = ["a b.jpg", "a_b.jpg", "A_b.jpg", "c.jpg", "x" * 300 + ".jpg", "ü.png", "ä.png"]
    scan = Scan(tmp_path / "scan.sqlite", SENSORS)
    ref = MemberRef("a.tar", "tar", "x", 1)
    keys = [key for key, *_ in scan.keyed((name, ref) for name in names)]
    assert len({key.lower() for key in keys}) == len(names)
    assert keys[3] == "c"
    assert max(map(len, keys)) <= 48
    assert [key for key, *_ in scan.keyed([("c.jpg", ref)])] == ["c"]
