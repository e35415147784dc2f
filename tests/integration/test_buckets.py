"""From archives in a bucket to a collection in a bucket: the same bytes as on a disk."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

import numpy as np
import pytest

from gfm_pipeline.data.config import DataConfig, StreamConfig
from gfm_pipeline.data.mixture import open_mixture
from gfm_pipeline.errors import StorageError
from gfm_pipeline.storage import StorageConfig, open_store, remote
from shard_builder.build.build import build_collection, build_share, merge_collection
from shard_builder.config import BuildConfig
from tests.conftest import run_command
from tests.faulty_proxy import FaultyProxy
from tests.make.archives import MAKERS
from tests.servers import web_server
from tests.serving import environment

REMOTE_SOURCES = ("geopile", "mdas", "millionaid", "sen12ms")


def upload(folder: Path, url: str) -> str:
    store = open_store(url)
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            store.put(path.relative_to(folder).as_posix(), path.read_bytes())
    return url


def contents(url: str) -> dict[str, bytes]:
    store = open_store(url)
    return {path: store.get(path) for path in store.list("")}


def config(source: str, raw: str | Path, out: str | Path, **more: object) -> BuildConfig:
    tiles = {"tile_px": 64} if source != "sen12ms" else {}
    return BuildConfig(source=source, input=str(raw), output=str(out), max_samples=2, **tiles, **more)  # type: ignore[arg-type]


@pytest.fixture
def bucket(s3: dict[str, str]) -> str:
    return f"s3://bucket/{uuid.uuid4().hex}"


@pytest.mark.parametrize("source", REMOTE_SOURCES)
def test_a_bucket_gives_the_bytes_of_a_disk(source: str, bucket: str, tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    MAKERS[source](tmp_path / "raw")
    raw = upload(tmp_path / "raw", f"{bucket}/raw")
    local = build_collection(config(source, tmp_path / "raw", tmp_path / "local"), "build", lambda _: None)
    far = build_collection(config(source, raw, f"{bucket}/out"), "build", lambda _: None)
    assert far.manifest == local.manifest
    assert (written := contents(f"{bucket}/out")) == contents(str(tmp_path / "local"))
    assert not any(os.environ["AWS_SECRET_ACCESS_KEY"].encode() in data for data in written.values())
    again = build_collection(config(source, raw, f"{bucket}/out"), "build", lambda _: None)
    assert again.plan is None
    half = build_collection(config(source, raw, tmp_path / "half"), "build", lambda _: None)
    assert half.manifest == local.manifest


def test_commands_and_workers_reach_the_bucket(bucket: str, tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    MAKERS["sen12ms"](tmp_path / "raw")
    raw = upload(tmp_path / "raw", f"{bucket}/raw")
    settings = ["--set", f"input={raw}", "--set", f"output={bucket}/out", "--set", "max_samples=1"]
    words = ["--config", "configs/build/sen12ms.yaml", *settings]
    done = run_command("shard-builder", "build", *words, "--set", "workers=2")
    assert "4 packed in 4 shards" in done.stdout
    assert "complete, 4 of 4 shards" in run_command("shard-builder", "status", *words).stdout
    build_collection(config("sen12ms", tmp_path / "raw", tmp_path / "local"), "build", lambda _: None)
    assert "Nothing to do" in run_command("shard-builder", "build", *words).stdout
    streams = {"pairs": StreamConfig(collections=(f"{bucket}/out",), sub_batch=2, lr=1e-4)}
    assert open_mixture(DataConfig(streams=streams, lanes=1)).streams["pairs"].num_samples == 3


def test_shares_need_no_common_disk(bucket: str, tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    MAKERS["geopile"](tmp_path / "raw")
    build = config("geopile", tmp_path / "raw", f"{bucket}/out")
    for index in (2, 0, 1):
        build_share(build, index, 3, lambda _: None)
    merge_collection(build, lambda _: None)
    build_collection(config("geopile", tmp_path / "raw", tmp_path / "local"), "build", lambda _: None)
    assert contents(f"{bucket}/out") == contents(str(tmp_path / "local"))


def test_one_archive_from_a_web_server(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    truth = MAKERS["geopile"](tmp_path / "raw")
    with web_server(tmp_path / "raw") as url:
        build = config("geopile", f"{url}/GeoPileV0.zip", tmp_path / "out")
        report = build_collection(build, "build", lambda _: None)
    assert report.manifest is not None
    assert report.manifest.num_samples == len(truth)


def test_a_bucket_that_fails_costs_nothing(
    bucket: str, s3: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(remote, "FIRST_BUSY_PAUSE_S", 0.01)
    (tmp_path / "raw").mkdir()
    MAKERS["geopile"](tmp_path / "raw")
    raw = upload(tmp_path / "raw", f"{bucket}/raw")
    build = config("geopile", raw, f"{bucket}/out", storage=StorageConfig(deadline_s=0.5))
    draw = np.random.default_rng(1)  # at most 9 faults one after the other: more would take longer than the deadline
    with FaultyProxy(s3["AWS_ENDPOINT_URL"]).running() as proxy, environment(AWS_ENDPOINT_URL=proxy.url):
        for healthy in (3, 9, 14, 20):  # then a bucket that answers 503 for good
            proxy.faults = [""] * healthy + ["503"] * 100_000
            with pytest.raises(StorageError, match="503"):
                build_collection(build, "build", lambda _: None)
        build = config("geopile", raw, f"{bucket}/out", storage=StorageConfig(deadline_s=60))
        proxy.faults = [str(fault) for fault in draw.choice(["", "", "503", "429", "reset", "cut", "short"], 200)]
        build_collection(build, "build", lambda _: None)
    build_collection(config("geopile", tmp_path / "raw", tmp_path / "local"), "build", lambda _: None)
    assert contents(f"{bucket}/out") == contents(str(tmp_path / "local"))
