"""Training for real: DeepSpeed on two CPU processes, killed, resumed, on other topologies."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from safetensors import safe_open
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from gfm_pipeline.sensors import builtin_sensor
from tests.conftest import BIN, ROOT, run_command
from tests.make_collection import make_collection, random_samples
from tests.ranks import run_gfm, run_ranks, start_ranks
from tests.serving import free_port

TINY = [
    "data.image_px=48",
    "data.mask.cell_px=8",
    "data.steps_per_epoch=8",
    "model.encoder.embed_dim=24",
    "model.encoder.depths=[1, 2]",
    "model.encoder.num_heads=[2, 4]",
    "model.encoder.window=6",
    "model.moe.blocks={2: [0, 1]}",
    "schedule.epochs=3",
    "schedule.warmup_epochs=0.25",
    "checkpoint.every_steps=8",
]
STEPS = 24
IMAGES = {"rgb": 10, "s1": 4, "s2": 4, "dsm": 2}
VOLATILE = ("images_per_s", "step_s", "data_wait_s", "data")


def settings(shards: Path, run_dir: Path, *more: str) -> list[str]:
    values = [*TINY, f"data.root={shards}", f"run_dir={run_dir}", *more]
    return ["--config", "configs/pretrain/quickstart.yaml", *(word for value in values for word in ("--set", value))]


def two_ranks(shards: Path, run_dir: Path, *more: str) -> str:
    """Train and return what was printed."""
    return run_ranks(2, settings(shards, run_dir, *more), run_dir.with_name("log"))


def one_rank(shards: Path, run_dir: Path, *more: str) -> str:
    return run_ranks(1, settings(shards, run_dir, "engine.ep_size=1", *more), run_dir.with_name("log"))


def metrics(run_dir: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key not in VOLATILE} for row in rows]


@pytest.fixture(scope="module")
def uncut(demo_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two ranks that nobody disturbed."""
    run_dir = tmp_path_factory.mktemp("uncut") / "run"
    assert f"finished: {STEPS} steps" in two_ranks(demo_shards, run_dir)
    return run_dir


def test_metrics_tell_of_every_step_stream_and_layer(uncut: Path) -> None:
    rows = metrics(uncut)
    assert [row["step"] for row in rows] == list(range(STEPS))
    for row in rows:
        assert row["streams"].keys() == {"rgb", "sen12ms", "mdas"}
        assert row["expert_load"].keys() == row["drop_rate"].keys() == {"stage2.block0", "stage2.block1"}
        for load in row["expert_load"].values():
            assert sum(load) == pytest.approx(1)
            assert len(load) == 4
        assert row["sensors"].keys() == {"rgb", "s1", "s2", "dsm"}
        for layer, load in row["expert_load"].items():
            mean = [
                sum(images * row["sensors"][sensor]["expert_load"][layer][expert] for sensor, images in IMAGES.items())
                for expert in range(4)
            ]
            assert load == pytest.approx([value / sum(IMAGES.values()) for value in mean])
        assert row["grad_norm"] > 0
        assert row["skipped"] == 0
    costs = [json.loads(line)["data"] for line in (uncut / "metrics.jsonl").read_text().splitlines()]
    for cost in costs:
        assert cost["wait_share"].keys() == {"rgb", "sen12ms", "mdas"}
        assert all(0 <= share <= 1.01 for share in cost["wait_share"].values())
        assert cost["refetches"] == cost["retries"] == 0
    assert sum(cost["read_mb"] for cost in costs) > 0.1
    directions = {name for row in rows for section in row["streams"].values() for name in section["losses"]}
    assert {"s1->s1", "s1->s2", "s2->s1", "s2->s2", "rgb->dsm", "dsm->rgb", "dsm->dsm", "rgb->rgb"} == directions
    assert rows[0]["streams"]["mdas"]["lr"] < rows[4]["streams"]["mdas"]["lr"] < rows[4]["streams"]["rgb"]["lr"]
    assert list((uncut / "tensorboard").glob("events*"))


def test_the_loss_falls(uncut: Path) -> None:
    losses = [row["loss"] for row in metrics(uncut)]
    assert sum(losses[-4:]) < 0.95 * sum(losses[:4])


def test_pictures_of_every_direction_are_drawn(uncut: Path, tmp_path: Path) -> None:
    done = run_gfm("visualize", "--run", uncut, "--out", tmp_path, "--samples", "2")
    names = {"loss-curves.png", "expert-load.png", "rgb-rgb-to-rgb.png"}
    names |= {f"sen12ms-{a}-to-{b}.png" for a in ("s1", "s2") for b in ("s1", "s2")}
    names |= {f"mdas-{a}-to-{b}.png" for a in ("rgb", "dsm") for b in ("rgb", "dsm")}
    assert {path.name for path in tmp_path.iterdir()} == names
    assert len(done.stdout.splitlines()) == len(names)
    for path in tmp_path.iterdir():
        with Image.open(path) as picture:
            assert len(picture.convert("RGB").getcolors(maxcolors=2**24)) > 50


