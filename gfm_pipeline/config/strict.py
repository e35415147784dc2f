"""YAML and JSON in which nothing is said twice: of a key that is written again, parsers silently keep the last value.

A document may come from anywhere, so one that is nested beyond reason is an error of the document, too.
"""

from __future__ import annotations

import json
from collections.abc import Hashable
from typing import Any, NoReturn

import yaml

_MERGE = "tag:yaml.org,2002:merge"


def load_yaml(text: str) -> Any:
    """Return the one document in `text`; raise yaml.YAMLError, with line numbers, for a key that a mapping repeats.

    What `<<: *anchor` brings in may be said again beside it: that is what a merge is for.
    """
    try:
        return yaml.load(text, _StrictLoader)  # noqa: S506  # a SafeLoader
    except RecursionError:
        raise yaml.YAMLError("it is nested too deeply to be read") from None
    except ValueError as error:  # a date such as 2020-13-45, a number of thousands of digits
        raise yaml.YAMLError(str(error)) from error


def load_json(data: bytes | str, constants: bool = False) -> Any:
    """Return the value in `data`; raise ValueError for a repeated key, or nesting beyond reason.

    NaN and infinity, which Python writes and JSON does not know, are refused unless `constants`.
    """
    try:
        return json.loads(data, object_pairs_hook=_object, parse_constant=float if constants else _refuse_constant)
    except RecursionError:
        raise ValueError("it is nested too deeply to be read") from None


class _StrictLoader(yaml.SafeLoader):
    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Bring in what `<<` names: keys written here win, then those of the mapping that is named first.

        PyYAML compares keys by the identity of strings there, and takes the last of several mappings.
        """
        if getattr(node, "flat", False):
            return  # an anchor that is used again
        node.flat = True  # type: ignore[attr-defined]
        pairs: dict[Hashable, tuple[yaml.Node, yaml.Node]] = {}
        lines: dict[Hashable, int] = {}
        for key_node, value_node in node.value:
            merge = key_node.tag == _MERGE
            key = "<<" if merge else self.construct_object(key_node, deep=True)
            line = key_node.start_mark.line + 1
            if not isinstance(key, Hashable):
                raise _refusal(f"line {line} has {key!r} for a key, expected a plain value")
            if key in lines:
                advice = "write <<: [*one, *other] instead" if merge else "remove one of them"
                raise _refusal(f"key {key!r} stands in line {lines[key]} and again in line {line}; {advice}")
            lines[key] = line
            pairs = {**self._merged(value_node), **pairs} if merge else {**pairs, key: (key_node, value_node)}
        node.value = list(pairs.values())

    def _merged(self, node: yaml.Node) -> dict[Hashable, tuple[yaml.Node, yaml.Node]]:
        named = node.value if isinstance(node, yaml.SequenceNode) else [node]
        pairs: dict[Hashable, tuple[yaml.Node, yaml.Node]] = {}
        for source in named:
            if not isinstance(source, yaml.MappingNode):
                line = source.start_mark.line + 1
                raise _refusal(f"'<<' in line {line} brings in no mapping, expected one or a list of them")
            self.flatten_mapping(source)
            for pair in source.value:
                pairs.setdefault(self.construct_object(pair[0], deep=True), pair)
        return pairs


def _refusal(text: str) -> yaml.constructor.ConstructorError:
    return yaml.constructor.ConstructorError(None, None, text, None)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    tree = dict(pairs)
    if len(tree) != len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"key {next(key for key in keys if keys.count(key) > 1)!r} stands twice in one object")
    return tree


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON value")
