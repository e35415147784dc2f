"""Metrics of a run: one JSON object per line in metrics.jsonl, the same numbers in every tracker.

Tables are written by the first rank only and hold exactly one line per logged step: when a run resumes, lines of steps
that will be taken again are dropped first.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

import torch

from gfm_pipeline.train.comm import World
from gfm_pipeline.train.config import TrainConfig
from gfm_pipeline.train.step import TOTAL, StepResult
from gfm_pipeline.train.trackers.tracker import Picture, RunRecord, Tracker, build_trackers

METRICS = "metrics"
METRICS_FILE = f"{METRICS}.jsonl"


def gather_metrics(result: StepResult, world: World, sensors: list[str]) -> dict[str, Any]:
    """Return the metrics of a step over all ranks as plain numbers, nested as they are logged.

    `sensors` are the model's, in its order. Every rank must call it: it is one all-reduce of losses and one of expert
    counts.
    """
    names = sorted(result.losses)
    skipped = result.losses[TOTAL].new_tensor(result.num_skipped, dtype=torch.float64)
    *sums, num_skipped = world.sum(torch.stack([*(result.losses[name].double() for name in names), skipped])).tolist()
    means = dict(zip(names, (value / world.size for value in sums), strict=True))
    row: dict[str, Any] = {"loss": means.pop(TOTAL), "grad_norm": result.grad_norm, "streams": {}}
    for name, value in means.items():
        if name.kind == "aux":
            row["aux_loss"] = value
            continue
        section = row["streams"].setdefault(name.stream, {"losses": {}})
        if name.kind == "stream":
            section["loss"] = value
        else:
            section["losses"][name.part] = value
    if result.counts:
        row |= _expert_metrics(result, world, sensors)
    row["num_images"] = result.num_images * world.size
    row["skipped"] = int(num_skipped)
    return row


def _expert_metrics(result: StepResult, world: World, sensors: list[str]) -> dict[str, Any]:
    """Return each layer's load and drop rate over all tokens, and by sensor for the sensors of the step."""
    layers = list(result.counts)
    tallies = world.sum(torch.stack([result.counts[layer].double() for layer in layers]))
    load, drops = _shares(dict(zip(layers, tallies.sum(1).tolist(), strict=True)))
    by_sensor = {}
    for sensor, tally in zip(sensors, tallies.transpose(0, 1).tolist(), strict=True):
        if any(map(sum, tally)):
            sensor_load, sensor_drops = _shares(dict(zip(layers, tally, strict=True)))
            by_sensor[sensor] = {"expert_load": sensor_load, "drop_rate": sensor_drops}
    return {"expert_load": load, "drop_rate": drops, "sensors": by_sensor}


def _shares(tallies: dict[str, list[float]]) -> tuple[dict[str, list[float]], dict[str, float]]:
    load, drops = {}, {}
    for layer, (*counts, dropped) in tallies.items():
        tokens = sum(counts)
        load[layer] = [count / tokens for count in counts]
        drops[layer] = dropped / tokens
    return load, drops


class Tracking:
    """Takes a run's rows and pictures: each row as a line of JSON, and everything to all trackers.

    One without a folder, as on ranks other than the first, takes them and does nothing.
    """

    def __init__(self, run_dir: Path | None = None, trackers: Sequence[Tracker] = ()) -> None:
        self._run_dir = run_dir
        self._trackers = list(trackers)
        self._files: dict[str, TextIO] = {}

    @property
    def is_open(self) -> bool:
        """Whether anything is written at all: what costs time to draw need not be drawn otherwise."""
        return self._run_dir is not None

    def write(self, row: Mapping[str, Any], table: str = METRICS) -> None:
        """Append the row of step `row["step"]` to `<table>.jsonl`; a number that is not finite becomes null there.

        Trackers get every number of it, the names of other tables preceded by the table's.
        """
        if self._run_dir is None:
            return
        if table not in self._files:
            self._files[table] = (self._run_dir / f"{table}.jsonl").open("a", encoding="utf-8")
        self._files[table].write(json.dumps(finite(row), allow_nan=False) + "\n")
        self._files[table].flush()
        numbers = dict(_flatten(row, "" if table == METRICS else table))
        for tracker in self._trackers:
            tracker.scalars(numbers, row["step"])

    def picture(self, name: str, picture: Picture, step: int) -> None:
        """Show a picture [H,W,3] of step `step`."""
        for tracker in self._trackers:
            tracker.picture(name, picture, step)

    def __enter__(self) -> Tracking:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._files.values():
            file.close()
        for tracker in self._trackers:
            tracker.close()


def open_tracking(config: TrainConfig, first_step: int) -> Tracking:
    """Return the tracking of the run in `run_dir`; to be called once, on the first rank.

    What earlier attempts wrote of `first_step` and later ones is dropped: those steps will be taken again.
    """
    run_dir = Path(config.run_dir)
    for path in sorted(run_dir.glob("*.jsonl")):
        _drop_rows_from(path, first_step)
    record = RunRecord(run_dir, first_step, config.model_dump(mode="json"))
    return Tracking(run_dir, build_trackers(config.log.trackers, record))


def read_metrics(run_dir: Path) -> list[dict[str, Any]]:
    """Return the rows of a run in step order; a last line cut short by a crash is left out."""
    return _complete_rows(run_dir / METRICS_FILE)


def _complete_rows(path: Path) -> list[dict[str, Any]]:
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []:
        if line.endswith("\n"):
            rows.append(json.loads(line))
    return rows


def _drop_rows_from(path: Path, first_step: int) -> None:
    kept = [row for row in _complete_rows(path) if row["step"] < first_step]
    temporary = path.with_name(".tmp-" + path.name)
    temporary.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
    temporary.replace(path)


def finite(value: Any) -> Any:
    """Return the tree with null for numbers that JSON has no word for."""
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _flatten(row: Mapping[str, Any], prefix: str = "") -> list[tuple[str, float]]:
    """Return (path, number) of every number in a row; words and the step itself are left out."""
    out: list[tuple[str, float]] = []
    for name, value in row.items():
        path = f"{prefix}/{name}" if prefix else name
        if isinstance(value, Mapping):
            out += _flatten(value, path)
        elif isinstance(value, list | tuple):
            out += _flatten({str(index): item for index, item in enumerate(value)}, path)
        elif isinstance(value, int | float) and name != "step":
            out.append((path, float(value)))
    return out
