"""What one sample says about itself: the `<key>.json` member that travels with its rasters."""

from __future__ import annotations

import json
import re
from typing import Any

from pydantic import Field, ValidationError

from gfm_pipeline.config import StrictModel, load_json
from gfm_pipeline.config.names import BandName, KeyName, PlainName, SensorName
from gfm_pipeline.errors import DamageError, ShardError

KEY_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
"""WebDataset cuts a member name at its first dot, and a ustar header holds 100 ASCII bytes."""
MAX_KEY_LENGTH = 72


class SensorRecord(StrictModel):
    """How one sensor of the sample is stored and where its pixels came from."""

    bands: tuple[BandName, ...]
    shape: tuple[int, ...]
    """[C,H,W], or [T,C,H,W] for a series."""
    dtype: str
    codec: PlainName
    """Extension of the member, see `gfm_pipeline.shards.codec`."""
    gsd_m: float | None = None
    dates: tuple[str, ...] = ()
    """ISO 8601 dates, one per time step; empty when the archive tells none."""
    step: float | None = None
    """Of a quantised sensor: pixel = step * stored, and -32768 means not measured. None: pixels are stored as they
    are."""
    nodata_share: float | None = 0.0
    """Share of the pixels that were not measured: the sensor's nodata value, or NaN. None: the build kept the archive's
    bytes without decoding them, and its statistics leave the pixels out."""
    source_file: str
    """Archive and member the pixels were read from, as "archive.tar.gz!folder/member.tif"."""
    window: tuple[int, int, int, int] | None = None
    """(row, column, height, width) inside the source raster when the sample is a tile of it."""


class SampleRecord(StrictModel):
    """One place: its key, its sensors, and what is known about where and what it is."""

    key: KeyName
    sensors: dict[SensorName, SensorRecord] = Field(min_length=1)
    crs: str | None = None
    """Coordinate reference system, as "EPSG:32633"; None when the archive carries none."""
    transform: tuple[float, float, float, float, float, float] | None = None
    """Affine (a, b, c, d, e, f): x = a*col + b*row + c, y = d*col + e*row + f, of the sample's upper left corner."""
    footprint: tuple[tuple[float, float], ...] | None = None
    """Corners (longitude, latitude) in WGS 84, counter-clockwise, first not repeated."""
    labels: dict[str, Any] = {}
    """What the archive says about the content, e.g. {"class": "airport"}."""


def parse_record(data: bytes | memoryview, where: str) -> SampleRecord:
    """Return the record in the bytes of a json member; raise DamageError, which names `where`, for anything else."""
    try:
        return SampleRecord.model_validate(load_json(bytes(data)))
    except ValidationError as error:
        first = error.errors()[0]
        dotted = ".".join(str(part) for part in first["loc"])
        raise DamageError(f"{where} is no sample record: '{dotted}': {first['msg']}.") from None
    except ValueError as error:
        raise DamageError(f"{where} is no sample record: {error}.") from error


def parse_labels(text: object) -> dict[str, Any]:
    """Return the labels in a row of the catalog; raise ValueError for what is no JSON object of text that is text."""
    if not isinstance(text, str):
        raise ValueError(f"labels are {type(text).__name__}, expected JSON")
    try:
        labels = json.loads(text)
    except RecursionError:
        raise ValueError("labels are nested too deeply to be read") from None
    if not isinstance(labels, dict):
        raise ValueError(f"labels are {type(labels).__name__}, expected a JSON object")
    if "\\u" in text:
        json.dumps(labels, ensure_ascii=False).encode()  # half of a surrogate pair cannot be written again
    return labels


def is_key(key: str) -> bool:
    """Return whether `key` can name members of a shard."""
    return len(key) <= MAX_KEY_LENGTH and KEY_PATTERN.fullmatch(key) is not None


def check_key(key: str) -> str:
    """Return `key` if it can name members of a shard; raise ShardError otherwise."""
    if not is_key(key):
        raise ShardError(
            f"{key!r} cannot be a sample key: expected 1 to {MAX_KEY_LENGTH} of A-Z a-z 0-9 _ - and no dot."
        )
    return key
