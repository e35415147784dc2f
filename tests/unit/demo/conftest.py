from __future__ import annotations

from pathlib import Path

import pytest

from shard_builder.demo.families import Request
from shard_builder.demo.write import write_archives

SMALL = Request(places=5, tile_px=48, seed=7)


@pytest.fixture(scope="session")
def demo_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "raw"
    write_archives(folder, SMALL, lambda *progress: None)
    return folder
