"""The figures of a dataset card: histograms of a sensor's bands, classes of a label raster, a map of footprints."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from numpy.typing import NDArray

from gfm_pipeline.sensors.render import class_colour
from shard_builder.collection.histogram import SensorHistograms

INK, FAINT, BLUE = "#2b2b2b", "#8a8a8a", "#2a6f97"
_BANDS_ABREAST = 4
_WORLD_DEGREES = 60.0
"""Footprints that are spread further are drawn on a map of the world."""


def draw_histograms(histograms: SensorHistograms) -> bytes:
    """Return a PNG with one small histogram per band."""
    bands = histograms.bands
    columns = min(_BANDS_ABREAST, len(bands))
    rows = -(-len(bands) // columns)
    figure = _new_figure(2.7 * columns + 0.3, 1.75 * rows + 0.5)
    figure.suptitle(f"{histograms.spec.name}, {histograms.spec.units}", fontsize=10, color=INK, x=0.02, ha="left")
    for number, band in enumerate(bands, 1):
        axes = figure.add_subplot(rows, columns, number)
        share = band.counts / max(1, band.counts.sum())
        axes.stairs(share, band.edges, fill=True, color=BLUE, alpha=0.85)
        axes.set_title(band.band, loc="left", fontsize=8.5, color=INK, fontweight="bold")
        axes.set_xlim(band.edges[0], band.edges[-1])
        axes.set_yticks([])
        _tidy(axes)
    return _save(figure)


def draw_classes(sensor: str, counts: dict[int, int]) -> bytes:
    """Return a PNG with one bar per class of a label raster, in the colours of its pictures."""
    figure = _new_figure(max(4.0, 0.32 * len(counts) + 1.2), 2.4)
    axes = figure.add_subplot()
    total = sum(counts.values())
    colours = [tuple(part / 255 for part in class_colour(value)) for value in counts]
    axes.bar(range(len(counts)), [100 * pixels / total for pixels in counts.values()], color=colours, width=0.8)
    axes.set_xticks(range(len(counts)), [str(value) for value in counts])
    axes.set_xlabel("class", fontsize=8, color=INK)
    axes.set_ylabel("% of pixels", fontsize=8, color=INK)
    axes.set_title(sensor, loc="left", fontsize=9, color=INK, fontweight="bold")
    _tidy(axes)
    return _save(figure)


def draw_map(rings: Sequence[NDArray[np.float64]]) -> bytes:
    """Return a PNG of footprints, each a ring [N,2] of longitude and latitude, on a plain graticule."""
    centres = np.array([ring[:-1].mean(axis=0) for ring in rings])
    west, south = np.min([ring.min(axis=0) for ring in rings], axis=0)
    east, north = np.max([ring.max(axis=0) for ring in rings], axis=0)
    world = max(east - west, north - south) > _WORLD_DEGREES
    if world:
        west, south, east, north = -180.0, -90.0, 180.0, 90.0
    else:
        margin = max(0.1 * max(east - west, north - south), 1e-4)
        west, south, east, north = west - margin, south - margin, east + margin, north + margin
    # A degree of longitude is shorter away from the equator; the map of the world is the usual plain one.
    aspect = 1.0 if world else 1 / max(0.1, math.cos(math.radians((south + north) / 2)))
    height = min(8.0, max(3.0, 8.0 * (north - south) * aspect / (east - west)))
    figure = _new_figure(8.0, height)
    axes = figure.add_subplot()
    axes.add_collection(PolyCollection(list(rings), facecolor=BLUE, edgecolor=BLUE, alpha=0.35, linewidth=0.7))
    if world:
        axes.plot(centres[:, 0], centres[:, 1], "o", markersize=3, color="#c8553d", markeredgewidth=0)
        axes.set_xticks(range(-180, 181, 30))
        axes.set_yticks(range(-90, 91, 30))
    axes.set_xlim(west, east)
    axes.set_ylim(south, north)
    axes.set_aspect(aspect)
    axes.grid(True, color="#e4e4e4", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.set_xlabel("longitude", fontsize=8, color=INK)
    axes.set_ylabel("latitude", fontsize=8, color=INK)
    axes.ticklabel_format(useOffset=False)
    _tidy(axes)
    return _save(figure)


def _new_figure(width_in: float, height_in: float) -> Figure:
    figure = Figure(figsize=(width_in, height_in), facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _tidy(axes: Axes) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(FAINT)
    axes.tick_params(labelsize=7, colors=INK, width=0.6)


def _save(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120, metadata={"Software": None})
    return buffer.getvalue()
