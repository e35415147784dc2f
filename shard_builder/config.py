"""The configuration of a build: what is read, what is written, and what happens to items that do not fit."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from gfm_pipeline.config import StrictModel, parse_config
from gfm_pipeline.errors import ConfigError, nearest
from gfm_pipeline.sensors import Display, Dtype, SensorSpec, builtin_sensor
from gfm_pipeline.shards.codec import CODECS


class SensorOverride(StrictModel):
    """What an archive's sensor differs in from the built-in specification; unset fields keep it."""

    bands: tuple[str, ...] | None = None
    dtype: Dtype | None = None
    units: str | None = None
    gsd_m: float | None = None
    display: Display | None = None
    codec: str | None = None
    """Encoding of the sensor's rasters, "blosc2" or "npy". When not given, blosc2, and a JPEG keeps its own bytes."""


class BuildConfig(StrictModel):
    """One collection from one raw archive family."""

    source: str
    """Name of the archive family, e.g. "sen12ms"."""
    input: str
    """Folder that holds the archives, or one archive."""
    output: str
    """Folder of the collection."""
    name: str | None = Field(default=None, pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$")
    """Name of the collection and prefix of its shards; that of the source when not given."""
    sensors: dict[str, SensorOverride] = {}
    """Per sensor of the source, what differs from the built-in specification."""
    unpaired: Literal["keep", "drop", "error"] = "keep"
    """What becomes of a place that lacks one of the source's sensors. Kept ones go to shards of their own."""
    on_error: Literal["fail", "skip"] = "fail"
    """What becomes of an item that cannot be packed: it ends the build, or is listed in failures.jsonl."""
    tile_px: int = Field(default=512, gt=0)
    """Images with a longer side are cut to square tiles of this size."""
    stride_px: int | None = Field(default=None, gt=0)
    """Distance between tiles; `tile_px` when not given."""
    edge: Literal["shift", "drop"] = "shift"
    """The last tile of a row or column: shifted back to end at the border (nothing is lost), or left out."""
    max_samples: int = Field(default=1000, gt=0)
    """Samples of a shard at most."""
    max_bytes: int = Field(default=512 * 2**20, gt=0)
    """Bytes of a shard's samples at most, as the archive stores them; tiles count with their pixels."""
    max_member_bytes: int = Field(default=2 * 2**30, gt=0)
    """A larger archive member is refused, whatever its header claims."""
    workers: int = Field(default=1, gt=0)
    """Processes that write shards."""
    executor: str = "processes"

    @field_validator("input", "output")
    @classmethod
    def _is_local(cls, path: str) -> str:
        if not path or "://" in path:
            raise ValueError(f"found {path!r}, expected a local path: this version reads and writes local folders")
        return path

    @field_validator("stride_px")
    @classmethod
    def _leaves_no_gap(cls, stride_px: int | None, info: ValidationInfo) -> int | None:
        tile_px = info.data.get("tile_px")
        if stride_px is not None and tile_px is not None and stride_px > tile_px:
            raise ValueError(f"{stride_px} is more than tile_px, {tile_px}: pixels between tiles would be lost")
        return stride_px

    @property
    def collection(self) -> str:
        """Name of the collection."""
        return self.name or self.source

    def digest(self) -> str:
        """Return the sha256 of everything that decides the bytes of the collection, given its input."""
        tree: dict[str, Any] = self.model_dump(mode="json", exclude={"input", "output", "workers", "executor"})
        return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()


def resolve_sensors(config: BuildConfig, names: tuple[str, ...]) -> dict[str, SensorSpec]:
    """Return the specification of each sensor of the source with the configured overrides; raise ConfigError."""
    for name, override in config.sensors.items():
        if name not in names:
            raise ConfigError(f"sensors.{name}: source {config.source} has no such sensor. {nearest(name, names)}")
        if override.codec is not None and (override.codec not in CODECS or override.codec == "jpg"):
            raise ConfigError(f"sensors.{name}.codec: found '{override.codec}', expected blosc2 or npy.")
    specs = {}
    for name in names:
        changed = config.sensors.get(name, SensorOverride()).model_dump(exclude_none=True, exclude={"codec"})
        specs[name] = parse_config(builtin_sensor(name).model_dump() | changed, SensorSpec, f"sensors.{name}")
    return specs


def codec_of(config: BuildConfig, sensor: str) -> str | None:
    """Return the configured encoding of a sensor's rasters, None when it is left to the builder."""
    return config.sensors.get(sensor, SensorOverride()).codec
