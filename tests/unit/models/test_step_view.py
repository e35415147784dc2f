"""One encoder pass for all objectives of a step, and a gradient for every parameter."""

import torch

from gfm_pipeline.models.msgfm import SensorImages
from gfm_pipeline.models.step_view import StepView
from gfm_pipeline.objectives.objective import masked_images
from tests.make_batch import make_batch, tiny_model

STREAMS = {"pairs": ["s1", "s2"], "photos": ["rgb"]}


def test_what_was_encoded_is_not_encoded_again() -> None:
    model, batch = tiny_model(STREAMS), make_batch(STREAMS)
    passes = []
    inner = model.encode_stages
    model.encode_stages = lambda inputs: passes.append(len(inputs)) or inner(inputs)  # type: ignore[method-assign, func-returns-value]
    view = StepView(model)
    first = view.encode(list(masked_images(batch).values()))
    again = view.encode([masked_images(batch)["photos", "rgb"]])
    assert passes == [3]
    assert again[0] is first[2]
    whole = view.encode([SensorImages("rgb", batch.streams["photos"].images["rgb"])])
    assert passes == [3, 1]
    assert not torch.equal(whole[0], first[2])
    assert len(view.aux_losses) == 2


def test_the_last_stage_is_what_encode_gives() -> None:
    model, batch = tiny_model(STREAMS).eval(), make_batch(STREAMS)
    images = list(masked_images(batch).values())
    for stages, last in zip(model.encode_stages(images), model.encode(images), strict=True):
        assert [tuple(features.shape[1:]) for features in stages] == [(8, 8, 16), (4, 4, 32)]
        assert torch.equal(stages[-1], last)


def test_parameters_that_nobody_touched_get_zeros() -> None:
    model, batch = tiny_model(STREAMS), make_batch(STREAMS)
    model.objectives["other"] = torch.nn.Linear(3, 3)
    view = StepView(model)
    photo = masked_images(batch)["photos", "rgb"]
    loss = view.decode("s2", view.encode([photo])[0]).square().mean()
    (loss + view.nothing_from_the_rest() + view.aux_losses[0]).backward()
    absent = ("embeds.s1", "embeds.s2", "decoders.s1", "decoders.rgb", "objectives.other")
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        if name.startswith(absent):
            assert not parameter.grad.any(), name
        if name.startswith(("embeds.rgb", "decoders.s2")):
            assert parameter.grad.any(), name


def test_a_step_that_encodes_nothing_still_has_gradients() -> None:
    model = tiny_model(STREAMS)
    StepView(model).nothing_from_the_rest().backward()
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters())
