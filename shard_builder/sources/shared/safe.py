"""What the products of Sentinel-2 (SAFE) say of themselves: whether their numbers carry the offset of baseline 04.00.

Stated rules, the first that says anything: the offsets that the metadata of a product list, its processing baseline in
them, the baseline in the product's name. Products of users' own processors (baseline 99.99, N9999) have the offsets in
their metadata or nowhere. What says nothing, or contradicts itself, is refused, not guessed.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from xml.parsers import expat

from gfm_pipeline.errors import ItemError
from shard_builder.archives import ArchiveReader, MemberRef, item_error

MAX_BYTES = 2**24
"""Of metadata; those of products have some hundred thousand."""
_METADATA = re.compile(r"(?:MTD_MSI(?:L1C|L2A)|S2[A-Z]_(?:OPER|USER)_MTD_SAF(?:L1C|L2A)\w*)\.xml")
_BASELINE = re.compile(r"_N(\d{2})\.?(\d{2})(?=[_./]|$)")
_OFFSETS = {"RADIO_ADD_OFFSET", "BOA_ADD_OFFSET"}
_QUANTIFICATION = {"QUANTIFICATION_VALUE", "BOA_QUANTIFICATION_VALUE", "L2A_BOA_QUANTIFICATION_VALUE"}
_OF_USERS = 90.0
"""Baselines from here on are of processors that count on their own."""
_SINCE = 4.0
_NUMBERS = 10_000.0


class Said(NamedTuple):
    """What the metadata of one product say."""

    offsets: tuple[float, ...] = ()
    quantification: float | None = None
    baseline: float | None = None


class Products:
    """The metadata of the products in an input, by the folder that they lie in."""

    def __init__(self) -> None:
        self._metadata: dict[tuple[str, str, str], MemberRef] = {}
        self._said: dict[tuple[str, str, str], Said] = {}

    def note(self, ref: MemberRef) -> bool:
        """Take note of a file that is the metadata of a product; return whether it is."""
        folder, _, name = ref.member.rpartition("/")
        if _METADATA.fullmatch(name) is None:
            return False
        self._metadata[_place(ref, folder)] = ref
        return True

    def carries_offset(self, ref: MemberRef, offset: float, files: ArchiveReader) -> bool:
        """Return whether the pixels of a file hold `-offset` more than reflectance x 1e4.

        Raises ItemError for a product that does not say it, and for one that names another offset.
        """
        folder = ref.member
        while folder:
            folder = folder.rpartition("/")[0]
            place = _place(ref, folder)
            if place in self._metadata:
                if place not in self._said:
                    self._said[place] = read_metadata(self._metadata[place], files)
                found = _carries(self._said[place], offset, self._metadata[place].source_file)
                if found is not None:
                    return found
        return _by_name(ref)


def read_metadata(ref: MemberRef, files: ArchiveReader) -> Said:
    """Return what an XML document of a product says; raise ItemError for what is none.

    A document type, which alone can define entities, is refused.
    """
    if ref.size > MAX_BYTES:
        raise ItemError(f"{ref.source_file} has {ref.size} bytes, expected metadata of a product.")
    found: list[tuple[str, str]] = []
    text: list[str] = []

    def start(_: str, __: object) -> None:
        text.clear()

    def end(name: str) -> None:
        name = name.rpartition(":")[2]
        if name in _OFFSETS or name in _QUANTIFICATION or name == "PROCESSING_BASELINE":
            found.append((name, "".join(text).strip()))
        text.clear()

    def refuse(*_: object) -> None:
        raise ItemError(f"{ref.source_file} has a document type, expected plain XML: refused.")

    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler, parser.StartDoctypeDeclHandler = text.append, refuse
    try:
        parser.Parse(files.read(ref), True)
        values = [(name, float(value)) for name, value in found]
    except ItemError:
        raise
    except Exception as error:
        raise item_error(error, ref.source_file) from error
    return Said(
        tuple(value for name, value in values if name in _OFFSETS),
        next((value for name, value in values if name in _QUANTIFICATION), None),
        next((value for name, value in values if name == "PROCESSING_BASELINE"), None),
    )


def _carries(said: Said, offset: float, where: str) -> bool | None:
    if said.quantification not in (None, _NUMBERS):
        raise ItemError(f"{where}: numbers are reflectance x {said.quantification:g}, expected x {_NUMBERS:g}.")
    if said.offsets:
        named = sorted(set(said.offsets))
        if named not in ([offset], [0.0]):
            told = ", ".join(f"{value:g}" for value in named)
            raise ItemError(f"{where} names offsets {told}, the configuration {offset:g}: set offset to that.")
        return named == [offset]
    if said.baseline is None or said.baseline >= _OF_USERS:
        return None if said.quantification is None else False
    if said.baseline >= _SINCE and said.quantification is not None:
        raise ItemError(f"{where} is of baseline {said.baseline:05.2f}, which has an offset, and names none.")
    return said.baseline >= _SINCE


def _by_name(ref: MemberRef) -> bool:
    found = _BASELINE.findall(ref.source_file)
    baselines = {float(f"{whole}.{part}") for whole, part in found}
    if len(baselines) != 1 or max(baselines) >= _OF_USERS:
        told = ", ".join(f"N{whole}{part}" for whole, part in found) or "no baseline"
        raise ItemError(
            f"{ref.source_file}: no metadata of its product (MTD_MSIL2A.xml, MTD_MSIL1C.xml) say whether it carries an "
            f"offset, and its name has {told}. Add them, or set offset_files or offset_since and no offset_evidence."
        )
    return baselines.pop() >= _SINCE


def _place(ref: MemberRef, folder: str) -> tuple[str, str, str]:
    return ref.archive, ref.within.member if ref.within else "", folder
