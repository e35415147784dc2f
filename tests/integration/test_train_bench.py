"""`gfm bench`: it measures what it says, on one process and on two."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from gfm_pipeline.cli.bench import bench
from gfm_pipeline.config import load_config
from gfm_pipeline.models.config import MoEConfig
from gfm_pipeline.train.config import TrainConfig
from tests.conftest import ROOT, run_command
from tests.integration.test_pretrain import TINY
from tests.ranks import run_gfm, run_ranks

SIZES = [*TINY, "data.streams.rgb.sensors=[rgb]", "data.lanes=2"]


def words(*settings: str) -> list[str]:
    return ["--config", "configs/pretrain/quickstart.yaml"] + [
        word for value in (*SIZES, *settings) for word in ("--set", value)
    ]


def test_contenders_ratios_and_where_the_time_goes(tmp_path: Path) -> None:
    done = run_gfm("bench", "step", *words(), "--steps", "1", "--json", tmp_path / "out.json")
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
    # timm has no stem, no decoders and three bands only, which weighs at this size.
    assert scores["timm"]["flops"] < scores["dense"]["flops"] < 3 * scores["timm"]["flops"]
    assert f"images/s of moe / dense: {tree['ratios']['images/s of moe / dense']:.2f}" in done.stdout


@pytest.mark.parametrize("launcher", ["forked", pytest.param("torchrun", marks=pytest.mark.slow)])
def test_a_layer_against_deepspeeds_on_two_ranks(launcher: str, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    arguments = ["layer", *words(), "--tokens", "256", "--repeats", "1", "--json", str(out)]
    if launcher == "torchrun":
        run_command("torchrun", "--nproc-per-node", "2", "launch/bench.py", *arguments)
    else:
        run_ranks(2, arguments, tmp_path / "log", program="bench")
    tree = json.loads(out.read_text())
    assert tree["machine"]["ranks"] == 2
    assert tree["seconds"].keys() == {"dense", "padded", "deepspeed"}


def test_the_script_for_launchers_takes_what_they_add() -> None:
    assert "layer" in run_command("python", "launch/bench.py", "--local_rank=1", "--help").stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["step", "--only", "mo"], "no such contender here. Did you mean 'moe'?"),
        (["layer", "--set", "model.moe.num_experts=1"], "the configuration has no expert layers"),
    ],
)
def test_what_cannot_be_measured_is_refused(arguments: list[str], message: str) -> None:
    verb, *rest = arguments
    done = run_gfm("bench", verb, *words(), *rest, code=2)
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_the_pages_commands_and_keys_exist() -> None:
    page = (ROOT / "docs" / "measure-training.md").read_text()
    commands = re.findall(r"^(?:gfm bench|.* launch/bench.py) +(\w+) +(.*)$", page, re.MULTILINE)
    assert len(commands) == 4
    for verb, arguments in commands:
        bench.commands[verb].make_context(verb, arguments.split())
    text = (ROOT / "docs" / "encoder-and-experts.md").read_text()
    (init,) = re.findall(r"--set '(.*)'", text)
    load_config(ROOT / "configs/pretrain/msgfm_base.yaml", TrainConfig, [init])
    for key in re.findall(r"^\| `([a-z_]+)`", text, re.MULTILINE):
        assert key in MoEConfig.model_fields, key
