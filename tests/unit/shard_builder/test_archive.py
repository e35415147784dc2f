"""Archives are hostile until proven otherwise."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import subprocess
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gfm_pipeline.errors import ArchiveError, ItemError, StorageError
from shard_builder.archives.member import unsafe_reason
from tests.make.archives import tar_gz, zipped
from tests.make.reading import list_archive, reader

DATA = np.random.default_rng(0).integers(0, 256, 5000, dtype=np.uint8).tobytes()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("/etc/passwd", "absolute"),
        ("\\windows", "absolute"),
        ("C:/x", "absolute"),
        ("a/../../b", "leaves"),
        ("..\\b", "leaves"),
        ("  ", "damaged"),
        ("a\0b", "damaged"),
    ],
)
def test_names_that_leave_are_refused(name: str, reason: str) -> None:
    assert reason in (unsafe_reason(name) or "")


@pytest.mark.parametrize("name", ["a.tif", "a b/c.tif", "größe/ü.png", "a..b/c"])
def test_plain_names_are_fine(name: str) -> None:
    assert unsafe_reason(name) is None


@pytest.mark.parametrize("suffix", ["tar", "tar.gz"])
def test_a_tar_lists_files_and_refuses_the_rest(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{suffix}"
    with tarfile.open(path, "w:gz" if suffix == "tar.gz" else "w") as archive:
        for name, kind in [
            ("ok/1.bin", tarfile.REGTYPE),
            ("../up", tarfile.REGTYPE),
            ("/abs", tarfile.REGTYPE),
            ("sym", tarfile.SYMTYPE),
            ("hard", tarfile.LNKTYPE),
            ("dev", tarfile.CHRTYPE),
            ("fifo", tarfile.FIFOTYPE),
            ("ok", tarfile.DIRTYPE),
            ("ok/2.bin", tarfile.REGTYPE),
        ]:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            info.size = len(DATA) if kind == tarfile.REGTYPE else 0
            archive.addfile(info, io.BytesIO(DATA))
    listing = list_archive(tmp_path, path.name, tmp_path / "index")
    assert [ref.member for ref in listing.members] == ["ok/1.bin", "ok/2.bin"]
    assert [name for name, _ in listing.refused] == ["../up", "/abs", "sym", "hard", "dev", "fifo"]
    archive_reader = reader(tmp_path, tmp_path / "index")
    assert [archive_reader.read(ref) for ref in reversed(listing.members)] == [DATA, DATA]


def test_a_zip_refuses_links_and_encrypted_members(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("link")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("ok.bin", DATA)
        archive.writestr("../up", b"x")
        archive.writestr(link, "/etc/passwd")
        archive.writestr("secret", b"x")
    data = bytearray((tmp_path / "a.zip").read_bytes())
    at = data.rindex(b"PK\x01\x02")  # the central directory's last entry: set its "encrypted" flag
    data[at + 8] |= 1
    (tmp_path / "a.zip").write_bytes(data)
    listing = list_archive(tmp_path, "a.zip", tmp_path)
    assert [ref.member for ref in listing.members] == ["ok.bin"]
    assert dict(listing.refused) == {"../up": "path that leaves the archive", "link": "link", "secret": "encrypted"}


def test_a_folder_does_not_follow_links(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"s")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "ok").write_bytes(DATA)
    os.symlink(tmp_path / "secret", tmp_path / "a" / "link")
    os.symlink(tmp_path, tmp_path / "a" / "loop")
    listing = list_archive(tmp_path, "a", tmp_path)
    assert [ref.member for ref in listing.members] == ["a/ok"]
    assert sorted(name for name, _ in listing.refused) == ["a/link", "a/loop"]


def test_a_tar_gz_cut_anywhere_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.tar.gz"
    tar_gz(path, {f"{i}.bin": DATA for i in range(6)})
    whole = path.read_bytes()
    for length in [0, 1, 10, 20, *range(100, len(whole), 997), len(whole) - 9, len(whole) - 4, len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(
            ArchiveError, match=r"a\.tar\.gz is damaged or cut short.*at byte \d+ of the decompressed tar"
        ):
            list_archive(tmp_path, path.name, tmp_path / "index")


def test_a_tar_cut_between_members_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        for i in range(3):
            info = tarfile.TarInfo(f"{i}.bin")
            info.size = 512
            archive.addfile(info, io.BytesIO(DATA))
    whole = path.read_bytes()
    path.write_bytes(whole[:2048])  # two members, nothing after them: python's tarfile reads it without an error
    with tarfile.open(path) as archive:
        assert len(archive.getmembers()) == 2
    with pytest.raises(ArchiveError, match="end-of-archive mark is missing"):
        list_archive(tmp_path, path.name, tmp_path)


def test_flipped_bits_of_a_tar_gz_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.tar.gz"
    tar_gz(path, {f"{i}.bin": DATA for i in range(6)})
    whole = path.read_bytes()
    for at in range(200, len(whole) - 8, 4001):
        damaged = bytearray(whole)
        damaged[at] ^= 0x10
        path.write_bytes(damaged)
        with pytest.raises(ArchiveError):
            list_archive(tmp_path, path.name, tmp_path / "index")


def test_a_large_member_is_refused_whatever_the_header_says(tmp_path: Path) -> None:
    zipped(tmp_path / "a.zip", {"big": DATA * 100})
    (big,) = list_archive(tmp_path, "a.zip", tmp_path).members
    with pytest.raises(ItemError, match="the limit is 1000"):
        reader(tmp_path, tmp_path, max_member_bytes=1000).read(big)


def test_a_member_that_goes_on_is_not_decompressed_further(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("big", DATA * 100)
    (big,) = list_archive(tmp_path, "a.zip", tmp_path).members
    with pytest.raises(ItemError, match="does not hold the 500 bytes its archive says"):
        reader(tmp_path, tmp_path).read(replace(big, size=500))


def test_a_bomb_is_refused_before_it_goes_off(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb", bytes(64 * 2**20))
    tar_gz(tmp_path / "a.tar.gz", {"bomb": bytes(64 * 2**20), "after": b"x"})
    assert "200 times" in dict(list_archive(tmp_path, "a.zip", tmp_path).refused)["bomb"]
    with pytest.raises(ArchiveError, match=r"a\.tar\.gz decompresses to more than 200 times its size"):
        list_archive(tmp_path, "a.tar.gz", tmp_path)
    assert list_archive(tmp_path, "a.tar.gz", tmp_path, max_ratio=2000.0).members
    with pytest.raises(ArchiveError, match="holds more than 1 files"):
        list_archive(tmp_path, "a.tar.gz", tmp_path, max_ratio=2000.0, max_members=1)


def test_a_damaged_zip_member_is_an_item_error(tmp_path: Path) -> None:
    zipped(tmp_path / "a.zip", {"x": DATA})
    data = bytearray((tmp_path / "a.zip").read_bytes())
    data[200] ^= 1
    (tmp_path / "a.zip").write_bytes(data)
    (ref,) = list_archive(tmp_path, "a.zip", tmp_path).members
    with pytest.raises(ItemError, match=r"a\.zip!x has crc32"):
        reader(tmp_path, tmp_path).read(ref)


ZEROS = bytes(1024)
"""Content that looks like tar's end mark."""


