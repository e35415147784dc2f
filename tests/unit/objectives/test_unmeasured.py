"""Pixels that were not measured are no targets: losses are those of the measured part, computed here another way."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from gfm_pipeline.data.batch import HeterogeneousBatch, StreamBatch
from gfm_pipeline.models.embed import cells_to_pixels
from gfm_pipeline.models.step_view import StepView
from gfm_pipeline.objectives.clip_reconstruction import hidden_distance
from gfm_pipeline.objectives.cross_sensor_mim import CrossSensorMIM, CrossSensorMIMConfig, normalise_locally
from gfm_pipeline.objectives.teaching import mean_of_cells
from tests.make_batch import build_one, make_batch, tiny_model

SIDE = 16


class Guess:
    """A model that predicts a number of its own for every pixel, whatever it sees."""

    def encode(self, inputs: list[Any]) -> list[Tensor]:
        return [torch.arange(len(item.image_BCHW)).float() for item in inputs]

    def decode(self, sensor: str, rows: Tensor) -> Tensor:
        pixels = torch.arange(2 * SIDE * SIDE).reshape(1, 2, SIDE, SIDE)
        return torch.sin(pixels + rows[:, None, None, None] + len(sensor))


def lane(images: dict[str, Tensor], masks: dict[str, Tensor], **more: Any) -> HeterogeneousBatch:
    count = len(next(iter(images.values())))
    part = StreamBatch(images, masks, tuple(map(str, range(count))), (0,) * count, **more)
    return HeterogeneousBatch(0, 0, {"a": part})


def noise(count: int, sensors: str = "x", seed: int = 0) -> HeterogeneousBatch:
    generator = torch.Generator().manual_seed(seed)
    images = {sensor: torch.randn(count, 2, SIDE, SIDE, generator=generator) for sensor in sensors}
    masks = {sensor: torch.rand(count, 4, 4, generator=generator) < 0.6 for sensor in sensors}
    return lane(images, masks)


def with_valid(batch: HeterogeneousBatch, **valid: Tensor) -> HeterogeneousBatch:
    return HeterogeneousBatch(0, 0, {"a": replace(batch.streams["a"], valid=valid)})


def losses_of(batch: HeterogeneousBatch, **options: Any) -> Any:
    return CrossSensorMIM(CrossSensorMIMConfig(**options))(Guess(), batch, torch.Generator())  # type: ignore[arg-type]


@pytest.mark.parametrize("region", ["hidden", "all"])
@pytest.mark.parametrize("filler", [0.0, -9999.0, math.nan])
def test_seven_eighths_unmeasured_leave_the_loss_of_the_measured_part(region: str, filler: float) -> None:
    batch = noise(8)
    image = batch.streams["a"].images["x"]
    valid = torch.zeros_like(image, dtype=torch.bool)
    valid[:, :, :8, :4] = True  # an eighth
    expected, count = 0.0, 0
    hidden = cells_to_pixels(batch.streams["a"].masks["x"], SIDE).bool().expand_as(image)
    guess = Guess().decode("x", torch.arange(8).float())
    for where in valid.nonzero().tolist():
        b, c, y, x = where
        if region == "all" or hidden[b, c, y, x]:
            expected += abs(float(guess[b, c, y, x]) - float(image[b, c, y, x]))
            count += 1
    image[~valid] = filler
    losses = losses_of(with_valid(batch, x=valid), loss_region=region)
    assert float(losses.streams["a"]) == pytest.approx(expected / count, abs=1e-6)
    assert float(losses.streams["a"]) == float(losses.parts["a"]["x->x"])


@pytest.mark.parametrize("region", ["hidden", "all"])
@pytest.mark.parametrize("side", [None, 5])
def test_seven_of_eight_images_unmeasured_leave_the_loss_of_the_eighth(region: str, side: int | None) -> None:
    batch, row = noise(8), 0
    part = batch.streams["a"]
    alone = lane({"x": part.images["x"][:1].clone()}, {"x": part.masks["x"][:1]})
    valid = torch.zeros(8, 2, SIDE, SIDE, dtype=torch.bool)
    valid[row] = True
    part.images["x"][1:] = 0
    options = {"loss_region": region, "normalise_target_px": side}
    found = losses_of(with_valid(batch, x=valid), **options)
    assert float(found.streams["a"]) == pytest.approx(float(losses_of(alone, **options).streams["a"]), abs=1e-6)


def test_directions_count_by_their_images_with_a_measured_target() -> None:
    batch = noise(4, "xy")
    valid = torch.zeros(4, 2, SIDE, SIDE, dtype=torch.bool)
    valid[0] = True  # of y, one image in four
    found = losses_of(with_valid(batch, y=valid), cross_share=0.0)
    whole = losses_of(batch, cross_share=0.0).parts["a"]["x->x"]
    x, y = (float(found.parts["a"][way]) for way in ("x->x", "y->y"))
    assert x == pytest.approx(float(whole), abs=1e-6)
    assert float(found.streams["a"]) == pytest.approx((4 * x + 1 * y) / 5, abs=1e-6)


@pytest.mark.parametrize("side", [None, 3])
@pytest.mark.parametrize("region", ["hidden", "all"])
def test_where_nothing_was_measured_the_loss_and_its_gradient_are_0(side: int | None, region: str) -> None:
    batch = noise(3, "xy")
    for image in batch.streams["a"].images.values():
        image.fill_(0)
    blank = torch.zeros(3, 2, SIDE, SIDE, dtype=torch.bool)
    shift = torch.zeros((), requires_grad=True)

    class Moved(Guess):
        def decode(self, sensor: str, rows: Tensor) -> Tensor:
            return super().decode(sensor, rows) + shift

    config = CrossSensorMIMConfig(normalise_target_px=side, loss_region=region)
    losses = CrossSensorMIM(config)(Moved(), with_valid(batch, x=blank, y=blank), torch.Generator())  # type: ignore[arg-type]
    torch.autograd.backward(losses.streams["a"])
    assert float(losses.streams["a"]) == 0.0
    assert [float(value) for value in losses.parts["a"].values()] == [0.0] * 4
    assert shift.grad is not None
    assert float(shift.grad) == 0.0


def test_a_skipped_row_counts_neither_in_the_loss_nor_in_the_weights() -> None:
    batch = noise(4, "xy")
    valid = torch.ones(4, 2, SIDE, SIDE, dtype=torch.bool)
    valid[0, :, 3] = False
    whole = replace(batch.streams["a"], valid={"x": valid})
    found = losses_of(HeterogeneousBatch(0, 0, {"a": whole}), cross_share=0.0)
    part = replace(batch.streams["a"], valid={"x": valid}, skipped=(3,))
    part.images["x"][3] = 1e6
    less = losses_of(HeterogeneousBatch(0, 0, {"a": part}), cross_share=0.0)
    assert float(less.streams["a"]) < 10
    assert float(less.streams["a"]) != float(found.streams["a"])


def test_all_measured_gives_the_loss_of_a_batch_that_tells_nothing() -> None:
    batch = noise(4, "xy")
    everywhere = torch.ones(4, 2, SIDE, SIDE, dtype=torch.bool)
    for options in ({}, {"normalise_target_px": 5}, {"loss_region": "all"}):
        told = losses_of(with_valid(batch, x=everywhere), **options)
        assert float(told.streams["a"]) == pytest.approx(float(losses_of(batch, **options).streams["a"]), abs=1e-6)


def test_local_normalisation_of_measured_pixels_equals_a_window_by_window_reference() -> None:
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(1, 2, 9, 9, generator=generator, dtype=torch.float64)
    known = torch.rand(1, 2, 9, 9, generator=generator) < 0.4
    out = normalise_locally(image, 5, known)
    for c in range(2):
        for y in range(9):
            for x in range(9):
                window = (slice(max(0, y - 2), y + 3), slice(max(0, x - 2), x + 3))
                values = image[0, c][window][known[0, c][window]]
                expected = torch.zeros((), dtype=torch.float64)
                if known[0, c, y, x]:
                    spread = values.var() if len(values) > 1 else torch.zeros(())
                    expected = (image[0, c, y, x] - values.mean()) / (spread + 1e-6).sqrt()
                assert float(out[0, c, y, x]) == pytest.approx(float(expected), abs=1e-6)


TEACHER = {"teacher": {"name": "test_vit", "weights": "random", "image_px": 32}}


@pytest.mark.parametrize("name", ["feature_distillation", "clip_distillation", "clip_reconstruction"])
def test_images_that_were_not_measured_are_not_taught(name: str) -> None:
    streams = {"photos": ["rgb"]}
    model, batch = tiny_model(streams).eval(), make_batch(streams, num_samples=4)
    part = batch.streams["photos"]
    valid = torch.ones_like(part.images["rgb"], dtype=torch.bool)
    valid[2:] = False
    valid[0, :, :8, :8] = False
    part.images["rgb"][~valid] = 0
    objective = build_one(name, TEACHER, model, streams)

    def loss(one: StreamBatch) -> float:
        lane_batch = HeterogeneousBatch(0, 0, {"photos": one})
        return float(objective(StepView(model), lane_batch, torch.Generator()).streams["photos"])

    found = loss(replace(part, valid={"rgb": valid}))
    measured = StreamBatch(
        {"rgb": part.images["rgb"][:2]},
        {"rgb": part.masks["rgb"][:2]},
        part.keys[:2],
        (0, 0),
        valid={"rgb": valid[:2]},
    )
    assert found == pytest.approx(loss(measured), abs=1e-5)
    assert loss(replace(part, valid={"rgb": torch.zeros_like(valid)})) == 0.0


def test_a_mean_over_cells_leaves_out_those_without_a_measured_pixel() -> None:
    features = torch.arange(8.0).reshape(1, 2, 2, 2)
    visible = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    visible[0, 0, 0, 0] = visible[0, 0, 7, 7] = True  # one pixel is enough
    assert mean_of_cells(features, visible).tolist() == [[3.0, 4.0]]
    assert mean_of_cells(features, torch.zeros_like(visible)).tolist() == [[0.0, 0.0]]


def test_features_of_unmeasured_places_are_nobodys_target() -> None:
    generator = torch.Generator().manual_seed(2)
    told, patches = torch.randn(2, 2, 2, 5, generator=generator), torch.randn(2, 4, 4, 5, generator=generator)
    mask = torch.ones(2, 2, 2, dtype=torch.bool)
    visible = torch.zeros(2, 1, 8, 8, dtype=torch.bool)
    visible[0, 0, 1, 1] = True  # patch 0,0 of cell 0,0
    apart = 1 - torch.cosine_similarity(told[0, 0, 0], patches[0, 0, 0], dim=0)
    assert float(hidden_distance(told, patches, mask, visible)) == pytest.approx(float(apart), abs=1e-4)
