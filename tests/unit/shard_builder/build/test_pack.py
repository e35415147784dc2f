"""Images that are kept in their own encoding: all decoded, or a sample of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest

from gfm_pipeline.errors import ItemError
from shard_builder.build.build import BuildReport, build_collection
from shard_builder.build.pack import SAMPLED
from shard_builder.collection.verify import verify_collection
from shard_builder.config import BuildConfig
from tests.contracts.test_sources import read_with_public_libraries
from tests.make.archives import zipped


def build(raw: Path, out: Path, **more: Any) -> BuildReport:
    config = BuildConfig(source="millionaid", input=str(raw), output=str(out), max_samples=32, **more)
    return build_collection(config, "build", lambda _: None)


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    rng = np.random.default_rng(3)
    images = rng.integers(0, 255, (64, 24, 24, 3)).astype(np.uint8)
    members = {f"test/P{i:07d}.jpg": imagecodecs.jpeg8_encode(image, level=90) for i, image in enumerate(images)}
    members["test/true.png"] = imagecodecs.png_encode(images[0])
    (tmp_path / "raw").mkdir()
    zipped(tmp_path / "raw" / "millionaid_test.zip", members)
    return tmp_path / "raw"


def test_a_sample_of_them_is_decoded_and_verify_decodes_the_rest(raw: Path, tmp_path: Path) -> None:
    everything = build(raw, tmp_path / "all").manifest
    few = build(raw, tmp_path / "few", decode="sample").manifest
    assert everything is not None
    assert few is not None
    left_out = few.counts["rule: rgb: kept undecoded, not in the statistics"]
    assert 64 - 4 * 64 / SAMPLED < left_out < 64
    assert few.statistics["rgb"][0].count == (65 - left_out) * 24 * 24
    assert everything.statistics["rgb"][0].count == 65 * 24 * 24
    assert few.statistics["rgb"][0].mean == pytest.approx(everything.statistics["rgb"][0].mean, rel=0.1)
    pixels = [
        dict(sorted((key, r["rgb"].tobytes()) for key, r, _ in found))
        for found in map(read_with_public_libraries, (tmp_path / "all", tmp_path / "few"))
    ]
    assert pixels[0] == pixels[1]
    problems: list[object] = []
    verify_collection(str(tmp_path / "few"), None, 1, problems.append, lambda *_: None)
    assert not problems
    assert all(shard.samples for shard in few.shards)


def test_what_shows_without_decoding_is_refused_all_the_same(raw: Path, tmp_path: Path) -> None:
    whole = imagecodecs.jpeg8_encode(np.zeros((24, 24, 3), np.uint8))
    grey = imagecodecs.jpeg8_encode(np.zeros((24, 24), np.uint8))
    members = {f"test/{i}.jpg": whole for i in range(40)}
    zipped(raw / "millionaid_test.zip", members | {"test/cut.jpg": whole[:-9], "test/grey.jpg": grey})
    with pytest.raises(ItemError, match=r"cut\.jpg is a JPEG that is cut short"):
        build(raw, tmp_path / "out", decode="sample")
    report = build(raw, tmp_path / "skip", decode="sample", on_error="skip")
    assert [row.item for row in report.rejected] == ["test_cut"]
    metas = {key: meta for key, _, meta in read_with_public_libraries(tmp_path / "skip")}
    assert metas["test_grey"]["sensors"]["rgb"]["codec"] == "blosc2"
    assert {meta["sensors"]["rgb"]["nodata_share"] for meta in metas.values()} == {0.0, None}
    assert json.dumps(metas["test_0"]["sensors"]["rgb"]["shape"]) == "[3, 24, 24]"
