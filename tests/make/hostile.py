"""Archives that nobody should trust, each with the words that a refusal must say. All are made by code."""

from __future__ import annotations

import io
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile

from tests.make.archives import tiff

IMAGE = imagecodecs.png_encode(np.zeros((8, 8, 3), np.uint8))
TOP = "ROIs1158_spring"
PATCH = f"{TOP}/s1_1/{TOP}_s1_1_p{{}}.tif"
S1 = tiff(np.full((8, 8, 2), -10, np.float32))


def zipped(folder: Path, name: str, data: bytes = IMAGE, **attributes: int) -> None:
    """Write a GeoPile with one good image and one member of doubt."""
    with zipfile.ZipFile(folder / "GeoPileV0.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("GeoPileV0/a/good.png", IMAGE)
        info = zipfile.ZipInfo(name)
        info.compress_type = zipfile.ZIP_DEFLATED
        for attribute, value in attributes.items():
            setattr(info, attribute, value)
        archive.writestr(info, data)


def tarred(folder: Path, name: str, kind: bytes = tarfile.REGTYPE, data: bytes = S1) -> None:
    """Write a SEN12MS archive with one good patch and one member of doubt."""
    with tarfile.open(folder / f"{TOP}_s1.tar.gz", "w:gz") as archive:
        for member, member_kind, content in ((PATCH.format(1), tarfile.REGTYPE, S1), (name, kind, data)):
            info = tarfile.TarInfo(member)
            info.type, info.linkname = member_kind, "/etc/passwd"
            info.size = len(content) if member_kind == tarfile.REGTYPE else 0
            archive.addfile(info, io.BytesIO(content))


def huge_tiff(width: int = 2**20, height: int = 2**20) -> bytes:
    """Return a TIFF of a few bytes that claims terabytes of pixels."""
    data = bytearray(tiff(np.zeros((16, 16, 2), np.float32)))
    for tag, value in ((256, width), (257, height)):
        at = data.index(struct.pack("<HHI", tag, 4, 1)[:2], 8)
        data[at + 2 : at + 12] = struct.pack("<HII", 4, 1, value)
    return bytes(data)


def tiff_with_xml(payload: str) -> bytes:
    """Return a TIFF whose description is XML with an entity that would expand, or that names a file."""
    buffer = io.BytesIO()
    image = np.full((8, 8, 2), -10, np.float32)
    tifffile.imwrite(buffer, image, planarconfig="contig", photometric="minisblack", description=payload, metadata=None)
    return buffer.getvalue()


LAUGHS = (
    '<?xml version="1.0"?><!DOCTYPE OME [<!ENTITY a "ha"><!ENTITY b "'
    + "&a;" * 1000
    + '"><!ENTITY c "'
    + "&b;" * 1000
    + '"><!ENTITY d SYSTEM "file:///etc/passwd">]>'
    '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image>&c;&d;</Image></OME>'
)

HUGE_PNG = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sIIBBBBB", 13, b"IHDR", 2**30, 2**30, 8, 2, 0, 0, 0) + IMAGE[29:]


def quine_tar(folder: Path) -> None:
    """Write a tar.gz of zeros that decompresses a thousandfold before its second member."""
    tarred(folder, PATCH.format(2), data=bytes(64 * 2**20))
    with tarfile.open(folder / f"{TOP}_s2.tar.gz", "w:gz") as archive:
        for name, size in ((f"{TOP}/s2_1/{TOP}_s2_1_p1.tif", 64 * 2**20), ("end", 0)):
            info = tarfile.TarInfo(name)
            info.size = size
            archive.addfile(info, io.BytesIO(bytes(size)))


def overlapping_zip(folder: Path) -> None:
    """Write a zip whose second entry shares the bytes of the first but claims a thousand times its size."""
    zipped(folder, "GeoPileV0/a/b.png")
    path = folder / "GeoPileV0.zip"
    data = bytearray(path.read_bytes())
    at = data.rindex(b"PK\x01\x02")
    first = data.index(b"PK\x03\x04")
    struct.pack_into("<I", data, at + 42, first)
    struct.pack_into("<I", data, at + 24, 10**6)
    path.write_bytes(data)


def linked_folder(folder: Path) -> None:
    """Make a folder of images in which one is a link to a secret beside it."""
    (folder / "secret.png").write_bytes(IMAGE)
    (folder / "GeoPileV0" / "a").mkdir(parents=True)
    (folder / "GeoPileV0" / "a" / "good.png").write_bytes(IMAGE)
    (folder / "GeoPileV0" / "a" / "link.png").symlink_to(folder / "secret.png")


HOSTILE: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "zip slip": ("geopile", lambda f: zipped(f, "GeoPileV0/../../../up.png"), "path that leaves the archive"),
    "zip absolute": ("geopile", lambda f: zipped(f, "/tmp/abs.png"), "absolute path"),
    "zip drive": ("geopile", lambda f: zipped(f, "C:/abs.png"), "absolute path"),
    "zip backslash": ("geopile", lambda f: zipped(f, "..\\up.png"), "path that leaves the archive"),
    "zip link": ("geopile", lambda f: zipped(f, "a/l.png", b"/etc/passwd", external_attr=0o120777 << 16), "link"),
    "zip bomb": ("geopile", lambda f: zipped(f, "GeoPileV0/a/bomb.png", bytes(64 * 2**20)), "200 times its size"),
    "zip overlap": ("geopile", overlapping_zip, "does not hold the 1000000 bytes"),
    "zip method": ("geopile", lambda f: zipped(f, "GeoPileV0/a/x.png", compress_type=zipfile.ZIP_BZIP2), "method 12"),
    "png bomb": ("geopile", lambda f: zipped(f, "GeoPileV0/a/x.png", HUGE_PNG), "claims|no readable image"),
    "pickled": ("geopile", lambda f: zipped(f, "GeoPileV0/a/x.png", b"\x80\x04cos\nsystem\n"), "begins with 8004"),
    "folder link": ("geopile", linked_folder, "link or special file"),
    "tar slip": ("sen12ms", lambda f: tarred(f, f"{TOP}/../../up.tif"), "path that leaves the archive"),
    "tar absolute": ("sen12ms", lambda f: tarred(f, "/etc/cron.d/x.tif"), "absolute path"),
    "tar symlink": ("sen12ms", lambda f: tarred(f, PATCH.format(2), tarfile.SYMTYPE), "link or device"),
    "tar hard link": ("sen12ms", lambda f: tarred(f, PATCH.format(2), tarfile.LNKTYPE), "link or device"),
    "tar device": ("sen12ms", lambda f: tarred(f, PATCH.format(2), tarfile.BLKTYPE), "link or device"),
    "tar fifo": ("sen12ms", lambda f: tarred(f, PATCH.format(2), tarfile.FIFOTYPE), "link or device"),
    "tar bomb": ("sen12ms", quine_tar, "refused as a bomb"),
    "tiff terabytes": ("sen12ms", lambda f: tarred(f, PATCH.format(2), data=huge_tiff()), "bomb|cannot be decoded"),
    "tiff empty": ("sen12ms", lambda f: tarred(f, PATCH.format(2), data=b""), "cannot be decoded"),
}
"""By name: the source that is pointed at it, its maker, and what the refusal must say (a pattern)."""
