"""The model under training as one process sees it: all experts at hand, none of them full.

Evaluation runs on a copy and not on the training model. The copy drops no token for want of an expert's capacity, as
the exported model and `gfm evaluate` do not, so their numbers are the same; ranks may evaluate different numbers of
samples, for its forward pass is no collective; and nothing of the training can change. It costs every rank the memory
of one whole model in fp32, for as long as the evaluation takes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gfm_pipeline.evaluate.team import Team
from gfm_pipeline.models.moe import is_expert_name
from gfm_pipeline.models.msgfm import MsGFM


@torch.no_grad()
def copy_weights(mine: dict[str, Tensor], replica: MsGFM, team: Team) -> None:
    """Set the weights of `replica`, a one-process model, to those under training; every process must call it.

    `mine` are the parameters that this process holds, by canonical name; the experts of all of them are all experts.
    """
    held = team.gather(sorted(name for name in mine if is_expert_name(name)))
    owner = {name: rank for rank in reversed(range(team.size)) for name in held[rank]}
    for name, parameter in replica.named_parameters():
        if name in mine:
            parameter.copy_(mine[name])
        if name in owner and team.size > 1:
            torch.distributed.broadcast(parameter, owner[name])
        assert name in mine or name in owner, f"no process holds {name}"
