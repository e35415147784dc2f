from __future__ import annotations

import re
import subprocess
import sys

import numpy as np
import yaml

from gfm_pipeline.sensors import SensorSpec
from gfm_pipeline.shards.stats import measure
from shard_builder.collection.card import write_card
from shard_builder.collection.histogram import BINS, SensorHistograms
from shard_builder.collection.licence import find_licence, known_licences
from shard_builder.collection.plots import draw_map
from shard_builder.collection.verify import verify_collection
from tests.make_collection import make_collection, random_samples
from tests.unit.shard_builder.collection.conftest import S1


def front_matter(text: str) -> dict:
    return yaml.safe_load(text.split("---\n")[1])


def test_a_card_shows_its_pictures_and_is_the_same_again(pristine, tmp_path):
    text = write_card(str(pristine), tmp_path / "a", None).read_text()
    pictures = re.findall(r"\]\((card/[a-z0-9-]+\.png)\)", text)
    assert sorted(set(pictures)) == sorted(
        f"card/{name}.png" for name in ("samples", "histogram-s1", "histogram-ms", "classes-cover", "map")
    )
    for picture in pictures:
        assert (tmp_path / "a" / picture).read_bytes().startswith(b"\x89PNG")
    assert "Counted on 10 of 10 samples" in text
    assert "| s1 | VH |" in text
    assert "| cover | class |" not in text  # the mean of class numbers says nothing
    assert front_matter(text)["size_categories"] == ["n<1K"]
    assert write_card(str(pristine), tmp_path / "b", None).read_text() == text
    for picture in pictures:
        assert (tmp_path / "a" / picture).read_bytes() == (tmp_path / "b" / picture).read_bytes()


def test_a_card_may_lie_in_the_collection(collection):
    write_card(str(collection), collection, None)
    assert not verify_collection(str(collection), None, 1, print, lambda done, total: None).problems


def test_licences_are_stated_with_care(tmp_path):
    make_collection(tmp_path / "c", random_samples([S1], 3), [S1], source="sen12ms")
    text = write_card(str(tmp_path / "c"), tmp_path / "a", None).read_text()
    assert front_matter(text)["license"] == "cc-by-4.0"
    assert "as far as known; check the source" in text
    assert "Contains modified Copernicus Sentinel data" in text
    text = write_card(str(tmp_path / "c"), tmp_path / "a", "Our own terms: ask us").read_text()
    assert front_matter(text)["license"] == "other"
    assert front_matter(text)["license_name"] == "Our own terms: ask us"
    assert "CC BY 4.0" in text
    text = write_card(str(tmp_path / "c"), tmp_path / "a", "CC BY-SA 4.0").read_text()
    assert front_matter(text)["license"] == "cc-by-sa-4.0"


def test_every_known_source_has_terms_a_link_and_a_citation():
    assert len(known_licences()) >= 11
    for licence in known_licences().values():
        assert licence.link.startswith("https://")
        assert licence.citation
    for source in ("sen12ms", "sen12ms_cr", "bigearthnet", "bigearthnet_v2", "spacenet2", "ssl4eo-s12", "pastis"):
        assert find_licence(source) is not None, source
    assert find_licence("folder") is None


def test_histograms_count_every_measured_pixel_within_reach():
    rng = np.random.default_rng(0)
    spec = SensorSpec(name="x", bands=("A", "B"), dtype="uint16", units="dn", nodata=0)
    raster = rng.integers(1, 200, (3, 2, 16, 16)).astype(np.uint16)
    raster[1] = 0
    histograms = SensorHistograms(spec, measure(raster, spec.bands, raster != 0))
    histograms.add(raster)
    for band in histograms.bands:
        assert band.counts.sum() == 2 * 16 * 16
        assert len(band.counts) <= BINS + 1
        assert len(set(np.diff(band.edges))) == 1


def test_a_constant_band_and_an_empty_one_have_a_histogram():
    spec = SensorSpec(name="x", bands=("A",), dtype="float32", units="m")
    for value in (5.0, np.nan):
        raster = np.full((1, 4, 4), value, np.float32)
        histograms = SensorHistograms(spec, measure(raster, spec.bands, np.isfinite(raster)))
        histograms.add(raster)
        assert histograms.bands[0].counts.sum() == np.isfinite(raster).sum()


def test_maps_of_a_town_and_of_the_world():
    square = np.array([[0, 0], [0.01, 0], [0.01, 0.01], [0, 0.01], [0, 0]])
    for corners in ([(10.9, 48.3)], [(-170.0, 60.0), (120.0, -30.0)]):
        assert draw_map([square + np.array(corner) for corner in corners]).startswith(b"\x89PNG")


def test_matplotlib_waits_until_a_card_is_drawn():
    code = (
        "import sys; import shard_builder.collection.card, shard_builder.collection.show, shard_builder.cli.card; "
        "print(sorted({'matplotlib', 'torch'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"
