"""Judging frozen features on a labelled collection: nearest neighbours and a linear classifier, scored by torchmetrics.

A single class is scored by accuracy, over all samples and as the mean over classes; many classes by average precision
over the whole test set, micro (all decisions together) and macro. Means over classes are over those that occur in the
test set: the others have no right answer that could be found. `linear_converged` is false where the linear classifier
is not at its minimum; its numbers then depend on where the solver stopped.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gfm_pipeline.data.seeding import stable_id
from gfm_pipeline.errors import ConfigError
from gfm_pipeline.evaluate.config import ProbeConfig
from gfm_pipeline.evaluate.features import Features
from gfm_pipeline.evaluate.knn import knn_scores
from gfm_pipeline.evaluate.labels import Shares, Targets, many_classes, single_class
from gfm_pipeline.evaluate.linear import linear_scores

_log = logging.getLogger(__name__)


def run_probe(
    features: Features, is_test_N: NDArray[np.bool_], shares: Mapping[str, Shares], config: ProbeConfig, where: str
) -> dict[str, Any]:
    """Return {"train", "test", "classes", and for each name of features {"knn_...", "linear_..."}}.

    Raises ConfigError when there is nothing to learn from or to predict, or a single class only.
    """
    known = [shares[key] for key in features.keys]
    single = config.task == "single"
    targets = single_class(known, where) if single else many_classes(known, config.min_share)
    member = torch.from_numpy(targets.member_NE)
    test = torch.from_numpy(is_test_N)
    _check(targets, int((~test).sum()), int(test.sum()), where)
    out: dict[str, Any] = {"train": int((~test).sum()), "test": int(test.sum()), "classes": len(targets.classes)}
    for name, values_ND in features.by_name.items():
        features_ND = torch.from_numpy(values_ND)
        learn, ask, members = features_ND[~test], features_ND[test], member[~test]
        linear = linear_scores(learn, members, ask, config.l2, exclusive=single)
        scores = {
            "knn": knn_scores(learn, members, ask, config.knn.k, config.knn.temperature),
            "linear": linear.probability_NE,
        }
        if not linear.converged:
            _log.warning(
                "%s: the linear probe of %s has not converged, its scores say little. Set %s.l2 higher (it is %g).",
                *(where, name, where, config.l2),
            )
        judge = accuracies if single else average_precisions
        out[name] = {
            f"{kind}_{metric}": value
            for kind, scores_NE in scores.items()
            for metric, value in judge(scores_NE, member[test]).items()
        }
        out[name]["linear_converged"] = linear.converged
    return out


def chosen_by_hash(keys: list[str], share: float) -> NDArray[np.bool_]:
    """Return [N] which samples are predicted: about `share` of them, always the same."""
    return np.array([stable_id(f"test/{key}") < share * 2**64 for key in keys], dtype=np.bool_)


def accuracies(scores_NE: Tensor, member_NE: Tensor) -> dict[str, float]:
    """Return the share of right answers, of all samples and as the mean over the classes that occur."""
    from torchmetrics.functional.classification import multiclass_accuracy

    wanted_N = member_NE.int().argmax(1)
    count = member_NE.shape[1]
    # Not average="macro": it counts a class that was answered somewhere and occurs nowhere, as wrong.
    of_classes_E = multiclass_accuracy(scores_NE, wanted_N, count, average="none")
    occurs_E = torch.bincount(wanted_N, minlength=count) > 0
    return {
        "accuracy": float(multiclass_accuracy(scores_NE, wanted_N, count, average="micro")),
        "mean_class_accuracy": float(of_classes_E[occurs_E].mean()),
    }


def average_precisions(scores_NE: Tensor, member_NE: Tensor) -> dict[str, float]:
    """Return the mean average precision over the whole set: micro, and macro over the classes that occur."""
    from torchmetrics.functional.classification import binary_average_precision

    wanted_NE = member_NE.int()
    classes = torch.nonzero(member_NE.any(0)).flatten().tolist()
    of_classes = [float(binary_average_precision(scores_NE[:, e], wanted_NE[:, e])) for e in classes]
    return {
        "map_micro": float(binary_average_precision(scores_NE.flatten(), wanted_NE.flatten())),
        "map_macro": float(np.mean(of_classes)),
    }


def _check(targets: Targets, train: int, test: int, where: str) -> None:
    if not (train and test):
        raise ConfigError(
            f"{where}: {train} samples to learn from and {test} to predict, expected some of both. Set "
            f"{where}.test_share or {where}.test_filter."
        )
    if len(targets.classes) < 2:
        raise ConfigError(
            f"{where}.label: all samples are of the class {', '.join(targets.classes) or 'none'}, expected two or more."
        )
