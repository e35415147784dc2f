"""The same answers about a collection in a bucket or on a plain web server as about the local copy."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from gfm_pipeline.shards.manifest import tar_path
from gfm_pipeline.storage import open_store
from shard_builder.collection.card import write_card
from shard_builder.collection.problem import Problem
from shard_builder.collection.show import show_collection
from shard_builder.collection.statistics import summarise, to_document
from shard_builder.collection.verify import VerifyReport, verify_collection
from tests.servers import web_server


@pytest.fixture(params=["s3", "http"])
def remote(request: pytest.FixtureRequest, demo_shards: Path) -> Iterator[str]:
    if request.param == "http":
        with web_server(demo_shards / "sen12ms") as url:
            yield url
        return
    request.getfixturevalue("s3")
    url = f"s3://bucket/{uuid.uuid4().hex}"
    local, bucket = open_store(str(demo_shards / "sen12ms")), open_store(url)
    for path in local.list(""):
        bucket.put(path, local.get(path))
    yield url


def check(url: str, workers: int = 1) -> tuple[VerifyReport, list[Problem]]:
    found: list[Problem] = []
    return verify_collection(url, None, workers, found.append, lambda done, total: None), found


def test_every_verb_answers_as_it_does_locally(remote, demo_shards, tmp_path):
    local = str(demo_shards / "sen12ms")
    there, found = check(remote)
    here, _ = check(local)
    assert not found
    assert (there.samples, there.members, there.bytes) == (here.samples, here.members, here.bytes)
    assert any("foreign objects" in line for line in there.not_checked) == remote.startswith("http")
    told = to_document(summarise(remote, with_catalog=True, with_classes=True))
    assert told | {"url": local} == to_document(summarise(local, with_catalog=True, with_classes=True))
    pictures = [show_collection(url, tmp_path / f"{i}.png", 3, 0) for i, url in enumerate((local, remote))]
    assert pictures[0].read_bytes() == pictures[1].read_bytes()
    cards = [write_card(url, tmp_path / f"card{i}", None) for i, url in enumerate((local, remote))]
    assert cards[0].read_text() == cards[1].read_text()


def test_damage_in_a_bucket_is_found_by_worker_processes(s3, demo_shards):
    url = f"s3://bucket/{uuid.uuid4().hex}"
    local, bucket = open_store(str(demo_shards / "sen12ms")), open_store(url)
    paths = list(local.list(""))
    tar = next(path for path in paths if path.endswith(".tar"))
    for path in paths:
        data = bytearray(local.get(path))
        if path == tar:
            data[len(data) // 2] ^= 1
        bucket.put(path, bytes(data))
    bucket.put(tar_path("leftover-000000"), b"x")
    report, found = check(url, workers=2)
    text = "\n".join(map(str, found))
    assert f"{url}/{tar}: shard" in text
    assert "leftover-000000.tar: object" in text
    assert report.problems >= 2
