"""A linear probe: logistic regression on frozen features, solved to its minimum, so that no draw decides.

Features are standardised. The minimum is that of the sum of all samples' losses plus l2 / 2 times the squared weights
(not the biases): what scikit-learn's LogisticRegression minimises for C = 1 / l2.

A solver that stops early leaves a classifier of no meaning, which depends on where it stopped: it is reported.

Legend: M samples learnt from, N samples to predict, D channels, E classes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

_STEPS = 300
_FLAT = 1e-4
"""Largest slope of the mean loss at what counts as its minimum; scikit-learn's."""


class Scores(NamedTuple):
    """What a linear classifier makes of samples."""

    probability_NE: Tensor
    converged: bool
    """Whether the solver has reached the minimum of the loss."""


def linear_scores(features_MD: Tensor, member_ME: Tensor, queries_ND: Tensor, l2: float, exclusive: bool) -> Scores:
    """Return the probability of each class.

    `exclusive`: each sample has one class, softmax and cross entropy; else every class is a question of its own.
    """
    mean_D, std_D = features_MD.mean(0), features_MD.std(0, correction=0)
    std_D = torch.where(std_D > 0, std_D, 1.0)
    inputs_MD, wanted_ME = ((features_MD - mean_D) / std_D).double(), member_ME.double()
    weight_ED = torch.zeros(wanted_ME.shape[1], inputs_MD.shape[1], dtype=torch.float64, requires_grad=True)
    bias_E = torch.zeros(wanted_ME.shape[1], dtype=torch.float64, requires_grad=True)
    solver: Any = torch.optim.LBFGS(
        [weight_ED, bias_E], max_iter=_STEPS, tolerance_grad=1e-6, history_size=20, line_search_fn="strong_wolfe"
    )

    def loss_of_all() -> Tensor:
        solver.zero_grad()
        logits_ME = inputs_MD @ weight_ED.T + bias_E
        if exclusive:
            loss = F.cross_entropy(logits_ME, wanted_ME, reduction="sum")
        else:
            loss = F.binary_cross_entropy_with_logits(logits_ME, wanted_ME, reduction="sum")
        # Over the number of samples, which moves no minimum and keeps the solver's tolerances meaningful.
        loss = (loss + l2 / 2 * weight_ED.square().sum()) / len(inputs_MD)
        torch.autograd.backward(loss)
        return loss

    solver.step(loss_of_all)
    loss_of_all()  # the solver's last gradient may be that of a trial step
    slopes = [parameter.grad for parameter in (weight_ED, bias_E) if parameter.grad is not None]
    converged = all(bool((slope.abs() <= _FLAT).all()) for slope in slopes)  # false for NaN, too
    with torch.no_grad():
        logits_NE = ((queries_ND - mean_D) / std_D).double() @ weight_ED.T + bias_E
        return Scores(logits_NE.softmax(1) if exclusive else logits_NE.sigmoid(), converged)
