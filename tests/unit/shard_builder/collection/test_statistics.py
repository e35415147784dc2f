from __future__ import annotations

import numpy as np
import pytest

from gfm_pipeline.errors import ShardError
from shard_builder.collection.statistics import MAX_VALUES, PlaceSummary, describe, summarise, to_document
from shard_builder.rasters.georeference import crs_name
from tests.unit.shard_builder.collection.conftest import make_samples


def test_the_manifest_alone_gives_counts_and_bands(pristine):
    summary = summarise(str(pristine), with_catalog=False, with_classes=False)
    tree = to_document(summary)
    assert (tree["samples"], tree["shards"], tree["sensors"]["s1"]["samples"]) == (10, 4, 8)
    assert [(s["samples"], s["shards"]) for s in tree["sensor_sets"]] == [(8, 3), (2, 1)]
    series = np.concatenate([rasters["ms"][:, 0].ravel() for _, rasters in make_samples()])
    band = tree["sensors"]["ms"]["bands"][0]
    assert band["count"] == (series != 0).sum()
    assert band["mean"] == pytest.approx(series[series != 0].mean())
    assert tree["places"] is tree["classes"] is None


def test_no_shard_is_opened_for_the_manifest_alone(collection):
    for path in (collection / "shards").iterdir():
        path.unlink()
    (collection / "catalog.parquet").unlink()
    assert describe(summarise(str(collection), with_catalog=False, with_classes=False))


def test_catalog_and_classes_are_counted_exactly(pristine):
    summary = summarise(str(pristine), with_catalog=True, with_classes=True)
    assert summary.places is not None
    assert (summary.places.first_date, summary.places.last_date) == ("2019-01-15", "2019-09-15")
    assert summary.places.crs == {"EPSG:4326": 10}
    assert summary.places.labels == {"class": {"odd": 10}}
    covers = np.concatenate([rasters["cover"].ravel() for _, rasters in make_samples()])
    values, times = np.unique(covers[covers != 255], return_counts=True)
    assert summary.classes == {"cover": dict(zip(values.tolist(), times.tolist(), strict=True))}
    text = "\n".join(describe(summary))
    for words in ("2019-01-15 to 2019-09-15", "EPSG:4326: 10", "odd: 10", "cover, pixels of each class"):
        assert words in text


def test_labels_that_tell_samples_apart_are_named_and_not_counted():
    places = PlaceSummary()
    for number in range(MAX_VALUES + 5):
        places.add_labels({"id": f"scene {number}", "classes": ["a", "b"], "n": 3})
    assert places.unbounded == ["id"]
    assert places.labels == {"classes": {"a": MAX_VALUES + 5, "b": MAX_VALUES + 5}, "n": {"3": MAX_VALUES + 5}}


def test_a_damaged_catalog_is_an_error_that_says_so(collection):
    path = collection / "catalog.parquet"
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(ShardError, match=r"catalog\.parquet is damaged"):
        summarise(str(collection), with_catalog=True, with_classes=False)


def test_a_coordinate_system_has_a_name_of_one_line() -> None:
    assert crs_name("EPSG:32632") == "EPSG:32632"
    assert crs_name('PROJCRS["UTM Zone 32",BASEGEOGCRS["x"]]') == "UTM Zone 32 (PROJCRS, no code)"
