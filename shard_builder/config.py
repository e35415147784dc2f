"""The configuration of a build: what is read, what is written, and what happens to items that do not fit."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, Field, ValidationInfo, field_validator

from gfm_pipeline.config import StrictModel, parse_config
from gfm_pipeline.errors import ConfigError, nearest
from gfm_pipeline.sensors import Display, Dtype, Quantisation, SensorSpec
from gfm_pipeline.shards.codec import CODECS, ENCODINGS
from gfm_pipeline.shards.quantise import stored_dtype
from gfm_pipeline.storage import StorageConfig
from shard_builder.archives.member import Limits

M = TypeVar("M", bound=BaseModel)


class SensorOverride(StrictModel):
    """What an archive's sensor differs in from the built-in specification; unset fields keep it."""

    bands: tuple[str, ...] | None = None
    dtype: Dtype | None = None
    units: str | None = None
    gsd_m: float | None = None
    display: Display | None = None
    nodata: float | None = None
    """The value that says "nothing was measured here"; it counts in no statistics. NaN always says so."""
    convert: Literal["none", "linear_to_db", "auto"] = "none"
    """linear_to_db: 10 log10 of every pixel, for power that is to be stored in dB. auto: of linear rasters only."""
    offset: float = 0.0
    """Added to every measured pixel, e.g. -1000 for Sentinel-2 of baseline 04.00 and later; clipped to its type."""
    offset_files: str | None = None
    """Glob pattern: the files (archive!member) the offset applies to; all when not given."""
    offset_since: str | None = None
    """ISO 8601 date: the offset applies to images from this day on, which need a date."""
    offset_evidence: Literal["none", "pixels", "product"] = "none"
    """pixels: the offset, a negative one, applies to images of Sentinel-2 whose darkest pixels show that they hold it.
    product: to those whose product (SAFE) says so, in its metadata or, where these say nothing, by the baseline in its
    name. One that shows neither is refused."""
    quantised: Quantisation | None = None
    """Store float32 in dB as 16-bit multiples of a step: lossy, with a bound that the manifest states."""
    codec: str | None = None
    """Encoding of the sensor's rasters: "blosc2", "blosc2-lz4" (larger, decodes faster), "tif", "npy" or "jxl". When
    not given, blosc2, and a JPEG keeps its own bytes."""

    @field_validator("offset_evidence")
    @classmethod
    def _has_an_offset(cls, evidence: str, info: ValidationInfo) -> str:
        if evidence != "none" and info.data.get("offset", 0.0) >= 0:
            raise ValueError(f"{evidence} shows an offset that is to be taken off: set a negative offset, as -1000")
        return evidence


class BuildConfig(StrictModel):
    """One collection from one raw archive family."""

    source: str
    """Name of the archive family, e.g. "sen12ms"."""
    input: str
    """Folder that holds the archives, or one archive: a local path or an object-store URL."""
    output: str
    """Folder of the collection: a local path or an object-store URL."""
    storage: StorageConfig = StorageConfig()
    """How a remote input or output is reached."""
    name: str | None = Field(default=None, pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$")
    """Name of the collection and prefix of its shards; that of the source when not given."""
    options: dict[str, Any] = {}
    """Settings of the source's own, see its page in the documentation."""
    sensors: dict[str, SensorOverride] = {}
    """Per sensor of the source, what differs from the built-in specification."""
    unpaired: Literal["keep", "drop", "error"] = "keep"
    """What becomes of a place that lacks one of the source's sensors. Kept ones go to shards of their own."""
    on_error: Literal["fail", "skip"] = "fail"
    """What becomes of an item that cannot be packed: it ends the build, or is listed in failures.jsonl."""
    max_nodata: float = Field(default=0.9, ge=0, le=1)
    """A place is left out when more than this share of a sensor's pixels was not measured."""
    decode: Literal["all", "sample"] = "all"
    """Images whose own bytes are kept: all are decoded, checked and counted; or one in 16, several times faster, while
    of the others only header and end are checked (verify decodes all)."""
    duplicates: Literal["keep", "drop"] = "keep"
    """Places whose files have the same bytes as an earlier place's; drop reads all files while planning."""
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
    max_ratio: float = Field(default=200.0, gt=1)
    """An archive, or a large member of one, that decompresses to more than so many times its size is refused."""
    max_members: int = Field(default=20_000_000, gt=0)
    """An archive or folder with more files is refused."""
    trusted: bool = False
    """Whether files of a local input folder may lead to other files and hosts: scenes in any format of GDAL's (VRT and
    the like), links and virtual arrays of HDF5 and NetCDF. Where they lead to is not part of the provenance."""
    workers: int = Field(default=1, gt=0)
    """Processes that write shards."""
    executor: str = "processes"
    """Who writes the shards: "processes" of this machine, or "dask"."""
    scheduler: str | None = None
    """Address of the Dask scheduler; a cluster on this machine when not given."""

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
        where = {"input", "output", "storage", "workers", "executor", "scheduler"}
        if not self.trusted:
            where.add("trusted")  # as it was before there was this setting
        tree: dict[str, Any] = self.model_dump(mode="json", exclude=where)
        for override in tree["sensors"].values():
            if override["offset_evidence"] == "none":  # newer than the first builds, which keep their digest
                del override["offset_evidence"]
        return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()

    @property
    def limits(self) -> Limits:
        """What an archive may claim."""
        return Limits(self.max_member_bytes, self.max_ratio, self.max_members)

    def parse_options(self, model: type[M]) -> M:
        """Return the source's own settings; raise ConfigError for ones it does not know."""
        return parse_config(self.options, model, f"options of source {self.source}")

    def override(self, sensor: str) -> SensorOverride:
        """Return what is configured for a sensor."""
        return self.sensors.get(sensor, SensorOverride())


def resolve_sensors(config: BuildConfig, shipped: Iterable[SensorSpec]) -> dict[str, SensorSpec]:
    """Return what each of the source's sensors is with the configured overrides; raise ConfigError."""
    specs = {spec.name: spec for spec in shipped}
    for name, override in config.sensors.items():
        if name not in specs:
            raise ConfigError(f"sensors.{name}: source {config.source} has no such sensor. {nearest(name, specs)}")
        if override.codec is not None and (override.codec not in ENCODINGS or override.codec == "jpg"):
            known = ", ".join(sorted(set(ENCODINGS) - {"jpg"}))
            raise ConfigError(f"sensors.{name}.codec: found '{override.codec}', expected one of {known}.")
    resolved = {name: _with(spec, config.override(name)) for name, spec in specs.items()}
    for name, spec in resolved.items():
        encoding = config.override(name).codec
        held = CODECS[ENCODINGS[encoding][0]].dtypes if encoding else None
        if held is not None and stored_dtype(spec) not in held:
            raise ConfigError(
                f"sensors.{name}.codec is {encoding}, which holds {', '.join(held)}; {name} is {stored_dtype(spec)}. "
                "Choose blosc2, tif or npy."
            )
    return resolved


def _with(spec: SensorSpec, override: SensorOverride) -> SensorSpec:
    changed = override.model_dump(exclude_none=True, include=set(SensorSpec.model_fields))
    return parse_config(spec.model_dump() | changed, SensorSpec, f"sensors.{spec.name}")
