from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from shard_builder.demo.write import RECORD

PROGRAM = [sys.executable, "-c", "from shard_builder.cli import main; main()", "demo"]


def run(*arguments):
    return subprocess.run([*PROGRAM, *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False)


def small(out, **changes):
    options = {"places": 5, "tile-px": 48, "seed": 7} | changes
    return run("--out", out, *(part for name, value in options.items() for part in (f"--{name}", value)))


@pytest.fixture
def finished(demo_folder, tmp_path):
    return shutil.copytree(demo_folder, tmp_path / "raw")


def test_makes_archives_and_says_what_they_are(tmp_path):
    result = small(tmp_path / "new", places=1, **{"tile-px": 32})
    assert result.returncode == 0, result.stderr
    assert "synthetic" in result.stdout
    assert "ROIs1158_spring_s2.tar.gz" in result.stdout
    assert (tmp_path / "new" / RECORD).is_file()


def test_finished_folder_is_left_alone(finished):
    before = {path: path.stat().st_mtime_ns for path in finished.iterdir()}
    result = small(finished)
    assert result.returncode == 0
    assert "nothing to do" in result.stdout
    assert {path: path.stat().st_mtime_ns for path in finished.iterdir()} == before


def test_finished_folder_of_other_arguments_is_refused(finished):
    result = small(finished, seed=8)
    assert result.returncode == 2
    assert "--seed 7" in result.stderr
    assert "--seed 8" in result.stderr


def test_damaged_folder_is_refused(finished):
    (finished / "GeoPileV0.zip").write_bytes(b"short")
    result = small(finished)
    assert result.returncode == 2
    assert "GeoPileV0.zip has 5 bytes" in result.stderr


@pytest.mark.parametrize("text", ["{", "[]", '{"places": "many"}'])
def test_unreadable_record_is_refused(finished, text):
    (finished / RECORD).write_text(text)
    result = small(finished)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr


def test_folder_of_somebody_else_is_refused_and_kept(tmp_path):
    precious = tmp_path / "ROIs1158_spring_s1.tar.gz"
    precious.write_bytes(b"real data")
    result = small(tmp_path)
    assert result.returncode == 2
    assert "not empty" in result.stderr
    assert precious.read_bytes() == b"real data"
    assert list(tmp_path.iterdir()) == [precious]


def test_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    assert small(tmp_path / "file").returncode == 2
    assert small(tmp_path / "file" / "below").returncode == 1


@pytest.mark.parametrize("change", [{"places": 0}, {"tile-px": 8}, {"seed": -1}, {"places": "many"}])
def test_nonsense_is_refused(tmp_path, change):
    result = small(tmp_path / "new", **change)
    assert result.returncode == 2
    assert not (tmp_path / "new").exists()


def test_some_families_by_two_processes_are_the_archives_that_all_have(finished, tmp_path):
    result = small(tmp_path / "new", families="geopile, MillionAID", workers=2)
    assert result.returncode == 0, result.stderr
    made = {path.name: path.read_bytes() for path in (tmp_path / "new").iterdir() if path.name != RECORD}
    assert sorted(made) == [
        "GeoPileV0.zip",
        "GeoPileV0_labels.csv",
        "millionaid_test.zip",
        "millionaid_test_labels.csv",
    ]
    assert all((finished / name).read_bytes() == data for name, data in made.items())
    assert "nothing to do" in small(tmp_path / "new", families="MillionAID,geopile").stdout
    other = small(tmp_path / "new")
    assert (other.returncode, "--families GeoPile,MillionAID" in other.stderr) == (2, True)


def test_an_unknown_family_is_named(tmp_path):
    result = small(tmp_path / "new", families="sen12m")
    assert result.returncode == 2
    assert "Did you mean 'sen12ms'" in result.stderr
    assert not (tmp_path / "new").exists()
