"""The model as the objectives of one training step see it.

A pass of the encoder is what a step costs, so objectives that ask for the same images under the same masks share one.
A parameter that no objective has touched still needs a gradient, of zeros: ranks reduce gradients in one order, and
ZeRO waits for all of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gfm_pipeline.models.msgfm import MsGFM, SensorImages


class StepView:
    """One step's view of a model; make a new one for each batch."""

    def __init__(self, model: MsGFM) -> None:
        self._model = model
        self._stages: dict[tuple[str, int, int], list[Tensor]] = {}
        self._inputs: list[SensorImages] = []  # keeps the images alive: their identity is the key
        self._decoded: set[str] = set()
        self.aux_losses: list[Tensor] = []
        """Of each encoder pass, the load-balance losses summed over the layers."""

    @property
    def objectives(self) -> nn.ModuleDict:
        """What objectives train beside the model."""
        return self._model.objectives

    def encode(self, inputs: Sequence[SensorImages]) -> list[Tensor]:
        """Return the features [B,i,j,D] of each input; what was encoded in this step before is not encoded again."""
        return [stages[-1] for stages in self.encode_stages(inputs)]

    def encode_stages(self, inputs: Sequence[SensorImages]) -> list[list[Tensor]]:
        """Return for each input the features of every stage; `encode` gives the last."""
        new = {_key(item): item for item in inputs if _key(item) not in self._stages}
        if new:
            self._stages |= zip(new, self._model.encode_stages(list(new.values())), strict=True)
            self._inputs += new.values()
            aux = [layer.routing.aux_loss for _, layer in self._model.moe_layers() if layer.routing is not None]
            if aux:
                self.aux_losses.append(torch.stack(aux).sum())
        return [self._stages[_key(item)] for item in inputs]

    def decode(self, sensor: str, features_BijD: Tensor) -> Tensor:
        """Return the normalised image [B,C,H,W] of `sensor` that the features tell of."""
        self._decoded.add(sensor)
        return self._model.decode(sensor, features_BijD)

    def nothing_from_the_rest(self) -> Tensor:
        """Return a zero that gives every parameter that may not have been touched a gradient of zeros."""
        model = self._model
        embedded = {item.sensor for item in self._inputs}
        rest = [p for name, embed in model.embeds.items() if name not in embedded for p in embed.parameters()]
        rest += [p for name, head in model.decoders.items() if name not in self._decoded for p in head.parameters()]
        rest += model.objectives.parameters()
        if not any(item.mask_Bij is not None for item in self._inputs):
            rest.append(model.mask_token_D)
        if not self._inputs:
            rest += model.encoder.parameters()
        sums = [p.sum() for p in rest if p.requires_grad]  # nothing is missing to frozen ones
        return 0.0 * torch.stack(sums).sum() if sums else model.mask_token_D.new_zeros(())


def _key(item: SensorImages) -> tuple[str, int, int]:
    return item.sensor, id(item.image_BCHW), id(item.mask_Bij)
