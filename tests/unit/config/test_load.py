"""Strict configuration: what a typo costs."""

from pathlib import Path

import pytest

from gfm_pipeline.config import config_digest, dump_config, load_config
from gfm_pipeline.errors import ConfigError
from gfm_pipeline.train.config import TrainConfig

CONFIGS = Path(__file__).parents[3] / "configs" / "pretrain"


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_config_loads_and_survives_a_round_trip(path: Path, tmp_path: Path) -> None:
    config = load_config(path, TrainConfig)
    (tmp_path / "again.yaml").write_text(dump_config(config))
    assert config_digest(load_config(tmp_path / "again.yaml", TrainConfig)) == config_digest(config)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("model.moe.num_expert=3", ["model.moe.num_expert", "num_experts"]),
        ("data.streams.rgb.sub_bacth=3", ["data.streams.rgb.sub_bacth", "sub_batch"]),
        ("objectives.cross_sensor_mim.cross_shar=1", ["cross_shar", "cross_share"]),
        ("objectives.cross_senor_mim={}", ["cross_senor_mim", "cross_sensor_mim"]),
        ("seed=abc", ["'seed'", "abc"]),
        ("data.image_px=100", ["data.image_px 100", "stride"]),
        ("engine.ep_size=3", ["engine.ep_size 3", "does not divide"]),
        ("engine.zero_stage=3", ["engine.zero_stage", "experts do not work"]),
        ("model.moe.blocks={4: [0]}", ["stage 4"]),
        ("nothing", ["section.key=value"]),
        ("seed.x=1", ["not a section"]),
    ],
)
def test_an_error_names_the_key_and_the_remedy(override: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(CONFIGS / "quickstart.yaml", TrainConfig, [override])
    for word in words:
        assert word in str(caught.value)


def test_null_takes_an_entry_out() -> None:
    config = load_config(CONFIGS / "quickstart.yaml", TrainConfig, ["data.streams.mdas=null", "seed=null"])
    assert list(config.data.streams) == ["rgb", "sen12ms"]
    assert config.seed == 0


@pytest.mark.parametrize("text", ["- a\n- b\n", "a: [", "\xff"])
def test_files_that_are_no_mapping_are_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"bad\.yaml"):
        load_config(path, TrainConfig)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml"):
        load_config(tmp_path / "nowhere.yaml", TrainConfig)
