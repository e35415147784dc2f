"""What a rank's process does in the kill test: load batches and write down what came, until it is killed."""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path
from typing import Any

from gfm_pipeline.data.config import DataConfig
from gfm_pipeline.data.loader import Loader
from gfm_pipeline.data.mixture import open_mixture
from tests.remote_collection import told

SEED = 11


def live(config: dict[str, Any], rank: int, world: int, log: str, surroundings: dict[str, str], steps: int) -> None:
    """Go on from the end of the log up to `steps`; a line is a step with its digests and the state after it."""
    os.environ.update(surroundings)
    data = DataConfig.model_validate(config)
    lines = read_log(Path(log))
    with Loader(open_mixture(data), data, SEED, rank, world) as loader, open(log, "ab", buffering=0) as file:
        if lines:
            loader.load_state_dict(lines[-1]["state"])
        for _ in range(len(lines), steps):
            lanes = [digest(batch) for batch in next(loader)]
            line = json.dumps({"lanes": lanes, "state": loader.state_dict()})
            file.write(f"{line}\n".encode())


def digest(batch: Any) -> list[Any]:
    """Return step, lane, keys and a checksum of all pixels of a batch."""
    ((step, lane, _, keys, images),) = told(batch)
    return [step, lane, keys, {sensor: zlib.crc32(pixels) for sensor, pixels in images.items()}]


def read_log(path: Path) -> list[dict[str, Any]]:
    """Return the whole lines of a log; a kill may cut the last one."""
    data = path.read_bytes() if path.exists() else b""
    return [json.loads(line) for line in data.split(b"\n")[:-1]]


def cut_log(path: Path, lines: int) -> None:
    """Keep so many lines: what both ranks had done, as a checkpoint would."""
    kept = path.read_bytes().split(b"\n")[:lines] if path.exists() else []
    path.write_bytes(b"".join(line + b"\n" for line in kept))
