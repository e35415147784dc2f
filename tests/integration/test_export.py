"""A run exported: the same numbers as in training, loaded with little, used on a collection."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file

from gfm_pipeline.errors import CheckpointError, ConfigError, GfmError, UsageError
from gfm_pipeline.export.embed import embed_collection
from gfm_pipeline.export.exporter import export_run
from gfm_pipeline.export.pretrained import load_encoder, load_pretrained
from gfm_pipeline.models.msgfm import SensorImages
from gfm_pipeline.storage import open_store
from gfm_pipeline.viz.reconstruct import load_run
from tests.conftest import ROOT
from tests.integration.test_pretrain import two_ranks
from tests.ranks import run_gfm

# What a user of a trained model need not have.
BLOCKED = ("deepspeed", "webdataset", "obstore", "pydantic", "pyarrow", "tifffile", "zarr", "click", "scipy")
ALONE = f"""
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {BLOCKED!r}:
            raise ImportError("blocked: " + name)

sys.meta_path.insert(0, Refuse())
import torch
from gfm_pipeline.export.pretrained import load_encoder

encoder = load_encoder(sys.argv[1], sensors=["s2", "s1"])
features = encoder({{"s2": torch.ones(1, 13, 48, 48), "s1": torch.ones(1, 2, 48, 48)}})
print([tuple(features[name].shape) for name in ("s2", "s1")])
"""


@pytest.fixture(scope="module")
def run_dir(demo_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two ranks with two experts each."""
    folder = tmp_path_factory.mktemp("export") / "run"
    two_ranks(demo_shards, folder, "data.steps_per_epoch=2", "schedule.epochs=2")
    return folder


def test_a_run_whose_checkpoints_lie_in_a_bucket_is_opened(run_dir: Path, s3: dict[str, str], tmp_path: Path) -> None:
    store = open_store("s3://bucket/exported/run")
    for file in (run_dir / "checkpoints").rglob("*"):
        if file.is_file():
            store.put(str(file.relative_to(run_dir / "checkpoints")), file.read_bytes())
    text = (run_dir / "config.yaml").read_text()
    assert "  url: null\n" in text
    (tmp_path / "config.yaml").write_text(text.replace("  url: null\n", f"  url: {store.url}\n"))
    there, here = load_run(tmp_path).model.state_dict(), load_run(run_dir).model.state_dict()
    assert all(torch.equal(value, there[name]) for name, value in here.items())
    assert not list((tmp_path / ".scratch").iterdir())