def plain_tar(path: Path, members: dict[str, bytes], mode: str = "w") -> bytes:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path.read_bytes()


@pytest.mark.parametrize("damage", ["cut", "hole", "header", "appended"])
def test_a_tar_of_zeros_that_lost_members_is_noticed(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    whole = plain_tar(path, {f"{i}.bin": ZEROS for i in range(3)})
    second = 512 + len(ZEROS)  # where the second header begins
    path.write_bytes(
        {
            "cut": whole[: 2 * second],
            "hole": whole[:second] + bytes(512) + whole[second + 512 :],
            "header": whole[:second] + b"x" * 512 + whole[second + 512 :],
            "appended": whole + whole,
        }[damage]
    )
    with pytest.raises(ArchiveError, match="end-of-archive mark"):
        list_archive(tmp_path, path.name, tmp_path)


@pytest.mark.parametrize("size", [-512, -(2**40), 2**62, 2**70])
@pytest.mark.parametrize("suffix", ["tar", "tar.gz"])
def test_a_tar_header_with_an_impossible_size_is_an_error(size: int, suffix: str, tmp_path: Path) -> None:
    header = bytearray(tarfile.TarInfo("x").tobuf(tarfile.GNU_FORMAT))
    header[124:136] = tarfile.itn(size, 12, tarfile.GNU_FORMAT)  # type: ignore[attr-defined]
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    data = bytes(header) + bytes(10240)
    (tmp_path / f"a.{suffix}").write_bytes(gzip.compress(data) if suffix == "tar.gz" else data)
    with pytest.raises(ArchiveError, match="is damaged or cut short"):
        list_archive(tmp_path, f"a.{suffix}", tmp_path)


@pytest.mark.parametrize("change", ["cut", "flip"])
def test_any_damage_to_a_tar_gz_is_noticed_or_harmless(change: str, tmp_path: Path) -> None:
    members = {f"{i}.bin": DATA[i : 400 + i] + ZEROS for i in range(3)}
    path = tmp_path / "a.tar.gz"
    whole = plain_tar(path, members, "w:gz")
    for at in range(len(whole)):
        damaged = whole[:at] if change == "cut" else whole[:at] + bytes([whole[at] ^ (1 << at % 8)]) + whole[at + 1 :]
        path.write_bytes(damaged)
        try:
            listing = list_archive(tmp_path, path.name, tmp_path / "index")
        except ArchiveError:
            continue
        assert change == "flip", f"cut to {at} of {len(whole)} bytes unnoticed"
        archive_reader = reader(tmp_path, tmp_path / "index")
        assert {ref.member: archive_reader.read(ref) for ref in listing.members} == members, f"bit of byte {at}"


@pytest.mark.parametrize("change", ["cut", "flip"])
def test_any_damage_to_a_zip_is_noticed_or_harmless(change: str, tmp_path: Path) -> None:
    members = {f"{i}.bin": DATA[i : 300 + i] + ZEROS for i in range(3)}
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    whole = (tmp_path / "a.zip").read_bytes()
    for at in range(len(whole)):
        damaged = whole[:at] if change == "cut" else whole[:at] + bytes([whole[at] ^ (1 << at % 8)]) + whole[at + 1 :]
        (tmp_path / "a.zip").write_bytes(damaged)
        try:
            listing = list_archive(tmp_path, "a.zip", tmp_path)
        except ArchiveError:
            continue
        assert change == "flip", f"cut to {at} of {len(whole)} bytes unnoticed"
        archive_reader = reader(tmp_path, tmp_path)
        for ref in listing.members:
            with contextlib.suppress(ItemError):
                assert archive_reader.read(ref) in members.values(), f"bit of byte {at}"


@pytest.mark.parametrize("posix", [False, True])
def test_sparse_members_are_refused(posix: bool, tmp_path: Path) -> None:
    with (tmp_path / "holes").open("wb") as file:
        file.truncate(2**20)
        file.seek(2**20)
        file.write(b"end")
    form = "--format=posix" if posix else "--format=gnu"
    subprocess.run(["tar", form, "-cSf", "a.tar", "holes"], cwd=tmp_path, check=True)
    assert list_archive(tmp_path, "a.tar", tmp_path).refused == [("holes", "sparse file")]


@pytest.mark.parametrize("name", ["a\nerror: b.tif", "a\x1b[31m.tif", "caf\udce9.tif"])
def test_names_that_would_spoil_messages_are_refused_and_printed_safely(name: str, tmp_path: Path) -> None:
    plain_tar(tmp_path / "a.tar", {name: b"x", "fine.tif": b"y"})
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / name).write_bytes(b"x")
    for archive in ("a.tar", "folder"):
        listing = list_archive(tmp_path, archive, tmp_path)
        ((shown, reason),) = listing.refused
        assert shown.isprintable()
        assert shown.encode()
        assert reason == "empty or damaged name"


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_of_zip_members_of_one_name_the_last_is_read_where_the_first_stands(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("x", b"first")
        archive.writestr("y", b"between")
        archive.writestr("x", b"other")
    listing = list_archive(tmp_path, "a.zip", tmp_path)
    assert not listing.refused
    assert [reader(tmp_path, tmp_path).read(ref) for ref in listing.members] == [b"other", b"between"]


def test_an_unreadable_folder_is_an_error_not_an_empty_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a" / "closed").mkdir(parents=True)
    scandir = os.scandir

    def refuse(path: str | Path) -> object:
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(ArchiveError, match=r"cannot read the folder .*closed: Permission denied"):
        list_archive(tmp_path, "a", tmp_path)


def test_a_folder_whose_files_may_not_be_looked_at_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a" / "closed").mkdir(parents=True)
    (tmp_path / "a" / "closed" / "x.tif").write_bytes(b"x")
    lstat = os.lstat

    def refuse(path: str | Path, *more: object, **named: object) -> object:
        if Path(path).name == "x.tif":
            raise PermissionError(13, "Permission denied", str(path))
        return lstat(path, *more, **named)

    monkeypatch.setattr(os, "lstat", refuse)
    with pytest.raises(ArchiveError, match=r"cannot read the folder .*closed: Permission denied"):
        list_archive(tmp_path, "a", tmp_path)


def test_a_full_disk_is_not_blamed_on_the_archive(tmp_path: Path) -> None:
    tar_gz(tmp_path / "a.tar.gz", {"x": DATA})
    (tmp_path / "index").write_bytes(b"a file where the folder should be")
    with pytest.raises(StorageError, match="cannot write"):
        list_archive(tmp_path, "a.tar.gz", tmp_path / "index")
