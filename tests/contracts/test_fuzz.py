"""Random damage to what is read from outside: it is read right, or refused with an error of ours, never anything else.

Each property tries CASES random cases in an ordinary run; `pytest -m slow tests/contracts/test_fuzz.py` tries
SLOW_CASES of each.
"""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gfm_pipeline.errors import ArchiveError, GfmError, ItemError, ShardError
from gfm_pipeline.shards.manifest import load_manifest, load_sidecar
from gfm_pipeline.storage import LocalStore
from shard_builder.archives.member import unsafe_reason
from tests.contracts.test_sources import build
from tests.make.archives import MAKERS
from tests.make.reading import list_archive, reader

CASES = 150
SLOW_CASES = 20_000
DATA = np.random.default_rng(0).integers(0, 256, 900, dtype=np.uint8).tobytes()

damage = st.lists(
    st.tuples(
        st.sampled_from(["set", "cut", "insert", "repeat"]),
        st.floats(0, 1, exclude_max=True),
        st.binary(min_size=1, max_size=24),
    ),
    min_size=1,
    max_size=6,
)


def damaged(whole: bytes, changes: list[tuple[str, float, bytes]]) -> bytes:
    data = bytearray(whole)
    for what, where, content in changes:
        at = int(where * len(data))
        if what == "set":
            data[at : at + len(content)] = content[: max(0, len(data) - at)]
        elif what == "cut":
            del data[at : at + 40 * len(content)]
        elif what == "insert":
            data[at:at] = content
        else:
            data[at:at] = data[at : at + 512]
    return bytes(data)


@contextmanager
def refused_at_most(kind: type[GfmError], name: str) -> Iterator[None]:
    """Let pass an error of this kind that names what was read."""
    try:
        yield
    except kind as error:
        if name not in str(error):
            raise AssertionError(f"the error does not name {name}") from error


def run(check: Callable[..., None], cases: int, *strategies: st.SearchStrategy[object]) -> None:
    quiet = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
    settings(max_examples=cases, deadline=None, suppress_health_check=quiet, database=None)(given(*strategies)(check))()


counts = pytest.mark.parametrize("cases", [CASES, pytest.param(SLOW_CASES, marks=pytest.mark.slow)])


def archive(path: Path) -> bytes:
    members = {f"folder/{i}.bin": DATA[i : 300 + 100 * i] for i in range(4)}
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
            for name, data in members.items():
                target.writestr(name, data)
    else:
        with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as tar:
            for name, data in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return path.read_bytes()


@counts
@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.zip"])
@pytest.mark.timeout(3000)
def test_the_archive_walk(name: str, cases: int, tmp_path: Path) -> None:
    whole = archive(tmp_path / name)

    def check(changes: list[tuple[str, float, bytes]]) -> None:
        (tmp_path / name).write_bytes(damaged(whole, changes))
        with refused_at_most(ArchiveError, name):
            listed = list_archive(tmp_path, name, tmp_path / "work")
            files = reader(tmp_path, tmp_path / "work")
            for ref in listed.members:
                assert unsafe_reason(ref.member) is None
                with refused_at_most(ItemError, ref.member):
                    assert len(files.read(ref)) == ref.size
            files.close()

    run(check, cases, damage)


@counts
@pytest.mark.timeout(3000)
def test_the_sidecar_reader(cases: int, tmp_path: Path) -> None:
    MAKERS["mdas"](tmp_path)
    build("mdas", tmp_path, tmp_path / "out")
    path = tmp_path / "out" / "shards" / "mdas-000000.json"
    whole, store = path.read_bytes(), LocalStore(tmp_path / "out")

    def check(changes: list[tuple[str, float, bytes]]) -> None:
        path.write_bytes(damaged(whole, changes))
        with refused_at_most(ShardError, "mdas-000000"):
            sidecar = load_sidecar(store, "mdas-000000")
            assert sidecar.name == "mdas-000000"
            for sample in sidecar.samples:
                for member in (sample.meta, *sample.sensors.values()):
                    assert member.offset >= 0
                    assert member.size >= 0

    run(check, cases, damage)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@counts
@pytest.mark.parametrize("document", ["manifest.json", "shards/mdas-000000.json"])
@pytest.mark.timeout(3000)
def test_documents_that_are_json_but_not_ours(document: str, cases: int, tmp_path: Path) -> None:
    MAKERS["mdas"](tmp_path)
    build("mdas", tmp_path, tmp_path / "out")
    tree, store = json.loads((tmp_path / "out" / document).read_bytes()), LocalStore(tmp_path / "out")

    def check(key: str, value: object) -> None:
        (tmp_path / "out" / document).write_text(json.dumps(tree | {key: value}))
        with refused_at_most(ShardError, document):
            if document == "manifest.json":
                load_manifest(store)
            else:
                load_sidecar(store, "mdas-000000")

    run(check, cases, st.sampled_from(sorted(tree)), json_values)


@counts
@pytest.mark.timeout(3000)
def test_a_build_of_a_damaged_tar_index(cases: int, tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    MAKERS["sen12ms"](tmp_path / "raw")
    path = tmp_path / "raw" / "ROIs1158_spring_s1.tar.gz"
    plain = tmp_path / "raw" / "ROIs1158_spring_s1.tar"
    whole = gzip.decompress(path.read_bytes())
    path.unlink()

    def check(changes: list[tuple[str, float, bytes]]) -> None:
        plain.write_bytes(damaged(whole, changes))
        with refused_at_most(GfmError, "s1.tar"):
            build("sen12ms", tmp_path / "raw", tmp_path / "out", fresh=True, on_error="skip")
            assert (tmp_path / "out" / "manifest.json").exists()

    run(check, max(20, cases // 10), damage)
