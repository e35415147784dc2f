"""Shipped configurations: listed, copied with what they build on, part of the wheel."""

from __future__ import annotations

import configparser
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from gfm_pipeline.cli.config import config
from gfm_pipeline.config import load_config
from gfm_pipeline.config.shipped import INSTALLED_AT, copy_config, shipped_configs, summary_of
from gfm_pipeline.errors import UsageError
from gfm_pipeline.train.config import TrainConfig

ROOT = Path(__file__).parents[3]


def test_every_configuration_has_a_name_and_a_summary() -> None:
    found = shipped_configs()
    assert len(found) == len(list((ROOT / "configs").rglob("*.yaml")))
    assert "pretrain/ablations/dense" in found
    assert all(summary_of(path) for path in found.values())


def test_a_copy_loads_as_the_shipped_one_does(tmp_path: Path) -> None:
    first, *bases = copy_config("pretrain/ablations/dense", tmp_path / "mine")
    assert first == tmp_path / "mine" / "pretrain" / "ablations" / "dense.yaml"
    assert [path.name for path in bases] == ["msgfm_base.yaml"]
    shipped = load_config(ROOT / "configs/pretrain/ablations/dense.yaml", TrainConfig)
    assert load_config(first, TrainConfig) == shipped
    assert copy_config("pretrain/ablations/dense", tmp_path / "mine") == [first, *bases]


def test_a_file_of_the_user_is_not_overwritten(tmp_path: Path) -> None:
    mine = tmp_path / "pretrain" / "msgfm_base.yaml"
    mine.parent.mkdir()
    mine.write_text("run_dir: mine\n")
    with pytest.raises(UsageError, match="differs from the shipped one"):
        copy_config("pretrain/ablations/dense", tmp_path)
    assert mine.read_text() == "run_dir: mine\n"
    assert not (tmp_path / "pretrain" / "ablations").exists()


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="Did you mean 'pretrain/quickstart'"):
        copy_config("pretrain/quikstart", Path("nowhere"))


def test_the_wheel_has_every_folder_of_configurations() -> None:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    packed = dict(parser["options.data_files"])
    prefix = INSTALLED_AT.removesuffix("configs/")
    folders = {path.parent.relative_to(ROOT).as_posix() for path in (ROOT / "configs").rglob("*.yaml")}
    assert packed == {f"{prefix}{folder}": f"{folder}/*.yaml" for folder in folders}


@pytest.mark.parametrize(("kind", "key"), [("pretrain", "optim"), ("build", "tile_px")])
def test_the_schema_is_that_of_the_configuration(kind: str, key: str) -> None:
    done = CliRunner().invoke(config, ["schema", kind])
    assert done.exit_code == 0
    tree = json.loads(done.output)
    assert {key, "base"} <= set(tree["properties"])
