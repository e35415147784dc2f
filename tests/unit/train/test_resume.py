"""Whether a folder holds the same run: values that differ are named, keys that are new since then are not."""

from pathlib import Path
from typing import Any

import pytest

from gfm_pipeline.config import load_config
from gfm_pipeline.errors import CheckpointError
from gfm_pipeline.train import resume
from gfm_pipeline.train.config import TrainConfig

ROOT = Path(__file__).parents[3]


@pytest.fixture
def config() -> TrainConfig:
    config: TrainConfig = load_config(ROOT / "configs" / "pretrain" / "quickstart.yaml", TrainConfig)
    return config


def test_a_checkpoint_from_before_a_key_existed_is_continued(config: TrainConfig) -> None:
    stored: dict[str, Any] = config.model_dump(mode="json")
    del stored["optim"]["eps"], stored["data"]["carry"]
    resume._check_same_run(stored, config, "there")


def test_a_new_key_with_another_value_than_its_default_is_another_run(config: TrainConfig) -> None:
    stored: dict[str, Any] = config.model_dump(mode="json")
    stored["optim"].pop("eps")
    optim = config.optim.model_copy(update={"eps": 0.5})
    with pytest.raises(CheckpointError, match=r"optim\.eps was .* and is now 0\.5 \(1 differences\)"):
        resume._check_same_run(stored, config.model_copy(update={"optim": optim}), "there")


def test_a_key_that_no_longer_exists_is_named(config: TrainConfig) -> None:
    stored: dict[str, Any] = config.model_dump(mode="json")
    stored["optim"]["momentum"] = 0.9
    with pytest.raises(CheckpointError, match=r"optim\.momentum was 0\.9 and is now None"):
        resume._check_same_run(stored, config, "there")
