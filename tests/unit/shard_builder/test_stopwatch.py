"""The profile of a build: time is charged once, to the innermost function that is watched."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from shard_builder.bench import stopwatch as module
from shard_builder.bench.stopwatch import Stopwatch


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return a clock that stands still until a test moves it."""
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    return now


def test_an_inner_function_stops_the_clock_of_the_outer(clock: list[float]) -> None:
    watch = Stopwatch()

    def read() -> str:
        clock[0] += 2
        return "bytes"

    inner = watch.wrap("read", read)

    def decode() -> str:
        clock[0] += 1
        found: str = inner()
        clock[0] += 4
        return found

    outer = watch.wrap("decode", decode)
    clock[0] += 100
    watch.start()
    clock[0] += 8
    assert outer() == "bytes"
    clock[0] += 16
    assert watch.stop() == {"other": 24, "decode": 5, "read": 2}


def test_an_iterator_is_watched_while_it_works(clock: list[float]) -> None:
    watch = Stopwatch()

    def members() -> Iterator[int]:
        for number in range(3):
            clock[0] += 1
            yield number

    watch.start()
    for _ in watch.wrap("read", members)():
        clock[0] += 10
    assert watch.stop() == {"read": 3, "other": 30}


def test_a_function_that_fails_is_charged_too(clock: list[float]) -> None:
    watch = Stopwatch()

    def damaged() -> None:
        clock[0] += 3
        raise ValueError("cut short")

    watch.start()
    with pytest.raises(ValueError, match="cut short"):
        watch.wrap("decode", damaged)()
    clock[0] += 1
    assert watch.stop() == {"decode": 3, "other": 1}


def test_a_seam_that_is_gone_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SEAMS", (("read", "shard_builder.archives.reader", "ArchiveReader.gone"),))
    with pytest.raises(AttributeError, match="gone"):
        Stopwatch().install()
