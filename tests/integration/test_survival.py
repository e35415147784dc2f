"""Runs that are killed, preempted, moved and poisoned: what survives, and that it is the same to the bit."""

from __future__ import annotations

import json
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gfm_pipeline.sensors import BUILTIN_SENSORS
from gfm_pipeline.storage import open_store
from gfm_pipeline.train.outcome import OUTCOME_FILE, REQUEUE_CODE
from tests.make_collection import make_collection, random_samples
from tests.ranks import Ranks, run_ranks, start_ranks

STEPS = 24
SAVE = 4
SETTINGS = [
    "data.image_px=16",
    "data.lanes=4",
    "data.chunk_samples=2",
    "data.window_chunks=2",
    "data.steps_per_epoch=8",
    "data.mask.cell_px=8",
    "data.augment.scale=[0.9, 1.0]",
    "data.streams={rgb: {collections: [rgb], sub_batch: 2, lr: 1.0e-3}, "
    "pair: {collections: [pair], sub_batch: 2, lr: 1.0e-3}}",
    "model.encoder={embed_dim: 8, depths: [1, 1], num_heads: [1, 2], window: 2}",
    "model.moe.blocks={2: [0]}",
    "schedule={epochs: 3, warmup_epochs: 0.5}",
    f"checkpoint.every_steps={SAVE}",
    "checkpoint.keep=100",
    "log.trackers={}",
    "health.unmoved_after_steps=null",
]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two little collections of noise: rgb, and pairs of Sentinel-1 and -2."""
    root = tmp_path_factory.mktemp("noise")
    for name, sensors in (("rgb", ["rgb"]), ("pair", ["s1", "s2"])):
        specs = [BUILTIN_SENSORS[sensor] for sensor in sensors]
        make_collection(root / name, random_samples(specs, 24, side=20, prefix=name), specs)
    return root


@pytest.fixture(scope="module")
def uncut(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on two ranks that nobody disturbed."""
    run_dir = tmp_path_factory.mktemp("uncut") / "run"
    assert f"finished: {STEPS} steps" in run_ranks(2, arguments(shards, run_dir), run_dir.parent / "log")
    return run_dir


def arguments(shards: Path, run_dir: Path, *more: str) -> list[str]:
    values = [*SETTINGS, f"data.root={shards}", f"run_dir={run_dir}", *more]
    return ["--config", "configs/pretrain/quickstart.yaml", *[word for value in values for word in ("--set", value)]]


def metrics(run_dir: Path) -> list[dict[str, Any]]:
    volatile = ("images_per_s", "step_s", "data_wait_s", "data")
    path = run_dir / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text().split("\n")[:-1]] if path.exists() else []
    return [{key: value for key, value in row.items() if key not in volatile} for row in rows]


def events(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / "events.jsonl").read_text().splitlines()]


def tensors(run_dir: Path, step: int = STEPS) -> dict[str, bytes]:
    folder = run_dir / "checkpoints" / f"step-{step:08d}"
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.safetensors"))}


def start_from(run_dir: Path, source: Path, step: int) -> None:
    """Give a new run the checkpoint of another after `step` steps."""
    name = f"step-{step:08d}"
    (run_dir / "checkpoints").mkdir(parents=True)
    (run_dir / "checkpoints" / name).symlink_to(source / "checkpoints" / name)
    (run_dir / "checkpoints" / "latest").write_text(name)


def wait_for(ranks: Ranks, run_dir: Path, steps: int) -> None:
    """Return when `steps` steps are logged, or the run has ended."""
    deadline = time.monotonic() + 200
    while len(metrics(run_dir)) < steps and all(process.is_alive() for process in ranks.processes):
        assert time.monotonic() < deadline, ranks.printed()
        time.sleep(0.01)


def assert_same_losses(run_dir: Path, uncut: Path, first_step: int) -> None:
    rows, expected = metrics(run_dir), metrics(uncut)[first_step:]
    assert [row["step"] for row in rows] == [row["step"] for row in expected]
    for one, other in zip(rows, expected, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], abs=1e-4)


