"""TIFF images: what their header says, the whole of a small one, windows of one that is larger than memory.

A file is somebody's claim. Every size in it is checked against the bytes that are there before anything is allocated.
Windows are read by the strips or tiles they touch; the last decoded ones are kept, as tiles of a scene follow each
other. Windows of a zip member that is stored are read without its checksum, which only all of its bytes would give.
"""

from __future__ import annotations

import html
import logging
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import IO, Any, NamedTuple

import numpy as np
import tifffile

from gfm_pipeline.errors import ItemError
from shard_builder.archives import ArchiveReader, MemberRef
from shard_builder.planned import Window
from shard_builder.rasters.georeference import Georeference
from shard_builder.rasters.location import DAMAGED, TRANSFORM_TAGS, read_georeference, rules_of
from shard_builder.rasters.raster import Facts, Scaling
from shard_builder.rasters.tiff_page import RATIO, Part, TiffPage, reason_of

MAX_SCENE_PIXELS = 2**36
"""A scene that is read by windows may claim this many."""
MAX_PAGES = 4096
"""A file with more images is refused."""

# Without a handler, what tifffile says of damaged tags goes to stderr beside the error that it leads to.
logging.getLogger("tifffile").addHandler(logging.NullHandler())


class TiffHeader(NamedTuple):
    """What planning needs to know of a TIFF."""

    height: int
    width: int
    georeference: Georeference | None


def read_header(ref: MemberRef, files: ArchiveReader) -> TiffHeader:
    """Return what the first directory of a TIFF says, wherever in the file it lies; raise ItemError for no TIFF."""
    try:
        with files.open(ref) as file, _opened(file, ref) as tif:
            page = tif.pages.first
            header = TiffHeader(int(page.imagelength), int(page.imagewidth), read_georeference(page, file, ref))
            bits = header.height * header.width * int(page.samplesperpixel) * int(page.bitspersample)
    except ItemError:
        raise
    except Exception as error:  # damaged tags raise types of several libraries
        raise ItemError(f"{ref.source_file} is no readable TIFF: {reason_of(error)}") from error
    pixels = header.height * header.width
    if not 0 < pixels <= MAX_SCENE_PIXELS or bits > 8 * RATIO * ref.size:
        raise ItemError(
            f"{ref.source_file} claims {header.height} x {header.width} pixels in {ref.size} bytes: refused as a bomb."
        )
    return header


def _opened(file: IO[bytes], ref: MemberRef) -> Any:
    return tifffile.TiffFile(file, name=ref.member)  # a temporary file has no name that it could take


