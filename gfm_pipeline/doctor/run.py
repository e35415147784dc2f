"""A configuration on this machine: does it fit the processes, do its collections answer, can the run be written."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path

from gfm_pipeline.data.mixture import Mixture, open_mixture
from gfm_pipeline.doctor.finding import Finding
from gfm_pipeline.errors import GfmError
from gfm_pipeline.shards.manifest import tar_path
from gfm_pipeline.train.config import TrainConfig
from gfm_pipeline.train.topology import check_topology

PROBE_BYTES = 2**16
LEAST_FREE_BYTES = 10 * 2**30
"""Below it there is a warning: a checkpoint of the paper's model takes 2.6 GB, and two are kept."""


def check_fit(config: TrainConfig, processes: int, per_node: int) -> list[Finding]:
    """Compare the configuration with the number of processes."""
    problems = check_topology(config, processes, per_node)
    if not problems:
        return [Finding("topology", "ok", f"{processes} processes can train together, {config.data.lanes} lanes")]
    return [Finding("topology", "failure", problem) for problem in problems]


def check_collections(config: TrainConfig) -> list[Finding]:
    """Read the first bytes of every collection that the run uses, with its own credentials."""
    try:
        mixture = open_mixture(config.data)
    except GfmError as error:
        return [Finding("collections", "failure", str(error))]
    return [finding for name in mixture.streams for finding in _probe(name, mixture)]


def _probe(name: str, mixture: Mixture) -> list[Finding]:
    findings = []
    firsts = {shard.store.url: shard for shard in reversed(mixture.streams[name].shards)}
    for url, shard in firsts.items():
        began = time.perf_counter()
        try:
            data = shard.store.get_range(tar_path(shard.entry.name), 0, PROBE_BYTES)
        except GfmError as error:
            findings.append(Finding("collections", "failure", f"stream {name}: {error}"))
            continue
        milliseconds = (time.perf_counter() - began) * 1000
        text = f"stream {name}: {url} gave {len(data)} bytes in {milliseconds:.0f} ms"
        findings.append(Finding("collections", "ok", text))
    return findings


def check_run_folder(config: TrainConfig) -> list[Finding]:
    """Write and remove a file where the run will be, and say how much room there is."""
    folder = Path(config.run_dir)
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(b"gfm")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        remedy = "set run_dir to a folder that you may write to"
        return [Finding("run folder", "failure", f"cannot write below {there}: {error.strerror}", remedy)]
    free = shutil.disk_usage(there).free
    text = f"{folder} can be written, {free / 2**30:.0f} GiB free"
    if free < LEAST_FREE_BYTES:
        return [Finding("run folder", "warning", text, "make room, or set run_dir to another disk")]
    return [Finding("run folder", "ok", text)]
