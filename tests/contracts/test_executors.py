"""One contract for whoever writes the shards: the same bytes, the same errors, and a stopped build goes on."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gfm_pipeline.errors import ConfigError, GfmError, ItemError, ShardError
from shard_builder.build.build import Event, build_collection, build_share, merge_collection
from shard_builder.config import BuildConfig
from shard_builder.executors import dask as dask_executor
from shard_builder.executors.executor import EXECUTORS
from tests.clusters import Cluster, dask_cluster
from tests.contracts.test_sources import digests
from tests.make.archives import sen12ms


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with dask_cluster(tmp_path_factory.mktemp("dask")) as found:
        yield found


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("raw")
    sen12ms(folder)
    return folder


@pytest.fixture(scope="module")
def undisturbed(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    build_collection(config(raw, out), "build", lambda _: None)
    return digests(out)


def config(raw: Path, out: Path, **more: object) -> BuildConfig:
    tree = {"source": "sen12ms", "input": str(raw), "output": str(out), "max_samples": 1, **more}
    return BuildConfig.model_validate(tree)


WAYS: dict[str, dict[str, object]] = {
    "processes, 2": {"workers": 2},
    "dask, a cluster of its own": {"executor": "dask", "workers": 2},
    "dask, a running cluster": {"executor": "dask", "scheduler": ""},
}


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, cluster: Cluster) -> dict[str, object]:
    found = dict(WAYS[request.param])
    return found | {"scheduler": cluster.address} if "scheduler" in found else found


def test_every_executor_is_tried_here() -> None:
    assert {str(way.get("executor", "processes")) for way in WAYS.values()} == set(EXECUTORS.names())


def test_the_bytes_are_the_same(way: dict[str, object], raw: Path, undisturbed: dict[str, str], tmp_path: Path) -> None:
    events: list[Event] = []
    build_collection(config(raw, tmp_path / "out", **way), "build", events.append)
    assert digests(tmp_path / "out") == undisturbed
    assert sum(name.endswith(".tar") for name in undisturbed) == 4
    assert [event.done for event in events if event.name == "shard"] == [0, 1, 2, 3, 4]


def test_a_bad_item_is_the_same_error(way: dict[str, object], tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    sen12ms(tmp_path / "raw", s2_bands=12)
    with pytest.raises(ItemError, match=r"s2 has 12 bands in ROIs.*Set sensors\.s2\.bands"):
        build_collection(config(tmp_path / "raw", tmp_path / "out", **way), "build", lambda _: None)


def test_no_error_is_its_own_cause(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    sen12ms(tmp_path / "raw", s2_bands=12)
    with pytest.raises(ItemError) as raised:
        build_collection(config(tmp_path / "raw", tmp_path / "out"), "build", lambda _: None)
    chain: list[BaseException | None] = [raised.value]
    while chain[-1] is not None:
        assert all(error is not chain[-1].__cause__ for error in chain)  # who walks along causes would not end
        chain.append(chain[-1].__cause__)


def test_a_build_that_is_stopped_goes_on(
    way: dict[str, object], raw: Path, undisturbed: dict[str, str], tmp_path: Path
) -> None:
    def stop(event: Event) -> None:
        if event.written == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_collection(config(raw, tmp_path / "out", **way), "build", stop)
    assert not (tmp_path / "out" / "manifest.json").exists()
    report = build_collection(config(raw, tmp_path / "out", **way), "build", lambda _: None)
    assert report.resumed_shards >= 1
    assert digests(tmp_path / "out") == undisturbed


@pytest.mark.parametrize("count", [1, 3])
def test_shares_in_any_order_and_a_merge(count: int, raw: Path, undisturbed: dict[str, str], tmp_path: Path) -> None:
    build = config(raw, tmp_path / "out")
    shares = list(range(count))
    random.Random(4).shuffle(shares)
    for index in shares:
        if index != shares[0]:
            with pytest.raises(ShardError, match="shards are not written yet"):
                merge_collection(build, lambda _: None)
        build_share(build, index, count, lambda _: None)
    assert build_share(build, 0, count, lambda _: None).written_shards == 0  # twice does no harm
    merge_collection(build, lambda _: None)
    assert digests(tmp_path / "out") == undisturbed


def test_other_versions_of_the_product_are_refused(raw: Path, tmp_path: Path) -> None:
    with pytest.raises(GfmError, match=r"the build 0\.0\.0: their bytes may differ"):
        dask_executor.write_shard("sen12ms-000000", config(raw, tmp_path), "session", "0.0.0")


def test_nobody_at_the_address_is_said_in_time(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask_executor, "PATIENCE_S", 1.0)
    nowhere = config(raw, tmp_path / "out", executor="dask", scheduler="tcp://127.0.0.1:9")
    with pytest.raises(GfmError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9"):
        build_collection(nowhere, "build", lambda _: None)


@pytest.mark.parametrize(("victim", "message"), [("nanny", "has had no worker for 2 s"), ("scheduler", "is gone")])
def test_a_cluster_that_ends_is_said(
    victim: str, message: str, raw: Path, undisturbed: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dask_executor, "PATIENCE_S", 2.0)
    with dask_cluster(tmp_path) as short_lived:
        wait = dask_executor._some_done

        def end_first(*arguments: Any) -> list[Any]:
            process = getattr(short_lived, victim)
            process.terminate()
            process.wait()
            return wait(*arguments)

        monkeypatch.setattr(dask_executor, "_some_done", end_first)
        lost = config(raw, tmp_path / "out", executor="dask", scheduler=short_lived.address)
        with pytest.raises(GfmError, match=message):
            build_collection(lost, "build", lambda _: None)
    build_collection(config(raw, tmp_path / "out"), "build", lambda _: None)
    assert digests(tmp_path / "out") == undisturbed


def test_without_dask_its_extra_is_named(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "distributed", None)
    with pytest.raises(ConfigError, match=r"pip install 'gfm-pipeline\[dask\]'"):
        build_collection(config(raw, tmp_path / "out", executor="dask"), "build", lambda _: None)
