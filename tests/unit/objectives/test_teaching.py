"""Objectives with a teacher, against references written here."""

from typing import Any

import numpy as np
import pytest
import torch

from gfm_pipeline.data.batch import HeterogeneousBatch
from gfm_pipeline.errors import ConfigError
from gfm_pipeline.models.msgfm import MsGFM
from gfm_pipeline.models.step_view import StepView
from gfm_pipeline.objectives.clip_reconstruction import hidden_distance
from gfm_pipeline.objectives.objective import check_objectives
from gfm_pipeline.objectives.teaching import Teaching
from tests.make_batch import IMAGE_PX, build_one, make_batch, make_setting, tiny_model

TEACHERS = ("feature_distillation", "clip_distillation", "clip_reconstruction")
TEACHER = {"teacher": {"name": "test_vit", "weights": "random", "image_px": 32}}
S2 = {"bands": ["B4", "B3", "B2"], "black": 0, "white": 3000}
RGB = {"bands": ["R", "G", "B"], "black": 0, "white": 255}
FOUR = {"photos": ["rgb"], "places": ["s1", "s2", "dsm", "rgb"]}


def cosine(a: torch.Tensor, b: torch.Tensor) -> np.ndarray:
    x, y = a.detach().double().numpy(), b.detach().double().numpy()
    return np.asarray((x * y).sum(-1) / (np.linalg.norm(x, axis=-1) * np.linalg.norm(y, axis=-1)))


def losses_of(name: str, options: dict[str, Any], batch: HeterogeneousBatch, model: MsGFM) -> Any:
    streams = {stream: list(part.images) for stream, part in batch.streams.items()}
    objective = build_one(name, {**TEACHER, **options}, model, streams)
    return objective(StepView(model), batch, torch.Generator()), objective


def test_feature_distillation_equals_its_formula() -> None:
    streams = {"photos": ["rgb"]}
    model, batch = tiny_model(streams).eval(), make_batch(streams)
    losses, objective = losses_of("feature_distillation", {"stage": -2}, batch, model)
    image, mask = batch.streams["photos"].images["rgb"], batch.streams["photos"].masks["rgb"]
    colours = ((image * 50 + 100) / 255).clamp(0, 1)
    known = objective.teaching.teacher.stage(colours, -2).mean((1, 2))
    from gfm_pipeline.models.msgfm import SensorImages

    stages = model.encode_stages([SensorImages("rgb", image, mask)])[0]
    assert stages[-2].shape[-1] == 16
    head = model.objectives["feature_distillation"]
    told = stages[-2].mean((1, 2)) @ head.weight.T + head.bias  # type: ignore[operator, union-attr]
    assert losses.streams["photos"].item() == pytest.approx(float((1 - cosine(told, known)).mean()), rel=1e-5)
    assert list(losses.parts["photos"]) == ["feature_distillation->rgb"]


def test_clip_distillation_sees_the_whole_image() -> None:
    streams = {"photos": ["rgb"]}
    model, batch = tiny_model(streams).eval(), make_batch(streams)
    losses, _ = losses_of("clip_distillation", {}, batch, model)
    batch.streams["photos"].masks["rgb"].fill_(True)
    other, _ = losses_of("clip_distillation", {}, batch, model)
    assert torch.equal(losses.streams["photos"], other.streams["photos"])
    masked, _ = losses_of("clip_distillation", {"masked": True}, batch, model)
    assert not torch.equal(losses.streams["photos"], masked.streams["photos"])


def test_clip_reconstruction_equals_its_formula_on_aligned_grids() -> None:
    told, known = torch.randn(2, 4, 4, 5), torch.randn(2, 8, 8, 5)
    mask = torch.rand(2, 4, 4) < 0.6
    pooled = known.reshape(2, 4, 2, 4, 2, 5).mean((2, 4))
    expected = (1 - cosine(told, pooled))[mask.numpy()].mean()
    assert float(hidden_distance(told, known, mask)) == pytest.approx(expected, rel=1e-4)


def test_a_feature_counts_by_the_share_of_it_that_is_hidden() -> None:
    told, known = torch.randn(1, 2, 2, 5), torch.randn(1, 2, 2, 5)
    mask = torch.zeros(1, 4, 4, dtype=torch.bool)
    mask[0, 0, 0] = mask[0, 2:, 2:] = True  # a quarter of the first feature, all of the last
    distance = 1 - cosine(told, known)[0]
    expected = (0.25 * distance[0, 0] + distance[1, 1]) / 1.25
    assert float(hidden_distance(told, known, mask)) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", TEACHERS)
