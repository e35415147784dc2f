"""Batches without data have the layout of a configuration's."""

import pytest
import torch

from gfm_pipeline.bench.synthetic import synthetic_batches, synthetic_mixture
from gfm_pipeline.data.config import DataConfig
from gfm_pipeline.errors import ConfigError


def config(**streams: object) -> DataConfig:
    return DataConfig.model_validate(
        {"root": "x", "image_px": 32, "mask": {"cell_px": 8, "ratio": 0.6}, "lanes": 2, "streams": streams}
    )


def test_layout_is_the_configurations() -> None:
    data = config(
        rgb={"collections": ["a"], "sub_batch": 3, "lr": 1e-3},
        pairs={"collections": ["b"], "sensors": ["s1", "s2"], "sub_batch": 4, "lr": 1e-3},
    )
    lanes = next(synthetic_batches(synthetic_mixture(data), data, 2, torch.device("cpu")))
    assert [lane.lane for lane in lanes] == [0, 1]
    for lane in lanes:
        assert lane.layout() == (
            ("rgb", "rgb", (3, 3, 32, 32)),
            ("pairs", "s1", (2, 2, 32, 32)),
            ("pairs", "s2", (2, 13, 32, 32)),
        )
        assert lane.streams["pairs"].masks["s2"].shape == (2, 4, 4)


def test_a_stream_must_tell_of_a_sensor() -> None:
    with pytest.raises(ConfigError, match=r"data\.streams\.mine names no sensors"):
        synthetic_mixture(config(mine={"collections": ["a"], "sub_batch": 2, "lr": 1e-3}))
