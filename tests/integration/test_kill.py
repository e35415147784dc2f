"""Builds that are killed at random moments, and what is left of it: nothing.

`-m slow` does it at 50 moments for the processes of this machine, for shares, and for the workers of a Dask cluster.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.clusters import dask_cluster
from tests.conftest import BIN, ROOT, run_command
from tests.contracts.test_sources import digests
from tests.integration.test_build import command, wait_for_orphans

MANY = pytest.param(50, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])
SETTINGS = ("max_samples=1", "workers=2")
SHARDS = 12


@pytest.fixture(scope="module")
def undisturbed(demo_archives: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, str], float]:
    """The digests of a build that nobody disturbs, and how many seconds it takes."""
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    started = time.monotonic()
    run_command(*command("sen12ms", demo_archives, out, *SETTINGS))
    seconds = time.monotonic() - started
    run_command("shard-builder", "verify", out)
    assert len(list(out.glob("shards/*.json"))) == SHARDS
    return digests(out), seconds


def start(words: list[str]) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(words, cwd=ROOT, env=environment, start_new_session=True, **quiet)  # type: ignore[call-overload, no-any-return]


def wait_for_a_moment(
    number: int, rng: random.Random, out: Path, process: subprocess.Popen[bytes], seconds: float
) -> None:
    """Wait until a random number of shards is there; every fourth time, for a random time."""
    if number % 4 == 3:
        time.sleep(rng.uniform(0.3, 0.98) * seconds)
        return
    wanted = rng.randrange(SHARDS)
    while process.poll() is None and len(list(out.glob("shards/*.json"))) < wanted:
        time.sleep(0.002)


@pytest.mark.parametrize("moments", [4, MANY])
def test_the_builder(
    moments: int, demo_archives: Path, undisturbed: tuple[dict[str, str], float], tmp_path: Path
) -> None:
    """Kill the builder with all of its workers, or alone, so that they outlive it."""
    expected, seconds = undisturbed
    rng = random.Random(moments)
    hits = between = 0
    for number in range(moments):
        out = tmp_path / f"out{number}"
        words = command("sen12ms", demo_archives, out, *SETTINGS)
        process = start(words)
        wait_for_a_moment(number, rng, out, process, seconds)
        hits += process.poll() is None
        if process.poll() is None:
            between += 0 < len(list(out.glob("shards/*.json"))) < SHARDS
            (os.killpg if number % 2 else os.kill)(process.pid, signal.SIGKILL)
        process.wait()
        run_command(*words)
        wait_for_orphans(out)
        assert digests(out) == expected, f"after moment {number}"  # equal names too: no leftovers
    print(f"{hits} of {moments} kills came before the end, {between} of them between the first shard and the last")
    assert hits > moments / 2
    run_command("shard-builder", "verify", out)


@pytest.mark.parametrize("moments", [3, MANY])
def test_shares(moments: int, demo_archives: Path, undisturbed: tuple[dict[str, str], float], tmp_path: Path) -> None:
    """Kill one share while another one runs, run it again, then merge."""
    expected, seconds = undisturbed
    rng = random.Random(moments)
    hits = 0
    for number in range(moments):
        out = tmp_path / f"out{number}"
        words = command("sen12ms", demo_archives, out, *SETTINGS)
        shares = [[*words, "--task", f"{index}/2"] for index in (0, 1)]
        processes = [start(share) for share in shares]
        wait_for_a_moment(number, rng, out, processes[0], seconds)
        hits += processes[0].poll() is None
        if processes[0].poll() is None:
            os.killpg(processes[0].pid, signal.SIGKILL)
        processes[0].wait()
        run_command(*shares[0])
        assert processes[1].wait() == 0
        run_command("shard-builder", "merge", *words[2:])
        assert digests(out) == expected, f"after moment {number}"
    print(f"{hits} of {moments} kills came before the end of a share")
    assert hits > moments / 2


@pytest.mark.parametrize("moments", [3, MANY])
def test_workers_of_a_dask_cluster(
    moments: int, demo_archives: Path, undisturbed: tuple[dict[str, str], float], tmp_path: Path
) -> None:
    """Kill a worker, or the builder, while the cluster stays."""
    expected, seconds = undisturbed
    rng = random.Random(moments)
    hits = 0
    with dask_cluster(tmp_path) as cluster:
        for number in range(moments):
            out = tmp_path / f"out{number}"
            words = command("sen12ms", demo_archives, out, *SETTINGS)
            words += ["--executor", "dask", "--scheduler", cluster.address]
            workers = cluster.worker_pids()
            process = start(words)
            wait_for_a_moment(number, rng, out, process, seconds)
            victim = process.pid if number % 3 == 2 else rng.choice(workers)
            hits += process.poll() is None
            if process.poll() is None:
                os.kill(victim, signal.SIGKILL)
            code = process.wait()
            if victim == process.pid:
                run_command(*words)
            else:
                assert code == 0  # a dead worker is nothing the user has to mend
            assert digests(out) == expected, f"after moment {number}"
            time.sleep(0.2)
            assert digests(out) == expected, f"a worker that outlived its build wrote after moment {number}"
    print(f"{hits} of {moments} kills came before the end")
    assert hits > moments / 2
