"""A sensor of one's own: an entry in the configuration that says where its files are and what is in them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, field_validator

from gfm_pipeline.config import StrictModel, parse_config
from gfm_pipeline.errors import ConfigError
from gfm_pipeline.sensors import BUILTIN_SENSORS, Display, Dtype, SensorSpec


class OwnSensor(StrictModel):
    """One sensor. What a built-in sensor of the same name says need not be said again."""

    files: str
    """Pattern over the paths of the input, e.g. "S2/{key}_{date}.tif"; see `FilePattern`."""
    bands: tuple[str, ...] | None = None
    """Band names in the order in which the files hold them."""
    dtype: Dtype | None = None
    """Type of the pixels in the files."""
    units: str | None = None
    """What a pixel value measures, e.g. "dB"; "class" for labels."""
    gsd_m: float | None = None
    """Ground sampling distance in metres."""
    kind: Literal["image", "labels"] | None = None
    """labels: a map of class numbers, no input of a model."""
    nodata: float | None = None
    """The value that says "nothing was measured here"."""
    display: Display | None = None
    """How a person looks at it."""
    optional: bool = False
    """Whether a sample is complete without it."""
    dataset: str | None = None
    """Path of the array in an HDF5, NetCDF or zarr file; with "{band}" in it there is one array for each band."""
    axes: str | None = Field(default=None, pattern=r"^[TCHW_]{2,6}$")
    """One letter for each axis of an array: T time, C bands, H rows, W columns, _ for one of length 1 to leave out.

    HW, CHW or TCHW by the number of axes when not given.
    """
    dates: str | None = None
    """Path of the array in the same file that holds the dates of T: text with dates in it, or CF time."""

    @field_validator("axes")
    @classmethod
    def _has_an_image(cls, axes: str | None) -> str | None:
        if axes is not None and (axes.count("H") != 1 or axes.count("W") != 1 or max(map(axes.count, "TC")) > 1):
            raise ValueError("expected H and W once each, T and C at most once")
        return axes

    def spec(self, name: str, source: str) -> SensorSpec:
        """Return the full specification; raise ConfigError for what is missing."""
        base = BUILTIN_SENSORS.get(name)
        known = base.model_dump() if base else {"name": name}
        said = self.model_dump(include=set(SensorSpec.model_fields), exclude_none=True)
        return parse_config(known | said, SensorSpec, f"options.sensors.{name} of source {source}")


def specs_of(sensors: Mapping[str, OwnSensor], source: str) -> tuple[SensorSpec, ...]:
    """Return the specifications of all configured sensors; raise ConfigError when there are none."""
    if not sensors:
        raise ConfigError(f"options.sensors of source {source} is empty: name a sensor and the pattern of its files.")
    return tuple(sensor.spec(name, source) for name, sensor in sensors.items())