def test_four_sensors_of_a_place_are_taught_by_the_rule(name: str) -> None:
    batch = make_batch(FOUR)
    alone, _ = losses_of(name, {"sensors": {"s2": S2, "rgb": RGB}}, batch, tiny_model(FOUR))
    assert list(alone.parts["places"]) == [f"{name}->s2", f"{name}->rgb"]
    total = sum(float(value) for value in alone.parts["places"].values())
    assert float(alone.streams["places"]) == pytest.approx(total / 4, rel=1e-5)  # the mean over all four images
    options = {"sensors": {"s2": S2, "rgb": RGB}, "through_partners": True}
    through, objective = losses_of(name, options, batch, tiny_model(FOUR))
    assert list(through.parts["places"]) == [f"{name}->{sensor}" for sensor in ("s1", "s2", "dsm", "rgb")]
    lessons = objective.teaching.lessons({"places": FOUR["places"]})
    assert [lesson.colours for lesson in lessons] == ["s2", "s2", "s2", "rgb"]


@pytest.mark.parametrize("name", TEACHERS)
def test_a_skipped_row_counts_in_no_loss(name: str) -> None:
    streams = {"photos": ["rgb"]}
    model, batch = tiny_model(streams).eval(), make_batch(streams, num_samples=3)
    part = batch.streams["photos"]
    object.__setattr__(part, "skipped", (1,))
    with_noise, _ = losses_of(name, {}, batch, model)
    part.images["rgb"][1] = 5.0
    part.masks["rgb"][1] = False
    assert float(losses_of(name, {}, batch, model)[0].streams["photos"]) == pytest.approx(
        float(with_noise.streams["photos"]), rel=1e-5
    )


@pytest.mark.parametrize("name", TEACHERS)
def test_the_teacher_is_no_part_of_the_model(name: str) -> None:
    model = tiny_model(FOUR)
    before = {key for key, _ in model.named_parameters()}
    batch = make_batch(FOUR)
    losses, objective = losses_of(name, {}, batch, model)
    added = {key for key, _ in model.named_parameters()} - before
    assert added == {f"objectives.{name}.weight", f"objectives.{name}.bias"}
    sum(losses.streams.values()).backward()
    assert all(parameter.grad is None for parameter in objective.teaching.teacher._model.parameters())
    assert model.objectives[name].weight.grad.abs().sum() > 0  # type: ignore[operator, union-attr]


def test_colours_are_those_of_the_sensors_own_units() -> None:
    config = check_objectives({"clip_distillation": {**TEACHER, "sensors": {"s2": S2}}})["clip_distillation"]
    from gfm_pipeline.objectives.clip_distillation import ClipDistillationConfig

    streams = {"pairs": ["s1", "s2"]}
    teaching = Teaching(ClipDistillationConfig.model_validate(config), make_setting(streams), "clip_distillation")
    image = torch.zeros(1, 13, IMAGE_PX, IMAGE_PX)
    image[:, 3], image[:, 2], image[:, 1] = (1500 - 100) / 50, -50.0, (9000 - 100) / 50  # B4, B3, B2, normalised
    colours = teaching.colours("s2", image)
    assert colours[0, :, 0, 0].tolist() == pytest.approx([0.5, 0.0, 1.0])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"teacher": {"name": "test_vit"}}, "teacher needs weights"),
        ({"teacher": {"name": "test_vit", "weights": "x.safetensors", "download": True}}, "not both"),
        ({**TEACHER, "sensors": {"rgb": {**RGB, "white": 0}}}, "black < white"),
        ({**TEACHER, "sensors": {}}, "at least 1"),
        ({**TEACHER, "sensors": {"s9": RGB}}, "no stream has this sensor"),
        ({**TEACHER, "sensors": {"s2": RGB}}, "sensor s2 has no band 'R'"),
        ({**TEACHER, "stage": -3}, "the encoder has 2 stages"),
    ],
)
def test_what_cannot_be_taught_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        build_one("feature_distillation", options, tiny_model(FOUR), FOUR)
