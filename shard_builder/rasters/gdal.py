"""GDAL (through rasterio) as the reader of one file: no other driver, file or host is reached from it.

A dataset is opened by the driver that the first bytes of its file call for, from a Python file that the archive's
listing gave. GDAL sees that one file in a folder of its own, so that side files, virtual rasters and URLs lead nowhere.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from gfm_pipeline.errors import ItemError
from shard_builder.archives import MemberRef

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

CACHE_BYTES = 2**27
"""Of decoded strips and tiles that GDAL keeps in a process, so that the next window finds what it shares."""
_MAGIC = {
    b"II*\0": "GTiff",
    b"MM\0*": "GTiff",
    b"II+\0": "GTiff",
    b"MM\0+": "GTiff",
    b"\0\0\0\x0cjP  \r\n\x87\n": "JP2OpenJPEG",
    b"\xff\x4f\xff\x51": "JP2OpenJPEG",
    b"\x89PNG": "PNG",
    b"\xff\xd8\xff": "JPEG",
}
"""The only drivers that are used, by the first bytes of their files: all keep their pixels in the file itself."""
HEAD_BYTES = 16
_NAME = "raster"
_ALONE = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",  # no side files
    "GDAL_PAM_ENABLED": "NO",
    "CPL_VSIL_CURL_ALLOWED_EXTENSIONS": "{none}",
    "PROJ_NETWORK": "OFF",
}
_OPTIONS = {
    "GDAL_CACHEMAX": CACHE_BYTES,
    "GDAL_NUM_THREADS": "1",
    "GTIFF_REPORT_COMPD_CS": "NO",  # heights have no part in where a picture lies
    "JPEG_COLORSPACE": "RGB",
}


def driver_of(head: bytes, ref: MemberRef) -> str:
    """Return the GDAL driver for a file that begins with `head`; raise ItemError for formats that are not read."""
    for magic, driver in _MAGIC.items():
        if head.startswith(magic):
            return driver
    raise ItemError(
        f"{ref.source_file} is no GeoTIFF, JPEG 2000, PNG or JPEG: it begins with {head[:8].hex() or 'nothing'}. "
        "Formats that lead to other files or hosts, such as VRT, are not read unless trusted is set, and only from a "
        "local folder: convert it, gdal_translate -of GTiff."
    )


@contextmanager
def gdal(trusted: bool = False) -> Iterator[None]:
    """Let GDAL work with the settings of this module; its warnings about what is no error are not shown.

    `trusted`: with its own settings for side files and hosts.
    """
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning, RasterioDeprecationWarning

    with rasterio.Env(**(_ALONE | _OPTIONS if not trusted else _OPTIONS)), warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        warnings.simplefilter("ignore", RasterioDeprecationWarning)
        yield


def is_led_elsewhere(file: IO[bytes], path: Path | None) -> bool:
    """Return whether a file at a trusted `path` is of a format that GDAL opens by its path."""
    file.seek(0)
    head = file.read(HEAD_BYTES)
    return path is not None and not any(head.startswith(magic) for magic in _MAGIC)


def open_trusted(path: Path, ref: MemberRef) -> DatasetReader:
    """Open a raster of any format of GDAL's by its path, to be read within `gdal(trusted=True)`.

    Raises ItemError for what GDAL cannot read.
    """
    import rasterio

    try:
        with gdal(trusted=True):
            return rasterio.open(path, sharing=False)
    except Exception as error:  # damaged files raise types of several libraries
        raise ItemError(f"{ref.source_file} cannot be decoded: {gdal_reason(error)}") from error


def open_dataset(file: IO[bytes], size: int, ref: MemberRef) -> DatasetReader:
    """Open the raster in a file of `size` bytes, to be read within `gdal()`; the file stays the caller's to close.

    Raises ItemError for formats that are not read and files that are damaged.
    """
    import rasterio

    file.seek(0)
    driver = driver_of(file.read(HEAD_BYTES), ref)
    try:
        with gdal():
            return rasterio.open(f"file/{_NAME}", driver=driver, opener=_only(file, size), sharing=False)
    except Exception as error:  # damaged files raise types of several libraries
        raise ItemError(f"{ref.source_file} cannot be decoded: {gdal_reason(error)}") from error


def gdal_reason(error: Exception) -> str:
    """Return what an error of a library says, on one line; GDAL's own words where rasterio hides them."""
    cause = error.__cause__ if isinstance(error.__cause__, Exception) else None
    said = " ".join(str(cause or error).split())[:200].replace(f"file/{_NAME}", "the file")
    return said or type(error).__name__


class _Borrowed:
    """A file that GDAL may close without closing it for its owner; each has a position of its own."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._at = 0
        self.closed = False

    def read(self, size: int = -1) -> bytes:
        self._file.seek(self._at)
        data = self._file.read(size)
        self._at += len(data)
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        if whence == 1:
            offset += self._at
        self._at = self._file.seek(offset, 2) if whence == 2 else offset
        return self._at

    def tell(self) -> int:
        return self._at

    def close(self) -> None:
        self.closed = True

    def __enter__(self) -> _Borrowed:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _only(file: IO[bytes], size: int) -> Any:
    """Return a folder, as rasterio wants it, that holds nothing but one file."""
    from rasterio.abc import FileContainer

    class Only(FileContainer):  # type: ignore[misc]
        def isfile(self, path: str) -> bool:
            return path.endswith(f"/{_NAME}")

        def isdir(self, path: str) -> bool:
            return not self.isfile(path)

        def ls(self, path: str) -> list[str]:
            return [_NAME]

        def mtime(self, path: str) -> int:
            return 0

        def size(self, path: str) -> int:
            return size

        def rm(self, path: str) -> None:
            raise PermissionError("archives are only read")

        def open(self, path: str, mode: str = "rb", **_: Any) -> Any:
            if not self.isfile(path) or set(mode) - set("rb"):
                raise FileNotFoundError(path)
            return _Borrowed(file)

    return Only()
