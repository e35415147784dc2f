"""Floating point in dB as 16-bit steps: half the bytes or less, with a stated largest error. Off by default.

A stored number times the step is the value; the code NOT_MEASURED stands for nodata and NaN.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gfm_pipeline.errors import ShardError
from gfm_pipeline.sensors import SensorSpec
from gfm_pipeline.sensors.missing import unmeasured
from gfm_pipeline.shards.codec import Encoded, Raster, Room, decode

STORED_DTYPE = "int16"
NOT_MEASURED = -32768
LARGEST = 32767


def stored_dtype(spec: SensorSpec) -> str:
    """Return the type in which the pixels of a sensor are stored."""
    return STORED_DTYPE if spec.quantised else spec.dtype


def quantise(raster: Raster, spec: SensorSpec) -> NDArray[np.int16]:
    """Return a raster of a quantised sensor as it is stored; raise ShardError for values out of range."""
    assert spec.quantised is not None
    missing = unmeasured(raster, spec.nodata)
    values = raster.astype(np.float64)
    steps = np.rint((values if missing is None else np.where(missing, 0, values)) / spec.quantised.step)
    if np.abs(steps).max(initial=0) > LARGEST:
        limit = LARGEST * spec.quantised.step
        worst = raster.flat[int(np.abs(steps).argmax())]
        raise ShardError(
            f"{spec.name} holds {worst:g} {spec.units}, quantised in steps of {spec.quantised.step:g} it reaches from "
            f"{-limit:g} to {limit:g}. Set sensors.{spec.name}.quantised.step higher, or leave it out."
        )
    stored: NDArray[np.int16] = steps.astype(np.int16)
    if missing is not None:
        stored[missing] = NOT_MEASURED
    return stored


def restore(stored: Raster, spec: SensorSpec) -> Raster:
    """Return the values of a raster as its sensor declares them; what is not quantised is returned as it is."""
    if spec.quantised is None:
        return stored
    values = (stored.astype(np.float64) * spec.quantised.step).astype(spec.dtype)
    values[stored == NOT_MEASURED] = np.nan if spec.nodata is None else spec.nodata
    return values


def decode_member(
    data: Encoded, extension: str, dtype: str, shape: tuple[int, ...], spec: SensorSpec, room: Room | None = None
) -> Raster:
    """Return the raster of a member in the sensor's own type and units; `room` as in `decode`.

    Raises ShardError when the bytes do not hold an array of `dtype` and `shape`, or when `dtype` is not what the
    sensor is stored in.
    """
    if dtype != stored_dtype(spec):
        raise ShardError(f"the raster is stored as {dtype}, sensor {spec.name} as {stored_dtype(spec)}.")
    return restore(decode(data, extension, dtype, shape, room), spec)
