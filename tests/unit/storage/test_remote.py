"""Servers that fail: repeated as long as there is hope, then told in one line without secrets."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from gfm_pipeline.errors import StorageError
from gfm_pipeline.storage import StorageConfig, open_store, remote
from gfm_pipeline.storage.remote import ObjectStore
from tests.faulty_proxy import FaultyProxy
from tests.servers import web_server
from tests.serving import environment, free_port

DATA = np.random.default_rng(1).integers(0, 256, 500_000, dtype=np.uint8).tobytes()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(remote, "FIRST_BUSY_PAUSE_S", 0.01)


@pytest.fixture
def proxy(s3: dict[str, str]) -> Iterator[FaultyProxy]:
    with FaultyProxy(s3["AWS_ENDPOINT_URL"]).running() as running, environment(AWS_ENDPOINT_URL=running.url):
        yield running


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("fault", ["503", "reset", "short"])
def test_a_read_survives_faults(fault: str, proxy: FaultyProxy) -> None:
    store = open_store(f"s3://bucket/{uuid.uuid4().hex}")
    store.put("x", DATA)
    proxy.faults = [fault, fault, "", fault]
    assert store.get("x") == DATA
    proxy.faults = [fault]
    assert store.get_range("x", 10, 1000) == DATA[10:1010]
    assert not proxy.faults


@pytest.mark.usefixtures("impatient")
def test_a_read_goes_on_at_the_byte_where_it_broke(proxy: FaultyProxy) -> None:
    store = open_store(f"s3://bucket/{uuid.uuid4().hex}")
    data = DATA * 3
    store.put("x", data)
    proxy.faults = ["cut"]
    assert store.get_range("x", 100, len(data) - 100) == data[100:]
    first, second = (one.range for one in proxy.passed if one.method == "GET" and one.path.endswith("/x"))
    assert first == (100, len(data) - 100)
    assert second is not None
    assert second[0] + second[1] == len(data)
    assert second[1] < len(data) / 2  # three quarters came before the cut, of which less than 256 KiB are lost
    assert store.counters.read().retries == 1


@pytest.mark.usefixtures("impatient")
def test_a_read_that_is_to_be_repeated_can_be_stopped(proxy: FaultyProxy) -> None:
    store = open_store("s3://bucket/stopped")
    proxy.draw = lambda path: "503"
    stop = threading.Event()
    threading.Timer(0.2, stop.set).start()
    with pytest.raises(StorageError, match="stopped while a failed request was to be repeated"):
        store.get_ranges("x", [(0, 10), (20, 10)], stop)


@pytest.mark.usefixtures("impatient")
def test_a_write_survives_a_server_that_is_busy(proxy: FaultyProxy, tmp_path: Path) -> None:
    store = open_store(f"s3://bucket/{uuid.uuid4().hex}")
    proxy.faults = ["503", "503"]
    store.put("x", DATA)
    (tmp_path / "file").write_bytes(DATA)
    proxy.faults = ["503"]
    store.put_file("y", tmp_path / "file")
    assert store.get("x") == store.get("y") == DATA


@pytest.mark.usefixtures("impatient")
def test_a_server_that_stays_busy_is_told(proxy: FaultyProxy) -> None:
    store = open_store("s3://bucket/busy", StorageConfig(deadline_s=1))
    proxy.faults = ["503"] * 1000
    with pytest.raises(
        StorageError, match=r"cannot write s3://bucket/busy/x: 503 Service Unavailable.* after \d+ tries in \d+ s\."
    ) as told:
        store.put("x", b"x")
    assert "not-to-be-told" not in str(told.value)


@pytest.mark.usefixtures("impatient", "s3")
def test_nobody_there_is_told() -> None:
    words = r"cannot read s3://bucket/x: .* after \d+ tries"
    with environment(AWS_ENDPOINT_URL=f"http://127.0.0.1:{free_port()}"), pytest.raises(StorageError, match=words):
        open_store("s3://bucket", StorageConfig(deadline_s=1)).get("x")


@pytest.mark.usefixtures("s3")
def test_an_object_replaced_while_it_is_read_is_an_error() -> None:
    store = open_store(f"s3://bucket/{uuid.uuid4().hex}")
    store.put("x", DATA)
    with store.open("x") as file:
        assert file.read(10) == DATA[:10]
        store.put("x", DATA[::-1])
        file.seek(400_000)
        with pytest.raises(StorageError, match="was replaced while it was read"):
            file.read(10)


def test_credentials_in_a_url_are_refused() -> None:
    with pytest.raises(StorageError, match="holds credentials") as told:
        open_store("https://me:secret@host/x")
    assert "secret" not in str(told.value)


def test_a_web_server_is_read_and_not_written(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(DATA)
    with web_server(tmp_path) as url:
        store = open_store(url)
        assert store.get("x") == DATA
        assert store.get_range("x", 5, 10) == DATA[5:15]
        assert store.exists("x")
        assert not store.exists("y")
        with store.open("x") as file:
            file.seek(-7, 2)
            assert file.read() == DATA[-7:]
        for write in (lambda: store.put("y", b""), lambda: store.delete("x")):
            with pytest.raises(StorageError, match="a web server is read-only"):
                write()
        with pytest.raises(StorageError, match="a web server tells no names"):
            store.names()


def test_a_child_that_was_forked_too_late_is_told(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(DATA)
    code = (
        "import os, sys\nfrom gfm_pipeline.storage import open_store\nstore = open_store(sys.argv[1])\nstore.get('x')\n"
        "if os.fork() == 0:\n    try:\n        store.get('x')\n    except OSError as error:\n        print(error)\n"
        "else:\n    os.wait()\n"
    )
    with web_server(tmp_path) as url:
        words = [sys.executable, "-c", code, url]
        done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=120)
    assert "Start workers by spawn or forkserver" in done.stdout


def test_local_work_needs_no_client() -> None:
    code = (
        "import sys; from gfm_pipeline.storage import open_store; open_store('/tmp').exists('x')\n"
        "print('obstore' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout.strip() == "False"


def test_the_url_is_all_that_a_store_tells() -> None:
    assert ObjectStore("s3://bucket/a/").url == "s3://bucket/a"


def test_empty_objects_that_stand_for_folders_are_no_objects(s3: dict[str, str]) -> None:
    import boto3

    top = uuid.uuid4().hex
    client = boto3.client("s3", endpoint_url=s3["AWS_ENDPOINT_URL"])
    for marker in ("", "shards/", "hollow/", "deep/er/", "shards_$folder$", "shards/hollow/"):
        client.put_object(Bucket="bucket", Key=f"{top}/{marker}", Body=b"")
    store = open_store(f"s3://bucket/{top}")
    store.put("shards/a.tar", b"1")
    store.put("zero", b"")
    store.put("shards/empty.txt", b"")
    assert list(store.walk("")) == [("shards/a.tar", 1), ("shards/empty.txt", 0), ("zero", 0)]
    assert list(store.list("shards")) == ["shards/a.tar", "shards/empty.txt"]
    assert store.names() == [("deep", True), ("hollow", True), ("shards", True), ("zero", False)]
    assert store.names("shards") == [("a.tar", False), ("empty.txt", False), ("hollow", True)]
    assert store.names("hollow") == []
    above = open_store("s3://bucket")
    assert (top, True) in above.names()
    assert list(above.list(top)) == [f"{top}/shards/a.tar", f"{top}/shards/empty.txt", f"{top}/zero"]
