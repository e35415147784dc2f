"""Nearest neighbours, linear probe and average precision against references written without torch."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import minimize

from gfm_pipeline.evaluate.config import ProbeConfig
from gfm_pipeline.evaluate.features import Features
from gfm_pipeline.evaluate.knn import knn_scores
from gfm_pipeline.evaluate.linear import linear_scores
from gfm_pipeline.evaluate.probe import accuracies, average_precisions, run_probe

Array = NDArray[np.float64]


def some(seed: int, classes: int = 4, exclusive: bool = True) -> tuple[Array, NDArray[np.bool_], Array]:
    """Return features [40,6], membership [40,classes] and queries [15,6]."""
    rng = np.random.default_rng(seed)
    features, queries = rng.normal(size=(40, 6)) + 1, rng.normal(size=(15, 6)) + 1
    if exclusive:
        member = np.eye(classes, dtype=bool)[rng.integers(classes, size=40)]
    else:
        member = rng.random((40, classes)) < 0.4
    return features, member, queries


@pytest.mark.parametrize("k", [1, 5, 40, 1000])
@pytest.mark.parametrize("exclusive", [True, False])
def test_neighbours_vote_with_the_exponential_of_their_cosine(k: int, exclusive: bool) -> None:
    features, member, queries = some(k, exclusive=exclusive)
    found = knn_scores(torch.tensor(features), torch.tensor(member), torch.tensor(queries), k, 0.07).numpy()
    for query, scores in zip(queries, found, strict=True):
        cosines = [float(f @ query / math.sqrt(f @ f) / math.sqrt(query @ query)) for f in features]
        near = sorted(range(40), key=lambda i: -cosines[i])[:k]
        votes = sum(math.exp(cosines[i] / 0.07) * member[i].astype(float) for i in near)
        total = sum(math.exp(cosines[i] / 0.07) for i in near)
        np.testing.assert_allclose(scores, votes / total, rtol=1e-9)


@pytest.mark.parametrize("exclusive", [True, False])
@pytest.mark.parametrize("l2", [0.1, 1.0, 30.0])
def test_the_linear_probe_finds_the_minimum_that_scipy_finds(l2: float, exclusive: bool) -> None:
    features, member, queries = some(7, exclusive=exclusive)
    mean, std = features.mean(0), features.std(0)
    inputs, asked = (features - mean) / std, (queries - mean) / std

    def log_likelihoods(logits: Array) -> Array:
        if exclusive:
            return logits - np.log(np.exp(logits).sum(1, keepdims=True))
        return np.where(member, -np.log1p(np.exp(-logits)), -np.log1p(np.exp(logits)))

    def objective(flat: Array) -> float:
        weight, bias = flat[:-4].reshape(4, 6), flat[-4:]
        fit = log_likelihoods(inputs @ weight.T + bias)
        return float(-(fit * member).sum() if exclusive else -fit.sum()) + l2 / 2 * float((weight**2).sum())

    best = minimize(objective, np.zeros(4 * 7), method="BFGS", options={"gtol": 1e-6}).x
    logits = asked @ best[:-4].reshape(4, 6).T + best[-4:]
    expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True) if exclusive else 1 / (1 + np.exp(-logits))
    found = linear_scores(torch.tensor(features), torch.tensor(member), torch.tensor(queries), l2, exclusive)
    assert found.converged
    np.testing.assert_allclose(found.probability_NE.numpy(), expected, atol=1e-4)


def test_a_constant_feature_does_no_harm() -> None:
    features, member, queries = some(8)
    features[:, 0] = queries[:, 0] = 3
    scores = linear_scores(torch.tensor(features), torch.tensor(member), torch.tensor(queries), 1.0, True)
    assert bool(scores.probability_NE.isfinite().all())


def test_a_solver_that_stopped_early_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    """Features in all directions, of which a few matter by very little: no hundreds of steps get to the minimum."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(400, 150)) @ np.diag(np.logspace(0, -6, 150)) @ rng.normal(size=(150, 150))
    member = np.eye(2, dtype=bool)[(rng.normal(size=400) > 0).astype(int)]
    keys = [f"key{i}" for i in range(400)]
    shares = {key: {f"class{int(row[1])}": 1.0} for key, row in zip(keys, member, strict=True)}
    config = ProbeConfig(collections=("c",), sensors=("s1",), label="class", l2=0.0)
    is_test = np.arange(400) % 8 == 0
    found = run_probe(
        Features(keys, {"hard": features, "easy": features[:, :2]}), is_test, shares, config, "evaluate.probes.p"
    )
    assert (found["hard"]["linear_converged"], found["easy"]["linear_converged"]) == (False, True)
    assert "evaluate.probes.p: the linear probe of hard has not converged" in caplog.text
    assert "easy" not in caplog.text


def average_precision(scores: Array, wanted: NDArray[np.bool_]) -> float:
    """Area under the steps of precision over recall, equal scores taken together."""
    area, recalled = 0.0, 0.0
    for threshold in sorted(set(scores.tolist()), reverse=True):
        taken = scores >= threshold
        recall = float((taken & wanted).sum() / wanted.sum())
        area += (recall - recalled) * float((taken & wanted).sum() / taken.sum())
        recalled = recall
    return area


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 6), st.booleans())
def test_average_precision_is_that_of_the_whole_set(seed: int, classes: int, ties: bool) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.random((30, classes))
    scores = scores.round(1) if ties else scores
    wanted = rng.random((30, classes)) < 0.3
    wanted[0, 0] = True
    wanted[:, 1] &= bool(seed % 2)  # a class that may not occur
    found = average_precisions(torch.tensor(scores), torch.tensor(wanted))
    occurs = wanted.any(0)
    macro = [average_precision(scores[:, e], wanted[:, e]) for e in np.flatnonzero(occurs)]
    assert found["map_macro"] == pytest.approx(np.mean(macro), abs=1e-5)
    assert found["map_micro"] == pytest.approx(average_precision(scores.ravel(), wanted.ravel()), abs=1e-5)


def test_accuracy_over_samples_and_over_classes() -> None:
    wanted = torch.tensor([[1, 0, 0], [1, 0, 0], [1, 0, 0], [0, 1, 0]])
    scores = torch.tensor([[0.9, 0.1, 0], [0.8, 0.2, 0], [0.4, 0.6, 0], [0.1, 0.9, 0]])
    # The third class occurs nowhere, whether or not somebody answers it.
    for answer in ([0.1, 0.9, 0], [0.1, 0.2, 0.7]):
        scores[3] = torch.tensor(answer)
        right = 1.0 if answer[1] == 0.9 else 0.0
        assert accuracies(scores, wanted)["mean_class_accuracy"] == pytest.approx((2 / 3 + right) / 2)
    scores[3] = torch.tensor([0.1, 0.9, 0])
    assert accuracies(scores, wanted) == {
        "accuracy": pytest.approx(3 / 4),
        "mean_class_accuracy": pytest.approx((2 / 3 + 1) / 2),
    }
