"""A model's configuration as plain values: what config.json holds, with the attributes that building a model asks for.

Training checks its configuration with libraries that a user of a trained model need not have.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

_MAPPINGS = ("sensors", "blocks", "normalisation")
"""Entries whose keys are names or numbers of the user's, not attributes."""


class Settings(SimpleNamespace):
    """Values by attribute, nested."""

    def model_copy(self, update: dict[str, Any]) -> Settings:
        """Return a copy with some values replaced."""
        return Settings(**{**vars(self), **update})


def to_settings(tree: dict[str, Any]) -> Settings:
    """Return the nested mapping as attributes; lists become tuples."""
    return Settings(**{name: _value(name, value) for name, value in tree.items()})


def _value(name: str, value: Any) -> Any:
    if isinstance(value, dict):
        if name in _MAPPINGS:
            return {_key(key): _value("", entry) for key, entry in value.items()}
        return to_settings(value)
    return tuple(value) if isinstance(value, list) else value


def _key(text: str) -> str | int:
    return int(text) if text.isdigit() else text
