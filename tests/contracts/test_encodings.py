"""Whatever the encoding, builds, verify, webdataset and the training loader get the pixels."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
import webdataset

from gfm_pipeline.data.config import DataConfig, StreamConfig
from gfm_pipeline.data.mixture import make_plan, open_mixture
from gfm_pipeline.data.reader import StreamReader
from gfm_pipeline.errors import ShardError
from gfm_pipeline.shards.interop import decode_sample
from shard_builder.collection.verify import verify_collection
from tests.contracts.test_sources import build
from tests.make.archives import LONELY, sen12ms

LONELY_KEY = f"{LONELY[0]}_{LONELY[1]}_p{LONELY[2]}"
STEP = 0.01
CHOICES = {
    "default": {},
    "npy": {"s1": {"codec": "npy"}, "s2": {"codec": "npy"}},
    "tif": {"s1": {"codec": "tif"}, "s2": {"codec": "tif"}},
    "jxl": {"s1": {"codec": "jxl"}, "s2": {"codec": "jxl"}},
    "quantised": {"s1": {"quantised": {"step": STEP}}},
    "quantised tif": {"s1": {"quantised": {"step": STEP}, "codec": "tif"}},
}


def urls(out: Path) -> list[str]:
    return sorted(str(path) for path in (out / "shards").glob("*.tar"))


@pytest.mark.parametrize("choice", CHOICES)
def test_everybody_gets_the_pixels(choice: str, tmp_path: Path) -> None:
    truth = sen12ms(tmp_path)
    out = tmp_path / "out"
    report = build("sen12ms", tmp_path, out, sensors=CHOICES[choice])
    bound = STEP / 2 + 2e-6 if "quantised" in choice else 0
    problems: list[object] = []
    verify_collection(str(out), None, 1, problems.append, lambda *_: None)
    assert problems == []
    assert report.manifest is not None
    if bound:
        assert report.manifest.sensors["s1"].quantised is not None
        assert json.loads((out / "manifest.json").read_text())["sensors"]["s1"]["quantised"]["max_error"] == STEP / 2
    found = {s["__key__"]: s for s in webdataset.WebDataset(urls(out), shardshuffle=False).map(decode_sample)}
    assert found.keys() == truth.keys()
    for key, rasters in truth.items():
        for sensor, raster in rasters.items():
            assert found[key][sensor].dtype == raster.dtype
            np.testing.assert_allclose(found[key][sensor], raster, rtol=0, atol=bound if sensor == "s1" else 0)
    streams = {"pairs": StreamConfig(collections=(str(out),), sub_batch=2, lr=1e-4)}
    config = DataConfig(streams=streams, lanes=1, chunk_samples=2)
    mixture = open_mixture(config)
    reader = StreamReader(mixture.streams["pairs"])
    plan = make_plan(mixture, config, seed=0)
    seen = {}
    for step in range(3):
        for pick in plan.take("pairs", 0, step):
            pixels = reader.read(pick)
            seen[pixels.key] = pixels.rasters
    assert seen.keys() == truth.keys() - {LONELY_KEY}
    for key, rasters in seen.items():
        for sensor, raster in rasters.items():
            assert raster.tobytes() == found[key][sensor].tobytes()


def test_tif_and_npy_need_no_code_of_ours(tmp_path: Path) -> None:
    truth = sen12ms(tmp_path)
    build("sen12ms", tmp_path, tmp_path / "out", sensors={"s1": {"codec": "npy"}, "s2": {"codec": "tif"}})
    count = 0
    for sample in webdataset.WebDataset(urls(tmp_path / "out"), shardshuffle=False):
        rasters = truth[sample["__key__"]]
        if "s1" in rasters:
            np.testing.assert_array_equal(np.load(io.BytesIO(sample["s1.npy"]), allow_pickle=False), rasters["s1"])
        np.testing.assert_array_equal(tifffile.imread(io.BytesIO(sample["s2.tif"])), rasters["s2"])
        count += 1
    assert count == len(truth)


def test_a_sample_of_somebody_else_is_told() -> None:
    with pytest.raises(ShardError, match="sample x has no json member"):
        decode_sample({"__key__": "x", "s1.npy": b""})
