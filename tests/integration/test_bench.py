"""`shard-builder bench` as a user runs it: every contender makes what it says, and every figure is a measured one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import run_command

PHASES = {"plan", "read", "decode", "check", "encode", "statistics", "records", "hash", "write", "merge", "other"}


def test_the_builder_against_tar_and_shardwriter(tmp_path: Path) -> None:
    words = ("shard-builder", "bench", "--quick", "--out", str(tmp_path / "in"), "--json", str(tmp_path / "found.json"))
    printed = run_command(*words).stdout
    found = json.loads((tmp_path / "found.json").read_text())
    scores = {(score["input"], score["contender"]): score for score in found["scores"]}
    inputs = list(dict.fromkeys(name for name, _ in scores))
    assert inputs == ["sen12ms-folders"]
    for name in inputs:
        mine = {contender: score for (other, contender), score in scores.items() if other == name}
        assert mine.keys() >= {"tar cf", "ShardWriter", "builder, 1 process", "builder, 2 processes", "profile"}
        samples = mine["tar cf"]["samples"]
        assert f"{name}: {samples} samples" in printed
        for score in mine.values():
            assert (score["samples"], len(score["runs"])) == (samples, 1)
            assert score["seconds"] > 0
        profile = mine["profile"]
        assert sum(profile["phases"].values()) == pytest.approx(1)
        assert profile["phases"].keys() <= PHASES
        assert {"read", "write", "hash", "other"} <= profile["phases"].keys()
        assert 0 < profile["overhead"] < 1
    assert {path.name for path in (tmp_path / "in").iterdir() if path.is_dir()} == set(
        inputs
    )  # what was written is gone again


@pytest.mark.slow
def test_peak_memory(tmp_path: Path) -> None:
    words = ("shard-builder", "bench", "--quick", "--memory", "--out", str(tmp_path), "--json", str(tmp_path / "found"))
    printed = run_command(*words).stdout
    peaks = json.loads((tmp_path / "found").read_text())["peaks"]
    assert {(peak["places"], peak["workers"]) for peak in peaks} == {(n, w) for n in (16, 64) for w in (1, 2)}
    for peak in peaks:
        assert peak["main_bytes"] > 20 * 2**20
        assert (peak["worker_bytes"] > 20 * 2**20) == (peak["workers"] > 1)
    assert "MiB" in printed
