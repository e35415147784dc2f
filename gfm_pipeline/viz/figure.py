"""What all figures share: colours, plain axes, and a PNG that appears whole or not at all.

Figures are made with matplotlib's objects and not with pyplot, which keeps global state and picks a window system.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from gfm_pipeline.sensors.render import Picture
from gfm_pipeline.storage import LocalStore

INK = "#2b2b2b"
FAINT = "#8a8a8a"
PALETTE = ("#2a6f97", "#c8553d", "#4f772d", "#8e5ea2", "#d4a017", "#3d8f8f", "#9c6644", "#6c757d")
"""Distinct on white and in print; streams and experts take them in order."""


def new_figure(width_in: float, height_in: float) -> Figure:
    """Return an empty white figure of that size in inches."""
    figure = Figure(figsize=(width_in, height_in), facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def tidy(axes: Axes, title: str) -> None:
    """Leave of the frame only what a reader needs, and name the panel."""
    axes.set_title(title, loc="left", fontsize=9.5, color=INK, fontweight="bold")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(FAINT)
    axes.tick_params(labelsize=8, colors=INK, which="both", width=0.6)
    axes.grid(True, axis="y", color="#e8e8e8", linewidth=0.7)
    axes.set_axisbelow(True)


def to_picture(figure: Figure, dpi: int) -> Picture:
    """Return the drawn figure as an image [H,W,3]."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    with Image.open(buffer) as image:
        return np.array(image.convert("RGB"))


def save(figure: Figure, path: Path, dpi: int = 130) -> Path:
    """Write the figure as PNG, replacing an older one in a single step; return its path."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    LocalStore(path.parent).put(path.name, buffer.getvalue())
    return path
