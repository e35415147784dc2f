"""Names that documents carry, as they may be used: a document may come from anywhere, and names become paths.

Sensors, shards and keys become parts of file and member names, collections and sources the names of folders; bands do
not, but are shown and compared, so they may be nearly anything.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Annotated

from pydantic import AfterValidator, Field

MAX_BAND_LENGTH = 128
MAX_UNITS_LENGTH = 1024


def _check_band(name: str) -> str:
    if not 1 <= len(name) <= MAX_BAND_LENGTH or name != name.strip():
        raise ValueError(f"{name[:80]!r} is no band: expected 1 to {MAX_BAND_LENGTH} characters, no space around them")
    if any(unicodedata.category(character) in ("Cc", "Cs", "Co", "Zl", "Zp") for character in name):
        raise ValueError(f"{name[:80]!r} is no band: it holds control characters")
    if "\\" in name or any(part in ("", ".", "..") for part in name.split("/")):
        raise ValueError(f"{name[:80]!r} is no band: it is a path")
    return name


def _check_units(text: str) -> str:
    if len(text) > MAX_UNITS_LENGTH or any(unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in text):
        raise ValueError(f"{text[:80]!r} is no unit: expected one line of at most {MAX_UNITS_LENGTH} characters")
    return text


def _check_path(path: str) -> str:
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in path):
        raise ValueError(f"{path[:80]!r} is no path: it holds control characters")
    if path.startswith(("/", "\\")) or ".." in re.split(r"[/\\!]", path):
        raise ValueError(f"{path[:80]!r} is no path inside an input")
    return path


PlainName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*$", max_length=128)]
"""Of a collection, a source, a shard or a member's extension."""
SensorName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=128)]
KeyName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=72)]
"""Of a sample."""
BandName = Annotated[str, AfterValidator(_check_band)]
UnitText = Annotated[str, AfterValidator(_check_units)]
InputPath = Annotated[str, AfterValidator(_check_path)]
"""Of a file below a build's input: a manifest that is opened must not lead elsewhere."""
