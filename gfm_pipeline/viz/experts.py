"""How evenly a run uses its experts: the load of each at the end, and over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpecFromSubplotSpec

from gfm_pipeline.viz.figure import FAINT, INK, PALETTE, new_figure, save, tidy

Row = Mapping[str, Any]
"""One step: {"step", "expert_load": {layer: [fraction per expert]}, "drop_rate": {layer: fraction}, ...}."""

_ROWS_PER_COLUMN = 3


def expert_load_heatmap(rows: Sequence[Row], path: Path) -> Path:
    """Draw the mean load of the last tenth of the steps, layers x experts, and each layer's load over time."""
    rows = [row for row in rows if row.get("expert_load")]
    if not rows:
        raise ValueError("no expert load to draw: the model has no experts or the run has not logged a step yet")
    layers = list(rows[-1]["expert_load"])
    rows = [row for row in rows if all(layer in row["expert_load"] for layer in layers)]
    steps = np.array([row["step"] for row in rows])
    load = {layer: np.array([row["expert_load"][layer] for row in rows], np.float64) for layer in layers}  # [steps,E]
    recent = rows[-max(1, len(rows) // 10) :]
    drops = [float(np.mean([row.get("drop_rate", {}).get(layer, np.nan) for row in recent])) for layer in layers]

    num_experts = max(values.shape[1] for values in load.values())
    map_width, map_height = max(3.4, 0.62 * num_experts + 2.2), max(2.6, 0.42 * len(layers) + 1.5)
    time_columns = -(-len(layers) // _ROWS_PER_COLUMN)
    time_rows = min(len(layers), _ROWS_PER_COLUMN)
    height = max(map_height, 1.5 * time_rows + 0.9)
    figure = new_figure(map_width + 2.9 * time_columns, height)
    figure.suptitle("Expert load", x=0.012, ha="left", fontsize=12.5, fontweight="bold", color=INK)
    outer = figure.add_gridspec(1, 2, width_ratios=[map_width, 2.9 * time_columns])
    heat = figure.add_subplot(outer[0])
    table = np.full((len(layers), num_experts), np.nan)
    for index, layer in enumerate(layers):
        table[index, : load[layer].shape[1]] = load[layer][-len(recent) :].mean(0)
    _draw_heatmap(figure, heat, table, layers, drops)
    _draw_time(figure, outer[1].subgridspec(time_rows, time_columns, hspace=0.5, wspace=0.3), steps, load)
    figure.tight_layout(rect=(0, 0, 1, 1 - 0.1 / height))
    return save(figure, path)


def _draw_heatmap(
    figure: Figure, axes: Axes, table: npt.NDArray[np.float64], layers: Sequence[str], drops: Sequence[float]
) -> None:
    """Draw loads [layer,expert] in colours that diverge from the even load."""
    even = 1 / table.shape[1]
    top = max(float(np.nanmax(table)), 1.5 * even)
    norm = TwoSlopeNorm(vcenter=even, vmin=0, vmax=top)
    image = axes.imshow(table, cmap="RdBu_r", norm=norm, aspect="auto")
    for (row, column), value in np.ndenumerate(table):
        if np.isfinite(value):
            strong = not 0.18 < float(norm(value)) < 0.82
            axes.text(
                column, row, f"{value:.2f}", ha="center", va="center", fontsize=8, color="white" if strong else INK
            )
    axes.set_xticks(range(table.shape[1]), [str(expert) for expert in range(table.shape[1])])
    labels = [
        layer if np.isnan(drop) else f"{layer}\n{drop:.1%} dropped" for layer, drop in zip(layers, drops, strict=True)
    ]
    axes.set_yticks(range(len(layers)), labels)
    axes.tick_params(labelsize=8, length=0, colors=INK)
    axes.set_xlabel("expert", fontsize=8.5, color=INK)
    axes.set_title("share of tokens, mean of the last 10% of steps", loc="left", fontsize=9.5, color=INK)
    for spine in axes.spines.values():
        spine.set_visible(False)
    bar = figure.colorbar(image, ax=axes, fraction=0.05, pad=0.03)
    bar.set_ticks([0, even, top], labels=["0", f"even\n1/{table.shape[1]}", f"{top:.2f}"])
    bar.ax.axhline(even, color=INK, linewidth=1.6)
    bar.ax.tick_params(labelsize=8, length=2)
    bar.outline.set_visible(False)


def _draw_time(
    figure: Figure, grid: GridSpecFromSubplotSpec, steps: npt.NDArray[np.int64], load: Mapping[str, Any]
) -> None:
    """Draw each layer's loads [steps,expert] as lines around the even load."""
    for index, (layer, values) in enumerate(load.items()):
        axes = figure.add_subplot(grid[index % grid.nrows, index // grid.nrows])
        tidy(axes, layer)
        for expert in range(values.shape[1]):
            axes.plot(steps, values[:, expert], color=PALETTE[expert % len(PALETTE)], linewidth=1.0, alpha=0.85)
        axes.axhline(1 / values.shape[1], color=INK, linewidth=1, linestyle=(0, (4, 3)))
        axes.set_ylim(0, max(float(values.max()) * 1.08, 1.6 / values.shape[1]))
        if index % grid.nrows == grid.nrows - 1 or index == len(load) - 1:
            axes.set_xlabel("step", fontsize=8, color=FAINT, labelpad=1)
        else:
            axes.set_xticklabels([])
