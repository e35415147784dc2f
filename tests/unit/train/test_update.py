"""What a stream's learning rate comes to: measured on parameters that all streams move, and on a stream's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from gfm_pipeline.data.batch import HeterogeneousBatch, StreamBatch
from gfm_pipeline.train.config import OptimConfig, ScheduleConfig
from gfm_pipeline.train.optim import StreamRate, parameter_groups, stream_weights
from gfm_pipeline.train.step import TOTAL, LossName, StepResult
from gfm_pipeline.train.update import Updates
from tests.make_batch import tiny_model

RATES = {
    "photos": StreamRate(("rgb",), 1e-4),
    "pairs": StreamRate(("s1",), 0.25e-4),
    "places": StreamRate(("dsm",), 1e-5),
}
CONSTANT = ScheduleConfig(kind="constant", warmup_epochs=0)
STEPS = 100


class Toy:
    """Streams that pull the encoder in directions of their own, through noise, and their embeddings in one direction.

    The directions are orthogonal and of equal size, so how far the encoder went in each is what the stream effected.
    """

    def __init__(self, per_stream: bool = False, homogeneous: bool = False) -> None:
        streams = {name: list(rate.sensors) for name, rate in RATES.items()}
        self.model = tiny_model(streams)
        weights = dict.fromkeys(RATES, 1.0) if per_stream else stream_weights(RATES, homogeneous)
        self.weights = weights
        self.updates = Updates(RATES, CONSTANT, 100, per_stream)
        self.shared = next(p for n, p in self.model.named_parameters() if p.numel() == 4096 and n.startswith("encoder"))
        kept = {id(self.shared), *(id(self.own(stream)) for stream in RATES)}
        groups = parameter_groups(self.model, RATES, OptimConfig(weight_decay=0.0))
        for group in groups:
            group["params"] = [p for p in group["params"] if id(p) in kept]
        self.optimizer = torch.optim.AdamW([group for group in groups if group["params"]])
        self.start = {name: p.detach().clone() for name, p in self.model.named_parameters()}
        self.shared_start = self.shared.detach().clone()
        index = torch.arange(4096)
        signs = {name: 1 - 2.0 * ((index >> bit) & 1) for bit, name in enumerate(RATES)}
        self.directions = {name: sign.reshape(self.shared.shape) for name, sign in signs.items()}
        self.noise = torch.Generator().manual_seed(0)

    def own(self, stream: str) -> torch.nn.Parameter:
        (sensor,) = RATES[stream].sensors
        return self.model.embeds[sensor].patches.weight  # type: ignore[return-value, union-attr]

    def draw(self) -> torch.Tensor:
        """Noise of variance 1 that pulls in none of the directions."""
        noise = torch.randn(self.shared.shape, generator=self.noise)
        for direction in self.directions.values():
            noise -= direction * (noise * direction).mean()
        return noise

    def once(self, lanes: Sequence[HeterogeneousBatch]) -> StepResult:
        self.shared.grad = torch.zeros_like(self.shared)
        for stream in RATES:
            self.own(stream).grad = torch.zeros_like(self.own(stream))
        for stream in lanes[0].streams:
            self.shared.grad += self.weights[stream] * (0.2 * self.directions[stream] + self.draw())
            self.own(stream).grad += self.weights[stream]  # type: ignore[operator]
        self.optimizer.step()
        return StepResult({}, {}, 1.0, 1)

    def run(self, order: Any = None) -> None:
        for step in range(STEPS):
            present = order(step) if order else list(RATES)
            self.updates.take([batch_of(present, step)], step, self.optimizer.param_groups, self.once)

    def effects(self) -> dict[str, float]:
        moved = self.shared_start - self.shared.detach()
        found = {name: float((moved * direction).sum()) for name, direction in self.directions.items()}
        return {name: value / found["places"] for name, value in found.items()}


def batch_of(streams: Sequence[str], step: int) -> HeterogeneousBatch:
    part = StreamBatch(images={}, masks={}, keys=(), passes=())
    return HeterogeneousBatch(step, 0, dict.fromkeys(streams, part))


def test_streams_move_the_shared_encoder_in_the_ratio_of_their_rates() -> None:
    toy = Toy()
    toy.run()
    effects = toy.effects()
    assert effects["photos"] == pytest.approx(10, rel=0.15)
    assert effects["pairs"] == pytest.approx(2.5, rel=0.15)


def test_a_streams_own_parameters_move_at_its_rate() -> None:
    toy = Toy()
    toy.run()
    names = {id(p): name for name, p in toy.model.named_parameters()}
    moved = {s: float((toy.start[names[id(toy.own(s))]] - toy.own(s).detach()).mean()) for s in RATES}
    assert moved["photos"] / moved["places"] == pytest.approx(10, rel=0.15)
    assert moved["pairs"] / moved["places"] == pytest.approx(2.5, rel=0.15)


def test_stepping_once_per_stream_does_not_do_what_its_rates_say() -> None:
    toy = Toy(per_stream=True)
    toy.run()
    assert toy.effects()["photos"] < 3
    assert toy.effects()["pairs"] < 1.5


def test_homogeneous_batches_keep_the_ratio_and_leave_absent_sensors_alone() -> None:
    toy = Toy(homogeneous=True)
    toy.run(lambda step: [list(RATES)[step % 2]])  # "places" never has its turn
    moved = {name: p for name, p in toy.model.named_parameters() if not torch.equal(p, toy.start[name])}
    assert not any(name.startswith(("embeds.dsm", "decoders.dsm")) for name in moved)
    assert any(name.startswith("embeds.s1") for name in moved)
    shift = toy.shared_start - toy.shared.detach()
    photos, pairs = (float((shift * toy.directions[name]).sum()) for name in ("photos", "pairs"))
    assert photos / pairs == pytest.approx(4, rel=0.2)


def test_an_absent_streams_parameters_stay_to_the_bit_though_they_have_momentum() -> None:
    toy = Toy()
    toy.run()
    before = toy.own("pairs").detach().clone()
    shared = toy.shared.detach().clone()
    toy.updates.take([batch_of(["photos"], 0)], 0, toy.optimizer.param_groups, toy.once)
    assert torch.equal(toy.own("pairs"), before)
    assert not torch.equal(toy.shared, shared)


def test_a_shared_sensor_moves_with_any_stream_that_carries_it() -> None:
    rates = {"photos": StreamRate(("rgb",), 1e-4), "places": StreamRate(("rgb", "dsm"), 1e-5)}
    groups = parameter_groups(tiny_model({n: r.sensors for n, r in rates.items()}), rates, OptimConfig())
    updates = Updates(rates, CONSTANT, 100, per_stream=False)
    updates.set_rates(groups, ["places"], 0)
    assert {group["label"]: group["lr"] for group in groups if group["label"].endswith("/decay")} == {
        "photos/decay": 1e-4,
        "places/decay": 1e-5,
        "encoder/decay": 1e-4,
        "experts/decay": 1e-4,
    }
    updates.set_rates(groups, ["photos"], 0)
    assert {g["lr"] for g in groups if g["label"].startswith("places")} == {0.0}


def test_losses_and_counts_of_several_updates_become_those_of_a_step() -> None:
    toy = Toy(per_stream=True)

    def loss(stream: str, value: float) -> dict[LossName, torch.Tensor]:
        return {TOTAL: torch.tensor(value), LossName("stream", stream): torch.tensor(value)}

    told = iter(
        [
            StepResult(loss("photos", 1.0), {"l": torch.tensor([1])}, 2.0, 3),
            StepResult(loss("pairs", 4.0), {"l": torch.tensor([2])}, 1.0, 5),
            StepResult(loss("places", 1.0), {}, 1.0, 1, 1),
        ]
    )
    result = toy.updates.take([batch_of(list(RATES), 0)], 0, toy.optimizer.param_groups, lambda _: next(told))
    assert {name: float(value) for name, value in result.losses.items()} == {
        TOTAL: 2.0,
        LossName("stream", "photos"): 1.0,
        LossName("stream", "pairs"): 4.0,
        LossName("stream", "places"): 1.0,
    }
    assert (int(result.counts["l"][0]), result.grad_norm, result.num_images, result.num_skipped) == (3, 2.0, 9, 1)