def disturb(shards: Path, run_dir: Path, rng: random.Random, times: int) -> Iterator[str]:
    """Start a run, kill or preempt it at a random moment, and again, `times` times; then let it end."""
    for attempt in range(times):
        log = run_dir.parent / f"log-{attempt}"
        ranks = start_ranks(2, arguments(shards, run_dir), log)
        try:
            wait_for(ranks, run_dir, len(metrics(run_dir)) + 1 if rng.random() < 0.8 else 0)
            time.sleep(rng.uniform(0, 0.5))
            number = rng.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM])
            ranks.signal(number, [rng.randrange(2)] if rng.random() < 0.7 else None)
            codes = ranks.wait()
        finally:
            ranks.kill()
        yield f"{number.name}: {codes}"
        if codes == [0, 0]:
            break
    run_ranks(2, arguments(shards, run_dir), run_dir.parent / "log-last")


@pytest.mark.timeout(600)
def test_killed_and_preempted_at_random_moments_the_run_ends_with_the_same_bits(
    uncut: Path, shards: Path, tmp_path: Path
) -> None:
    outcomes = list(disturb(shards, tmp_path / "run", random.Random(1), 2))
    assert metrics(tmp_path / "run") == metrics(uncut), outcomes
    assert tensors(tmp_path / "run") == tensors(uncut), outcomes


