"""A run that can be launched: a tiny collection and a configuration of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from gfm_pipeline.sensors import SensorSpec
from tests.make_collection import make_collection, random_samples

RGB = SensorSpec(name="rgb", bands=("R", "G", "B"), dtype="uint8", units="dn", gsd_m=10.0)


@pytest.fixture(scope="session")
def run_config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("launched")
    make_collection(folder / "shards" / "towns", random_samples([RGB], 16), [RGB])
    tree = {
        "run_dir": "/scratch/runs/first",
        "data": {
            "root": str(folder / "shards"),
            "image_px": 32,
            "lanes": 8,
            "mask": {"cell_px": 8},
            "streams": {"rgb": {"collections": ["towns"], "sub_batch": 4, "lr": 1.0e-4}},
        },
        "model": {
            "encoder": {"embed_dim": 16, "depths": [1, 1], "num_heads": [1, 2], "window": 4},
            "moe": {"num_experts": 4, "blocks": {2: [0]}},
        },
        "engine": {"ep_size": 2},
    }
    path = folder / "My Run.yaml"  # quoting is where launchers fail
    path.write_text(yaml.safe_dump(tree))
    return path


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What this machine happens to set must not reach a golden file."""
    from launch.exports import NAMES, PREFIXES

    for name in list(os.environ):
        if name in NAMES or name.startswith(PREFIXES):
            monkeypatch.delenv(name)
