"""Loss curves of a run from the rows of its metrics file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes

from gfm_pipeline.viz.figure import FAINT, INK, PALETTE, new_figure, save, tidy

Row = Mapping[str, Any]
"""One step: {"step", "loss", "streams": {stream: {"loss", "lr", "losses": {"s1->s2": loss}}}, ...}."""

_PANEL_IN = (3.1, 2.15)


def loss_curves(rows: Sequence[Row], path: Path) -> Path:
    """Draw a row of panels per stream, its loss and that of each sensor direction, and write a PNG; return its path."""
    if not rows:
        raise ValueError("no metrics to draw: the run has not logged a step yet")
    streams = sorted({stream for row in rows for stream in row["streams"]})
    colours = {stream: PALETTE[index % len(PALETTE)] for index, stream in enumerate(streams)}
    directions = {stream: _directions(rows, stream) for stream in streams}
    num_columns = 1 + max(len(names) for names in directions.values())
    title_in = 0.5
    figure = new_figure(num_columns * _PANEL_IN[0], len(streams) * _PANEL_IN[1] + title_in)
    title = f"Reconstruction loss up to step {rows[-1]['step']:,}"
    figure.suptitle(title, x=0.012, ha="left", fontsize=12.5, fontweight="bold", color=INK)
    grid = figure.add_gridspec(len(streams), num_columns)
    for row, stream in enumerate(streams):
        steps, values = _series(rows, stream, None)
        _draw(figure.add_subplot(grid[row, 0]), steps, values, colours[stream], f"stream {stream}")
        for column, direction in enumerate(directions[stream], start=1):
            steps, values = _series(rows, stream, direction)
            source, _, target = direction.partition("->")
            name = f"{source} → {target}" if target else direction
            _draw(figure.add_subplot(grid[row, column]), steps, values, colours[stream], name, line_pt=1.3)
    figure.tight_layout(rect=(0, 0, 1, 1 - 0.3 * title_in / figure.get_figheight()), h_pad=1.4)
    return save(figure, path)


def _directions(rows: Sequence[Row], stream: str) -> list[str]:
    """Return the sensor directions ("s1->s2") that the stream has losses of, sorted."""
    return sorted({name for row in rows for name in row["streams"].get(stream, {}).get("losses", {})})


def _series(
    rows: Sequence[Row], stream: str, direction: str | None
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Return the steps at which the stream, or one direction of it, has a loss, and the losses."""
    parts = [(row["step"], row["streams"][stream]) for row in rows if stream in row["streams"]]
    if direction is None:
        found = [(step, part["loss"]) for step, part in parts]
    else:
        found = [(step, part["losses"][direction]) for step, part in parts if direction in part.get("losses", {})]
    return np.array([step for step, _ in found], np.int64), np.array([loss for _, loss in found], np.float64)


def smooth(values: npt.NDArray[np.float64], window: int) -> npt.NDArray[np.float64]:
    """Return the mean over `window` values around each one, fewer at the ends; NaN does not count."""
    good = np.isfinite(values)
    total = np.concatenate([[0.0], np.cumsum(np.where(good, values, 0.0))])
    count = np.concatenate([[0], np.cumsum(good)])
    index = np.arange(len(values))
    start, end = np.maximum(index - window // 2, 0), np.minimum(index + window // 2 + 1, len(values))
    weight = count[end] - count[start]
    return np.where(weight > 0, (total[end] - total[start]) / np.maximum(weight, 1), np.nan)


def _draw(
    axes: Axes,
    steps: npt.NDArray[np.int64],
    values: npt.NDArray[np.float64],
    colour: str,
    title: str,
    line_pt: float = 1.8,
) -> None:
    tidy(axes, title)
    axes.plot(steps, values, color=colour, alpha=0.25, linewidth=0.8)
    mean = smooth(values, max(1, len(values) // 15))
    axes.plot(steps, mean, color=colour, linewidth=line_pt)
    axes.set_xlabel("step", fontsize=8, color=FAINT, labelpad=1)
    positive = values[np.isfinite(values) & (values > 0)]
    if positive.size and positive.max() > 6 * positive.min():
        axes.set_yscale("log")
    if len(mean) > 1 and np.isfinite(mean[[0, -1]]).all() and mean[0] > 0:
        note = f"{mean[0]:.3g} → {mean[-1]:.3g}  (×{mean[-1] / mean[0]:.2f})"
        axes.text(0.98, 0.95, note, transform=axes.transAxes, ha="right", va="top", fontsize=8, color=INK)