@pytest.fixture(scope="module")
def exported(run_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("models") / "model"
    done = run_gfm("export", "--run", run_dir, "--out", out)
    assert "parameters of step 4" in done.stdout
    return out


def test_features_are_those_of_the_run(run_dir: Path, exported: Path) -> None:
    run = load_run(run_dir)
    encoder = load_encoder(exported, sensors=["s2"])
    torch.manual_seed(0)
    moments = run.state.normalisation["s2"]
    mean, std = (torch.tensor(moments[name])[:, None, None] for name in ("mean", "std"))
    image = torch.randn(3, 13, 48, 48) * std + mean
    with torch.inference_mode():
        (ours,) = run.model.encode([SensorImages("s2", (image - mean) / std)])
        features = encoder.forward_features(image, "s2")
        torch.testing.assert_close(features, ours, atol=1e-6, rtol=0)
        torch.testing.assert_close(encoder({"s2": image})["s2"], ours.mean((1, 2)), atol=1e-6, rtol=0)
        image[:, :, :4, :4] = torch.nan
        assert encoder({"s2": image})["s2"].isfinite().all()


def test_all_stages(exported: Path) -> None:
    encoder = load_encoder(exported, features_only=True)
    assert set(encoder.sensors) == {"rgb", "s1", "s2", "dsm"}
    with torch.inference_mode():
        maps = encoder({"rgb": torch.zeros(2, 3, 48, 48)})["rgb"]
        last = encoder.forward_features(torch.zeros(2, 3, 48, 48), "rgb")
    assert [(found.shape[1], 48 // found.shape[2]) for found in maps] == [
        (info["num_chs"], info["reduction"]) for info in encoder.feature_info
    ]
    torch.testing.assert_close(maps[-1].permute(0, 2, 3, 1), last)


def test_another_image_size(exported: Path) -> None:
    encoder = load_encoder(exported, sensors=["s1"], image_px=96)
    with torch.inference_mode():
        assert encoder.forward_features(torch.zeros(1, 2, 96, 96), "s1").shape[1:3] == (12, 12)
    with pytest.raises(ConfigError, match="not a multiple of the encoder's stride"):
        load_encoder(exported, image_px=50)


def test_a_run_that_is_exported_for_another_size_keeps_the_scale_of_its_position_biases(
    run_dir: Path, exported: Path, tmp_path: Path
) -> None:
    export_run(run_dir, tmp_path / "small", ("data.image_px=24",))
    image = torch.randn(2, 2, 24, 24, generator=torch.Generator().manual_seed(0)) * 5 - 12
    with torch.inference_mode():
        found = [
            load_encoder(folder, "s1", image_px).forward_features(image, "s1")
            for folder, image_px in ((exported, None), (exported, 24), (tmp_path / "small", None))
        ]
    attention = load_encoder(tmp_path / "small").encoder.layers[1].blocks[0].attn
    assert (attention.window_size, attention.pretrained_window_size) == ((3, 3), (6, 6))
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_loads_with_torch_timm_and_safetensors_alone(exported: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ALONE, str(exported)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[(1, 48), (1, 48)]"


def test_the_card_and_the_configuration_tell_of_the_model(exported: Path) -> None:
    card = (exported / "README.md").read_text()
    assert card.startswith("---\nlicense: other\n")
    assert "load_encoder" in card
    assert "| s1 | VV, VH |" in card
    config = json.loads((exported / "config.json").read_text())
    assert (config["format"], config["version"], config["trained"]["steps"]) == ("gfm-model", 1, 4)
    assert str(exported.parent.parent) not in card + json.dumps(config["model"])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("missing", r"missing: mask_token_D \[24\]"),
        ("unexpected", r"unexpected: extra \[1\]"),
        ("shape", r"another shape: mask_token_D is \[1\], expected \[24\]"),
        ("version", "reads 'gfm-model', version 1"),
        ("torn", "cannot read"),
        ("empty", "cannot read"),
    ],
)
def test_damage_is_named(exported: Path, tmp_path: Path, damage: str, message: str) -> None:
    config, weights = (exported / "config.json").read_text(), exported / "model.safetensors"
    tensors = load_file(weights)
    if damage == "missing":
        tensors.pop("mask_token_D")
    elif damage == "unexpected":
        tensors["extra"] = torch.zeros(1)
    elif damage == "shape":
        tensors["mask_token_D"] = torch.zeros(1)
    elif damage == "version":
        config = config.replace('"version": 1', '"version": 2')
    elif damage == "empty":
        config = ""
    (tmp_path / "config.json").write_text(config)
    save_file(tensors, tmp_path / "model.safetensors")
    if damage == "torn":
        (tmp_path / "model.safetensors").write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=message):
        load_pretrained(tmp_path)


def test_dense(run_dir: Path, tmp_path: Path) -> None:
    done = export_run(run_dir, tmp_path / "dense", dense=True, batches=2)
    assert done.merged is not None
    assert (done.merged.layers, done.merged.experts) == (2, 4)
    loaded = load_pretrained(tmp_path / "dense").model
    assert not list(loaded.moe_layers())
    card = (tmp_path / "dense" / "README.md").read_text()
    for direction, loss in done.merged.loss_after.items():
        assert f"| {direction} | {done.merged.loss_before[direction]:.4f} | {loss:.4f} |" in card
    with pytest.raises(UsageError, match="exists already"):
        export_run(run_dir, tmp_path / "dense")


def test_embeddings_of_a_collection(exported: Path, demo_shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "found.parquet"
    words = ("--model", exported, "--collection", demo_shards / "sen12ms", "--out", out)
    run_gfm("embed", *words, "--sensors", "s1,s2", "--batch", "5")
    table = pq.read_table(out)
    keys = pq.read_table(demo_shards / "sen12ms" / "catalog.parquet", columns=["key", "sensors"]).to_pylist()
    expected = {row["key"] for row in keys if {"s1", "s2"} <= set(row["sensors"])}
    assert set(table["key"].to_pylist()) == expected
    assert table.num_rows == len(expected)
    assert all(len(row) == 48 for name in ("s1", "s2") for row in table[name].to_pylist())
    assert len({tuple(row) for row in table["s2"].to_pylist()}) == len(expected)
    with pytest.raises(UsageError, match="exists already"):
        embed_collection(exported, str(demo_shards / "sen12ms"), out)
    for sensors, message in ((("s3",), "knows no sensor 's3'"), (("dsm",), "no sensor 'dsm'")):
        with pytest.raises(GfmError, match=message):
            embed_collection(exported, str(demo_shards / "sen12ms"), tmp_path / "x.parquet", sensors)
    assert not list(tmp_path.glob(".tmp-*"))
