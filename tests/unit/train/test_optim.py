"""Parameter groups: every parameter once, the stream's rate where it belongs, decay where it should."""

import pytest

from gfm_pipeline.models.config import EncoderConfig, ModelConfig, MoEConfig
from gfm_pipeline.models.msgfm import MsGFM
from gfm_pipeline.sensors import BUILTIN_SENSORS
from gfm_pipeline.train.config import OptimConfig
from gfm_pipeline.train.optim import (
    StreamRate,
    effective_rates,
    parameter_groups,
    sensor_owners,
    stream_weights,
)

RATES = {
    "mdas": StreamRate(("rgb", "dsm"), 1e-5),
    "rgb": StreamRate(("rgb",), 1e-4),
    "pairs": StreamRate(("s1", "s2"), 0.25e-4),
}


@pytest.fixture(scope="module")
def model() -> MsGFM:
    config = ModelConfig(
        encoder=EncoderConfig(embed_dim=16, depths=(1, 2), num_heads=(2, 4), window=4),
        moe=MoEConfig(num_experts=2, blocks={2: (1,)}),
    )
    sensors = {name: BUILTIN_SENSORS[name] for rate in RATES.values() for name in rate.sensors}
    return MsGFM(config, sensors, 32, seed=0)


def test_every_parameter_is_in_exactly_one_group(model: MsGFM) -> None:
    groups = parameter_groups(model, RATES, OptimConfig())
    ids = [id(parameter) for group in groups for parameter in group["params"]]
    assert len(ids) == len(set(ids))
    assert set(ids) == {id(parameter) for parameter in model.parameters()}
    assert len({group["name"] for group in groups}) == len(groups)


def test_rates_follow_the_streams(model: MsGFM) -> None:
    rates = {group["label"]: group["lr"] for group in parameter_groups(model, RATES, OptimConfig())}
    assert {label: rates[f"{label}/decay"] for label in ("rgb", "pairs", "mdas", "encoder", "experts")} == {
        "rgb": 1e-4,
        "pairs": 0.25e-4,
        "mdas": 1e-5,
        "encoder": 1e-4,
        "experts": 1e-4,
    }


def test_decay_is_left_out_by_group(model: MsGFM) -> None:
    for group in parameter_groups(model, RATES, OptimConfig(weight_decay=0.05)):
        assert group["weight_decay"] == (0.05 if group["label"].endswith("/decay") else 0.0)
        if group["label"].endswith("/decay"):
            assert all(parameter.ndim > 1 for parameter in group["params"])


def test_a_shared_sensor_belongs_to_the_fastest_stream() -> None:
    assert sensor_owners(RATES) == {"rgb": "rgb", "dsm": "mdas", "s1": "pairs", "s2": "pairs"}


def test_weights_are_shares_of_the_rates() -> None:
    weights = stream_weights(RATES)
    assert sum(weights.values()) == pytest.approx(1.0)
    assert weights["rgb"] / weights["mdas"] == pytest.approx(10)


def test_linear_scaling_counts_images_of_all_lanes() -> None:
    streams = {"rgb": (("rgb",), 1e-4, 128)}
    assert effective_rates(streams, 8, OptimConfig(scale_lr=True))["rgb"].lr == pytest.approx(2e-4)
    assert effective_rates(streams, 8, OptimConfig())["rgb"].lr == pytest.approx(1e-4)