@pytest.mark.timeout(600)
def test_one_rank_at_zero_0_goes_on_where_two_ranks_at_zero_1_stopped(
    uncut: Path, shards: Path, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    start_from(run_dir, uncut, 4)
    run_ranks(1, arguments(shards, run_dir, "engine={ep_size: 1, zero_stage: 0}"), tmp_path / "log")
    assert_same_losses(run_dir, uncut, 4)


@pytest.mark.timeout(600)
def test_a_signal_saves_a_checkpoint_and_asks_for_a_requeue(uncut: Path, shards: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    ranks = start_ranks(2, arguments(shards, run_dir, "checkpoint.background=true"), tmp_path / "log")
    try:
        wait_for(ranks, run_dir, 2)
        ranks.signal(signal.SIGUSR1, [1])  # one rank is told, all stop
        assert ranks.wait() == [REQUEUE_CODE] * 2, ranks.printed()
    finally:
        ranks.kill()
    assert json.loads((run_dir / OUTCOME_FILE).read_text())["outcome"] == "requeue"
    taken = len(metrics(run_dir))
    assert 2 <= taken < STEPS
    assert (run_dir / "checkpoints" / "latest").read_text().strip() == f"step-{taken:08d}"
    run_ranks(2, arguments(shards, run_dir, "checkpoint.background=true"), tmp_path / "log")
    assert json.loads((run_dir / OUTCOME_FILE).read_text())["outcome"] == "finished"
    assert metrics(run_dir) == metrics(uncut)
    assert tensors(run_dir) == tensors(uncut)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_checkpoints_in_an_object_store_and_a_time_limit(
    uncut: Path, shards: Path, tmp_path: Path, s3: dict[str, str]
) -> None:
    remote = ["checkpoint.url=s3://bucket/runs/first", "checkpoint.keep=1"]
    run_ranks(2, arguments(shards, tmp_path / "a", *remote, "schedule.max_hours=1e-9"), tmp_path / "log", REQUEUE_CODE)
    assert not (tmp_path / "a" / "checkpoints").exists()
    output = run_ranks(2, arguments(shards, tmp_path / "b", *remote), tmp_path / "log")  # on another machine
    assert "resuming from s3://bucket/runs/first/step-00000001 at step 1" in output
    assert metrics(tmp_path / "b") == metrics(uncut)[1:]
    store = open_store("s3://bucket/runs/first")
    assert [name for name, is_folder in store.names() if is_folder] == [f"step-{STEPS:08d}"]
    for name, data in tensors(uncut).items():
        assert store.get(f"step-{STEPS:08d}/{name}") == data
    assert not list((tmp_path / "b" / ".scratch").rglob("*.safetensors"))


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("policy", ["stop", "skip_batch", "rewind"])
def test_a_bad_step_never_touches_the_weights(policy: str, shards: Path, tmp_path: Path) -> None:
    # From step 18 on every gradient is a "spike": beyond 1.0000001 times the median are about half of them.
    spiky = ["health.norm_factor=1.0000001", "health.window_steps=16", f"health.on_bad_step={policy}"]
    run_dir = tmp_path / "run"
    if policy == "stop":
        printed = run_ranks(2, arguments(shards, run_dir, *spiky), tmp_path / "log", 1)
        assert "is bad: the gradient's norm" in printed
        assert "Traceback" not in printed
        assert json.loads((run_dir / OUTCOME_FILE).read_text())["outcome"] == "failed"
        return
    run_ranks(2, arguments(shards, run_dir, *spiky), tmp_path / "log")
    found = events(run_dir)
    assert found
    assert {event["event"] for event in found} == {policy}
    state = json.loads((run_dir / "checkpoints" / f"step-{STEPS:08d}" / "state.json").read_text())
    assert state["health"]["bad_steps"] == [event["step"] for event in found]
    if policy == "skip_batch":
        assert state["updates"] == STEPS - len(found)
    else:
        assert state["updates"] < STEPS - len(found)
        assert all(event["left_out"][0] % SAVE == 0 for event in found)
    cut = tmp_path / "cut"
    start_from(cut, run_dir, 20)
    run_ranks(2, arguments(shards, cut, *spiky), tmp_path / "log")
    assert tensors(cut) == tensors(run_dir)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_four_ranks_at_zero_2_go_on_and_two_ranks_after_them(uncut: Path, shards: Path, tmp_path: Path) -> None:
    four, back = tmp_path / "four", tmp_path / "back"
    start_from(four, uncut, 4)
    run_ranks(4, arguments(shards, four, "engine={ep_size: 2, zero_stage: 2}"), tmp_path / "log")
    assert_same_losses(four, uncut, 4)
    start_from(back, four, 12)
    run_ranks(2, arguments(shards, back), tmp_path / "log")
    assert_same_losses(back, uncut, 12)
    again = tmp_path / "again"
    start_from(again, four, 12)
    run_ranks(4, arguments(shards, again, "engine={ep_size: 2, zero_stage: 2}"), tmp_path / "log")
    assert tensors(again) == tensors(four)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_two_ranks_at_zero_0_clip_by_the_norm_of_all_experts(uncut: Path, shards: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    start_from(run_dir, uncut, 4)
    run_ranks(2, arguments(shards, run_dir, "engine.zero_stage=0"), tmp_path / "log")
    assert_same_losses(run_dir, uncut, 4)
    for one, other in zip(metrics(run_dir), metrics(uncut)[4:], strict=True):
        assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-3)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_fifty_kills_change_no_bit(uncut: Path, shards: Path, tmp_path: Path) -> None:
    rng = random.Random(50)
    done = 0
    runs = 0
    while done < 50:
        runs += 1
        run_dir = tmp_path / f"run-{runs}"
        run_dir.mkdir()
        for outcome in disturb(shards, run_dir / "run", rng, 50 - done):
            print(outcome, flush=True)
            done += "[0, 0]" not in outcome
        assert metrics(run_dir / "run") == metrics(uncut)
        assert tensors(run_dir / "run") == tensors(uncut)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("victim", [0, 1])
def test_the_loss_of_a_rank_is_told_by_the_others_within_ten_seconds(victim: int, shards: Path, tmp_path: Path) -> None:
    ranks = start_ranks(2, arguments(shards, tmp_path / "run"), tmp_path / "log")
    try:
        wait_for(ranks, tmp_path / "run", 2)
        killed = time.monotonic()
        ranks.signal(signal.SIGKILL, [victim])
        codes = ranks.wait(launcher=False)
    finally:
        ranks.kill()
    print(f"ended {time.monotonic() - killed:.1f} s after the kill")
    assert sorted(codes) == [-signal.SIGKILL, 1]
    assert f"error on rank {1 - victim}: rank {victim} (" in ranks.printed()
    assert "Traceback" not in ranks.printed()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_hang_is_ended_with_the_stacks_of_the_ranks(shards: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    ranks = start_ranks(2, arguments(shards, run_dir, "health.deadline_s=20"), tmp_path / "log")
    try:
        wait_for(ranks, run_dir, 1)
        ranks.signal(signal.SIGSTOP, [1])
        ranks.processes[0].join(120)
        assert ranks.processes[0].exitcode == 1, ranks.printed()
    finally:
        ranks.kill()
    assert "the job hangs" in ranks.printed()
    assert "train_step" in (run_dir / "stacks-00000.txt").read_text()
