"""One sensor of a sample, ready for its shard: the encoded member, and the pixels that it will give back."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace

from gfm_pipeline.errors import ItemError, ShardError
from gfm_pipeline.sensors import SensorSpec
from gfm_pipeline.shards import codec
from gfm_pipeline.shards.quantise import quantise, restore
from shard_builder.archives import ArchiveReader
from shard_builder.config import BuildConfig, SensorOverride
from shard_builder.planned import PlannedRaster
from shard_builder.rasters.radiometry import Pixels, prepare
from shard_builder.rasters.raster import Facts
from shard_builder.sources.base import Source

DEFAULT_CODEC = "blosc2"
SAMPLED = 16
"""With `decode: sample`, one image in so many is decoded."""


@dataclass(frozen=True)
class Packed:
    """A member of a shard to be."""

    facts: Facts
    shape: tuple[int, ...]
    """[C,H,W], or [T,C,H,W] for a series."""
    dtype: str
    """In which it is stored."""
    extension: str
    data: bytes
    pixels: Pixels | None
    """As a reader will get them; None when they were not decoded."""

    @property
    def nodata_share(self) -> float | None:
        """Share of the pixels that were not measured; None when they were not decoded."""
        return None if self.pixels is None else self.pixels.nodata_share


class Packer:
    """Makes members of the rasters of one build."""

    def __init__(self, config: BuildConfig, source: Source, files: ArchiveReader) -> None:
        self._config = config
        self._source = source
        self._files = files
        self.stated_gsd_m = source.stated_gsd_m | {
            name: override.gsd_m for name, override in config.sensors.items() if override.gsd_m is not None
        }
        """Ground sampling distances by sensor that the configuration states."""

    def decodes(self, key: str) -> bool:
        """Return whether the images of a sample are decoded even where their own bytes are kept."""
        return self._config.decode == "all" or zlib.crc32(key.encode()) % SAMPLED == 0

    def pack(self, planned: PlannedRaster, spec: SensorSpec, decode: bool = True, adopted: bool = False) -> Packed:
        """Return the member of a planned sensor; raise ItemError when its pixels do not fit the specification.

        `adopted`: its nodata is what files of the sensor declare, not what the configuration says.

        The archive's own bytes are kept where they can be, unless the configuration changes the sensor; only then
        may they stay undecoded.
        """
        override = self._config.override(spec.name)
        if not decode and override == SensorOverride():
            original = self._source.original(planned, spec, self._files)
            if original is not None:
                return Packed(Facts(), original.shape, spec.dtype, original.extension, original.data, None)
        decoded = self._source.load(planned, spec, self._files)
        pixels = prepare(decoded, planned, spec, override, adopted)
        shape = pixels.raster.shape
        if override.codec is None and decoded.original is not None and not pixels.changed:
            return Packed(decoded.facts, shape, str(pixels.raster.dtype), *decoded.original, pixels)
        stored = pixels.raster
        if spec.quantised is not None:
            try:
                stored = quantise(pixels.raster, spec)
            except ShardError as error:
                raise ItemError(f"{planned.source_file}: {error}") from error
            pixels = replace(pixels, raster=restore(stored, spec))
        encoding = override.codec or DEFAULT_CODEC
        extension, _ = codec.ENCODINGS[encoding]
        return Packed(decoded.facts, shape, str(stored.dtype), extension, codec.encode(stored, encoding), pixels)
