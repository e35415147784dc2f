"""Dates in NetCDF and zarr arrays: text, YYYYMMDD, or numbers of a unit since a day, in any calendar of CF.

A date of a model calendar (no leap years, months of 30 days) is kept as it is written where there is such a day; one of
the Julian calendar becomes the Gregorian day of the same moment. Times are kept to the second.
"""

from __future__ import annotations

import math
import re
from datetime import date, datetime, timedelta
from fractions import Fraction
from typing import Any

import numpy as np

from gfm_pipeline.errors import ItemError
from shard_builder.sources.shared.cf_values import CfValues, read_values
from shard_builder.sources.shared.patterns import iso_date

_UNITS = re.compile(r"(\w+)\s+(?:since|after|from|ref)\s+(.+)", re.IGNORECASE)
_SECONDS = {
    ("day", "d"): Fraction(86400),
    ("hour", "hr", "h"): Fraction(3600),
    ("minute", "min"): Fraction(60),
    ("second", "sec", "s"): Fraction(1),
    ("millisecond", "millisec", "msec", "ms"): Fraction(1, 10**3),
    ("microsecond", "microsec", "us"): Fraction(1, 10**6),
    ("nanosecond", "nanosec", "ns"): Fraction(1, 10**9),
}
_SCALES = {name + plural: seconds for names, seconds in _SECONDS.items() for name in names for plural in ("", "s")}
_START = re.compile(
    r"(\d{1,4})-(\d{1,2})-(\d{1,2})(?:[T ]\s*(\d{1,2})(?::(\d{1,2})(?::(\d{1,2}(?:\.\d*)?))?)?)?"
    r"\s*(Z|UTC|GMT|[+-]\d{1,2}(?::?\d{2})?)?",
    re.IGNORECASE,
)
_MONTHS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_GREGORIAN = ("standard", "gregorian", "proleptic_gregorian", "none", "")
_FIXED = {
    "noleap": _MONTHS,
    "365_day": _MONTHS,
    "all_leap": (31, 29, *_MONTHS[2:]),
    "366_day": (31, 29, *_MONTHS[2:]),
    "360_day": (30,) * 12,
}
_REFORM = date(1582, 10, 15)
"""From this day on `standard` is Gregorian; before, Julian."""
_JULIAN_OFFSET = 1721425
"""Julian day number of the day with Python's ordinal 0."""


def read_dates(array: Any, where: str) -> tuple[str, ...]:
    """Return the dates in an array as ISO 8601; raise ItemError for what tells none.

    Text holds them as YYYYMMDD or YYYY-MM-DD somewhere in it (a product name, say); numbers need the attribute `units`
    ("days since 1990-01-01"), or are YYYYMMDD themselves.
    """
    values = np.atleast_1d(np.asarray(array[()])).ravel()
    if values.dtype.kind == "M":
        if np.isnat(values).any():
            raise ItemError(f"{where} holds a missing date, expected one for each time step.")
        return tuple(iso_date(str(value)) for value in values.astype("datetime64[s]"))
    if values.dtype.kind in "SOU":
        return tuple(iso_date(v.decode("utf-8", "replace") if isinstance(v, bytes) else str(v)) for v in values)
    units = _text(array.attrs.get("units", "")).strip()
    found = _UNITS.fullmatch(units)
    if found is None and values.dtype.kind in "iu" and all(19000101 <= int(value) <= 21001231 for value in values):
        return tuple(iso_date(str(int(value))) for value in values)
    if found is None or found[1].lower() not in _SCALES:
        raise ItemError(f"{where} holds numbers of units {units!r}, expected 'days since ...' or the like.")
    calendar = _text(array.attrs.get("calendar", "standard")).strip().lower()
    start = _start(found[2], where)
    said = read_values(array)
    return tuple(_date(value, _SCALES[found[1].lower()], start, calendar, said, where) for value in values)


