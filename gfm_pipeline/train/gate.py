"""The last word before an update: the norm of the whole gradient, what it may be, and clipping.

DeepSpeed skips an update whose gradient is not finite. The gate makes it skip any update that training does not want,
through that same path, so that gradients are cleared and ranks stay in step as its authors meant them to.

At ZeRO stage 0 DeepSpeed 0.19 clips by the mean of the ranks' norms, which with experts on several ranks is no norm of
anything. `GatedAdamW` computes the right one there, as stages 1 and 2 do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass
class UpdateGate:
    """Lets updates through whose gradient norm is finite and at most `limit`. Equal on all ranks, so all agree."""

    limit: float = math.inf
    norm: float = math.inf
    """Norm of the last gradient over all parameters, experts of other ranks included; inf when it was not finite."""

    def open_for(self, limit: float) -> None:
        """Prepare for one update; a negative limit lets none through."""
        self.limit, self.norm = limit, math.inf

    def admits(self, norm: float) -> bool:
        """Note the norm and return whether the update may happen."""
        self.norm = norm
        return math.isfinite(norm) and norm <= self.limit


def gate_zero(zero: Any, gate: UpdateGate) -> None:
    """Put the gate into DeepSpeed's optimizer of ZeRO stage 1 or 2, where it measures the norm."""
    measure = zero.scaled_global_norm  # in fp32 there is no loss scale

    def scaled_global_norm(norm_type: int = 2) -> Tensor:
        norm: Tensor = measure(norm_type)
        return norm if gate.admits(float(norm)) else torch.full_like(norm, math.inf)

    zero.scaled_global_norm = scaled_global_norm


class GatedAdamW(torch.optim.AdamW):
    """AdamW that clips by the norm over all parameters of all ranks, for ZeRO stage 0.

    `overflow` and `_global_grad_norm` are what DeepSpeed's engine asks an optimizer for after a step.
    """

    def __init__(self, groups: list[dict[str, Any]], gate: UpdateGate, grad_clip: float, **options: Any) -> None:
        self.gate = gate
        self.overflow = False
        self._grad_clip = grad_clip
        self._global_grad_norm = 0.0
        super().__init__(groups, **options)

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Clip and update, or leave everything as it is when the gate says no."""
        assert closure is None
        norm = float(self._norm())
        self.overflow = not self.gate.admits(norm)
        self._global_grad_norm = norm
        if self.overflow:
            return
        excess = (norm + 1e-6) / self._grad_clip
        if excess > 1:
            for gradient in self._gradients():
                gradient.mul_(1.0 / excess)
        super().step()

    def _norm(self) -> Tensor:
        dense, experts = [], []
        group_names = set()
        for group in self.param_groups:
            gradients = [parameter.grad for parameter in group["params"] if parameter.grad is not None]
            if group.get("moe"):
                experts += gradients
                group_names.add(group["name"])
            else:
                dense += gradients
        device = self.param_groups[0]["params"][0].device
        expert_square = _square(experts, device)
        for name in group_names:  # one name: all layers share their experts over the same ranks
            from deepspeed.utils import groups

            torch.distributed.all_reduce(expert_square, group=groups._get_expert_parallel_group(name))
        return (_square(dense, device) + expert_square).sqrt()

    def _gradients(self) -> Iterable[Tensor]:
        return (p.grad for group in self.param_groups for p in group["params"] if p.grad is not None)


def _square(gradients: list[Tensor], device: torch.device) -> Tensor:
    norms = [torch.linalg.vector_norm(gradient, dtype=torch.float32) for gradient in gradients]
    return torch.stack(norms).square().sum() if norms else torch.zeros((), device=device)
