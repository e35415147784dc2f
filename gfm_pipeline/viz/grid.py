"""A grid of pictures: one row per sample, one column per thing shown of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure

from gfm_pipeline.sensors.render import Picture
from gfm_pipeline.viz.figure import FAINT, INK, new_figure, save

_CELL_IN = 1.75
_GAP_IN = 0.07
_LABEL_IN = 0.26
_TITLE_IN = 0.40
_HEADING_IN = 0.26
_MARGIN_IN = 0.08
GRID_DPI = 150


class GridRow(NamedTuple):
    """One sample: its key and one picture per column."""

    key: str
    pictures: Sequence[Picture]


def reconstruction_grid(rows: Sequence[GridRow], columns: Sequence[str], title: str, path: Path) -> Path:
    """Draw the pictures under the headings `columns` and write a PNG; return its path."""
    return save(grid_figure(rows, columns, title), path, dpi=GRID_DPI)


def grid_figure(rows: Sequence[GridRow], columns: Sequence[str], title: str) -> Figure:
    """Return the pictures under the headings `columns`."""
    if not rows:
        raise ValueError(f"no samples to draw for '{title}'")
    for row in rows:
        if len(row.pictures) != len(columns):
            raise ValueError(f"sample {row.key} has {len(row.pictures)} pictures for {len(columns)} columns")
    pitch = _CELL_IN + _GAP_IN
    width = _MARGIN_IN * 2 + _LABEL_IN + len(columns) * pitch - _GAP_IN
    height = _MARGIN_IN * 2 + _TITLE_IN + _HEADING_IN + len(rows) * pitch - _GAP_IN
    figure = new_figure(width, height)

    left = _MARGIN_IN + _LABEL_IN
    figure.text(
        left / width, 1 - (_MARGIN_IN + 0.17) / height, title, fontsize=12, fontweight="bold", color=INK, va="center"
    )
    for number, heading in enumerate(columns):
        x, y = left + number * pitch + _CELL_IN / 2, _MARGIN_IN + _TITLE_IN + _HEADING_IN / 2
        figure.text(x / width, 1 - y / height, heading, fontsize=9, color=INK, ha="center", va="center")
    for index, row in enumerate(rows):
        top = _MARGIN_IN + _TITLE_IN + _HEADING_IN + index * pitch
        middle = 1 - (top + _CELL_IN / 2) / height
        x = (_MARGIN_IN + 0.12) / width
        figure.text(x, middle, _short(row.key), fontsize=6, color=FAINT, rotation=90, ha="center", va="center")
        for number, picture in enumerate(row.pictures):
            box = (
                (left + number * pitch) / width,
                1 - (top + _CELL_IN) / height,
                _CELL_IN / width,
                _CELL_IN / height,
            )
            axes = figure.add_axes(box)
            axes.imshow(picture, interpolation="nearest" if picture.shape[0] < 200 else "antialiased")
            axes.set_axis_off()
    return figure


def _short(key: str, length: int = 34) -> str:
    """Return the key, its middle left out where it is long: the end tells samples of an archive apart."""
    return key if len(key) <= length else f"{key[:8]}…{key[-(length - 9) :]}"
