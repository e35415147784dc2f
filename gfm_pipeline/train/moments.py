"""Weights and Adam moments of a parameter in full, wherever ZeRO keeps them.

At stages 1 and 2 each rank holds a part of every parameter's fp32 copy and moments in flat buffers; at stage 0 the
optimizer holds them whole. Only this file knows the difference. A frozen parameter has weights and no moments: the
optimizer does not know it, and the ranks hold it whole.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

MOMENTS = ("exp_avg", "exp_avg_sq")
PARTS = ("param", *MOMENTS)


def start_moments(engine: Any, updates: int = 0) -> None:
    """Give every parameter moments of zero after `updates` updates, as Adam does itself at its first update.

    DeepSpeed 0.19.8 links parameters to their moments after the first update of the first parameter group, when those
    of all other groups do not exist yet; with all of them there from the beginning, nothing is missed.
    """
    zero = engine.optimizer
    if _is_plain(zero):
        for group in zero.param_groups:
            for parameter in group["params"]:
                zero.state[parameter] = _zeros(parameter, updates)
        return
    for flat in zero.single_partition_of_fp32_groups:
        zero.optimizer.state[flat] = _zeros(flat, updates)
    zero._hp_optimizer_states_linked = False
    zero._lazy_init_hp_params_optimizer_state()


def count_updates(engine: Any) -> int:
    """Return how many updates Adam has made, which its bias correction depends on."""
    optimizer = engine.optimizer if _is_plain(engine.optimizer) else engine.optimizer.optimizer
    return max(int(state["step"]) for state in optimizer.state.values())


def parts_of(engine: Any, parameter: nn.Parameter) -> tuple[str, ...]:
    """Return which of PARTS a parameter has: its weights alone, where the optimizer does not know it."""
    known = parameter in engine.optimizer.state if _is_plain(engine.optimizer) else hasattr(parameter, "_hp_mapping")
    return PARTS if known else PARTS[:1]


def full_part(engine: Any, parameter: nn.Parameter, part: str) -> Tensor:
    """Return "param", "exp_avg" or "exp_avg_sq" of a parameter in fp32, which may be the optimizer's own tensor.

    A collective over the ranks that hold the parameter.
    """
    from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

    value: Tensor
    if parts_of(engine, parameter) == ("param",):
        assert part == "param"
        return parameter.detach()
    if _is_plain(engine.optimizer):
        value = parameter.detach() if part == "param" else engine.optimizer.state[parameter][part]
    elif part == "param":
        value = safe_get_full_fp32_param(parameter)
    else:
        value = safe_get_full_optimizer_state(parameter, part)
    return value


def set_parts(engine: Any, parameter: nn.Parameter, read: Callable[[str], Tensor]) -> None:
    """Set weights and moments from `read`, which returns a part in full; it is asked only for what this rank keeps."""
    from deepspeed.utils import safe_set_full_fp32_param, safe_set_full_optimizer_state

    weights = read("param")
    with torch.no_grad():
        parameter.copy_(weights)
    if parts_of(engine, parameter) == ("param",):
        return
    if _is_plain(engine.optimizer):
        for moment in MOMENTS:
            engine.optimizer.state[parameter][moment].copy_(read(moment))
    elif _fragment(parameter) is not None:
        safe_set_full_fp32_param(parameter, weights)
        for moment in MOMENTS:
            safe_set_full_optimizer_state(parameter, read(moment), moment)


def saw_gradient(engine: Any, parameter: nn.Parameter) -> bool:
    """Return whether the part of a parameter that this rank keeps ever had a gradient other than zero."""
    if _is_plain(engine.optimizer):
        return bool(engine.optimizer.state[parameter]["exp_avg_sq"].any())
    fragment = _fragment(parameter)
    return fragment is not None and bool(fragment.get_hp_fragment("exp_avg_sq").any())


def _fragment(parameter: nn.Parameter) -> Any:
    """Return DeepSpeed's record of the part of a parameter that this rank keeps, None for no part of it."""
    return parameter._hp_mapping  # type: ignore[attr-defined]


def _is_plain(optimizer: Any) -> bool:
    return isinstance(optimizer, torch.optim.Optimizer)


def _zeros(like: Tensor, updates: int) -> dict[str, Tensor]:
    return {"step": torch.tensor(float(updates))} | {moment: torch.zeros_like(like) for moment in MOMENTS}
