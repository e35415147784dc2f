"""Metrics of a run: one JSON object per line in metrics.jsonl, the same numbers in TensorBoard.

metrics.jsonl is written by the first rank only and holds exactly one line per logged step: when a run resumes, lines
of steps that will be taken again are dropped first.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from gfm_pipeline.train.comm import World
from gfm_pipeline.train.step import StepResult

METRICS_FILE = "metrics.jsonl"


def gather_metrics(result: StepResult, world: World, num_lanes: int) -> dict[str, Any]:
    """Return the metrics of a step over all ranks as plain numbers, nested as they are logged.

    Every rank must call it: it is one all-reduce of losses and one of expert counts.
    """
    names = sorted(result.losses)
    skipped = result.losses["total"].new_tensor(result.num_skipped, dtype=torch.float64)
    *sums, num_skipped = world.sum(torch.stack([*(result.losses[name].double() for name in names), skipped])).tolist()
    means = dict(zip(names, (value / world.size for value in sums), strict=True))
    row: dict[str, Any] = {"loss": means.pop("total"), "grad_norm": result.grad_norm, "streams": {}}
    if "aux" in means:
        row["aux_loss"] = means.pop("aux")
    for name, value in means.items():
        kind, stream, *part = name.split("/", 2)
        section = row["streams"].setdefault(stream, {"losses": {}})
        if kind == "stream":
            section["loss"] = value
        else:
            section["losses"][part[0]] = value
    if result.counts:
        row |= _expert_metrics(result, world)
    row["num_images"] = result.num_images * world.size
    row["skipped"] = int(num_skipped)
    return row


def _expert_metrics(result: StepResult, world: World) -> dict[str, Any]:
    layers = list(result.counts)
    tallies = world.sum(torch.stack([result.counts[layer].double() for layer in layers])).tolist()
    load: dict[str, list[float]] = {}
    drops: dict[str, float] = {}
    for layer, tally in zip(layers, tallies, strict=True):
        tokens = sum(tally[:-1])
        load[layer] = [count / tokens for count in tally[:-1]]
        drops[layer] = tally[-1] / tokens
    return {"expert_load": load, "drop_rate": drops}


class Tracker:
    """Writes rows of metrics; open on the first rank only."""

    def __init__(self, run_dir: Path, first_step: int) -> None:
        from torch.utils.tensorboard.writer import SummaryWriter

        self._path = run_dir / METRICS_FILE
        _drop_rows_from(self._path, first_step)
        self._file = self._path.open("a", encoding="utf-8")
        self._board = SummaryWriter(str(run_dir / "tensorboard"), purge_step=first_step)

    def write(self, row: dict[str, Any]) -> None:
        """Append the row of one step."""
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        for name, value in _flatten(row):
            self._board.add_scalar(name, value, row["step"])

    def __enter__(self) -> Tracker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._board.close()


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
    if not path.exists():
        return
    kept = [row for row in _complete_rows(path) if row["step"] < first_step]
    temporary = path.with_name(".tmp-" + path.name)
    temporary.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
    temporary.replace(path)


def _flatten(row: dict[str, Any], prefix: str = "") -> list[tuple[str, float]]:
    out: list[tuple[str, float]] = []
    for name, value in row.items():
        path = f"{prefix}/{name}" if prefix else name
        if isinstance(value, dict):
            out += _flatten(value, path)
        elif isinstance(value, list):
            out += [(f"{path}/{index}", float(item)) for index, item in enumerate(value)]
        elif path != "step":
            out.append((path, float(value)))
    return out
