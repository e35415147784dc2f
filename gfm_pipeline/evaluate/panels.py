"""Pictures of held-out reconstructions, for whoever watches a run: always the same samples, in every direction."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch

from gfm_pipeline.evaluate.samples import SEED, HeldOut, first_batch
from gfm_pipeline.models.msgfm import MsGFM
from gfm_pipeline.sensors import SensorSpec
from gfm_pipeline.sensors.render import Picture
from gfm_pipeline.viz.figure import to_picture
from gfm_pipeline.viz.reconstruct import reconstruct_batch
from gfm_pipeline.viz.run import direction_figure

_DPI = 80
"""Trackers keep every picture of a run: enough to see what is learnt."""


def draw_panels(
    model: MsGFM, held_out: HeldOut, sensors: Mapping[str, SensorSpec], count: int, step: int, device: torch.device
) -> Iterator[tuple[str, Picture]]:
    """Yield (direction, picture [H,W,3]) for every ordered pair of sensors; up to `count` samples in each."""
    batch = first_batch(held_out).to(device)
    statistics = held_out.mixture.normalisation
    for source in batch.images:
        for target in batch.images:
            found = reconstruct_batch(model, sensors, statistics, batch, source, target, SEED)
            whole = [one for row, one in enumerate(found) if row not in batch.skipped]
            if whole:
                figure = direction_figure(held_out.stream.name, whole[:count], step)
                yield f"{source}-to-{target}", to_picture(figure, _DPI)
