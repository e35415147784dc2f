"""What a training configuration refuses before anything is opened, and what it lets pass."""

from __future__ import annotations

from typing import Any

import pytest

from gfm_pipeline.config import parse_config
from gfm_pipeline.errors import ConfigError
from gfm_pipeline.train.config import TrainConfig


def parsed(*streams: str, **sections: Any) -> TrainConfig:
    stream = {"collections": ["pairs"], "sub_batch": 2, "lr": 1e-4}
    return parse_config({"data": {"streams": dict.fromkeys(streams, stream)}, **sections}, TrainConfig, "run.yaml")


@pytest.mark.parametrize("name", ["eu/alps", "a->b", "", ".hidden", "-x", "x\n", "..", "a\\b", "a:b", "a" * 65, " a"])
def test_a_stream_whose_name_cannot_stand_everywhere_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="cannot be a stream's name"):
        parsed("pairs", name)


@pytest.mark.parametrize("name", ["eu_alps", "eu-alps", "eu.alps", "EU alps 2", "größe", "7", "_x"])
def test_other_names_pass(name: str) -> None:
    assert list(parsed(name).data.streams) == [name]


@pytest.mark.parametrize("name", ["encoder", "experts", "objectives"])
def test_a_stream_cannot_take_a_groups_name(name: str) -> None:
    with pytest.raises(ConfigError, match="call the stream else"):
        parsed("rgb", name)


def test_names_that_tensorboard_shows_alike_are_refused() -> None:
    with pytest.raises(ConfigError, match="'eu alps' and 'eu_alps' look the same"):
        parsed("eu alps", "eu_alps")


@pytest.mark.parametrize(
    ("side", "message"), [(46, "46 is even"), (193, "larger than data.image_px 192"), (1, "greater than or equal to 3")]
)
def test_a_neighbourhood_without_a_middle_or_beyond_the_image_is_refused(side: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parsed("rgb", objectives={"cross_sensor_mim": {"normalise_target_px": side}})


@pytest.mark.parametrize("side", [3, 47, 191, None])
def test_others_pass(side: int | None) -> None:
    parsed("rgb", objectives={"cross_sensor_mim": {"normalise_target_px": side}})
