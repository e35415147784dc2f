"""What config.json of an exported model says, checked and complete, without the libraries that training checks with.

Training and this file describe one thing, so a test compares them: the same options, the same defaults, the same
choices. An option that an older export does not have takes training's default, which is what the model was made with.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from gfm_pipeline.errors import nearest

LARGEST = 2**16
"""No count or size of a model comes near it; what is beyond would end in a lack of memory."""


class Damaged(ValueError):
    """What is wrong with config.json, and where in it."""


@dataclass(frozen=True)
class Option:
    """An option of a section: what it is where nothing is said, and what it may be."""

    default: Any
    expected: str
    holds: Callable[[Any], bool]


def _is_whole(value: Any, least: int = 1, most: int = LARGEST) -> bool:
    return type(value) is int and least <= value <= most


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _are_wholes(value: Any, least: int = 1) -> bool:
    return isinstance(value, list) and all(_is_whole(entry, least) for entry in value)


def _are_blocks(value: Any) -> bool:
    return isinstance(value, dict) and all(
        re.fullmatch(r"[1-9]\d{0,3}", str(stage)) and _are_wholes(blocks, 0) for stage, blocks in value.items()
    )


def _whole(default: int, least: int = 1, most: int = LARGEST) -> Option:
    return Option(default, f"a whole number from {least} to {most}", lambda value: _is_whole(value, least, most))


def _number(default: float) -> Option:
    return Option(default, "a number that is not negative", lambda value: _is_number(value) and value >= 0)


def _wholes(*default: int) -> Option:
    return Option(list(default), f"a list of whole numbers from 1 to {LARGEST}", _are_wholes)


def _choice(*names: str) -> Option:
    """The first of `names` is the default."""
    return Option(names[0], f"one of {', '.join(names)}", lambda value: value in names)


SECTIONS: dict[str, dict[str, Option]] = {
    "embed": {"kind": _choice("conv", "linear"), "stem_channels": _whole(32)},
    "encoder": {
        "patch_px": _whole(4),
        "embed_dim": _whole(128),
        "depths": _wholes(2, 2, 18, 2),
        "num_heads": _wholes(4, 8, 16, 32),
        "window": _whole(12, most=256),
        "mlp_ratio": _number(4.0),
        "drop_path": _number(0.0),
        "attention": _choice("auto", "sdpa", "timm"),
        "activation_checkpointing": Option(False, "true or false", lambda value: isinstance(value, bool)),
        "pretrained_window": _wholes(),
        "init": Option(None, "null: the weights are in the file", lambda value: value is None),
    },
    "moe": {
        "num_experts": _whole(8),
        "blocks": Option(
            {"3": [1, 3, 5, 7, 9, 11, 13, 15, 17]}, "lists of blocks (from 0) by stage (from 1)", _are_blocks
        ),
        "capacity_factor": _number(1.25),
        "min_capacity": _whole(4, 0),
        "aux_weight": _number(0.01),
        "aux_loss": _choice("load_balance", "importance", "importance_load"),
        "top_k": Option(1, "1 or 2", lambda value: type(value) is int and value in (1, 2)),
        "noise": _choice("none", "jitter", "rsample", "gaussian"),
        "selection": _choice("random", "first", "priority"),
        "compute": _choice("auto", "grouped", "padded"),
    },
}
"""The options of a model, by section, as config.json writes them."""

Nodata = float | tuple[float, ...] | None

_DERIVED = {"stride_px", "num_features"}
"""Of the encoder, for the reader of the file: computed from the others."""


class Settings(SimpleNamespace):
    """Values by attribute, nested."""

    def model_copy(self, update: dict[str, Any]) -> Settings:
        """Return a copy with some values replaced."""
        return Settings(**{**vars(self), **update})


def completed(config: dict[str, Any]) -> dict[str, Any]:
    """Return config.json with every option of the model filled in; raise Damaged for what cannot be a model."""
    model = _mapping(config.get("model"), "model")
    _refuse_unknown(model, SECTIONS, "model")
    sections = {name: _section(model.get(name, {}), name) for name in SECTIONS}
    encoder, moe = sections["encoder"], sections["moe"]
    _check_stages(encoder, moe)
    stages = len(encoder["depths"])
    encoder["stride_px"] = encoder["patch_px"] * 2 ** (stages - 1)
    encoder["num_features"] = encoder["embed_dim"] * 2 ** (stages - 1)
    if not _is_whole(config.get("image_px"), most=16384) or config["image_px"] % encoder["stride_px"]:
        raise Damaged(
            f"image_px is {config.get('image_px')!r}, expected a multiple of {encoder['stride_px']}, the stride"
        )
    _check_sensors(config)
    return {**config, "model": sections}


def trained_windows(config: dict[str, Any]) -> tuple[int, ...]:
    """Return, by stage, the windows that the position biases of a completed config.json were learned on."""
    encoder = config["model"]["encoder"]
    sides = [config["image_px"] // (encoder["patch_px"] * 2**stage) for stage in range(len(encoder["depths"]))]
    return tuple(encoder["pretrained_window"]) or tuple(min(encoder["window"], side) for side in sides)


def anchors(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return shapes of some parameters by name; all sizes of the model but window and image follow from them."""
    encoder, moe = config["model"]["encoder"], config["model"]["moe"]
    found: dict[str, tuple[int, ...]] = {"mask_token_D": (encoder["embed_dim"],)}
    for stage, depth in enumerate(encoder["depths"]):
        dim, path = encoder["embed_dim"] * 2**stage, f"encoder.layers.{stage}.blocks"
        found[f"{path}.{depth - 1}.attn.proj.weight"] = (dim, dim)
        sparse = moe["blocks"].get(str(stage + 1), []) if moe["num_experts"] > 1 else []
        hidden = (int(dim * encoder["mlp_ratio"]),)
        found[f"{path}.0.mlp.{'experts.0.' if 0 in sparse else ''}fc1.bias"] = hidden
        for block in sparse[:1]:
            found[f"{path}.{block}.mlp.experts.{moe['num_experts'] - 1}.fc1.bias"] = hidden
    if config["model"]["embed"]["kind"] == "conv":
        channels = config["model"]["embed"]["stem_channels"]
        for name, spec in config["sensors"].items():
            found[f"embeds.{name}.stem.weight"] = (channels, len(spec["bands"]), 3, 3)
    return found


