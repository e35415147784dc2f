"""The exported encoder treats pixels as training does, and images of any size as a model built for that size."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from timm.models.swin_transformer_v2 import SwinTransformerV2

from gfm_pipeline.errors import CheckpointError, ConfigError
from gfm_pipeline.export.embed import embed_collection
from gfm_pipeline.export.pretrained import load_encoder, load_pretrained
from gfm_pipeline.models.config import EncoderConfig, ModelConfig, MoEConfig
from gfm_pipeline.models.msgfm import SensorImages
from gfm_pipeline.sensors import BUILTIN_SENSORS, SensorSpec
from tests.make_collection import make_collection
from tests.make_export import make_export

DSM = BUILTIN_SENSORS["dsm"].model_copy(update={"nodata": -9999.0})
S2 = BUILTIN_SENSORS["s2"].model_copy(update={"nodata": 0.0})
DEPTH = SensorSpec(name="depth", bands=("a", "b"), dtype="int32", units="m", nodata=2147483647.0)
RATIO = SensorSpec(name="ratio", bands=("r",), dtype="float32", units="1", nodata=0.1)
SPECS = (DSM, S2, DEPTH, RATIO)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    make_export(folder, SPECS)
    return folder


def test_features_are_those_of_gfm_embed(exported: Path, tmp_path: Path) -> None:
    """The loader of training and the encoder that is loaded see the same pixels, whatever is missing in them."""
    rng = np.random.default_rng(0)
    samples = []
    for number in range(6):
        rasters = {s.name: (rng.random((len(s.bands), 32, 32)) * 60 + 70).astype(s.dtype) for s in SPECS}
        for spec in SPECS:
            assert spec.nodata is not None
            hole = rng.random((len(spec.bands), 32, 32)) < 0.2
            rasters[spec.name][hole] = spec.nodata
        rasters["dsm"][0, :3] = np.nan
        rasters["depth"][:, 5, 5] = 2147483646  # float32 cannot tell it from nodata; it was measured
        samples.append((f"place{number}", rasters))
    make_collection(tmp_path / "c", samples, SPECS)
    embed_collection(exported, str(tmp_path / "c"), tmp_path / "out.parquet", batch_samples=4)
    found = {row["key"]: row for row in pq.read_table(tmp_path / "out.parquet").to_pylist()}
    encoder = load_encoder(exported)
    with torch.inference_mode():
        for key, rasters in samples:
            ours = encoder({name: torch.from_numpy(raster)[None] for name, raster in rasters.items()})
            for name, features in ours.items():
                np.testing.assert_allclose(features[0].numpy(), found[key][name], atol=2e-6, err_msg=f"{key} {name}")


@pytest.mark.parametrize(
    ("sensor", "dtype"),
    [
        *(("dsm", dtype) for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int32)),
        *(("s2", dtype) for dtype in (torch.uint16, torch.uint8, torch.int16, torch.int64, torch.float32)),
        *(("depth", dtype) for dtype in (torch.int32, torch.int64, torch.float64, torch.uint32)),
        *(("ratio", dtype) for dtype in (torch.float32, torch.float64, torch.float16)),
    ],
)
def test_nodata_becomes_the_mean_in_any_type(exported: Path, sensor: str, dtype: torch.dtype) -> None:
    encoder = load_encoder(exported, [sensor])
    (spec,) = (spec for spec in SPECS if spec.name == sensor)
    assert spec.nodata is not None
    image = torch.full((1, len(spec.bands), 32, 32), 120, dtype=torch.float64)
    image[0, 0, 3, 4] = spec.nodata if dtype.is_floating_point else int(spec.nodata)
    seen = encoder.normalise(image.to(dtype), sensor)
    assert seen[0, 0, 3, 4] == 0
    assert int((seen == 1).sum()) == seen.numel() - 1


def test_any_of_several_nodata_values_becomes_the_mean(tmp_path: Path) -> None:
    """Collections of the training may each have had their own; an export from before they were listed names one."""
    make_export(tmp_path, SPECS)
    config = json.loads((tmp_path / "config.json").read_text())
    config["sensors"]["dsm"] |= {"nodata": None, "nodata_values": [-32768.0, -9999.0, 0.1]}
    config["sensors"]["s2"]["nodata_values"] = []
    (tmp_path / "config.json").write_text(json.dumps(config))
    encoder = load_encoder(tmp_path)
    assert encoder.nodata["s2"] == 0
    image = torch.full((1, 1, 32, 32), 120, dtype=torch.float64)
    image[0, 0, 0, :5] = torch.tensor([-32768, -9999, 0.1, math.nan, -1], dtype=torch.float64)
    assert (encoder.normalise(image, "dsm")[0, 0, 0, :5] == 0).tolist() == [True] * 4 + [False]
    assert (encoder.normalise(image.nan_to_num().to(torch.int32), "dsm")[0, 0, 0, :2] == 0).all()
    encoder.nodata["dsm"] = ()
    assert (encoder.normalise(image, "dsm") == 0).sum() == 1  # NaN
    for wrong in ("-9999", [None], [math.inf], {"a": 1}):
        config["sensors"]["dsm"]["nodata_values"] = wrong
        (tmp_path / "config.json").write_text(json.dumps(config))
        with pytest.raises(CheckpointError, match=r"sensors\.dsm\.nodata_values is .* expected a list of numbers"):
            load_encoder(tmp_path)


def test_a_number_beside_nodata_is_a_pixel(exported: Path) -> None:
    encoder = load_encoder(exported, ["depth", "dsm"])
    assert float(encoder.normalise(torch.full((1, 2, 32, 32), 2147483646, dtype=torch.int32), "depth").min()) > 1e7
    assert float(encoder.normalise(torch.full((1, 1, 32, 32), -9998.5), "dsm").max()) < -500
    encoder.nodata["dsm"] = -1.0
    assert float(encoder.normalise(torch.full((1, 1, 32, 32), -1), "dsm").abs().max()) == 0


def test_what_is_no_tensor_and_no_sensor_is_refused(exported: Path) -> None:
    encoder = load_encoder(exported, ["dsm"])
    with pytest.raises(TypeError, match="images of dsm are a ndarray, expected a tensor"):
        encoder({"dsm": np.zeros((1, 1, 32, 32), np.float32)})  # type: ignore[dict-item]
    for call in (encoder.forward_features, encoder.forward_intermediates, encoder.normalise):
        with pytest.raises(ValueError, match="loaded for dsm, not for s2"):
            call(torch.zeros(1, 13, 32, 32), "s2")


def test_shapes_that_are_no_images_are_refused(exported: Path) -> None:
    encoder = load_encoder(exported, ["dsm"])
    for shape in ((1, 3, 1, 32, 32), (1, 32, 32), (1, 2, 32, 32), (32,)):
        with pytest.raises(ValueError, match=r"expected \[B,1,H,W\] with the bands height"):
            encoder({"dsm": torch.zeros(shape)})


PYRAMID = ModelConfig(
    encoder=EncoderConfig(embed_dim=8, depths=(2, 2, 2, 2), num_heads=(1, 2, 2, 4), window=12),
    moe=MoEConfig(num_experts=2, blocks={3: (1,)}),
)
SIZES = [(side, side) for side in (32, 64, 96, 128, 160, 192, 224, 288, 384)] + [(64, 192), (192, 224), (320, 32)]


@pytest.fixture(scope="module")
def pyramid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of 192 px with the windows of the papers' encoder, 12, 12, 12 and 6."""
    folder = tmp_path_factory.mktemp("pyramid")
    make_export(folder, [DSM], PYRAMID, 192)
    return folder


