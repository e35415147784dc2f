"""`gfm bench`: it measures what it says, on one process and on two."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import run_command
from tests.integration.test_pretrain import TINY

SIZES = [*TINY, "data.streams.rgb.sensors=[rgb]", "data.lanes=2"]


def words(*settings: str) -> list[str]:
    return ["--config", "configs/pretrain/quickstart.yaml"] + [
        word for value in (*SIZES, *settings) for word in ("--set", value)
    ]


def test_contenders_ratios_and_where_the_time_goes(tmp_path: Path) -> None:
    done = run_command("gfm", "bench", "step", *words(), "--steps", "1", "--json", tmp_path / "out.json")
    tree = json.loads((tmp_path / "out.json").read_text())
    scores = tree["contenders"]
    assert scores.keys() == {"timm", "dense", "moe"}
    for score in scores.values():
        assert score["images"] == 40
        assert score["images_per_s"] == pytest.approx(40 / score["step_s"])
        assert score["share_of_peak"] == pytest.approx(score["flops"] / score["step_s"] / tree["matmul_flop_per_s"])
        assert score["peak_bytes"] > 2**20
    split = scores["moe"]["split"]
    assert split.keys() >= {
        "data wait",
        "embed",
        "attention",
        "MLP",
        "experts",
        "dispatch",
        "decode",
        "optimiser",
        "rest",
    }
    assert sum(split.values()) == pytest.approx(1)
    assert all(share > 0 for part, share in split.items())
    assert "experts" not in scores["dense"]["split"]
    # Of the same products: timm's has no decoders and embeds three bands only.
    assert scores["timm"]["flops"] < scores["dense"]["flops"] < 2 * scores["timm"]["flops"]
    assert f"images/s of moe / dense: {tree['ratios']['images/s of moe / dense']:.2f}" in done.stdout


def test_a_layer_against_deepspeeds_on_two_ranks(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    run_command(
        *("torchrun", "--nproc-per-node", "2", "launch/bench.py", "layer", *words()),
        *("--tokens", "256", "--repeats", "1", "--json", out),
    )
    tree = json.loads(out.read_text())
    assert tree["machine"]["ranks"] == 2
    assert tree["seconds"].keys() == {"dense", "padded", "deepspeed"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["step", "--only", "mo"], "no such contender here. Did you mean 'moe'?"),
        (["layer", "--set", "model.moe.num_experts=1"], "the configuration has no expert layers"),
    ],
)
def test_what_cannot_be_measured_is_refused(arguments: list[str], message: str) -> None:
    verb, *rest = arguments
    done = run_command("gfm", "bench", verb, *words(), *rest, check=False)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
