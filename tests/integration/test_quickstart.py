"""The quick start: its options at once, the whole of it by name (-m slow)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT


def quickstart(*arguments: str | Path, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "GFM_VENV": sys.prefix}
    return subprocess.run(
        ["bash", "launch/quickstart.sh", *map(str, arguments)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
    )


def test_help_lists_the_options() -> None:
    done = quickstart("--help")
    assert done.returncode == 0
    for option in ("--raw DIR", "--out DIR", "--gpus N", "--fresh"):
        assert option in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--rwa", "x"], "unknown option --rwa"),
        (["--out"], "--out needs a value"),
        (["--raw", "nowhere"], "--raw nowhere is no folder"),
        (["--gpus", "two"], "--gpus takes a number"),
    ],
)
def test_nonsense_is_refused(arguments: list[str], words: str) -> None:
    done = quickstart(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert words in done.stderr


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_from_nothing_to_pictures_and_again(tmp_path: Path) -> None:
    out = tmp_path / "out with a space"
    first = quickstart("--out", out, timeout=900)
    assert first.returncode == 0, first.stdout + first.stderr
    assert len(list((out / "pictures").glob("*.png"))) == 11
    rows = [json.loads(line) for line in (out / "run" / "metrics.jsonl").read_text().splitlines()]
    assert len(rows) == 400
    for sensor in ("rgb", "s1", "s2", "dsm"):
        assert mean_loss(rows[-40:], sensor) < 0.8 * mean_loss(rows[:40], sensor)
    again = quickstart("--out", out, timeout=300)
    assert again.returncode == 0, again.stdout + again.stderr
    assert again.stdout.count("Nothing to do") == 4
    assert "nothing to do: the run has taken 400 of 400 steps" in again.stdout


def mean_loss(rows: list[dict], sensor: str) -> float:
    values = [
        value
        for row in rows
        for section in row["streams"].values()
        for direction, value in section["losses"].items()
        if direction.endswith(f"->{sensor}")
    ]
    return sum(values) / len(values)
