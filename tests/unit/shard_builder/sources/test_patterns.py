"""File patterns: what fits, what the parts are, and which keys come of them."""

from __future__ import annotations

import pytest

from gfm_pipeline.errors import ConfigError, ItemError
from gfm_pipeline.shards.sample import is_key
from shard_builder.sources.shared.patterns import FilePattern, iso_date, key_of


@pytest.mark.parametrize(
    ("pattern", "path", "parts"),
    [
        ("S2/{key}_s2.tif", "S2/a_1_s2.tif", {"key": "a_1"}),
        ("S2/{key}_s2.tif", "S2/deep/a_s2.tif", None),
        ("**/{key}.tif", "a.tif", {"key": "a"}),
        ("**/{key}.tif", "x/y/a.tif", {"key": "a"}),
        ("{key}/{date}_{band}.tif", "p/20200103_B8A.tif", {"key": "p", "date": "20200103", "band": "B8A"}),
        ("{key}_{date}.tif", "a_b_2020-01-03T102421.tif", {"key": "a_b", "date": "2020-01-03T102421"}),
        ("{key}/{key}_s1.tif", "a/a_s1.tif", {"key": "a"}),
        ("{key}/{key}_s1.tif", "a/b_s1.tif", None),
        ("{key:[0-9]{2}}*.tif", "07 old.tif", {"key": "07"}),
        ("{key:[0-9]{2}}*.tif", "x7 old.tif", None),
        ("{key}_{band}.tif", "a_B08.tif", {"key": "a", "band": "B8"}),
        ("{key}_{band}.tif", "a_b8a.tif", {"key": "a", "band": "B8A"}),
        ("{key}_{band}*.tif", "a_B8A_20m.tif", {"key": "a", "band": "B8A"}),
        ("{key}_{band}*.tif", "a_B80.tif", None),
        ("{key}_{band:B[0-9]+}_*.tif", "a_B08_10m.tif", {"key": "a", "band": "B8"}),
        ("{key}_{band:B[0-9]+}_*.tif", "a_B07_10m.tif", None),
        (
            "{key}.{date}.v2.0.{band}.tif",
            "x.2020185T103031.v2.0.B08.tif",
            {"key": "x", "date": "2020185T103031", "band": "B8"},
        ),
        ("{class}/{key}.j?g", "corn/ä+(1).jpg", {"class": "corn", "key": "ä+(1)"}),
    ],
)
def test_what_fits(pattern: str, path: str, parts: dict[str, str] | None) -> None:
    assert FilePattern(pattern, ("B8", "B8A"), "here").match(path) == parts


@pytest.mark.parametrize("pattern", ["S2/{key.tif", "S2/{key:[}.tif", "{1x-}.tif"])
def test_what_is_no_pattern(pattern: str) -> None:
    with pytest.raises(ConfigError, match=r"options\.sensors\.s2\.files"):
        FilePattern(pattern, (), "options.sensors.s2.files")


def test_the_same_name_in_another_unicode_form_is_the_same_key() -> None:
    pattern = FilePattern("{key}.tif", (), "here")
    assert pattern.match("Zu\u0308rich.tif") == pattern.match("Z\u00fcrich.tif")


@pytest.mark.parametrize("text", ["a b", "ä", "x" * 100, "", "a.b", "_a"])
def test_keys_are_keys_and_tell_names_apart(text: str) -> None:
    assert is_key(key_of(text))
    assert is_key(key_of(text, 16) + "_r100000_c100000")
    assert key_of(text) != key_of(text + "?")


@pytest.mark.parametrize(
    ("text", "date"),
    [
        ("S2A_MSIL2A_20200102T102421_N0213", "2020-01-02T10:24:21Z"),
        ("20200102", "2020-01-02"),
        ("2020-01-02 10:24:21", "2020-01-02T10:24:21Z"),
        ("2020-01-02T10:24:21", "2020-01-02T10:24:21Z"),
        ("HLS.S30.T32TMT.2020185T103031.v2.0", "2020-07-03T10:30:31Z"),
        ("MOD09.A2021001", "2021-01-01"),
    ],
)
def test_dates(text: str, date: str) -> None:
    assert iso_date(text) == date


@pytest.mark.parametrize("text", ["winter", "20201301", "2020", "2021366", "2020000", "1234567"])
def test_what_is_no_date(text: str) -> None:
    with pytest.raises(ItemError, match="no date"):
        iso_date(text)


def test_a_band_is_no_part_of_another_one() -> None:
    pattern = FilePattern("*_{band}*.tif", ("B8", "VV"), "here")
    assert [pattern.match(name) for name in ("x_B8A.tif", "x_B81.tif")] == [None, None]
    assert pattern.match("x_vv.tif") == {"band": "VV"}
