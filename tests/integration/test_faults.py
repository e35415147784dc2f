"""The fault table: whatever a server does, the loader gives exact batches or ends with a named error in time."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from gfm_pipeline.errors import GfmError
from gfm_pipeline.storage import StorageConfig, remote
from tests.faulty_proxy import FAULTS, FaultyProxy
from tests.remote_collection import epoch_batches, loader_config, upload, write_pairs
from tests.serving import environment

TIMEOUT_S = 1.0
PATIENT = StorageConfig(timeout_s=TIMEOUT_S, deadline_s=60)
IMPATIENT = StorageConfig(timeout_s=TIMEOUT_S, deadline_s=2)
SLACK_S = 60
"""For a machine that is busy with other things."""

FOR_EVER = {
    "429": "429 Too Many Requests",
    "500": "500 Internal Server Error",
    "503": "503 Service Unavailable",
    "silent": r"after \d+ tries in \d+ s",
    "closed": r"after \d+ tries in \d+ s",
    "stall": r"after \d+ tries in \d+ s",
    "trickle": r"after \d+ tries in \d+ s",
    "flip": r"sample place-\d+, sensor s[12] at byte \d+: the \d+ bytes have crc32",
}
"""What the error says when every answer is like that. Of the others, each brings something, and so all in the end."""


@pytest.fixture(scope="module")
def pairs(s3: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[list[Any]]]:
    """The URL of a collection's parent, and what the loader makes of a local copy."""
    root = tmp_path_factory.mktemp("faults")
    write_pairs(root)
    url = f"s3://bucket/{uuid.uuid4().hex}"
    upload(root / "pairs", f"{url}/pairs")
    return url, epoch_batches(loader_config(root))


@pytest.fixture
def proxy(s3: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    monkeypatch.setattr(remote, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(remote, "FIRST_BUSY_PAUSE_S", 0.02)
    with FaultyProxy(s3["AWS_ENDPOINT_URL"]).running() as running, environment(AWS_ENDPOINT_URL=running.url):
        yield running


def of_tars(fault: str, times: int) -> Any:
    """Return a draw that gives the fault to the first `times` reads of shards."""
    left = [fault] * times

    def draw(path: str) -> str:
        return left.pop() if path.endswith(".tar") and left else ""

    return draw


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_now_and_then_changes_nothing(fault: str, pairs: Any, proxy: FaultyProxy) -> None:
    url, expected = pairs
    proxy.draw = of_tars(fault, 3)
    started = time.monotonic()
    assert epoch_batches(loader_config(url, storage=PATIENT)) == expected
    assert sum(one.fault == fault for one in proxy.passed) >= (0 if fault in ("silent", "stall", "trickle") else 3)
    print(f"\n| {fault} three times | exact batches | {time.monotonic() - started:.1f} s |")


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_for_ever_is_survived_or_told_in_time(fault: str, pairs: Any, proxy: FaultyProxy) -> None:
    url, expected = pairs
    proxy.draw = of_tars(fault, 10**6)
    # A flipped byte is no matter of time: how often it is read again is counted.
    options = PATIENT if fault == "flip" or fault not in FOR_EVER else IMPATIENT
    started = time.monotonic()
    if fault not in FOR_EVER:
        assert epoch_batches(loader_config(url, storage=options)) == expected
        print(f"\n| {fault} for ever | exact batches | {time.monotonic() - started:.1f} s |")
        return
    with pytest.raises(GfmError, match=FOR_EVER[fault]) as caught:
        epoch_batches(loader_config(url, storage=options))
    elapsed = time.monotonic() - started
    assert f"{url}/pairs/shards/pairs-" in str(caught.value)
    assert elapsed < IMPATIENT.deadline_s + TIMEOUT_S + SLACK_S
    print(f"\n| {fault} for ever | {caught.value} | {elapsed:.1f} s |")
