"""What was measured, as lines to read and as a tree for machines."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from gfm_pipeline.bench.step import Score


def step_lines(scores: dict[str, Score], peak: float, ranks: int) -> Iterator[str]:
    """Yield a table of contenders, ratios between them, and where the time of each goes."""
    yield f"{'':<16}{'images/s':>10}{'ms/step':>10}{'spread':>8}{'TFLOP/s':>9}{'of peak':>9}{'memory':>10}"
    for name, score in scores.items():
        rate = score.flops / score.step_s
        yield (
            f"{name:<16}{score.images_per_s:>10.1f}{score.step_s * 1e3:>10.0f}{score.spread:>8.0%}{rate / 1e12:>9.3f}"
            f"{rate / peak:>9.1%}{score.peak_bytes / 2**30:>7.2f} GiB"
        )
    yield f"peak: {peak / 1e12:.3f} TFLOP/s in a large matrix product; memory and FLOP/s: one of {ranks} ranks"
    for text, ratio in ratios(scores).items():
        yield f"{text}: {ratio:.2f}"
    for name, score in scores.items():
        if score.split:
            parts = "  ".join(f"{part} {share:.1%}" for part, share in score.split.items())
            yield f"time of {name}: {parts}"


def ratios(scores: dict[str, Score]) -> dict[str, float]:
    """Return images/s of one contender over another's."""
    pairs = [("dense", "timm"), ("moe", "dense"), ("dense compiled", "dense"), ("moe compiled", "moe")]
    return {
        f"images/s of {a} / {b}": scores[a].images_per_s / scores[b].images_per_s
        for a, b in pairs
        if a in scores and b in scores
    }


def step_tree(scores: dict[str, Score], peak: float) -> dict[str, Any]:
    """Return everything as plain values."""
    return {
        "matmul_flop_per_s": peak,
        "contenders": {
            name: {
                **asdict(score),
                "images_per_s": score.images_per_s,
                "flop_per_s": score.flops / score.step_s,
                "share_of_peak": score.flops / score.step_s / peak,
            }
            for name, score in scores.items()
        },
        "ratios": ratios(scores),
    }


def layer_lines(seconds: dict[str, float], num_tokens: int) -> Iterator[str]:
    """Yield seconds and the ratio to the dense MLP of each form of a layer."""
    yield f"forward and backward of one layer, {num_tokens} tokens a rank, the fastest of its passes"
    for name, value in seconds.items():
        yield f"{name:<16}{value * 1e3:>10.1f} ms{value / seconds['dense']:>8.2f} x dense"
