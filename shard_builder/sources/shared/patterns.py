"""File patterns with named parts, `S2/{key}_{date}.tif`: globs that also say what they found."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable

from gfm_pipeline.errors import ConfigError, ItemError
from gfm_pipeline.shards.sample import MAX_KEY_LENGTH, is_key

_TOKEN = re.compile(r"\*\*/|\*\*|\*|\?|\{(\w+)(?::((?:[^{}]|\{[^{}]*\})+))?\}")
_GLOB = {"**/": "(?:[^/]+/)*", "**": ".*", "*": "[^/]*", "?": "[^/]"}
_DATE = r"(?<!\d)\d{4}-?\d{2}-?\d{2}(?:T\d{2}:?\d{2}:?\d{2}Z?)?(?!\d)"
_DATE_PARTS = re.compile(r"(\d{4})-?(\d{2})-?(\d{2})(?:[T ]?(\d{2}):?(\d{2}):?(\d{2}))?")
RESERVED = ("date", "band")
"""Named parts that put files together; every other one is a label, and may be a part of the key."""


class FilePattern:
    """A pattern over paths with "/" between their parts, relative to the input.

    `*` and `?` stay within a folder, `**` does not; `{name}` captures a part of one name, `{name:regex}` only what the
    expression allows. `{date}` is YYYYMMDD or YYYY-MM-DD with an optional THHMMSS, `{band}` one of the sensor's bands.
    """

    def __init__(self, text: str, bands: Iterable[str], where: str) -> None:
        """Raise ConfigError, which names the setting `where`, for a pattern that is none."""
        self.text = text
        self._where = where
        self._names: set[str] = set()
        longest_first = sorted(map(re.escape, bands), key=len, reverse=True)
        self._special = {"date": _DATE, "band": "|".join(longest_first)}
        self._regex = self._compile(text)
        self._first = self._compile(text.partition("/")[0]) if "**" not in text.partition("/")[0] else None
        self.is_nested = "/" in text or "**" in text

    @property
    def names(self) -> frozenset[str]:
        """The named parts."""
        return frozenset(self._names)

    def match(self, path: str) -> dict[str, str] | None:
        """Return the named parts of a path, in NFC, or None for a path that does not fit."""
        found = self._regex.fullmatch(path)
        return {n: unicodedata.normalize("NFC", part) for n, part in found.groupdict().items()} if found else None

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


def iso_date(text: str) -> str:
    """Return the first date in a text as ISO 8601: "2020-01-03", or "2020-01-03T10:24:21Z" where it has a time.

    Raises ItemError for a text without one.
    """
    found = _DATE_PARTS.search(text)
    if found is None or not (1 <= int(found[2]) <= 12 and 1 <= int(found[3]) <= 31):
        raise ItemError(f"{text[:80]!r} holds no date, expected YYYYMMDD or YYYY-MM-DD.")
    day = f"{found[1]}-{found[2]}-{found[3]}"
    return f"{day}T{found[4]}:{found[5]}:{found[6]}Z" if found[4] else day


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
