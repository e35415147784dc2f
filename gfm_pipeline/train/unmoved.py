"""Trainable parameters that never move: left out of the optimizer, of the loss, or of the ranks' exchange.

A parameter moves when Adam's second moment says that it had a gradient and its values are not those it began with.
Both are asked, because each alone can lie: weight decay moves what has no gradient, and an update may be made to a
copy that the model does not use.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from gfm_pipeline.models.msgfm import MsGFM
from gfm_pipeline.train.checkpoint import named_parameters
from gfm_pipeline.train.comm import World
from gfm_pipeline.train.moments import saw_gradient


class MotionWatch:
    """Remembers what the parameters were, at a few numbers each."""

    def __init__(self, model: MsGFM) -> None:
        self._model = model
        self._before = {name: _fingerprint(parameter) for name, parameter in _trainable(model)}

    def unmoved(self, engine: Any, world: World) -> list[str]:
        """Return the names of the parameters, on any rank, that have not moved; every rank must call it."""
        own = dict(_trainable(self._model))
        changed = {name for name, parameter in own.items() if _fingerprint(parameter) != self._before[name]}
        with_gradient = {name for name, parameter in own.items() if saw_gradient(engine, parameter)}
        found = world.gather((set(own), changed, with_gradient))
        everything, moved, learned = (set[str]().union(*(part[index] for part in found)) for index in range(3))
        return sorted(everything - (moved & learned))


def _trainable(model: MsGFM) -> list[tuple[str, nn.Parameter]]:
    return [(name, parameter) for name, parameter in named_parameters(model) if parameter.requires_grad]


def _fingerprint(parameter: Tensor) -> tuple[float, float]:
    values = parameter.detach().double().flatten()
    ramp = values.new_ones(len(values)).cumsum(0)
    return float(values.sum()), float((values * ramp).sum())
