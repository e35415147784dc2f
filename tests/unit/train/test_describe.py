"""The published sizes and groups, from the shipped configurations, with nothing allocated."""

from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from gfm_pipeline.cli.config import config as config_command
from gfm_pipeline.config import load_config
from gfm_pipeline.errors import ConfigError
from gfm_pipeline.train.config import TrainConfig
from gfm_pipeline.train.describe import describe_model

CONFIGS = Path(__file__).parents[3] / "configs" / "pretrain"


def told(name: str, *overrides: str) -> dict[str, list[str]]:
    lines = describe_model(load_config(CONFIGS / f"{name}.yaml", TrainConfig, ["data.root=/nowhere", *overrides]))
    return {line[:24].strip(): line[24:].split() for line in lines}


@pytest.mark.parametrize("name", ["msgfm_base", "xgeo_base"])
def test_the_bases_have_the_published_sizes_and_groups(name: str) -> None:
    lines = told(name)
    encoder, dense = (int(lines[label][0].replace(",", "")) for label in ("encoder", "with dense MLPs"))
    assert encoder / 1e6 == pytest.approx(219.2, abs=0.05)
    assert dense / 1e6 == pytest.approx(86.9, abs=0.05)
    assert "9 layers of experts" in " ".join(lines["encoder"])
    rates = {"rgb": "0.0001", "sen12ms": "2.5e-05", "mdas": "1e-05", "encoder": "0.0001", "experts": "0.0001"}
    for group, rate in rates.items():
        for decay, value in (("decay", "0.05"), ("no_decay", "0")):
            assert lines[f"{group}/{decay}"][1:] == ["lr", rate, "decay", value]
    # 3x3 convolution to 32 channels, 4x4 patches, norm; or 4x4 patches of the pixels, norm
    conv = (3 * 9 + 1) * 32 + (32 * 16 + 1) * 128 + 256
    linear = (3 * 16 + 1) * 128 + 256
    assert lines["embedding of rgb"] == [f"{conv if name == 'msgfm_base' else linear:,}"]
    assert lines["decoder of s2"] == [f"{(1024 + 1) * 32 * 32 * 13:,}"]


def test_what_is_printed_is_a_configuration_again() -> None:
    arguments = ["show", "--config", str(CONFIGS / "quickstart.yaml"), "--set", "model.moe.num_experts=1"]
    arguments += ["--set", "data.streams.rgb.sensors=[rgb]", "--model"]
    done = CliRunner().invoke(config_command, arguments)
    assert done.exit_code == 0, done.output
    TrainConfig.model_validate(yaml.safe_load(done.stdout))
    assert "# optimiser groups:" in done.stdout
    assert "experts/" not in done.stdout


def test_sensors_that_nobody_names_are_asked_for() -> None:
    with pytest.raises(ConfigError, match=r"data\.streams\.rgb does not name its sensors .* /nowhere"):
        told("quickstart")


def test_a_choice_of_bands_is_what_a_sensor_has() -> None:
    few = told("msgfm_base", "data.streams.sen12ms.bands={s2: [B2, B3, B4]}")
    assert few["decoder of s2"] == [f"{(1024 + 1) * 32 * 32 * 3:,}"]
