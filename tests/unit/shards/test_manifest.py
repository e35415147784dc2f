"""Documents of another kind, version or shape are refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gfm_pipeline.errors import ShardError
from gfm_pipeline.shards.manifest import load_manifest, load_sidecar
from gfm_pipeline.storage import LocalStore

SIDECAR: dict[str, Any] = {
    "format": "gfm-shard",
    "version": 1,
    "name": "x-000000",
    "sensors": ["s1"],
    "task_digest": "d",
    "tar_bytes": 1,
    "tar_sha256": "s",
    "samples": [],
    "statistics": {},
}


def put(folder: Path, tree: object) -> LocalStore:
    (folder / "shards").mkdir()
    text = tree if isinstance(tree, str) else json.dumps(tree)
    (folder / "shards" / "x-000000.json").write_text(text)
    return LocalStore(folder)


def test_a_good_sidecar_loads(tmp_path: Path) -> None:
    assert load_sidecar(put(tmp_path, SIDECAR), "x-000000").sensors == ("s1",)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("no json", "is not JSON"),
        ([], "is not a gfm-shard document"),
        ({**SIDECAR, "format": "other"}, "is not a gfm-shard document"),
        ({**SIDECAR, "version": 2}, "format version 2, this program reads version 1"),
        ({**SIDECAR, "name": "y-000000"}, "describes shard y-000000, expected x-000000"),
        ({**SIDECAR, "samples": [{"key": "a"}]}, "breaks the shard contract at 'samples.0."),
        ({**SIDECAR, "extra": 1}, "breaks the shard contract at 'extra'"),
    ],
)
def test_others_are_refused(change: object, words: str, tmp_path: Path) -> None:
    with pytest.raises(ShardError) as caught:
        load_sidecar(put(tmp_path, change), "x-000000")
    assert words in str(caught.value)
    assert "x-000000.json" in str(caught.value)


def test_a_folder_without_manifest_is_no_collection(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match="its build has not finished"):
        load_manifest(LocalStore(tmp_path))
