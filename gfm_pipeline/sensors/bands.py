"""Bands are matched by name, and one band has several spellings: B1, B01, b1, "Band 1"; R, Red; VV, Sigma0_VV.

Only spellings of the same designation are equal. What a designation stands for depends on the sensor (B8 of Sentinel-2
is near infrared, B8 of Landsat 8 panchromatic), so a number never equals a colour.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from gfm_pipeline.errors import ConfigError

Vocabulary = Literal["number", "polarisation", "colour"]

_NOTE = re.compile(r"\s*[,(:].*| - .*", re.DOTALL)
"""What tools write behind a designation, e.g. "B4, central wavelength 665 nm"."""
_NUMBER = re.compile(r"(?:sr_)?(?:band|b)_?0*(\d+)_?(a?)")
_POLARISATION = re.compile(r"(?:(?:sigma|gamma|beta)_?(?:0|nought)_?)?(vv|vh|hh|hv)(?:_?db)?")
_COLOURS = {
    "coastal": ("coastal", "coastalaerosol", "coastalblue"),
    "blue": ("blue", "b"),
    "green1": ("green1", "greeni"),
    "green": ("green", "g"),
    "yellow": ("yellow",),
    "red": ("red", "r"),
    "rededge": ("rededge", "re"),
    "nir": ("nir", "n", "nearinfrared"),
    "swir1": ("swir1", "swir16"),
    "swir2": ("swir2", "swir22"),
    "pan": ("pan", "p", "panchromatic"),
}
_COLOUR_OF = {spelling: colour for colour, spellings in _COLOURS.items() for spelling in spellings}


def canonical_band(name: str) -> str:
    """Return the one spelling that stands for all of a band name: "b1" for B1, B01 and "Band 1", "red" for R."""
    known = _designation(name)
    return known[1] if known else _plain(name)


def vocabulary(name: str) -> Vocabulary | None:
    """Return which kind of designation a band name is, or None: names of one kind that differ are different bands."""
    known = _designation(name)
    return known[0] if known else None


def match_bands(have: Sequence[str], want: Sequence[str], where: str = "the bands") -> tuple[int, ...]:
    """Return the position in `have` of every wanted band, in the order of `want`.

    A name that is the same to the letter is taken before one that is spelt otherwise. Raises ConfigError that begins
    with `where` for a band that is not there, or could be several.
    """
    spelt = [canonical_band(name) for name in have]
    found: list[int] = []
    for band in want:
        same = [i for i, name in enumerate(have) if name == band]
        fits = same or [i for i, name in enumerate(spelt) if name == canonical_band(band)]
        if len(fits) != 1:
            what = f"could be {' or '.join(have[i] for i in fits)}" if fits else "is not among them"
            raise ConfigError(f"{where}: found {', '.join(have)}; {band} {what}. Name each band as it is there.")
        if fits[0] in found:
            raise ConfigError(f"{where}: {want[found.index(fits[0])]} and {band} are the same band, {have[fits[0]]}.")
        found.append(fits[0])
    return tuple(found)


def _designation(name: str) -> tuple[Vocabulary, str] | None:
    plain = _plain(_NOTE.sub("", name))
    number = _NUMBER.fullmatch(plain)
    if number:
        return "number", f"b{int(number[1])}{number[2]}"
    polarisation = _POLARISATION.fullmatch(plain)
    if polarisation:
        return "polarisation", polarisation[1]
    colour = _COLOUR_OF.get(plain.replace("_", ""))
    return ("colour", colour) if colour else None


def _plain(name: str) -> str:
    return re.sub(r"[\s_.-]+", "_", name.strip().casefold()).strip("_")