@pytest.mark.parametrize("size", SIZES)
def test_any_size_is_seen_as_by_a_model_built_for_it(pyramid: Path, size: tuple[int, int]) -> None:
    image = torch.randn(1, 1, *size, generator=torch.Generator().manual_seed(0)) * 20 + 100
    encoder = load_encoder(pyramid, "dsm")
    with torch.inference_mode():
        maps = encoder.forward_intermediates(image, "dsm")
        found = encoder.forward_features(image, "dsm")
        torch.testing.assert_close(found.permute(0, 3, 1, 2), maps[-1], atol=0, rtol=0)
        for reference, ours in zip(timms_maps(pyramid, image), maps, strict=True):
            torch.testing.assert_close(ours, reference, atol=1e-6, rtol=0)
        if size[0] == size[1]:
            built = load_encoder(pyramid, ["dsm"], image_px=size[0])
            assert built.encoder.layers[0].blocks[0].input_resolution == (size[0] // 4, size[0] // 4)
            torch.testing.assert_close(built.forward_features(image, "dsm"), found, atol=0, rtol=0)


def timms_maps(folder: Path, image: torch.Tensor) -> list[torch.Tensor]:
    """The maps of all stages by timm's own model for images of that size; the experts are put into its blocks."""
    model = load_pretrained(folder).model
    swin = SwinTransformerV2(
        img_size=tuple(image.shape[-2:]),
        in_chans=1,
        num_classes=0,
        embed_dim=8,
        depths=(2, 2, 2, 2),
        num_heads=(1, 2, 2, 4),
        window_size=12,
        pretrained_window_sizes=(12, 12, 12, 6),
    ).eval()
    swin.layers[2].blocks[1].mlp = model.encoder.block(3, 1).mlp
    missing, unexpected = swin.load_state_dict(model.encoder.state_dict(), strict=False)
    assert not unexpected
    assert all(name.startswith("patch_embed") for name in missing)
    x = model.embeds["dsm"]((image - 100) / 20, None, model.mask_token_D)
    maps = []
    for stage in swin.layers:
        x = stage(x)
        maps.append(x)
    maps[-1] = swin.norm(maps[-1])
    return [found.permute(0, 3, 1, 2) for found in maps]


def test_scale_of_the_position_bias_is_that_of_training(pyramid: Path) -> None:
    small = load_encoder(pyramid, ["dsm"], image_px=128)
    attentions = [layer.blocks[0].attn for layer in small.encoder.layers]
    assert [attention.window_size[0] for attention in attentions] == [12, 12, 8, 4]
    assert [attention.pretrained_window_size[0] for attention in attentions] == [12, 12, 12, 6]


def test_other_sizes_leave_nothing_behind(pyramid: Path) -> None:
    encoder = load_encoder(pyramid, ["dsm"])
    generator = torch.Generator().manual_seed(0)
    small, large = (torch.randn(1, 1, side, side, generator=generator) * 20 + 100 for side in (192, 256))
    before = encoder.forward_features(small, "dsm")
    state = {name: value.clone() for name, value in encoder.state_dict().items()}
    with torch.inference_mode():
        encoder.forward_features(large, "dsm")
    out = encoder.forward_features(large, "dsm")
    out.square().sum().backward()
    assert all(torch.equal(value, encoder.state_dict()[name]) for name, value in state.items())
    assert all(parameter.grad is not None for parameter in encoder.encoder.layers[0].parameters())
    assert torch.equal(encoder.forward_features(small, "dsm"), before)


@pytest.mark.parametrize("size", [(48, 48), (144, 144), (192, 190), (200, 192), (0, 0), (31, 32)])
def test_sizes_that_the_stages_do_not_divide_are_refused_by_name(pyramid: Path, size: tuple[int, int]) -> None:
    encoder = load_encoder(pyramid, ["dsm"])
    with pytest.raises(ConfigError, match=rf"images of dsm of {size[0]} x {size[1]} px do not fit: image_px must be"):
        encoder({"dsm": torch.zeros(1, 1, *size)})
    with pytest.raises(ConfigError, match="image_px"):
        encoder.forward_intermediates(torch.zeros(1, 1, *size), "dsm", normalise=False)
    with pytest.raises(ConfigError, match="image_px"):
        load_pretrained(pyramid).model.encode([SensorImages("dsm", torch.zeros(1, 1, *size))])
    if size[0] == size[1]:
        with pytest.raises(ConfigError, match="image_px"):
            load_encoder(pyramid, image_px=size[0])
