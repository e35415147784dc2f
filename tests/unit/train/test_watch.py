"""The watch over a job: signals, the deadline, and the lifeline between processes."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from gfm_pipeline.train.watchdog import Watchdog

PREEMPTION = """
import os, signal, sys, time
from gfm_pipeline.train import preemption
preemption.REPEAT_S = 0.3
with preemption.Preemption(0) as asked:
    print("ready", flush=True)
    end = time.monotonic() + 30
    while time.monotonic() < end:
        time.sleep(0.01)
        if asked.requested and "--stop" in sys.argv:
            break
print("ended for", asked.requested, flush=True)
"""


def preemptible(*arguments: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", PREEMPTION, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_is_a_request(number: signal.Signals) -> None:
    process = preemptible("--stop")
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, f"ended for {number.name}\n")
    assert "saving a checkpoint after this step" in err


def test_what_follows_at_once_is_the_same_request_and_what_comes_later_ends_the_process() -> None:
    process = preemptible()
    for _ in range(3):
        process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert "ending at once" in err


def test_a_phase_beyond_its_deadline_raises_the_alarm_and_shows_where_it_hangs(tmp_path: Path) -> None:
    rung = threading.Event()
    reasons: list[str] = []

    def alarm(reason: str) -> None:
        reasons.append(reason)
        watchdog.dump()
        rung.set()

    watchdog = Watchdog(0.2, tmp_path / "stacks-00000.txt", alarm)
    with watchdog:
        watchdog.beat("step 7")
        assert rung.wait(60)
    assert "'step 7' has not ended in 0.2 s" in reasons[0]
    text = (tmp_path / "stacks-00000.txt").read_text()
    assert re.search(r"--- in 'step 7' for", text)
    assert "test_watch.py" in text


def test_a_watchdog_that_is_fed_writes_nothing(tmp_path: Path) -> None:
    with Watchdog(30, tmp_path / "stacks-00000.txt", lambda reason: pytest.fail(reason)) as watchdog:
        for step in range(50):
            watchdog.beat(f"step {step}")
    assert not list(tmp_path.iterdir())


LIFELINE = """
import json, os, sys, time, threading
from gfm_pipeline.train import lifeline
lifeline.GRACE_S = 0.2
rank, size, folder, part = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]

class World:
    is_first = rank == 0
    def gather(self, value):
        World.turn += 1
        path = f"{folder}/{World.turn}-"
        with open(path + f"{rank}.tmp", "w") as file:
            json.dump(value, file)
        os.rename(path + f"{rank}.tmp", path + f"{rank}")
        while not all(os.path.exists(path + str(other)) for other in range(size)):
            time.sleep(0.01)
        return [json.load(open(path + str(other))) for other in range(size)]
World.turn, World.rank, World.size = 0, rank, size

line = lifeline.Lifeline(World(), lambda: print("dumped", file=sys.stderr))
print("ready", flush=True)
World().gather(None)
if part == "fails":
    line.close("no disk")
elif part == "leaves":
    line.close()
elif part == "hangs":
    line.report_hang("step 3 hangs")
else:
    time.sleep(30)
"""


def lifelines(folder: Path, *parts: str) -> list[subprocess.Popen[str]]:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", LIFELINE, str(rank), str(len(parts)), str(folder), part],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "MASTER_ADDR": "127.0.0.1"},
        )
        for rank, part in enumerate(parts)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    return processes


@pytest.mark.parametrize("victim", [0, 2])
def test_the_death_of_a_rank_ends_all_others_with_the_reason(victim: int, tmp_path: Path) -> None:
    processes = lifelines(tmp_path, "waits", "waits", "waits")
    processes[victim].kill()
    for rank, process in enumerate(processes):
        _, err = process.communicate(timeout=20)
        if rank != victim:
            assert process.returncode == 1
            assert re.search(rf"error on rank {rank}: rank {victim} \(.*process \d+\) ended without a word", err)


def test_a_rank_that_fails_says_why_and_one_that_leaves_takes_nobody_along(tmp_path: Path) -> None:
    processes = lifelines(tmp_path, "waits", "leaves", "waits", "fails")
    for rank, process in enumerate(processes):
        _, err = process.communicate(timeout=20)
        if rank in (0, 2):
            assert process.returncode == 1
            assert "rank 3 failed: no disk" in err
        else:
            assert process.returncode == 0


def test_a_hang_that_one_rank_reports_makes_all_show_their_stacks(tmp_path: Path) -> None:
    for process in lifelines(tmp_path, "waits", "hangs", "waits"):
        _, err = process.communicate(timeout=20)
        assert process.returncode == 1
        assert re.search(r"dumped\nerror on rank \d: step 3 hangs", err)
