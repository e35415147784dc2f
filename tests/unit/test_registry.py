from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gfm_pipeline.errors import ConfigError
from gfm_pipeline.registry import Registry


@pytest.fixture
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry[str]]:
    """A package of three modules: one has the part of its name, one a part of another name, one none at all."""
    (tmp_path / "made_parts").mkdir()
    head = "from made_registry import PARTS\n"
    for name, text in {"__init__": "", "wheel": head + "PARTS.register('wheel')('round')", "helper": ""}.items():
        (tmp_path / "made_parts" / f"{name}.py").write_text(text)
    (tmp_path / "made_parts" / "other.py").write_text(head + "PARTS.register('axle')('long')")
    (tmp_path / "made_registry.py").write_text(
        "from gfm_pipeline.registry import Registry\nPARTS = Registry('part', 'made_parts')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import made_registry

    yield made_registry.PARTS
    for name in [name for name in sys.modules if name.startswith("made_")]:
        del sys.modules[name]


def test_a_part_costs_no_more_than_its_own_module(parts: Registry[str]) -> None:
    assert parts.get("wheel") == "round"
    assert "made_parts.other" not in sys.modules


def test_a_part_may_lie_anywhere(parts: Registry[str]) -> None:
    assert parts.get("axle") == "long"
    assert parts.names() == ["axle", "wheel"]


@pytest.mark.parametrize("name", ["wheels", "helper", "os", "..wheel", ""])
def test_a_name_that_is_none_is_told_with_those_that_are(parts: Registry[str], name: str) -> None:
    with pytest.raises(ConfigError, match=r"no part is called .*wheel"):
        parts.get(name)


def test_a_second_part_of_a_name_is_a_defect(parts: Registry[str]) -> None:
    parts.get("wheel")
    with pytest.raises(ValueError, match="registered twice"):
        parts.register("wheel")("square")


@pytest.mark.parametrize("name", ["", "a.b", "a/b", "a->b", "1a", "a b", "a\n"])
def test_a_name_that_cannot_stand_in_metrics_and_parameters_is_a_defect(name: str) -> None:
    with pytest.raises(ValueError, match="expected a name of letters"):
        Registry[str]("part", "nowhere").register(name)
