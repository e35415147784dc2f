"""What a sensor is. A manifest carries the full specification of each of its sensors."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator
from typing_extensions import Self

from gfm_pipeline.config import StrictModel
from gfm_pipeline.config.names import BandName, SensorName, UnitText
from gfm_pipeline.errors import ConfigError, nearest
from gfm_pipeline.sensors.bands import canonical_band

Dtype = Literal["uint8", "int16", "uint16", "int32", "uint32", "float32", "float64"]


class Display(StrictModel):
    """How a person looks at the sensor."""

    mode: Literal["colour", "grey", "shaded"] = "grey"
    """colour: three bands as red, green, blue. grey: one band. shaded: hill shading of a surface height."""
    bands: tuple[str, ...] = ()
    """The bands to show: three for colour, one otherwise; the first ones when left empty."""


class Quantisation(StrictModel):
    """Floating point stored as 16-bit multiples of a step: lossy, with a stated bound."""

    step: float = Field(gt=0, allow_inf_nan=False)
    """In the sensor's units, e.g. 0.01 dB."""
    max_error: float = Field(default=0.0, ge=0)
    """Largest difference between a value and what is stored for it: half a step. Follows from the step."""

    @model_validator(mode="after")
    def _error_is_half_a_step(self) -> Self:
        if self.max_error not in (0.0, self.step / 2):
            raise ValueError(f"max_error is {self.max_error}, a step of {self.step} makes it {self.step / 2}")
        object.__setattr__(self, "max_error", self.step / 2)
        return self


class SensorSpec(StrictModel):
    """A kind of image: what each band is called and what a number in it means."""

    name: SensorName
    """Lower-case identifier; it becomes a part of the member names in a shard."""
    bands: tuple[BandName, ...] = Field(min_length=1)
    """Band names in the order in which they are stored."""
    dtype: Dtype
    """Type in which pixels are stored, exactly as the archive ships them."""
    units: UnitText
    """What a pixel value measures, e.g. "reflectance x 1e4", "dB", "m"."""
    gsd_m: float | None = Field(default=None, gt=0)
    """Nominal ground sampling distance in metres, when the sensor has one."""
    kind: Literal["image", "labels"] = "image"
    """labels: a map of class numbers that belongs to the images, no input of a model."""
    nodata: float | None = Field(default=None, allow_inf_nan=False)
    """The value that says "nothing was measured here"; NaN always says so."""
    quantised: Quantisation | None = None
    """How a float32 sensor in dB is stored with fewer bytes; None: as it is, bit for bit."""
    display: Display = Display()

    @model_validator(mode="after")
    def _only_decibels_are_quantised(self) -> Self:
        if self.quantised and (self.dtype != "float32" or not self.units.lower().startswith("db")):
            raise ValueError(f"quantised is for float32 in dB, {self.name} is {self.dtype} in {self.units}")
        return self

    @field_validator("bands")
    @classmethod
    def _bands_are_distinct(cls, bands: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(bands)) != len(bands):
            raise ValueError(f"band names repeat: {', '.join(bands)}")
        return bands

    def band_index(self, band: str) -> int:
        """Return the position of `band`, in any spelling, on the channel axis; raise ConfigError naming the others."""
        if band in self.bands:
            return self.bands.index(band)
        same = [index for index, name in enumerate(self.bands) if canonical_band(name) == canonical_band(band)]
        if len(same) != 1:
            raise ConfigError(f"sensor {self.name} has no band '{band}'. {nearest(band, self.bands)}")
        return same[0]