class TiffImage:
    """The images of an opened TIFF file of `size` bytes as bands; closes the file when it is closed.

    Further images (pages) of the same size and type are further bands; masks and overviews are none. Raises ItemError
    for what is no image of bands, and for claims that the file cannot hold.
    """

    def __init__(self, file: IO[bytes], size: int, ref: MemberRef) -> None:
        self.ref = ref
        self._file = file
        try:
            self._tif = _opened(file, ref)
            first = self._tif.pages.first
            place = read_georeference(first, file, ref)
            facts = page_facts(first)
            damaged = (DAMAGED,) if place is None and _states_transform(first) else ()
            facts = replace(facts, georeference=place, rules=facts.rules + rules_of(place) + damaged)
            fill = facts.nodata[0] if facts.nodata else None
            self._pages = [TiffPage(first, file, size, ref, fill)]
            self._mask: TiffPage | None = None
            others = 0
            for page in _further(self._tif, ref):
                kind = int(page.subfiletype or 0)
                size_of = (int(page.imagelength), int(page.imagewidth))
                if kind & 4 and not kind & 1 and size_of == self._pages[0].shape[1:]:
                    self._mask = TiffPage(page, file, size, ref, None)
                elif not kind & 5 and (*size_of, page.dtype) == (*self._pages[0].shape[1:], first.dtype):
                    self._pages.append(TiffPage(page, file, size, ref, fill))
                elif not kind & 5:
                    others += 1
        except Exception as error:  # damaged tags raise types of several libraries
            file.close()
            if isinstance(error, ItemError):
                raise
            raise ItemError(f"{ref.source_file} cannot be decoded: {reason_of(error)}") from error
        rules = (f"{others} further images of other sizes or types in the file: not read",) if others else ()
        self.facts = replace(facts, rules=facts.rules + rules, pages=len(self._pages))
        _, height, width = self._pages[0].shape
        self.shape: tuple[int, int, int] = (sum(page.shape[0] for page in self._pages), height, width)
        self.dtype = self._pages[0].dtype

    @property
    def nbytes(self) -> int:
        """Bytes of all pixels when they are decoded."""
        return sum(page.nbytes for page in self._pages)

    def whole(self) -> Part:
        """Return all pixels; raise ItemError for more than may be decoded at once or damaged ones."""
        return self._joined([page.whole() for page in self._pages], self._mask.whole() if self._mask else None)

    def read(self, window: Window) -> Part:
        """Return the pixels inside a window of the image; raise ItemError for damaged or too large strips."""
        mask = self._mask.read(window) if self._mask else None
        return self._joined([page.read(window) for page in self._pages], mask)

    def close(self) -> None:
        """Close the file."""
        for page in self._pages:
            page.close()
        self._tif.close()
        self._file.close()

    def _joined(self, parts: list[Part], mask: Part | None) -> Part:
        pixels = parts[0].pixels if len(parts) == 1 else np.concatenate([part.pixels for part in parts], axis=2)
        found = None if mask is None else mask.pixels[..., :1] != 0
        if any(part.mask is not None for part in parts):
            own = [np.broadcast_to(True if part.mask is None else part.mask, part.pixels.shape) for part in parts]
            found = np.concatenate(own, axis=2) & (True if found is None else found)
        return Part(pixels, None if found is None or found.all() else found)


def _further(tif: Any, ref: MemberRef) -> Iterator[Any]:
    """Yield all pages but the first; raise ItemError for too many of them."""
    index = 1
    while True:
        try:
            page = tif.pages[index]
        except IndexError:
            return
        if index >= MAX_PAGES:
            raise ItemError(f"{ref.source_file} has more than {MAX_PAGES} images, expected the bands of one.")
        yield page
        index += 1


def facts_of(file: IO[bytes], ref: MemberRef) -> Facts:
    """Return what a TIFF says of its first image, but for its location; the file stays open.

    Raises ItemError for further images of the same size and type.
    """
    file.seek(0)
    with _opened(file, ref) as tif:
        first = tif.pages.first
        others = 0
        for page in _further(tif, ref):
            if int(page.subfiletype or 0) & 5:
                continue
            if (page.imagelength, page.imagewidth, page.dtype) == (first.imagelength, first.imagewidth, first.dtype):
                raise ItemError(f"{ref.source_file} holds several images of one size, expected one. Split it.")
            others += 1
        facts = page_facts(first)
    rules = (f"{others} further images of other sizes or types in the file: not read",) if others else ()
    return replace(facts, rules=facts.rules + rules)


def has_transform(file: IO[bytes], ref: MemberRef) -> bool:
    """Return whether the first image of a TIFF has the tags of a transform, whatever they hold."""
    file.seek(0)
    with _opened(file, ref) as tif:
        return _states_transform(tif.pages.first)


def _states_transform(page: Any) -> bool:
    """Return whether a page has the tags of a transform; not for the unit matrix, which writers use for none."""
    matrix = page.tags.get("ModelTransformationTag")
    if matrix is not None and np.size(matrix.value) == 16:
        x, y = np.ravel(matrix.value).reshape(4, 4)[:2]  # the third is the height's
        if list(x[[0, 1, 3]]) == [1, 0, 0] and list(y[[0, 1, 3]]) == [0, 1, 0]:
            return False
    return any(code in page.tags for code in TRANSFORM_TAGS)


