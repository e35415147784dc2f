"""Read a YAML file, apply `--set` overrides, and check the result against a tree of small frozen types.

An unknown key is an error with its dotted path, the file and the nearest known name. `--set a.b=null` takes the
entry `b` out of `a`, so that a default comes back or an entry of a mapping (a stream, say) is left out.
"""

from __future__ import annotations

import hashlib
import json
import types
import typing
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from gfm_pipeline.config.base import read_tree
from gfm_pipeline.config.strict import load_json, load_yaml
from gfm_pipeline.errors import ConfigError, nearest

M = TypeVar("M", bound=BaseModel)


class StrictModel(BaseModel):
    """A frozen section of a configuration or of a stored document; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def load_config(path: str | Path, model: type[M], overrides: Sequence[str] = ()) -> M:
    """Return `model` as read from the YAML file `path`, and its bases, with `overrides` ("a.b=c") applied.

    Raises ConfigError for a missing or unreadable file, an unknown key, or a value that does not fit.
    """
    tree, files = read_tree(Path(path))
    origin = " on ".join(str(file) for file in files)
    return parse_config(apply_overrides(tree, overrides), model, origin)


def parse_config(tree: dict[str, Any], model: type[M], origin: str) -> M:
    """Return `model` built from `tree`; `origin` names the file in errors. Raises ConfigError."""
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        lines = [_explain(detail, model) for detail in error.errors()]
        raise ConfigError(f"{origin}: " + "; ".join(lines)) from None


def apply_overrides(tree: dict[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """Return a copy of `tree` with every "dotted.key=value" set; values are read as YAML, null removes the entry."""
    try:
        out: dict[str, Any] = load_json(json.dumps(tree, default=str), constants=True)
    except ValueError as error:  # keys that differ in YAML, 1 and "1", and not in what they name
        raise ConfigError(f"the configuration cannot be used: {error}.") from error
    for override in overrides:
        dotted, equals, raw = override.partition("=")
        keys = dotted.strip().split(".")
        if not equals or not all(keys):
            raise ConfigError(f"--set {override!r} is not of the form section.key=value.")
        try:
            value = load_yaml(raw) if raw else ""
        except yaml.YAMLError as error:
            raise ConfigError(f"--set {override!r}: the value is not valid YAML: {_one_line(str(error))}") from error
        node = out
        for key in keys[:-1]:
            child = node.setdefault(key, {})
            if not isinstance(child, dict):
                raise ConfigError(f"--set {override!r}: '{key}' holds {child!r}, not a section; set it as a whole.")
            node = child
        if value is None:
            node.pop(keys[-1], None)
        else:
            node[keys[-1]] = value
    return out


def dump_config(config: BaseModel) -> str:
    """Return the resolved configuration as YAML, defaults included."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def config_digest(config: BaseModel) -> str:
    """Return the sha256 of the resolved configuration, independent of key order and YAML style."""
    text = json.dumps(config.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _explain(detail: Any, model: type[BaseModel]) -> str:
    loc = [str(part) for part in detail["loc"]]
    dotted = ".".join(loc) or "(top level)"
    if detail["type"] == "extra_forbidden":
        return f"unknown key '{dotted}'. {nearest(loc[-1], _fields_at(model, loc[:-1]))}"
    if detail["type"] == "missing":
        return f"'{dotted}' is required and not set."
    message = detail["msg"].removeprefix("Value error, ")
    value = repr(detail.get("input"))
    found = f" (found {value if len(value) <= 80 else value[:77] + '...'})" if detail["type"] != "value_error" else ""
    return f"'{dotted}': {message}{found}"


def _fields_at(model: type[BaseModel], loc: Sequence[str]) -> list[str]:
    current: Any = model
    for key in loc:
        if isinstance(current, type) and issubclass(current, BaseModel) and key in current.model_fields:
            current = _inner(current.model_fields[key].annotation)
        # otherwise `key` is an entry of a mapping or list whose value type is already `current`
    if isinstance(current, type) and issubclass(current, BaseModel):
        return list(current.model_fields)
    return []


def _inner(annotation: Any) -> Any:
    """Return the model inside `dict[str, Model]`, `tuple[Model, ...]`, `Model | None`; else the annotation."""
    origin = typing.get_origin(annotation)
    if origin in (dict, list, tuple, typing.Union, types.UnionType, typing.Annotated):
        for argument in typing.get_args(annotation):
            inner = _inner(argument)
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                return inner
    return annotation


def _one_line(text: str) -> str:
    return " ".join(text.split())