def model_settings(config: dict[str, Any], pretrained_window: tuple[int, ...]) -> Settings:
    """Return the model section of a completed config.json by attributes, for weights of those windows."""
    sections: dict[str, dict[str, Any]] = {
        name: {key: tuple(value) if isinstance(value, list) else value for key, value in config["model"][name].items()}
        for name in SECTIONS
    }
    sections["encoder"]["pretrained_window"] = pretrained_window
    blocks: dict[str, list[int]] = config["model"]["moe"]["blocks"]
    sections["moe"]["blocks"] = {int(stage): tuple(indices) for stage, indices in blocks.items()}
    return Settings(**{name: Settings(**section) for name, section in sections.items()})


def declared_nodata(spec: dict[str, Any]) -> Nodata:
    """Return what says "nothing was measured here" in an entry of `sensors`: a value, several, or None for NaN alone.

    Collections of the training may each have had a value of their own; older exports have no more than one.
    """
    several = tuple(spec.get("nodata_values") or ())
    return several if len(several) > 1 else spec.get("nodata")


def _section(given: Any, name: str) -> dict[str, Any]:
    where = f"model.{name}"
    given = _mapping(given, where)
    _refuse_unknown(given, SECTIONS[name].keys() | (_DERIVED if name == "encoder" else set()), where)
    out = {}
    for key, option in SECTIONS[name].items():
        out[key] = given.get(key, option.default)
        if not option.holds(out[key]):
            raise Damaged(f"{where}.{key} is {out[key]!r}, expected {option.expected}")
    return out


def _check_stages(encoder: dict[str, Any], moe: dict[str, Any]) -> None:
    depths, heads = encoder["depths"], encoder["num_heads"]
    if not 1 <= len(depths) <= 8 or len(heads) != len(depths):
        raise Damaged(f"model.encoder.depths names {len(depths)} stages (1 to 8), num_heads {len(heads)}")
    if encoder["pretrained_window"] and len(encoder["pretrained_window"]) != len(depths):
        raise Damaged(
            f"model.encoder.pretrained_window is {encoder['pretrained_window']}, expected {len(depths)} windows"
        )
    for stage, number in enumerate(heads):
        if (encoder["embed_dim"] * 2**stage) % number:
            raise Damaged(
                f"model.encoder: {encoder['embed_dim'] * 2**stage} channels in stage {stage + 1}, {number} heads"
            )
    if not encoder["mlp_ratio"] or encoder["drop_path"] >= 1:
        raise Damaged("model.encoder.mlp_ratio is 0 or drop_path is not below 1")
    named: dict[str, list[int]] = moe["blocks"] if moe["num_experts"] > 1 else {}
    for of_stage, blocks in named.items():
        if int(of_stage) > len(depths) or any(block >= depths[int(of_stage) - 1] for block in blocks):
            raise Damaged(
                f"model.moe.blocks names blocks {blocks} of stage {of_stage}, model.encoder.depths is {depths}"
            )


def _check_sensors(config: dict[str, Any]) -> None:
    sensors, normalisation = (_mapping(config.get(name), name) for name in ("sensors", "normalisation"))
    if not sensors:
        raise Damaged("sensors names none")
    for name, spec in sensors.items():
        where = f"sensors.{name}"
        if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
            raise Damaged(f"{where} is no name of a sensor")
        bands = _mapping(spec, where).get("bands")
        if not isinstance(bands, list) or not bands or not all(isinstance(band, str) for band in bands):
            raise Damaged(f"{where}.bands is {bands!r}, expected names of bands")
        if not isinstance(spec.get("units"), str):
            raise Damaged(f"{where}.units is {spec.get('units')!r}, expected text")
        if spec.get("nodata") is not None and not _is_number(spec["nodata"]):
            raise Damaged(f"{where}.nodata is {spec['nodata']!r}, expected a number or null")
        several = spec.get("nodata_values", [])
        if not isinstance(several, list) or not all(map(_is_number, several)):
            raise Damaged(f"{where}.nodata_values is {several!r}, expected a list of numbers")
        moments = _mapping(normalisation.get(name), f"normalisation.{name}")
        for kind in ("mean", "std"):
            values: Any = moments.get(kind)
            usable = isinstance(values, list) and len(values) == len(bands) and all(map(_is_number, values))
            if not usable or (kind == "std" and min(values) <= 0):
                raise Damaged(
                    f"normalisation.{name}.{kind} is {values!r}, expected a number for each of {len(bands)} bands"
                    f"{' above 0' if kind == 'std' else ''}"
                )


def _mapping(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Damaged(f"{where} is {'missing' if value is None else repr(value)[:80]}, expected a mapping")
    return value


def _refuse_unknown(given: dict[str, Any], known: Iterable[str], where: str) -> None:
    for name in given:
        if name not in known:
            raise Damaged(
                f"{where}.{name} is unknown: an option of a newer program, without which the model is another. "
                f"{nearest(name, known)}"
            )
