"""The architecture, held by the imports themselves: an import only ever points down."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

LAYERS: list[set[str]] = [
    {"errors", "registry", "command_line"},
    {"config", "sensors", "storage"},
    {"shards"},
    {"data"},
    {"models"},
    {"objectives"},
    {"train", "evaluate", "export", "finetune", "viz", "doctor", "bench"},
    {"cli"},
]
LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}
BUILDER_MAY_USE = set.union(*LAYERS[:3])
DEEPSPEED_ROOMS = ("gfm_pipeline/train/", "gfm_pipeline/models/moe")


def modules(package: str) -> list[Path]:
    return sorted(path for path in (ROOT / package).rglob("*.py"))


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Yield (dotted name, inside a function or a type-checking block) for each import of a module."""
    tree = ast.parse(path.read_text())
    deferred = {
        id(node)
        for outer in ast.walk(tree)
        if isinstance(outer, ast.FunctionDef | ast.AsyncFunctionDef)
        or (isinstance(outer, ast.If) and "TYPE_CHECKING" in ast.unparse(outer.test))
        for node in ast.walk(outer)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, id(node) in deferred) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from ((name, id(node) in deferred) for name in names)


def room_of(dotted: str) -> str | None:
    parts = dotted.split(".")
    return parts[1] if parts[0] == "gfm_pipeline" and len(parts) > 1 and parts[1] in LEVEL else None


@pytest.mark.parametrize("path", modules("gfm_pipeline"), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path: Path) -> None:
    own = path.relative_to(ROOT / "gfm_pipeline").parts[0].removesuffix(".py")
    if own == "__init__":
        return
    assert own in LEVEL, f"{path} is in a room that LAYERS does not list"
    for dotted, _ in imports(path):
        assert not dotted.startswith("shard_builder"), f"{path} imports {dotted}"
        room = room_of(dotted)
        if room is not None:
            assert LEVEL[room] <= LEVEL[own], f"{path} imports {dotted}, which lies above it"


@pytest.mark.parametrize("path", modules("shard_builder"), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_builder_uses_the_lower_layers_only(path: Path) -> None:
    for dotted, _ in imports(path):
        room = room_of(dotted)
        assert room is None or room in BUILDER_MAY_USE, f"{path} imports {dotted}"
        assert dotted.split(".")[0] not in ("torch", "deepspeed", "timm"), f"{path} imports {dotted}"


@pytest.mark.parametrize("path", modules("gfm_pipeline"), ids=lambda path: str(path.relative_to(ROOT)))
def test_deepspeed_is_imported_late_and_in_two_rooms(path: Path) -> None:
    for dotted, deferred in imports(path):
        if dotted.split(".")[0] == "deepspeed":
            assert deferred, f"{path} imports {dotted} at import time"
            assert str(path.relative_to(ROOT)).startswith(DEEPSPEED_ROOMS), f"{path} imports {dotted}"


def test_the_checker_sees_a_violation(tmp_path: Path) -> None:
    module = tmp_path / "bad.py"
    module.write_text("from gfm_pipeline.train.run import run_training\n\ndef f():\n    import deepspeed\n")
    assert [(room_of(name), late) for name, late in imports(module)] == [("train", False), (None, True)]
