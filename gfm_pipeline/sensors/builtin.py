"""The specifications of the sensors of published archives and products; training never depends on them.

Numbers are stored as the product has them, so units state what turns them into physical ones where that is more than a
unit: a scale and an offset are named and never applied.
"""

from __future__ import annotations

from gfm_pipeline.errors import ConfigError, nearest
from gfm_pipeline.sensors.spec import Display, SensorSpec

S2_BANDS = ("B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B9", "B10", "B11", "B12")

BUILTIN_SENSORS: dict[str, SensorSpec] = {
    spec.name: spec
    for spec in (
        SensorSpec(
            name="rgb",
            bands=("R", "G", "B"),
            dtype="uint8",
            units="digital number",
            display=Display(mode="colour", bands=("R", "G", "B")),
        ),
        SensorSpec(
            name="s1",
            bands=("VV", "VH"),
            dtype="float32",
            units="dB",
            gsd_m=10.0,
            display=Display(mode="grey", bands=("VV",)),
        ),
        SensorSpec(
            name="s2",
            bands=S2_BANDS,
            dtype="uint16",
            units="top-of-atmosphere reflectance x 1e4",
            gsd_m=10.0,
            display=Display(mode="colour", bands=("B4", "B3", "B2")),
        ),
        SensorSpec(
            name="s2_l2a",
            bands=tuple(band for band in S2_BANDS if band != "B10"),
            dtype="uint16",
            units="surface reflectance x 1e4",
            gsd_m=10.0,
            display=Display(mode="colour", bands=("B4", "B3", "B2")),
        ),
        SensorSpec(
            name="s2_scl",
            bands=("SCL",),
            dtype="uint8",
            units="class of the Sentinel-2 scene classification",
            gsd_m=20.0,
            kind="labels",
            nodata=0,
        ),
        SensorSpec(
            name="s1_grd",
            bands=("VV", "VH"),
            dtype="uint16",
            units="amplitude, digital number",
            gsd_m=10.0,
            nodata=0,
            display=Display(mode="grey", bands=("VV",)),
        ),
        SensorSpec(
            name="landsat_oli",
            bands=("B1", "B2", "B3", "B4", "B5", "B6", "B7"),
            dtype="uint16",
            units="surface reflectance = 2.75e-05 x number - 0.2",
            gsd_m=30.0,
            nodata=0,
            display=Display(mode="colour", bands=("B4", "B3", "B2")),
        ),
        SensorSpec(
            name="landsat_tm",
            bands=("B1", "B2", "B3", "B4", "B5", "B7"),
            dtype="uint16",
            units="surface reflectance = 2.75e-05 x number - 0.2",
            gsd_m=30.0,
            nodata=0,
            display=Display(mode="colour", bands=("B3", "B2", "B1")),
        ),
        SensorSpec(
            name="landsat_st",
            bands=("ST_B10",),
            dtype="uint16",
            units="K = 0.00341802 x number + 149",
            gsd_m=30.0,
            nodata=0,
        ),
        SensorSpec(
            name="landsat_qa",
            bands=("QA_PIXEL",),
            dtype="uint16",
            units="bits of QA_PIXEL",
            gsd_m=30.0,
            kind="labels",
            nodata=1,
        ),
        SensorSpec(
            name="hls_s30",
            bands=S2_BANDS,
            dtype="int16",
            units="surface reflectance x 1e4 (B9, B10: top of atmosphere)",
            gsd_m=30.0,
            nodata=-9999,
            display=Display(mode="colour", bands=("B4", "B3", "B2")),
        ),
        SensorSpec(
            name="hls_l30",
            bands=("B1", "B2", "B3", "B4", "B5", "B6", "B7", "B9"),
            dtype="int16",
            units="surface reflectance x 1e4 (B9: top of atmosphere)",
            gsd_m=30.0,
            nodata=-9999,
            display=Display(mode="colour", bands=("B4", "B3", "B2")),
        ),
        SensorSpec(
            name="hls_l30_thermal",
            bands=("B10", "B11"),
            dtype="int16",
            units="brightness temperature, degrees Celsius x 100",
            gsd_m=30.0,
            nodata=-9999,
        ),
        SensorSpec(
            name="hls_fmask",
            bands=("Fmask",),
            dtype="uint8",
            units="bits of Fmask",
            gsd_m=30.0,
            kind="labels",
            nodata=255,
        ),
        SensorSpec(
            name="naip",
            bands=("R", "G", "B", "NIR"),
            dtype="uint8",
            units="digital number",
            display=Display(mode="colour", bands=("R", "G", "B")),
        ),
        SensorSpec(
            name="planetscope_4b",
            bands=("blue", "green", "red", "nir"),
            dtype="uint16",
            units="radiance x 100, W/(m2 sr um)",
            gsd_m=3.0,
            nodata=0,
            display=Display(mode="colour", bands=("red", "green", "blue")),
        ),
        SensorSpec(
            name="planetscope_4b_sr",
            bands=("blue", "green", "red", "nir"),
            dtype="uint16",
            units="surface reflectance x 1e4",
            gsd_m=3.0,
            nodata=0,
            display=Display(mode="colour", bands=("red", "green", "blue")),
        ),
        SensorSpec(
            name="planetscope_8b",
            bands=("coastal_blue", "blue", "green_i", "green", "yellow", "red", "rededge", "nir"),
            dtype="uint16",
            units="radiance x 100, W/(m2 sr um)",
            gsd_m=3.0,
            nodata=0,
            display=Display(mode="colour", bands=("red", "green", "blue")),
        ),
        SensorSpec(
            name="planetscope_8b_sr",
            bands=("coastal_blue", "blue", "green_i", "green", "yellow", "red", "rededge", "nir"),
            dtype="uint16",
            units="surface reflectance x 1e4",
            gsd_m=3.0,
            nodata=0,
            display=Display(mode="colour", bands=("red", "green", "blue")),
        ),
        SensorSpec(
            name="planetscope_udm2",
            bands=("clear", "snow", "shadow", "haze_light", "haze_heavy", "cloud", "confidence", "udm1"),
            dtype="uint8",
            units="1 where it applies; confidence in percent; bits of udm1",
            gsd_m=3.0,
            kind="labels",
        ),
        SensorSpec(
            name="dsm",
            bands=("height",),
            dtype="float32",
            units="m",
            display=Display(mode="shaded", bands=("height",)),
        ),
    )
}


def builtin_sensor(name: str) -> SensorSpec:
    """Return the built-in specification of `name`; raise ConfigError with the nearest name."""
    if name not in BUILTIN_SENSORS:
        raise ConfigError(f"no built-in sensor is called '{name}'. {nearest(name, BUILTIN_SENSORS)}")
    return BUILTIN_SENSORS[name]
