from __future__ import annotations

import pytest

from gfm_pipeline.errors import ConfigError
from gfm_pipeline.sensors import BUILTIN_SENSORS
from gfm_pipeline.sensors.bands import canonical_band, match_bands, vocabulary

SAME = [
    (
        "B1",
        "B01",
        "b1",
        "Band 1",
        "band_01",
        "SR_B1",
        "B1, central wavelength 443 nm",
        "B01 (443 nm)",
        "Band 1 - Coastal",
    ),
    ("B8A", "b8a", "B08A", "Band 8A"),
    ("B10", "b10", "Band-10"),
    ("R", "r", "Red", "RED"),
    ("NIR", "nir", "near infrared", "Near-Infrared", "near_infrared", "N"),
    ("P", "Pan", "panchromatic"),
    ("VV", "vv", "Sigma0_VV", "Gamma0_VV_db", "VV_dB"),
    ("coastal_blue", "Coastal Blue", "Coastal_Aerosol"),
    ("LCCS_cover", "lccs cover", "LCCS-Cover"),
]


@pytest.mark.parametrize("names", SAME, ids=lambda names: names[0])
def test_spellings_of_one_band_are_equal(names: tuple[str, ...]) -> None:
    assert len({canonical_band(name) for name in names}) == 1


def test_different_bands_are_different() -> None:
    firsts = [names[0] for names in SAME] + [
        "B8",
        "B80",
        "B11",
        "ST_B10",
        "green_i",
        "green",
        "rededge",
        "VH",
        "height",
    ]
    assert len({canonical_band(name) for name in firsts}) == len(firsts)


@pytest.mark.parametrize("spec", BUILTIN_SENSORS.values(), ids=lambda spec: spec.name)
def test_no_two_bands_of_a_built_in_sensor_are_one(spec) -> None:  # type: ignore[no-untyped-def]
    assert match_bands(spec.bands, spec.bands) == tuple(range(len(spec.bands)))
    assert len({canonical_band(band) for band in spec.bands}) == len(spec.bands)


def test_bands_are_found_by_name_in_any_order() -> None:
    assert match_bands(["B01", "B02", "B8A", "B08"], ["B8", "B8A", "B1"]) == (3, 2, 0)


def test_the_very_name_comes_first() -> None:
    assert match_bands(["Sigma0_VV", "VV"], ["VV"]) == (1,)


def test_what_is_missing_or_could_be_several_is_named() -> None:
    with pytest.raises(ConfigError, match=r"a\.tif: found B01, B02; B3 is not among them"):
        match_bands(["B01", "B02"], ["B2", "B3"], "a.tif")
    with pytest.raises(ConfigError, match="VV could be Sigma0_VV or Gamma0_VV"):
        match_bands(["Sigma0_VV", "Gamma0_VV"], ["VV"])
    with pytest.raises(ConfigError, match="B1 and B01 are the same band"):
        match_bands(["B01", "B02"], ["B1", "B01"])


def test_kinds_of_names_are_told_apart() -> None:
    assert [vocabulary(name) for name in ("B04", "VH", "Red", "height")] == ["number", "polarisation", "colour", None]


def test_a_sensor_finds_its_bands_in_any_spelling() -> None:
    s2 = BUILTIN_SENSORS["s2"]
    assert [s2.band_index(name) for name in ("B4", "B04", "b4", "B8A", "b08a")] == [3, 3, 3, 8, 8]
    twice = s2.model_copy(update={"bands": ("B1", "B01")})
    assert (twice.band_index("B1"), twice.band_index("B01")) == (0, 1)
    for spec, name in ((s2, "B13"), (twice, "b1")):
        with pytest.raises(ConfigError, match=f"sensor s2 has no band '{name}'"):
            spec.band_index(name)