def page_facts(page: Any) -> Facts:
    """Return what the tags of a page say of its numbers."""
    tag = page.tags.get("GDAL_NODATA")
    text = str(tag.value).strip("\0 ") if tag is not None else None
    said = set() if text is None else set(text.split())  # some tools write the value once for each band
    value = parse_nodata(said.pop()) if len(said) == 1 else None
    unusable = text is not None and value is None
    name = page.photometric.name
    return Facts(
        None,
        () if value is None else (value,),
        (f"nodata {text[:40]!r} is no number: not used",) if text is not None and unusable else (),
        alpha=_alpha(page),
        photometric=name if name in ("PALETTE", "MINISWHITE", "MASK") else None,
        scaling=_scaling(page),
        bands=described_bands(page),
    )


def _alpha(page: Any) -> int | None:
    """Return which band is an alpha channel, or None."""
    extra = [int(kind) for kind in page.extrasamples]
    found = next((i for i, kind in enumerate(extra) if kind in (1, 2)), None)
    return None if found is None else int(page.samplesperpixel) - len(extra) + found


def described_bands(page: Any) -> tuple[str, ...]:
    """Return what GDAL's metadata tag of a tifffile page calls each of its bands, "" for one that it does not name.

    Empty when it names none. The tag is XML, of which only plain items are looked for: nothing in it is expanded.
    """
    tag = page.tags.get("GDAL_METADATA")
    if tag is None:
        return ()
    names = [""] * int(page.samplesperpixel)
    for attributes, text in _ITEM.findall(str(tag.value)):
        said = dict(_ATTRIBUTE.findall(attributes))
        sample = said.get("sample", "")
        if said.get("role") == "description" and sample.isdecimal() and int(sample[:6]) < len(names):
            names[int(sample[:6])] = html.unescape(html.unescape(text)).strip()  # GDAL escapes twice
    return tuple(names) if any(names) else ()


def _scaling(page: Any) -> Scaling | None:
    """Return GDAL's scale and offset of each band, or None where there are none."""
    tag = page.tags.get("GDAL_METADATA")
    if tag is None:
        return None
    found: dict[str, dict[int, float]] = {"scale": {}, "offset": {}}
    for attributes, text in _ITEM.findall(str(tag.value)):
        said = dict(_ATTRIBUTE.findall(attributes))
        role, sample = said.get("role", ""), said.get("sample", "0")
        value = parse_nodata(text.strip())
        if role in found and sample.isdecimal() and value is not None:
            found[role][int(sample)] = value
    bands = range(int(page.samplesperpixel))
    scales = tuple(found["scale"].get(band, 1.0) for band in bands)
    offsets = tuple(found["offset"].get(band, 0.0) for band in bands)
    plain = all(scale == 1 for scale in scales) and not any(offsets)
    return None if plain else Scaling(scales, offsets)


_ITEM = re.compile(r"<Item\s([^>]*)>([^<]*)</Item>")
_ATTRIBUTE = re.compile(r"""(\w+)\s*=\s*["']([^"']*)["']""")
_NUMBER = re.compile(r"[+-]?(\d+[.,]?\d*|[.,]\d+)(e[+-]?\d+)?", re.IGNORECASE)
_NO_NUMBER = re.compile(r"[+-]?(nan|1\.#(qnan|snan|ind)\d*)(\(.*\))?", re.IGNORECASE)
_INFINITE = re.compile(r"[+-]?(inf|infinity|1\.#inf)", re.IGNORECASE)


def parse_nodata(text: str) -> float | None:
    """Return the number that a header's text for "nothing was measured" is, an int where it is whole; None for none.

    It may be written as C libraries write what is no number or infinite, and with a comma.
    """
    text = text.strip()
    if _NO_NUMBER.fullmatch(text):
        return math.nan
    if _INFINITE.fullmatch(text):
        return -math.inf if text.startswith("-") else math.inf
    if not _NUMBER.fullmatch(text):
        return None
    plain = text.replace(",", ".")
    return int(plain) if plain.lstrip("+-").isdecimal() else float(plain)
