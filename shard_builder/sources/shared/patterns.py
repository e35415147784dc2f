"""File patterns with named parts, `S2/{key}_{date}.tif`: globs that also say what they found."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Mapping
from datetime import date, timedelta

from gfm_pipeline.errors import ConfigError, ItemError
from gfm_pipeline.sensors.bands import canonical_band, vocabulary
from gfm_pipeline.shards.sample import MAX_KEY_LENGTH, is_key

_TOKEN = re.compile(r"\*\*/|\*\*|\*|\?|\{(\w+)(?::((?:[^{}]|\{[^{}]*\})+))?\}")
_GLOB = {"**/": "(?:[^/]+/)*", "**": ".*", "*": "[^/]*", "?": "[^/]"}
_DATE = r"(?<!\d)\d{4}(?:-?\d{2}-?\d{2}|-?\d{3})(?:T\d{2}:?\d{2}:?\d{2}Z?)?(?!\d)"
_DATE_PARTS = re.compile(r"(\d{4})-?(\d{2})-?(\d{2})(?:[T ]?(\d{2}):?(\d{2}):?(\d{2}))?")
_DAY_OF_YEAR = re.compile(r"(?<!\d)((?:19|20|21)\d{2})-?(\d{3})(?:T(\d{2}):?(\d{2}):?(\d{2})Z?)?(?!\d)")
_NUMBERED = re.compile(r"[Bb]0*(\d+)([Aa]?)")
RESERVED = ("date", "band")
"""Named parts that put files together; every other one may be a part of the key."""


class FilePattern:
    """A pattern over paths with "/" between their parts, relative to the input.

    `*` and `?` stay within a folder, `**` does not; `{name}` captures a part of one name, `{name:regex}` only what the
    expression allows. `{date}` is YYYYMMDD, YYYY-MM-DD or YYYYDDD (day of the year) with an optional THHMMSS, `{band}`
    one of the sensor's bands in any of its spellings.
    """

    def __init__(self, text: str, bands: Iterable[str], where: str) -> None:
        """Raise ConfigError, which names the setting `where`, for a pattern that is none."""
        self.text = text
        self._where = where
        self._names: set[str] = set()
        self._bands = tuple(bands)
        spellings = sorted(map(_spellings, self._bands), key=len, reverse=True)
        self._special = {"date": _DATE, "band": "|".join(spellings)}
        self._regex = self._compile(text)
        self._first = self._compile(text.partition("/")[0]) if "**" not in text.partition("/")[0] else None
        self.is_nested = "/" in text or "**" in text

    @property
    def names(self) -> frozenset[str]:
        """The named parts."""
        return frozenset(self._names)

    def match(self, path: str) -> dict[str, str] | None:
        """Return the named parts of a path, in NFC, or None for a path that does not fit.

        A band is named as the sensor does.
        """
        found = self._regex.fullmatch(path)
        if found is None:
            return None
        parts = {name: unicodedata.normalize("NFC", part) for name, part in found.groupdict().items()}
        if "band" in parts and parts["band"] not in self._bands:
            spelt = canonical_band(parts["band"])
            fits = [band for band in self._bands if canonical_band(band) == spelt]
            if len(fits) != 1:
                return None
            parts["band"] = fits[0]
        return parts

    def may_begin_with(self, name: str) -> bool:
        """Return whether a path that fits can begin with the folder `name`, or be it."""
        return self._first is None or self._first.fullmatch(name) is not None

    def _compile(self, text: str) -> re.Pattern[str]:
        seen: set[str] = set()
        out, at = "", 0
        for token in _TOKEN.finditer(text):
            out += re.escape(text[at : token.start()])
            at = token.end()
            out += _GLOB[token[0]] if token[0] in _GLOB else self._named(token[1], token[2], seen)
        rest = text[at:]
        if "{" in rest or "}" in rest:
            raise ConfigError(f"{self._where}: {text!r} has a brace that is not closed; write {{key}}.")
        self._names |= seen
        try:
            return re.compile(out + re.escape(rest), re.DOTALL)
        except re.error as error:
            raise ConfigError(f"{self._where}: {text!r} holds an expression that is none: {error}.") from error

    def _named(self, name: str, regex: str | None, seen: set[str]) -> str:
        if name in seen:
            return f"(?P={name})"
        seen.add(name)
        return f"(?P<{name}>{regex or self._special.get(name, '[^/]+?')})"


def _spellings(band: str) -> str:
    """Return an expression for a band in file names: B1 is B01 too and no part of B10 or B1A, VV is vv too."""
    number = _NUMBERED.fullmatch(band)
    if number is None:
        return f"(?i:{re.escape(band)})" if vocabulary(band) and len(band) > 1 else re.escape(band)
    if number[2]:
        return f"[Bb]0*{number[1]}[Aa](?!\\d)"
    return f"[Bb]0*{number[1]}(?!\\d|[Aa](?![A-Za-z]))"


def iso_date(text: str) -> str:
    """Return the first date in a text as ISO 8601: "2020-01-03", or "2020-01-03T10:24:21Z" where it has a time.

    A text without a day of a month may hold the day of a year, YYYYDDD. Raises ItemError for a text without either.
    """
    found = _DATE_PARTS.search(text)
    if found is not None and _is_day(found[1], found[2], found[3]):
        day = f"{found[1]}-{found[2]}-{found[3]}"
        timed = found[4] and int(found[4]) < 24 and int(found[5]) < 60 and int(found[6]) < 60
        return f"{day}T{found[4]}:{found[5]}:{found[6]}Z" if timed else day
    counted = _DAY_OF_YEAR.search(text)
    if counted is not None:
        day_of_year = date(int(counted[1]), 1, 1) + timedelta(days=int(counted[2]) - 1)
        if str(day_of_year.year) == counted[1]:
            return f"{day_of_year}T{counted[3]}:{counted[4]}:{counted[5]}Z" if counted[3] else str(day_of_year)
    raise ItemError(f"{text[:80]!r} holds no date, expected YYYYMMDD, YYYY-MM-DD or YYYYDDD.")


def _is_day(year: str, month: str, day: str) -> bool:
    try:
        date(int(year), int(month), int(day))
    except ValueError:
        return False
    return True


def labels_of(parts: Mapping[str, str]) -> dict[str, str]:
    """Return the named parts that are labels of a sample: all but `key`, the reserved ones, and names after a _."""
    return {name: part for name, part in parts.items() if name not in ("key", *RESERVED) and not name.startswith("_")}


def key_of(text: str, room: int = 0) -> str:
    """Return `text` where it can name a sample, else its letters and digits and a digest that tells it from others.

    `room` characters of a key's length are left free.
    """
    length = MAX_KEY_LENGTH - room
    if is_key(text) and len(text) <= length:
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    slug = re.sub(r"[^A-Za-z0-9_-]+", "_", text).strip("_-") or "sample"
    return f"{slug[: length - 9]}-{digest}"
