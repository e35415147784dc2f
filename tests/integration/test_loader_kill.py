"""Loader processes of two ranks, killed at random moments and resumed, from a bucket whose answers are often faulty."""

from __future__ import annotations

import os
import random
import time
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from gfm_pipeline.data.loader import Loader
from gfm_pipeline.data.mixture import open_mixture
from gfm_pipeline.storage import StorageConfig
from tests.faulty_proxy import FaultyProxy
from tests.loader_life import SEED, cut_log, digest, live, read_log
from tests.ranks import CONTEXT
from tests.remote_collection import SAMPLES, STEPS_PER_EPOCH, loader_config, upload, write_pairs
from tests.serving import environment

WORLD = 2
FAULTS = ["", "", "", "", "", "", "", "", "503", "429", "reset", "cut", "short", "flip", "closed", "slow"]
FEW, MANY = 4, pytest.param(200, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])


@pytest.mark.parametrize("kills", [FEW, MANY])
def test_nothing_is_lost_repeated_or_wrong(kills: int, s3: dict[str, str], tmp_path: Path) -> None:
    write_pairs(tmp_path)
    url = f"s3://bucket/{uuid.uuid4().hex}"
    upload(tmp_path / "pairs", f"{url}/pairs")
    config = loader_config(url, storage=StorageConfig(timeout_s=5, deadline_s=120))
    logs = [tmp_path / f"rank{rank}.jsonl" for rank in range(WORLD)]
    rng, draw = random.Random(kills), random.Random(1)
    with FaultyProxy(s3["AWS_ENDPOINT_URL"]).running() as proxy, environment(AWS_ENDPOINT_URL=proxy.url):
        proxy.draw = lambda path: draw.choice(FAULTS) if path.endswith(".tar") else ""
        hits = resumed = 0
        while hits < kills:
            processes = start(config.model_dump(mode="json"), logs, steps=10**6)
            before = done(logs)
            if rng.random() < 0.9:  # mostly, they get somewhere
                while done(logs) == before and all(process.is_alive() for process in processes):
                    time.sleep(0.02)
            time.sleep(rng.uniform(0, 0.3))
            victims = [processes[rng.randrange(WORLD)]] if rng.random() < 0.7 else processes
            hits += sum(process.is_alive() for process in victims)
            for process in victims:
                process.kill()
            time.sleep(rng.uniform(0, 0.05))
            for process in processes:  # as a launcher does when a rank is gone
                process.kill()
                process.join()
            resumed += done(logs) > before
        steps = -(-(done(logs) + 1) // STEPS_PER_EPOCH) * STEPS_PER_EPOCH
        last = start(config.model_dump(mode="json"), logs, steps)
        for process in last:
            process.join()
            assert process.exitcode == 0
    faults = Counter(one.fault for one in proxy.passed if one.fault)
    assert resumed > kills / 3
    print(f"\n{hits} kills, {resumed} lives that took steps, {steps} steps of {WORLD} ranks, faults {dict(faults)}")
    seen = [[batch for log in logs for batch in read_log(log)[step]["lanes"]] for step in range(steps)]
    assert seen == uncut(loader_config(tmp_path), steps)
    for begin in range(0, steps, STEPS_PER_EPOCH):
        keys = [key for step in seen[begin : begin + STEPS_PER_EPOCH] for batch in step for key in batch[2]]
        assert len(keys) == len(set(keys)) == SAMPLES


def start(config: dict[str, Any], logs: list[Path], steps: int) -> list[Any]:
    """Start both ranks from the step that both have done."""
    common = done(logs)
    surroundings = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    processes = []
    for rank, log in enumerate(logs):
        cut_log(log, common)
        arguments = (config, rank, WORLD, str(log), surroundings, steps)
        processes.append(CONTEXT.Process(target=live, args=arguments, daemon=True))
        processes[-1].start()
    return processes


def done(logs: list[Path]) -> int:
    """Return how many steps both ranks have written down."""
    return min(len(read_log(log)) for log in logs)


def uncut(config: Any, steps: int) -> list[list[Any]]:
    """Return what a run of one rank that nobody disturbs sees of a local copy."""
    with Loader(open_mixture(config), config, SEED, 0, 1) as loader:
        # Through JSON, as the logs are: tuples become lists.
        return [[digest(batch) for batch in next(loader)] for _ in range(steps)]
