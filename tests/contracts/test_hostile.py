"""Hostile archives: a named refusal, nothing outside the output, no memory or time to speak of."""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from gfm_pipeline.errors import GfmError
from gfm_pipeline.shards import codec
from tests.conftest import run_command
from tests.contracts.test_sources import build, read_with_public_libraries
from tests.make.hostile import HOSTILE, LAUGHS, PATCH, tarred, tiff_with_xml, zipped

MEMORY_BYTES = 2 * 2**30
"""Address space a build of a hostile archive gets; the bombs of the corpus claim terabytes."""


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if "out" not in path.parts}


@pytest.mark.parametrize("name", HOSTILE)
def test_it_is_refused_by_name(name: str, tmp_path: Path) -> None:
    source, make, words = HOSTILE[name]
    raw = tmp_path / "deep" / "raw"
    raw.mkdir(parents=True)
    make(raw)
    before = names(tmp_path)
    with pytest.raises(GfmError, match=words):
        build(source, raw, tmp_path / "out")
    assert names(tmp_path) == before
    assert not (tmp_path / "out" / "manifest.json").exists()


@pytest.mark.parametrize("name", sorted(set(HOSTILE) - {"tar bomb"}))
def test_the_rest_of_the_archive_can_be_had(name: str, tmp_path: Path) -> None:
    source, make, _ = HOSTILE[name]
    raw = tmp_path / "deep" / "raw"
    raw.mkdir(parents=True)
    make(raw)
    before = names(tmp_path)
    report = build(source, raw, tmp_path / "out", on_error="skip")
    assert names(tmp_path) == before
    assert report.manifest is not None
    assert report.manifest.num_samples == 1
    assert len(list(read_with_public_libraries(tmp_path / "out"))) == 1
    (row,) = (tmp_path / "out" / "failures.jsonl").read_text().splitlines()
    assert json.loads(row)["policy"] == "on_error=skip"


@pytest.mark.parametrize("name", ["zip bomb", "png bomb", "tar bomb", "tiff terabytes", "zip overlap"])
def test_a_bomb_costs_no_memory(name: str, tmp_path: Path) -> None:
    source, make, _ = HOSTILE[name]
    make(tmp_path)
    code = (
        f"import resource; resource.setrlimit(resource.RLIMIT_AS, ({MEMORY_BYTES}, {MEMORY_BYTES}))\n"
        "from shard_builder.cli import main; main()"
    )
    words = ["build", "--config", f"configs/build/{source}.yaml", "--set", f"input={tmp_path}"]
    words += ["--set", f"output={tmp_path / 'out'}", "--set", "workers=1"]
    done = run_command(sys.executable, "-c", code, *words, check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "MemoryError" not in done.stderr


def test_xml_in_metadata_is_never_parsed(tmp_path: Path) -> None:
    tarred(tmp_path, PATCH.format(2), data=tiff_with_xml(LAUGHS))
    report = build("sen12ms", tmp_path, tmp_path / "out")
    assert report.manifest is not None
    assert report.manifest.num_samples == 2
    shards = b"".join(path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert b"hahaha" not in shards
    assert b"root:" not in shards


def test_a_pickled_array_is_not_unpickled() -> None:
    import io

    class Bang:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return exec, ("raise SystemExit('it went off')",)

    buffer = io.BytesIO()
    np.save(buffer, np.array([Bang()], dtype=object), allow_pickle=True)
    with pytest.raises(GfmError, match=r"[Oo]bject arrays|pickle"):
        codec.decode(buffer.getvalue(), "npy", "float32", (1,))


@pytest.mark.parametrize("on_error", ["fail", "skip"])
def test_an_archive_of_nothing_to_pack_is_left_out_alone(on_error: str, tmp_path: Path) -> None:
    zipped(tmp_path, "GeoPileV0/a/b.png")
    with zipfile.ZipFile(tmp_path / "GeoPileV0-more.zip", "w") as archive:
        archive.writestr("GeoPileV0/a/inner.zip", (tmp_path / "GeoPileV0.zip").read_bytes())
    if on_error == "fail":
        with pytest.raises(GfmError, match=r"GeoPileV0-more\.zip holds no"):
            build("geopile", tmp_path, tmp_path / "out", on_error=on_error)
        return
    report = build("geopile", tmp_path, tmp_path / "out", on_error=on_error)
    assert [row.source_file for row in report.rejected] == ["GeoPileV0-more.zip"]
    assert report.manifest is not None
    assert report.manifest.num_samples == 2
