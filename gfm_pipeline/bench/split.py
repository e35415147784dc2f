"""Where the time of a step goes: forward and backward of every part, told apart inside a running model.

A part's backward pass begins when the gradient of its output arrives and ends when that of its input is there, so
hooks put an identity with a clock at both ends. The clocks cost time themselves; throughput is measured without them.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from timm.layers import Mlp
from torch import Tensor, nn

from gfm_pipeline.models.attention import FusedWindowAttention
from gfm_pipeline.models.decode import SensorDecoder
from gfm_pipeline.models.embed import SensorEmbed
from gfm_pipeline.models.experts import GroupedExperts, PaddedExperts
from gfm_pipeline.models.moe import LocalMoE, ShardedMoE
from gfm_pipeline.models.moe_sharded import Exchange

PARTS: tuple[tuple[str, tuple[type[nn.Module], ...]], ...] = (
    ("embed", (SensorEmbed,)),
    ("attention", (FusedWindowAttention,)),
    ("MLP", (Mlp,)),
    ("experts", (GroupedExperts, PaddedExperts)),
    ("all-to-all", (Exchange,)),
    ("dispatch", (LocalMoE, ShardedMoE)),
    ("decode", (SensorDecoder,)),
)
"""dispatch is what remains of an expert layer without its experts and the all-to-all: gate, sorting, moving rows."""


class Split:
    """Seconds by part, as long as it is attached to a model."""

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._spans: dict[str, list[tuple[Any, Any]]] = defaultdict(list)
        self._handles: list[Any] = []
        for module in model.modules():
            for part, kinds in PARTS:
                if isinstance(module, kinds):
                    self._attach(module, part)

    def span(self, part: str) -> Callable[[], None]:
        """Start a clock for `part`; call the result to stop it."""
        began = self._tick()
        return lambda: self._spans[part].append((began, self._tick()))

    def timed(self, part: str, work: Callable[..., Any]) -> Callable[..., Any]:
        """Return `work` with a clock for `part` around it."""

        def run(*args: Any, **kwargs: Any) -> Any:
            stop = self.span(part)
            result = work(*args, **kwargs)
            stop()
            return result

        return run

    def seconds(self) -> dict[str, float]:
        """Return the seconds of every part since the last call; parts hold nothing of each other."""
        if self._cuda:
            torch.cuda.synchronize()
        spent = {part: sum(self._between(*span) for span in spans) for part, spans in self._spans.items()}
        if "dispatch" in spent:
            spent["dispatch"] -= spent.get("experts", 0.0) + spent.get("all-to-all", 0.0)
        self._spans.clear()
        return spent

    def detach(self) -> None:
        """Take the clocks out of the model."""
        for handle in self._handles:
            handle.remove()

    def _tick(self) -> Any:
        if not self._cuda:
            return time.perf_counter()
        event: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    def _between(self, began: Any, ended: Any) -> float:
        return float(began.elapsed_time(ended) / 1000) if self._cuda else float(ended - began)

    def _attach(self, module: nn.Module, part: str) -> None:
        running: dict[str, Any] = {}

        def begin_backward() -> None:
            running["backward"] = self.span(part)

        def end_backward() -> None:
            if (stop := running.pop("backward", None)) is not None:
                stop()

        def before(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
            first, *rest = inputs
            if first.requires_grad:
                first = _Mark.apply(first, end_backward)
            elif torch.is_grad_enabled():  # pixels: the part has done its work when its parameters have gradients
                parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
                handle = torch.autograd.graph.register_multi_grad_hook(parameters, lambda _: end_backward())
                self._handles.append(handle)
            running["forward"] = self.span(part)
            return (first, *rest)

        def after(_: nn.Module, __: tuple[Any, ...], output: Tensor) -> Tensor:
            running.pop("forward")()
            marked: Tensor = _Mark.apply(output, begin_backward)
            return marked

        self._handles += [module.register_forward_pre_hook(before), module.register_forward_hook(after)]


class _Mark(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, passed: Callable[[], None]) -> Tensor:
        ctx.passed = passed
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        ctx.passed()
        return grads[0], None