def _date(
    value: Any, unit: Fraction, start: tuple[int, int, int, Fraction], calendar: str, said: CfValues, where: str
) -> str:
    """Return the date of one number; `start` is (year, month, day, seconds of that day)."""
    number = float(value)
    if not math.isfinite(number) or said.mask(np.asarray([value])) is not None or value in said.nodata:
        raise ItemError(f"{where} holds {number:g}, which is no date: a missing one has to be left out.")
    scaled = (
        Fraction(value.item()) if (said.scale, said.offset) == (1, 0) else Fraction(number * said.scale + said.offset)
    )
    if abs(scaled * unit) > 86400 * 366 * 10000:
        raise ItemError(f"{where} holds {number:g}, which is no date between the years 1 and 9999.")
    seconds = start[3] + scaled * unit
    if value.dtype.kind == "f":  # a third of a day has no end in binary
        seconds = Fraction(round(seconds * 1000), 1000)
    days, rest = divmod(math.floor(seconds), 86400)
    try:
        year, month, day = _day(start[:3], days, calendar, where)
        moment = datetime(year, month, day) + timedelta(seconds=rest)
    except (ValueError, OverflowError) as error:
        raise ItemError(f"{where} holds {number:g}, which is no date of our calendar ({calendar}): {error}.") from None
    whole_day = not (moment.hour or moment.minute or moment.second)
    return moment.strftime("%Y-%m-%d" if whole_day else "%Y-%m-%dT%H:%M:%SZ").rjust(10 if whole_day else 20, "0")


def _start(text: str, where: str) -> tuple[int, int, int, Fraction]:
    found = _START.fullmatch(text.strip())
    if found is None:
        raise ItemError(f"{where} counts from {text[:60]!r}, expected a day as in 'days since 1990-01-01'.")
    year, month, day = (int(found[i]) for i in (1, 2, 3))
    hour, minute, second = int(found[4] or 0), int(found[5] or 0), Fraction(found[6] or 0)
    if hour > 23 or minute > 59 or second >= 60 or not 1 <= month <= 12 or not 1 <= day <= 31:
        raise ItemError(f"{where} counts from {text[:60]!r}, which is no moment of a day.")
    zone = found[7] or "Z"
    digits = zone[1:].replace(":", "") if zone[0] in "+-" else "0"
    hours, minutes = (int(digits[:-2]), int(digits[-2:])) if len(digits) > 2 else (int(digits), 0)
    away = (hours * 3600 + minutes * 60) * (-1 if zone[0] == "-" else 1)
    return year, month, day, hour * 3600 + minute * 60 + second - away


def _day(start: tuple[int, ...], days: int, calendar: str, where: str) -> tuple[int, int, int]:
    """Return the day so many days after `start`; raise ValueError or OverflowError for none of our calendar."""
    year, month, day = start
    if calendar in _FIXED:
        return _fixed(year, month, day, days, _FIXED[calendar])
    if not year and calendar in ("standard", "gregorian"):
        raise ValueError("it has no year 0")
    if calendar == "julian" or (calendar in ("standard", "gregorian") and start < (1582, 10, 15)):
        ordinal = _julian_ordinal(year, month, day) + days
    elif calendar in _GREGORIAN:
        ordinal = date(year, month, day).toordinal() + days
    else:
        known = ", ".join(sorted({*_GREGORIAN, *_FIXED, "julian"} - {"", "none"}))
        raise ItemError(f"{where} has dates of the calendar {calendar!r}, expected one of {known}.")
    found = date.fromordinal(ordinal)
    if calendar in ("standard", "gregorian") and found < _REFORM:
        raise ValueError("before October 1582")
    return found.year, found.month, found.day


def _fixed(year: int, month: int, day: int, days: int, months: tuple[int, ...]) -> tuple[int, int, int]:
    """Return a day so many days later in a calendar whose years are all the same."""
    if day > months[month - 1]:
        raise ValueError(f"month {month} has {months[month - 1]} days")
    years, left = divmod(sum(months[: month - 1]) + day - 1 + days, sum(months))
    month = 0
    while left >= months[month]:
        left -= months[month]
        month += 1
    found = year + years, month + 1, left + 1
    date(*found)  # raises ValueError for a day that only the model has
    return found


def _julian_ordinal(year: int, month: int, day: int) -> int:
    """Return the ordinal, as Python counts days, of a day in the Julian calendar."""
    shifted, months = year + 4800 - (month <= 2), (month + 9) % 12
    number = day + (153 * months + 2) // 5 + 365 * shifted + shifted // 4 - 32083
    return number - _JULIAN_OFFSET


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
