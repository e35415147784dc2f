from __future__ import annotations

import threading
import time

import pytest

from gfm_pipeline.data.fetch import Fetcher, Piece
from gfm_pipeline.data.pace import Pace
from gfm_pipeline.errors import GfmError


def piece(number, size=10, gate=None, log=None):
    def load():
        if log is not None:
            log.append(number)
        if gate is not None:
            assert gate.wait(10)
        return {sample: (f"{number}/{sample}", size) for sample in range(2)}

    return Piece(load, 2 * size)


def until(condition):
    deadline = time.monotonic() + 10
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)
    assert condition()


def test_pieces_are_fetched_ahead_in_order_as_far_as_the_limit_allows():
    log = []
    fetcher = Fetcher(1, 50)
    for number in range(5):
        fetcher.announce(number, lambda number=number: piece(number, log=log))
    until(lambda: log == [0, 1] and fetcher.held_bytes == 40)
    assert fetcher.take(0, 1, lambda: piece(0)) == "0/1"
    assert fetcher.held_bytes == 30
    until(lambda: log == [0, 1, 2] and fetcher.held_bytes == 50)
    fetcher.take(0, 0, lambda: piece(0))
    fetcher.take(1, 0, lambda: piece(1))
    until(lambda: log == [0, 1, 2, 3])
    assert fetcher.most_held_bytes == 50
    fetcher.close()


def test_what_is_waited_for_is_fetched_before_its_turn_and_beyond_the_limit():
    log = []
    fetcher = Fetcher(1, 20)
    for number in range(4):
        fetcher.announce(number, lambda number=number: piece(number, log=log))
    until(lambda: log == [0])
    assert fetcher.take(3, 0, lambda: piece(3)) == "3/0"
    assert log == [0, 3]
    fetcher.close()


def test_several_are_loaded_at_a_time():
    gate, log = threading.Event(), []
    fetcher = Fetcher(3, 1000)
    for number in range(5):
        fetcher.announce(number, lambda number=number: piece(number, gate=gate, log=log))
    until(lambda: len(log) == 3)
    time.sleep(0.05)
    assert sorted(log) == [0, 1, 2]
    gate.set()
    until(lambda: len(log) == 5)
    fetcher.close()


def test_what_loading_raises_reaches_whoever_waits():
    def load():
        raise MemoryError("no more")

    fetcher = Fetcher(2, 100)
    with pytest.raises(MemoryError, match="no more"):
        fetcher.take("x", 0, lambda: Piece(load, 1))
    fetcher.close()


def test_nobody_waits_for_a_thread_that_is_gone():
    class Broken(Piece):
        @property
        def bytes(self):
            raise ZeroDivisionError("a defect")

        @bytes.setter
        def bytes(self, value):
            pass

    fetcher = Fetcher(1, 100)
    with pytest.raises(ZeroDivisionError):
        fetcher.take("x", 0, lambda: Broken(lambda: {}, 1))
    fetcher.close()


def test_closing_wakes_whoever_waits_and_ends_the_threads():
    stop, raised = threading.Event(), []
    fetcher = Fetcher(1, 100)

    def wait():
        with pytest.raises(GfmError, match="closed"):
            fetcher.take("x", 0, lambda: piece(0, gate=stop))
        raised.append(True)

    waiting = threading.Thread(target=wait)
    waiting.start()
    until(lambda: fetcher.held_bytes > 0)
    threading.Timer(0.05, stop.set).start()
    fetcher.close()
    waiting.join(10)
    assert raised == [True]
    assert not any(thread.is_alive() for thread in fetcher._threads)


def test_a_slow_store_is_asked_earlier_but_never_for_more_than_the_next_window():
    pace = Pace()
    assert pace.steps_ahead(10.0, 50) == 0  # nothing is known of the trainer yet
    pace.seconds_per_step = 0.5
    assert pace.steps_ahead(0.0, 50) == 0
    assert pace.steps_ahead(1.0, 50) == 4
    assert pace.steps_ahead(3.0, 50) == 12
    assert pace.steps_ahead(1000.0, 50) == 50
