"""One sensor of a sample, ready for its shard: the encoded member, and the pixels that it will give back."""

from __future__ import annotations

from dataclasses import dataclass, replace

from gfm_pipeline.errors import ItemError, ShardError
from gfm_pipeline.sensors import SensorSpec
from gfm_pipeline.shards import codec
from gfm_pipeline.shards.quantise import quantise, restore
from shard_builder.config import SensorOverride
from shard_builder.planned import PlannedRaster
from shard_builder.radiometry import Pixels, prepare
from shard_builder.raster import Decoded

DEFAULT_CODEC = "blosc2"


@dataclass(frozen=True)
class Packed:
    """A member of a shard to be."""

    decoded: Decoded
    """As the archive holds it."""
    pixels: Pixels
    """As a reader will get it."""
    dtype: str
    """In which it is stored."""
    extension: str
    data: bytes


def pack(decoded: Decoded, planned: PlannedRaster, spec: SensorSpec, override: SensorOverride) -> Packed:
    """Return the member of a planned sensor; raise ItemError when its pixels do not fit the specification.

    The archive's own bytes are kept where they can be, unless the configuration names a codec.
    """
    pixels = prepare(decoded, planned, spec, override)
    if override.codec is None and decoded.original is not None and not pixels.changed:
        return Packed(decoded, pixels, str(pixels.raster.dtype), *decoded.original)
    stored = pixels.raster
    if spec.quantised is not None:
        try:
            stored = quantise(pixels.raster, spec)
        except ShardError as error:
            raise ItemError(f"{planned.source_file}: {error}") from error
        pixels = replace(pixels, raster=restore(stored, spec))
    extension = override.codec or DEFAULT_CODEC
    return Packed(decoded, pixels, str(stored.dtype), extension, codec.encode(stored, extension))
