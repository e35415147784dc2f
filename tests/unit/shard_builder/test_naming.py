"""What names in an archive mean: later members replace earlier ones, litter of desktops is no data."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from shard_builder.archives import Passed, is_litter
from tests.make.reading import list_archive, reader
from tests.unit.shard_builder.sources.planning import plan_input


def tarred(path: Path, members: list[tuple[str, bytes | None]]) -> None:
    """Write a tar (tar.gz by its name); None for a link."""
    with tarfile.open(path, "w:gz" if path.name.endswith("gz") else "w") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data or b"")
            if data is None:
                info.type, info.linkname = tarfile.SYMTYPE, "elsewhere"
            archive.addfile(info, io.BytesIO(data or b""))


@pytest.mark.parametrize("suffix", ["tar", "tar.gz"])
def test_the_last_member_of_a_name_counts_where_the_first_stood(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{suffix}"
    tarred(path, [("p/a", b"old"), ("p/b", b"b"), ("q/c", b"c"), ("./p/a", b"older"), ("p/a", b"newest")])
    listing = list_archive(tmp_path, path.name, tmp_path / "index")
    assert [ref.member for ref in listing.members] == ["p/a", "p/b", "q/c"]
    read = reader(tmp_path, tmp_path / "index").read
    assert [read(ref) for ref in listing.members] == [b"newest", b"b", b"c"]
    with tarfile.open(path) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    assert (tmp_path / "unpacked/p/a").read_bytes() == b"newest"


def test_a_file_that_a_link_replaces_is_gone(tmp_path: Path) -> None:
    tarred(tmp_path / "a.tar", [("a", b"a"), ("b", b"b"), ("a", None)])
    listing = list_archive(tmp_path, "a.tar", tmp_path / "index")
    assert [ref.member for ref in listing.members] == ["b"]
    assert listing.refused == [("a", "link or device")]


def test_what_was_replaced_is_reported(tmp_path: Path) -> None:
    tarred(tmp_path / "a.tar", [("a", b"1"), ("b", b"2"), ("a", b"3"), ("a", b"4")])
    entries = list(reader(tmp_path, tmp_path / "index").list("a.tar"))
    passed = [entry for entry in entries if isinstance(entry, Passed)]
    assert [(entry.name, entry.reason) for entry in passed] == [
        ("a", "replaced by a later member of the same name")
    ] * 2


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("._a.tif", True),
        ("x/._a.tif", True),
        ("__MACOSX/x/a.tif", True),
        ("x/__MACOSX/a.tif", True),
        ("x/.DS_Store", True),
        ("x/Thumbs.db", True),
        ("thumbs.db", True),
        ("x/a.tif", False),
        ("_a.tif", False),
        (".hidden.tif", False),
        ("MACOSX/a.tif", False),
    ],
)
def test_litter(name: str, expected: bool) -> None:
    assert is_litter(name) is expected


@pytest.mark.parametrize("packed", [True, False])
def test_litter_is_counted_and_never_packed(packed: bool, tmp_path: Path) -> None:
    files = {
        "pairs/a.npy": b"x",
        "pairs/._a.npy": b"x",
        "pairs/.DS_Store": b"x",
        "__MACOSX/pairs/._a.npy": b"x",
        "Thumbs.db": b"x",
    }
    raw = tmp_path / "raw"
    raw.mkdir()
    if packed:
        with zipfile.ZipFile(raw / "data.zip", "w") as archive:
            for name, data in files.items():
                archive.writestr(name, data)
    else:
        for name, data in files.items():
            (raw / name).parent.mkdir(parents=True, exist_ok=True)
            (raw / name).write_bytes(data)
    options = {"sensors": {"dem": {"files": "**/{key}.npy", "bands": ["h"], "dtype": "uint8", "units": "m"}}}
    plan = plan_input("folder", raw, options={**options, "archives": True})
    assert (plan.num_samples, plan.num_rejected) == (1, 0)
    ignored = {(item.path, item.files) for item in plan.ignored if "left by macOS" in item.reason}
    assert ignored == ({("data.zip", 4)} if packed else {("__MACOSX", 1), ("Thumbs.db", 1), ("pairs", 2)})


def test_a_backslash_of_windows_is_a_folder(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for system, name in [(0, "top\\sub\\a.bin"), (0, "top\\"), (0, "up\\..\\..\\b"), (0, "C:\\c"), (3, "d\\e")]:
            info = zipfile.ZipInfo(name)
            info.create_system = system
            archive.writestr(info, b"data")
    listing = list_archive(tmp_path, "a.zip", tmp_path / "index")
    assert [ref.member for ref in listing.members] == ["top/sub/a.bin", "d\\e"]
    assert [reason for _, reason in listing.refused] == ["path that leaves the archive", "absolute path"]
    assert reader(tmp_path, tmp_path / "index").read(listing.members[0]) == b"data"