def test_evaluation_changes_no_bit_and_one_process_finds_the_same(
    uncut: Path, demo_shards: Path, tmp_path: Path
) -> None:
    specs = [builtin_sensor("s1"), builtin_sensor("s2")]
    samples = [(key + "x" * (i % 2), r) for i, (key, r) in enumerate(random_samples(specs, 13, side=32))]
    make_collection(tmp_path / "val", samples, specs)
    held_out = f"{{collections: ['{tmp_path}/val'], sensors: [s1, s2]"
    run_dir = tmp_path / "run"
    words = [
        "schedule.max_steps=8",
        "evaluate.every_steps=3",
        f"evaluate.reconstruct.val={held_out}}}",
        f"evaluate.probes.parity={held_out}, label: class}}",
    ]
    assert "evaluated after 8 steps" in two_ranks(demo_shards, run_dir, *words)
    assert metrics(run_dir) == metrics(uncut)[:8]

    rows = [json.loads(line) for line in (run_dir / "evaluation.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [2, 5, 7]
    assert rows[0]["reconstruct"]["val"]["samples"] == 13
    assert rows[2]["reconstruct"]["val"]["loss"] != rows[0]["reconstruct"]["val"]["loss"]
    board = EventAccumulator(str(run_dir / "tensorboard")).Reload()
    assert {f"evaluation/val/{a}-to-{b}" for a in ("s1", "s2") for b in ("s1", "s2")} <= set(board.Tags()["images"])
    assert "evaluation/probes/parity/s1+s2/knn_accuracy" in board.Tags()["scalars"]

    alone = json.loads(run_gfm("evaluate", "--run", run_dir, "--json").stdout)
    assert alone == {key: value for key, value in rows[2].items() if key != "seconds"}
    text = run_gfm("evaluate", "--run", run_dir, "--untrained", "--set", "evaluate.probes=null").stdout
    assert "after 0 steps" in text
    assert f"{alone['reconstruct']['val']['loss']['s2->s1']:.5f}" not in text


def test_each_rank_holds_its_own_half_of_the_experts(uncut: Path) -> None:
    folder = uncut / "checkpoints" / f"step-{STEPS:08d}"
    experts = []
    for rank in range(2):
        with safe_open(folder / f"part-{rank:05d}-of-00002.safetensors", framework="pt") as file:
            names = [name for name in file.keys() if name.startswith("param/") and ".experts." in name]  # noqa: SIM118
            experts.append({name.split(".experts.")[1].split(".")[0] for name in names})
    assert experts == [{"0", "1"}, {"2", "3"}]


def test_the_same_command_again_has_nothing_to_do(uncut: Path, demo_shards: Path) -> None:
    before = metrics(uncut)
    assert "nothing to do" in two_ranks(demo_shards, uncut)
    assert metrics(uncut) == before


def test_a_killed_rank_ends_the_run_and_the_same_command_resumes_to_the_bit(
    uncut: Path, demo_shards: Path, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    # The real launcher, at a port of its own: other tests train at the same time.
    command = ["deepspeed", "--num_gpus", "2", "--master_port", str(free_port()), "launch/pretrain.py"]
    command += settings(demo_shards, run_dir)
    environment = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            wait_for_step(run_dir, 10, process)
            os.kill(rank_process(run_dir, 1), signal.SIGKILL)
            assert process.wait(60) != 0
        finally:
            process.kill()
    assert len(metrics_of_cut(run_dir)) < STEPS
    assert "resuming from" in run_command(*command).stdout
    assert metrics(run_dir) == metrics(uncut)
    assert tensors(run_dir) == tensors(uncut)


def test_one_rank_takes_the_same_steps_as_two(uncut: Path, demo_shards: Path, tmp_path: Path) -> None:
    one_rank(demo_shards, tmp_path / "run")
    steps = list(zip(metrics(uncut), metrics(tmp_path / "run"), strict=True))[:20]
    # The gradient of an L1 loss jumps where a prediction meets its target: a difference in the last bit may turn the
    # sign of a pixel's, and the norm then differs by a thousandth (with a squared loss, never by more than 1e-6).
    assert statistics.median(abs(one["grad_norm"] - two["grad_norm"]) for two, one in steps) < 1e-6
    for two, one in steps:
        assert one["loss"] == pytest.approx(two["loss"], abs=1e-5)
        assert one["grad_norm"] == pytest.approx(two["grad_norm"], rel=2e-3)
        for layer, load in two["expert_load"].items():  # a token between two experts may go either way
            assert one["expert_load"][layer] == pytest.approx(load, abs=0.005)


def test_a_checkpoint_of_two_ranks_continues_on_one(uncut: Path, demo_shards: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    (run_dir / "checkpoints").mkdir(parents=True)
    name = "step-00000016"
    os.symlink(uncut / "checkpoints" / name, run_dir / "checkpoints" / name)
    (run_dir / "checkpoints" / "latest").write_text(name)
    one_rank(demo_shards, run_dir)
    for one, two in zip(metrics(run_dir), metrics(uncut)[16:], strict=True):
        assert one["loss"] == pytest.approx(two["loss"], abs=1e-5)


def test_a_damaged_checkpoint_is_refused_by_name(uncut: Path, demo_shards: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    folder = run_dir / "checkpoints" / "step-00000016"
    folder.mkdir(parents=True)
    for file in (uncut / "checkpoints" / "step-00000016").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    (run_dir / "checkpoints" / "latest").write_text("step-00000016\n")
    data = bytearray((folder / "part-00001-of-00002.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "part-00001-of-00002.safetensors").write_bytes(data)
    refused(demo_shards, run_dir, "", 1, "part-00001-of-00002.safetensors is damaged")


def test_another_configuration_does_not_continue_a_run(uncut: Path, demo_shards: Path) -> None:
    refused(demo_shards, uncut, "optim.weight_decay=0.1", 1, "optim.weight_decay was 0.05 and is now 0.1")


@pytest.mark.parametrize(
    ("override", "code", "words"),
    [
        ("engine.ep_size=2", 2, "engine.ep_size 2 does not divide the world size 1"),
        ("data.streams.rgb.collections=[nowhere]", 1, "nowhere"),
        ("data.streams.sen12ms.sensors=[s1, s3]", 2, "s3"),
    ],
)
def test_what_cannot_work_is_refused_before_training(
    override: str, code: int, words: str, demo_shards: Path, tmp_path: Path
) -> None:
    refused(demo_shards, tmp_path / "run", override, code, words)


def test_ranks_that_disagree_stop_before_the_first_step(demo_shards: Path, tmp_path: Path) -> None:
    each = [["--set", f"data.streams.rgb.sub_batch={4 * (rank + 1)}"] for rank in range(2)]
    ranks = start_ranks(2, settings(demo_shards, tmp_path / "run"), tmp_path / "log", each)
    assert ranks.wait(launcher=False) == [1, 1]
    complaint = "rank 1 has another configuration than rank 0: data.streams.rgb.sub_batch is 8 instead of 4"
    assert ranks.printed().count(complaint) == 2
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_papers_model_takes_a_step_on_a_cpu(demo_shards: Path, tmp_path: Path) -> None:
    small = ["data.lanes=1", "engine.ep_size=1", "engine.dtype=fp32", "schedule.max_steps=1", "log.every_steps=1"]
    small += ["data.streams.rgb.sub_batch=2", "data.streams.sen12ms.sub_batch=2", "data.streams.mdas.sub_batch=2"]
    small += ["data.chunk_samples=4", f"data.root={demo_shards}", f"run_dir={tmp_path / 'run'}"]
    command = ["python", "launch/pretrain.py", "--config", "configs/pretrain/msgfm_base.yaml"]
    done = run_command(*command, *[word for value in small for word in ("--set", value)], timeout=1400)
    assert "finished: 1 steps" in done.stdout
    (row,) = metrics(tmp_path / "run")
    assert len(row["expert_load"]) == 9
    assert 0 < row["loss"] < 10


def refused(shards: Path, run_dir: Path, override: str, code: int, words: str) -> None:
    more = ["engine.ep_size=1", *([override] if override else [])]
    printed = run_ranks(1, settings(shards, run_dir, *more), run_dir.with_name("refused"), code)
    assert [line for line in printed.splitlines() if line.startswith("error: ") and words in line], printed
    assert "Traceback" not in printed


def wait_for_step(run_dir: Path, step: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 200
    while len(metrics_of_cut(run_dir)) <= step:
        assert process.poll() is None, "the run ended by itself"
        assert time.monotonic() < deadline
        time.sleep(0.05)


def metrics_of_cut(run_dir: Path) -> list[str]:
    path = run_dir / "metrics.jsonl"
    return [line for line in path.read_text().split("\n")[:-1]] if path.exists() else []


def rank_process(run_dir: Path, rank: int) -> int:
    """Return the process id of one rank of the run that writes to `run_dir`."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().decode().split("\0")
            except (OSError, UnicodeDecodeError):
                continue
            if f"--local_rank={rank}" in words and f"run_dir={run_dir}" in words and "launch/pretrain.py" in words:
                return int(entry.name)
    raise AssertionError(f"no process of rank {rank}")


def tensors(run_dir: Path) -> dict[str, bytes]:
    folder = run_dir / "checkpoints" / f"step-{STEPS:08d}"
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.safetensors"))}
