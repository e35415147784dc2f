"""A configuration that says only what differs from another: `base: ../msgfm_base.yaml` and the changes.

Mappings are merged key by key, anything else replaces what the base says, and null takes an entry out, as with
`--set`. A base may have a base; its path is relative to the file that names it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from gfm_pipeline.config.strict import load_yaml
from gfm_pipeline.errors import ConfigError

KEY = "base"


def read_tree(path: Path) -> tuple[dict[str, Any], list[Path]]:
    """Return what a YAML file says on top of its bases, and all files that took part, the outermost first.

    Raises ConfigError for a file that cannot be read or parsed, a base that is no path, or files that extend each
    other.
    """
    return _read(path, [])


def _read(path: Path, above: list[Path]) -> tuple[dict[str, Any], list[Path]]:
    asked_by = f" (the base of {above[-1]})" if above else ""
    if path.resolve() in [other.resolve() for other in above]:
        chain = " -> ".join(str(other) for other in [*above, path])
        raise ConfigError(f"configurations extend each other in a circle: {chain}. Take one '{KEY}' out.")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"cannot read the configuration {path}{asked_by}: {error}. Give an existing YAML file."
        ) from error
    try:
        tree = load_yaml(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if tree is None:
        tree = {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} holds a {type(tree).__name__} at its top level, expected a mapping of sections.")
    if KEY not in tree:
        return tree, [path]
    base = tree.pop(KEY)
    if not isinstance(base, str):
        raise ConfigError(f"{path}: '{KEY}' is {base!r}, expected the path of a YAML file.")
    below, files = _read(path.parent / base, [*above, path])
    return merge(below, tree), [path, *files]


def merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Return `below` with the entries of `above` laid over it; null takes an entry out."""
    out = dict(below)
    for key, value in above.items():
        if value is None:
            out.pop(key, None)
        elif isinstance(value, dict):
            under = out.get(key)
            out[key] = merge(under if isinstance(under, dict) else {}, value)
        else:
            out[key] = value
    return out
