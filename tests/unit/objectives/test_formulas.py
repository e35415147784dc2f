"""Published formulas against references in numpy: masks, decoder, masked loss of many sensors, schedule."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from gfm_pipeline.data.config import MaskConfig
from gfm_pipeline.data.masking import draw_mask, mask_grid
from gfm_pipeline.models.decode import SensorDecoder
from gfm_pipeline.models.msgfm import SensorImages
from gfm_pipeline.objectives.cross_sensor_mim import CrossSensorMIM
from gfm_pipeline.train.config import ScheduleConfig
from gfm_pipeline.train.schedule import learning_rate
from tests.make_batch import CELL_PX, build_one, make_batch, tiny_model


def test_masks_hide_22_of_36_cells_each_as_often_as_any_other() -> None:
    side, hidden = mask_grid(MaskConfig(cell_px=32, ratio=0.6), 192)
    assert (side, hidden) == (6, math.ceil(0.6 * 36)) == (6, 22)
    draws = 3000
    masks = np.stack([draw_mask(side, hidden, 7, sample).ravel() for sample in range(draws)]).astype(float)
    assert (masks.sum(1) == hidden).all()
    share = hidden / 36
    spread = 5 * math.sqrt(share * (1 - share) / draws)
    assert np.abs(masks.mean(0) - share).max() < spread
    both = masks.T @ masks / draws  # two given cells hidden together, drawn without replacement
    together = hidden * (hidden - 1) / (36 * 35)
    apart = ~np.eye(36, dtype=bool)
    assert np.abs(both[apart] - together).max() < 5.5 * math.sqrt(together * (1 - together) / draws)


@pytest.mark.parametrize(("stride", "bands"), [(4, 3), (8, 1), (2, 13)])
def test_the_decoder_is_a_matrix_product_and_a_rearrangement(stride: int, bands: int) -> None:
    decoder = SensorDecoder(5, bands, stride).double()
    features = np.random.default_rng(0).normal(size=(2, 3, 4, 5))
    weight, bias = (p.detach().numpy() for p in decoder.head.parameters())
    flat = features @ weight[:, :, 0, 0].T + bias  # [B,i,j,C*r*r]
    blocks = flat.reshape(2, 3, 4, bands, stride, stride)
    expected = blocks.transpose(0, 3, 1, 4, 2, 5).reshape(2, bands, 3 * stride, 4 * stride)
    with torch.no_grad():
        np.testing.assert_allclose(decoder(torch.from_numpy(features)).numpy(), expected, atol=1e-12)


def masked_l1(predicted: np.ndarray, target: np.ndarray, cells: np.ndarray) -> float:
    """SimMIM's loss: the sum over hidden pixels / (their number + 1e-5) / bands, of the rows given."""
    hidden = np.kron(cells, np.ones((1, CELL_PX, CELL_PX)))[:, None]
    return float((np.abs(predicted - target) * hidden).sum() / (hidden.sum() + 1e-5) / target.shape[1])


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_the_loss_of_four_sensors_of_a_place(share: float) -> None:
    sensors = ["s1", "s2", "dsm", "rgb"]
    streams = {"places": sensors, "photos": ["rgb"]}
    model, batch = tiny_model(streams).eval(), make_batch(streams, num_samples=3, step=5)
    objective = build_one("cross_sensor_mim", {"cross_share": share}, model, streams)
    assert isinstance(objective, CrossSensorMIM)
    with torch.no_grad():
        losses = objective(model, batch, torch.Generator())
        part = batch.streams["places"]
        total = 0.0
        for position, source in enumerate(sensors):
            features = model.encode([SensorImages(source, part.images[source], part.masks[source])])[0]
            for target, rows in objective.targets(sensors, position, 3, batch.step).items():
                if rows:
                    loss = masked_l1(
                        model.decode(target, features[rows]).numpy(),
                        part.images[target][rows].numpy(),
                        part.masks[source][rows].numpy(),
                    )
                    assert losses.parts["places"][f"{source}->{target}"].item() == pytest.approx(loss, rel=1e-5)
                    total += loss * len(rows) / 12
    assert losses.streams["places"].item() == pytest.approx(total, rel=1e-5)
    crossed = [name for name in losses.parts["places"] if name.split("->")[0] != name.split("->")[1]]
    assert bool(crossed) == (share > 0)
    assert list(losses.parts["photos"]) == ["rgb->rgb"]


def test_the_papers_schedule_at_chosen_steps() -> None:
    steps = 1234  # of an epoch
    for base in (1e-4, 0.25e-4, 1e-5):
        rise = np.linspace(5e-7, base, 10 * steps + 1)
        for step in (0, 1, 617, 5 * steps, 10 * steps):
            assert learning_rate(base, step, ScheduleConfig(), steps) == pytest.approx(rise[step], rel=1e-9)
        for epoch, factor in ((10, 1), (699.99, 1), (700, 0.1), (800, 0.1)):
            assert learning_rate(base, round(epoch * steps), ScheduleConfig(), steps) == pytest.approx(base * factor)
        cosine = ScheduleConfig(kind="cosine", epochs=100, warmup_epochs=10)
        for epoch in (10, 32.5, 55, 100):
            expected = base * 0.5 * (1 + np.cos(np.pi * (round(epoch * steps) - 10 * steps) / (90 * steps)))
            assert learning_rate(base, round(epoch * steps), cosine, steps) == pytest.approx(expected, abs=1e-18)
