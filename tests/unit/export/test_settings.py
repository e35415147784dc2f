"""Exports of any time load as training would read them, and what is no export is refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
import torch
from safetensors.torch import load_file, save_file

from gfm_pipeline.errors import CheckpointError, ConfigError
from gfm_pipeline.export.pretrained import load_encoder, load_pretrained
from gfm_pipeline.export.settings import SECTIONS
from gfm_pipeline.models.config import EmbedConfig, EncoderConfig, ModelConfig, MoEConfig
from gfm_pipeline.models.msgfm import MsGFM
from gfm_pipeline.sensors import BUILTIN_SENSORS
from tests.make_export import make_export

CONFIGS = {"embed": EmbedConfig, "encoder": EncoderConfig, "moe": MoEConfig}
OPTIONS = [(section, name) for section, config in CONFIGS.items() for name in config.model_fields]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    make_export(folder, [BUILTIN_SENSORS["s1"], BUILTIN_SENSORS["dsm"]])
    return folder


def changed(source: Path, folder: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    """Copy an export with another config.json."""
    folder.mkdir(exist_ok=True)
    config = json.loads((source / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes((source / "model.safetensors").read_bytes())
    return folder


def test_options_defaults_and_choices_are_those_of_training() -> None:
    defaults = ModelConfig().model_dump(mode="json")
    assert {name: {key: option.default for key, option in part.items()} for name, part in SECTIONS.items()} == {
        section: {
            key: {str(k): v for k, v in value.items()} if isinstance(value, dict) else value for key, value in o.items()
        }
        for section, o in defaults.items()
    }
    for section, name in OPTIONS:
        kind = CONFIGS[section].model_fields[name].annotation
        if get_origin(kind) is Literal:
            option = SECTIONS[section][name]
            assert all(option.holds(value) for value in get_args(kind)), name
            assert set(map(str, get_args(kind))) <= set(option.expected.replace(",", "").split()), name
            assert not option.holds("another")


@pytest.mark.parametrize(("section", "name"), OPTIONS)
def test_an_export_from_before_an_option_loads_with_trainings_default(tmp_path: Path, section: str, name: str) -> None:
    """The model was made with the default, as the option did not exist: the same features."""
    # Values other than the defaults where weights would not fit otherwise.
    sizes = {"depths": (1, 1), "num_heads": (1, 1), "embed_dim": 8, "window": 4}
    default = EncoderConfig.model_fields[name].default if section == "encoder" else None
    if name in ("depths", "num_heads"):
        sizes |= {"depths": (1, 1, 1, 1), "num_heads": (1, 1, 1, 1)} | {name: default}
    if name == "embed_dim":
        sizes |= {"embed_dim": default}
    if name == "num_heads":
        sizes |= {"embed_dim": 32}
    encoder = EncoderConfig(**{key: value for key, value in sizes.items() if key != name or name in sizes})  # type: ignore[arg-type]
    if name == "window":
        encoder = encoder.model_copy(update={"window": default})
    moe = MoEConfig(num_experts=1 if name == "blocks" else 2, blocks={1: (0,)})
    if name == "num_experts":
        moe = moe.model_copy(update={"num_experts": 8})
    config = ModelConfig(encoder=encoder, moe=moe)
    px = encoder.stride_px * 2
    model = make_export(tmp_path / "new", [BUILTIN_SENSORS["s1"]], config, px)
    folder = changed(tmp_path / "new", tmp_path / "old", lambda tree: tree["model"][section].pop(name))
    image = torch.randn(1, 2, px, px, generator=torch.Generator().manual_seed(0)) * 20 + 100
    with torch.inference_mode():
        ours = load_encoder(folder)({"s1": image})["s1"]
        tokens = model.embeds["s1"]((image - 100) / 20, None, model.mask_token_D)
        torch.testing.assert_close(ours, model.encoder(tokens).mean((1, 2)), atol=1e-6, rtol=0)
    assert load_pretrained(folder).config["model"][section][name] == SECTIONS[section][name].default


def test_sections_and_derived_numbers_may_be_absent(exported: Path, tmp_path: Path) -> None:
    def strip(tree: dict[str, Any]) -> None:
        del tree["model"]["embed"], tree["model"]["encoder"]["stride_px"], tree["model"]["encoder"]["num_features"]
        for spec in tree["sensors"].values():
            for name in ("nodata", "quantised", "display", "kind", "gsd_m", "dtype"):
                del spec[name]

    encoder = load_encoder(changed(exported, tmp_path / "old", strip))
    assert encoder({"dsm": torch.zeros(1, 1, 32, 32)})["dsm"].shape == (1, 16)


def put(*path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(tree: dict[str, Any]) -> None:
        for name in path[:-1]:
            tree = tree[name]
        tree[path[-1]] = value

    return change


def drop(*path: str) -> Callable[[dict[str, Any]], None]:
    def change(tree: dict[str, Any]) -> None:
        for name in path[:-1]:
            tree = tree[name]
        del tree[path[-1]]

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("version", value=2), "version 2; this program reads 'gfm-model', version 1"),
        (put("version", value="1"), "version '1'"),
        (put("version", value=True), "version True"),
        (put("version", value=1.0), "version 1.0"),
        (drop("version"), "version None"),
        (put("format", value="other"), "format 'other'"),
        (drop("model"), "model is missing"),
        (put("model", value=[]), r"model is \[\], expected a mapping"),
        (put("model", "moe", value=3), "model.moe is 3, expected a mapping"),
        (put("model", "head", value={}), "model.head is unknown"),
        (put("model", "encoder", "rope", value=True), "model.encoder.rope is unknown: an option of a newer program"),
        (put("model", "encoder", "window", value="12"), "model.encoder.window is '12', expected a whole number"),
        (put("model", "encoder", "window", value=True), "model.encoder.window is True"),
        (put("model", "encoder", "window", value=10**9), "model.encoder.window is 1000000000"),
        (put("model", "encoder", "depths", value=[2]), "names 1 stages"),
        (put("model", "encoder", "depths", value=[1] * 9), "names 9 stages"),
        (put("model", "encoder", "depths", value=None), "model.encoder.depths is None"),
        (put("model", "encoder", "num_heads", value=[3, 2]), "8 channels in stage 1, 3 heads"),
        (put("model", "encoder", "mlp_ratio", value=0), "mlp_ratio is 0"),
        (put("model", "encoder", "mlp_ratio", value="4"), "model.encoder.mlp_ratio is '4'"),
        (put("model", "encoder", "pretrained_window", value=[4]), r"pretrained_window is \[4\], expected 2 windows"),
        (put("model", "embed", "kind", value="cnn"), "model.embed.kind is 'cnn', expected one of conv, linear"),
        (put("model", "moe", "blocks", value={"2": [7]}), "blocks .7. of stage 2"),
        (put("model", "moe", "blocks", value={"two": [0]}), "model.moe.blocks is"),
        (put("model", "moe", "blocks", value=[1]), "model.moe.blocks is"),
        (put("model", "moe", "noise", value="loud"), "expected one of none, jitter"),
        (put("image_px", value=30), "image_px is 30, expected a multiple of 8"),
        (drop("image_px"), "image_px is None"),
        (put("sensors", value={}), "sensors names none"),
        (put("sensors", "s1", value=None), "sensors.s1 is missing"),
        (put("sensors", "x.y", value={}), "sensors.x.y is no name of a sensor"),
        (drop("sensors", "s1", "bands"), "sensors.s1.bands is None"),
        (put("sensors", "s1", "bands", value=["VV"]), "normalisation.s1.mean is .*a number for each of 1 bands"),
        (put("sensors", "s1", "nodata", value="-9999"), "sensors.s1.nodata is '-9999'"),
        (drop("normalisation"), "normalisation is missing"),
        (drop("normalisation", "dsm"), "normalisation.dsm is missing"),
        (put("normalisation", "dsm", "std", value=[0.0]), "normalisation.dsm.std"),
        (put("normalisation", "dsm", "mean", value=[float("nan")]), "normalisation.dsm.mean"),
    ],
)
def test_what_is_no_configuration_is_named(
    exported: Path, tmp_path: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    folder = changed(exported, tmp_path / "damaged", change)
    with pytest.raises(CheckpointError, match=message):
        load_encoder(folder)


@pytest.mark.parametrize("text", ["", "[]", "{", "null", "\x00", "[" * 100_000, '{"format": "gfm-model"}'])
def test_a_torn_configuration_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        load_encoder(tmp_path)


def test_missing_files_are_named(exported: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"cannot read .*config\.json"):
        load_pretrained(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match=r"cannot read .*config\.json"):
        load_pretrained(exported / "config.json")
    (tmp_path / "config.json").write_bytes((exported / "config.json").read_bytes())
    with pytest.raises(CheckpointError, match=r"cannot read .*model\.safetensors"):
        load_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(CheckpointError, match=r"cannot read .*model\.safetensors"):
        load_pretrained(tmp_path)


def test_weights_of_another_model_are_named(exported: Path, tmp_path: Path) -> None:
    folder = changed(exported, tmp_path / "m", lambda tree: None)
    tensors = load_file(exported / "model.safetensors")
    save_file(tensors, folder / "model.safetensors", {"gfm": "gfm-model-7"})
    with pytest.raises(CheckpointError, match="says it is gfm-model-7"):
        load_pretrained(folder)
    save_file(tensors | {"mask_token_D": torch.zeros(8, dtype=torch.int32)}, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"another type: mask_token_D holds torch\.int32"):
        load_pretrained(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("model", "encoder", "depths", value=[2, 3]), r"missing: encoder\.layers\.1\.blocks\.2\."),
        (put("model", "encoder", "depths", value=[2, 65536]), r"missing: encoder\.layers\.1\.blocks\.65535\."),
        (
            put("model", "encoder", "embed_dim", value=65536),
            r"another shape: mask_token_D is \[8\], expected \[65536\]",
        ),
        (
            put("model", "encoder", "mlp_ratio", value=1e9),
            r"another shape: encoder\.layers\.0\.blocks\.0\.mlp\.fc1\.bias",
        ),
        (put("model", "embed", "stem_channels", value=65536), r"another shape: embeds\.dsm\.stem\.weight"),
        (put("model", "embed", "kind", value="linear"), r"unexpected: embeds\.dsm\.stem\.bias"),
        (
            put("model", "moe", "num_experts", value=65536),
            r"missing: encoder\.layers\.1\.blocks\.1\.mlp\.experts\.65535\.",
        ),
        (put("model", "moe", "num_experts", value=1), r"unexpected: encoder\.layers\.1\.blocks\.1\.mlp\.experts\.0\."),
        (put("model", "moe", "blocks", value={"2": [0]}), r"missing: encoder\.layers\.1\.blocks\.0\.mlp\.experts"),
        (put("model", "moe", "blocks", value={}), r"missing: encoder\.layers\.1\.blocks\.1\.mlp\.fc1\.bias"),
    ],
)
def test_weights_of_other_sizes_are_named_before_any_of_those_is_made(
    exported: Path, tmp_path: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    folder = changed(exported, tmp_path / "m", change)
    with pytest.raises(CheckpointError, match=message):
        load_pretrained(folder)


@pytest.mark.parametrize("image_px", [0, -32, 32.0, "32", True])
def test_an_image_size_that_is_none_is_refused(exported: Path, image_px: Any) -> None:
    with pytest.raises(ConfigError, match="image_px"):
        load_encoder(exported, image_px=image_px)


def test_a_sensor_may_not_be_called_like_a_part_of_torch() -> None:
    spec = BUILTIN_SENSORS["dsm"].model_copy(update={"name": "values"})
    with pytest.raises(ConfigError, match="sensor 'values'"):
        MsGFM(ModelConfig(), {"values": spec}, 192, seed=0)
