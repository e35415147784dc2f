"""Two collections that store a sensor differently, much of it not measured, train in one stream of an ordinary run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from gfm_pipeline.export.embed import embed_collection
from gfm_pipeline.export.exporter import export_run
from gfm_pipeline.export.pretrained import load_encoder
from gfm_pipeline.sensors import Display, SensorSpec
from gfm_pipeline.sensors.render import MISSING
from tests.integration.test_pretrain import TINY
from tests.make_collection import Sample, make_collection
from tests.ranks import run_gfm, run_ranks

PX = 48
UNSIGNED = SensorSpec(
    name="s2",
    bands=("B2", "B3", "B4"),
    dtype="uint16",
    units="reflectance x 1e4",
    nodata=0,
    display=Display(mode="colour", bands=("B4", "B3", "B2")),
)
SIGNED = SensorSpec(name="s2", bands=("B04", "B03", "B02"), dtype="int16", units="reflectance x 1e4", nodata=-1)
HEIGHTS = SensorSpec(name="dsm", bands=("height",), dtype="float32", units="m", display=Display(mode="shaded"))


def samples(spec: SensorSpec, prefix: str) -> list[Sample]:
    """Hills, of which most is missing in the heights and a quarter, or all, in the colours."""
    rng = np.random.default_rng(len(prefix))
    rows, columns = np.mgrid[:PX, :PX] / PX
    out: list[Sample] = []
    for number in range(8):
        hills = np.sin(6 * rows + number) * np.cos(5 * columns) + rng.normal(0, 0.1, (PX, PX))
        colours = np.stack([1500 + 400 * hills + 300 * band for band in range(3)]).astype(spec.dtype)
        colours = colours[::-1] if spec is SIGNED else colours
        colours[:, : PX // 4 if number else PX] = spec.nodata
        heights = np.where((rows > 0.5) & (columns > 0.5) & (rows + columns > 1.2), 40 * hills, np.nan)
        out.append((f"{prefix}-{number}", {"s2": colours, "dsm": heights[None].astype(np.float32)}))
    return out


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shards")
    make_collection(root / "unsigned", samples(UNSIGNED, "one"), [UNSIGNED, HEIGHTS])
    make_collection(root / "signed", samples(SIGNED, "other"), [SIGNED, HEIGHTS])
    return root


def train(shards: Path, run_dir: Path, ranks: int, *more: str) -> list[dict[str, Any]]:
    stream = "{both.v1: {collections: [unsigned, signed], sub_batch: 8, lr: 1.0e-3}}"
    values = [*TINY, "data.lanes=2", "data.steps_per_epoch=4", "schedule.epochs=1", "engine.ep_size=1", *more]
    values += [f"data.root={shards}", f"run_dir={run_dir}"]
    config = run_dir.with_name("config.yaml")
    config.write_text(
        f"data: {{streams: {stream}}}\nobjectives: {{cross_sensor_mim: {{normalise_target_px: 7}}}}\n"
        "log: {every_steps: 1}\n"
    )
    words = ["--config", str(config), *(word for value in values for word in ("--set", value))]
    assert "finished: 4 steps" in run_ranks(ranks, words, run_dir.with_name("log"))
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def test_they_train_together_and_the_loss_is_that_of_any_number_of_ranks(shards: Path, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    alone = train(shards, tmp_path / "a" / "run", 1)
    shared = train(shards, tmp_path / "b" / "run", 2)
    assert len(alone) == 4
    for one, two in zip(alone, shared, strict=True):
        assert np.isfinite(one["loss"])
        assert one["streams"]["both.v1"]["losses"].keys() == {"s2->s2", "dsm->dsm", "s2->dsm", "dsm->s2"}
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-4)
    out = tmp_path / "pictures"
    run_gfm("visualize", "--run", tmp_path / "a" / "run", "--out", out, "--samples", "2")
    for way in ("s2-to-s2", "s2-to-dsm", "dsm-to-s2", "dsm-to-dsm"):
        picture = imagecodecs.imread(out / f"both.v1-{way}.png")[..., :3]
        assert (np.abs(picture.astype(int) - MISSING).max(axis=2) < 3).mean() > 0.02  # neutral, in the truth at least
    export_run(tmp_path / "a" / "run", tmp_path / "model")
    compare_exported(tmp_path / "model", shards, tmp_path)


def compare_exported(model: Path, shards: Path, scratch: Path) -> None:
    """What is exported leaves out the nodata values of both collections, as the loader does."""
    encoder = load_encoder(model)
    assert encoder.nodata["s2"] == (-1, 0)
    assert "| -1, 0 |" in (model / "README.md").read_text()
    for name, spec, prefix in (("unsigned", UNSIGNED, "one"), ("signed", SIGNED, "other")):
        embed_collection(model, str(shards / name), scratch / f"{name}.parquet")
        embedded = {row["key"]: row for row in pq.read_table(scratch / f"{name}.parquet").to_pylist()}
        for key, rasters in samples(spec, prefix):
            order = slice(None, None, -1) if spec is SIGNED else slice(None)
            images = {"s2": rasters["s2"][order].copy(), "dsm": rasters["dsm"]}
            with torch.inference_mode():
                found = encoder({sensor: torch.from_numpy(image)[None] for sensor, image in images.items()})
            for sensor, features in found.items():
                np.testing.assert_allclose(features[0].numpy(), embedded[key][sensor], atol=2e-6, err_msg=key)
