"""Cross-sensor masked image modelling against references written here."""

import itertools
from collections import Counter
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from gfm_pipeline.models.embed import cells_to_pixels
from gfm_pipeline.objectives.cross_sensor_mim import CrossSensorMIM, CrossSensorMIMConfig, normalise_locally
from gfm_pipeline.objectives.objective import OBJECTIVES


@dataclass
class Part:
    images: dict[str, Tensor]
    masks: dict[str, Tensor]
    keys: tuple[str, ...]
    skipped: tuple[int, ...] = ()
    valid: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class Batch:
    streams: dict[str, Part]
    step: int


class Echo:
    """A model whose features say which image they came from, and whose decoders answer a constant per sensor."""

    answers = {"s1": 0.5, "s2": -1.0}
    bands = {"s1": 2, "s2": 13}

    def __init__(self) -> None:
        self.passes = 0

    def encode(self, inputs: list) -> list[Tensor]:
        self.passes += 1
        return [torch.zeros(len(item.image_BCHW), 2, 2, 1) for item in inputs]

    def decode(self, sensor: str, features: Tensor) -> Tensor:
        return torch.full((len(features), self.bands[sensor], 8, 8), self.answers[sensor])


def batch(num: int = 4, step: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(3)
    images = {s: torch.randn(num, c, 8, 8, generator=generator) for s, c in Echo.bands.items()}
    masks = {s: torch.rand(num, 2, 2, generator=generator) < 0.6 for s in Echo.bands}
    return Batch({"pairs": Part(images, masks, tuple("abcd"[:num]))}, step)


def reference(image: Tensor, answer: float, mask: Tensor) -> float:
    """L1 over hidden pixels / hidden pixels / bands, pixel by pixel."""
    total, hidden = 0.0, 0
    for b, row, column in itertools.product(range(len(image)), range(8), range(8)):
        if mask[b, row // 4, column // 4]:
            hidden += 1
            total += float((image[b, :, row, column] - answer).abs().sum())
    return total / (hidden + 1e-5) / image.shape[1]


@pytest.mark.parametrize(("share", "pairs"), [(0.0, ["s1->s1", "s2->s2"]), (1.0, ["s1->s2", "s2->s1"])])
def test_loss_equals_the_reference(share: float, pairs: list[str]) -> None:
    data, model = batch(), Echo()
    losses = CrossSensorMIM(CrossSensorMIMConfig(cross_share=share))(model, data, torch.Generator())  # type: ignore[arg-type]
    part = data.streams["pairs"]
    expected = {}
    for pair in pairs:
        source, target = pair.split("->")
        # the input's mask is the loss region, whatever is reconstructed
        expected[pair] = reference(part.images[target], Echo.answers[target], part.masks[source])
    assert {name: float(value) for name, value in losses.parts["pairs"].items()} == pytest.approx(expected, rel=1e-5)
    assert float(losses.streams["pairs"]) == pytest.approx(sum(expected.values()) / 2, rel=1e-5)
    assert model.passes == 1


def test_loss_region_all_counts_every_pixel() -> None:
    data = batch()
    config = CrossSensorMIMConfig(cross_share=0.0, loss_region="all")
    losses = CrossSensorMIM(config)(Echo(), data, torch.Generator())  # type: ignore[arg-type]
    image = data.streams["pairs"].images["s1"]
    assert float(losses.parts["pairs"]["s1->s1"]) == pytest.approx(float((image - 0.5).abs().mean()), rel=1e-5)


def test_a_skipped_row_counts_in_no_loss() -> None:
    for region in ("all", "hidden"):
        data = batch()
        part = data.streams["pairs"]
        config = CrossSensorMIMConfig(cross_share=0.0, loss_region=region)
        image, mask = part.images["s1"], part.masks["s1"]
        image[1], mask[1], part.skipped = 1e6, 0, (1,)
        losses = CrossSensorMIM(config)(Echo(), data, torch.Generator())  # type: ignore[arg-type]
        rest = [row for row in range(len(image)) if row != 1]
        distance = (image[rest] - 0.5).abs()
        hidden = (
            cells_to_pixels(mask[rest], image.shape[-1]).expand_as(distance) if region == "hidden" else distance >= 0
        )
        assert float(losses.parts["pairs"]["s1->s1"]) == pytest.approx(float(distance[hidden.bool()].mean()), rel=1e-4)


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
@pytest.mark.parametrize("num_samples", [1, 3, 4])
def test_cross_share_is_exact_over_steps_for_every_sensor(share: float, num_samples: int) -> None:
    objective = CrossSensorMIM(CrossSensorMIMConfig(cross_share=share))
    for position, sensor in enumerate(["s1", "s2"]):
        crossed = 0
        for step in range(40):
            rows = objective.targets(["s1", "s2"], position, num_samples, step)
            assert sorted(itertools.chain(*rows.values())) == list(range(num_samples))
            crossed += num_samples - len(rows[sensor])
        assert crossed == pytest.approx(share * 40 * num_samples, abs=1)


@pytest.mark.parametrize("num_sensors", [2, 3, 4])
@pytest.mark.parametrize("share", [0.5, 1.0, 0.3])
@pytest.mark.parametrize("num_samples", [1, 4, 7])
def test_every_direction_between_sensors_is_taken_equally_often(
    num_sensors: int, share: float, num_samples: int
) -> None:
    objective = CrossSensorMIM(CrossSensorMIMConfig(cross_share=share))
    sensors = list("abcd")[:num_sensors]
    steps = 600
    counts = Counter(
        (source, target)
        for step in range(steps)
        for position, source in enumerate(sensors)
        for target, rows in objective.targets(sensors, position, num_samples, step).items()
        for _ in rows
    )
    images = steps * num_samples
    for source, target in itertools.product(sensors, sensors):
        expected = images * ((1 - share) if source == target else share / (num_sensors - 1))
        assert counts[source, target] == pytest.approx(expected, abs=num_sensors)


def test_a_lone_sensor_reconstructs_itself() -> None:
    rows = CrossSensorMIM(CrossSensorMIMConfig(cross_share=1.0)).targets(["rgb"], 0, 3, 0)
    assert rows == {"rgb": [0, 1, 2]}


def test_local_normalisation_equals_a_window_by_window_reference() -> None:
    image = torch.randn(1, 1, 9, 9, dtype=torch.float64)
    out = normalise_locally(image, 5)
    for row, column in [(4, 4), (0, 0), (8, 2)]:
        window = image[0, 0, max(0, row - 2) : row + 3, max(0, column - 2) : column + 3]
        expected = (image[0, 0, row, column] - window.mean()) / (window.var() + 1e-6).sqrt()
        assert float(out[0, 0, row, column]) == pytest.approx(float(expected), rel=1e-6)


def test_it_is_found_by_name() -> None:
    assert OBJECTIVES.get("cross_sensor_mim") is CrossSensorMIM
