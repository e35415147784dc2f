"""The verbs for finished collections, run as a user would on collections built from synthetic archives."""

from __future__ import annotations

import json
import shutil

import pytest

from tests.conftest import run_command

SOURCES = ("geopile", "millionaid", "sen12ms", "mdas")


@pytest.mark.parametrize("source", SOURCES)
def test_what_was_built_is_sound(demo_shards, source):
    tree = json.loads(run_command("shard-builder", "verify", demo_shards / source, "--json").stdout)
    assert tree["sound"]
    assert tree["samples"] > 0
    assert tree["listed"] == []


def test_damage_exits_1_with_a_line_per_problem_and_totals(demo_shards, tmp_path):
    folder = shutil.copytree(demo_shards / "sen12ms", tmp_path / "c")
    tar = next((folder / "shards").glob("*.tar"))
    data = bytearray(tar.read_bytes())
    data[len(data) // 2] ^= 1
    tar.write_bytes(data)
    done = run_command("shard-builder", "verify", folder, "--workers", "2", check=False)
    assert done.returncode == 1
    assert not done.stderr
    lines = done.stdout.splitlines()
    assert str(tar) in lines[0]
    assert any("sha256 of the tar: expected" in line for line in lines)
    assert "MB/s" in done.stdout
    done = run_command("shard-builder", "verify", tmp_path / "nowhere", check=False)
    assert done.returncode == 1
    assert "holds no manifest.json" in done.stdout


def test_numbers_picture_and_card(demo_shards, tmp_path):
    folder = demo_shards / "sen12ms"
    text = run_command("shard-builder", "stats", folder, "--catalog", "--classes").stdout
    assert "s1 + s2" in text
    assert json.loads(run_command("shard-builder", "stats", folder, "--json").stdout)["name"] == "sen12ms"
    run_command("shard-builder", "show", folder, "--out", tmp_path / "x.png", "--samples", "3", "--sensors", "s2,s1")
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
    run_command("shard-builder", "card", folder, "--out", tmp_path / "card")
    card = (tmp_path / "card" / "README.md").read_text()
    assert "synthetic" in card
    assert "sen12ms" in card
    done = run_command("shard-builder", "show", folder, "--out", tmp_path / "y.png", "--keys", "nothing", check=False)
    assert done.returncode == 2
    assert "holds no sample nothing" in done.stderr
