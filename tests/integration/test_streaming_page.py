"""docs/streaming.md: its configurations are ones, its commands work, its messages are those of the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from gfm_pipeline.config import load_config, parse_config
from gfm_pipeline.data.config import DataConfig
from gfm_pipeline.data.loader import Loader
from gfm_pipeline.data.mixture import open_mixture
from gfm_pipeline.storage import StoreOptions, open_store
from gfm_pipeline.train.config import TrainConfig
from tests.conftest import ROOT, run_command
from tests.remote_collection import told, upload
from tests.servers import make_bucket

PAGE = (ROOT / "docs" / "streaming.md").read_text()
CONFIGS = sorted((ROOT / "configs" / "storage").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_configuration_is_one_and_opens_a_store(path: Path) -> None:
    config = load_config(path, TrainConfig)
    assert "://" in config.data.root
    assert f"configs/storage/{path.name}" in PAGE
    open_store(config.data.root, config.data.storage)


def test_the_yaml_on_the_page_is_valid() -> None:
    found = [yaml.safe_load(text)["data"] for text in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)]
    assert len(found) == 2
    base = {"streams": {"a": {"collections": ["a"], "sub_batch": 1, "lr": 1}}}
    configs = [parse_config({**base, **tree}, DataConfig, "streaming.md") for tree in found]
    assert configs[0].storage.for_url("s3://public-bucket/geopile").anonymous
    assert configs[1].cache is not None


def test_every_setting_is_on_the_page_and_none_other() -> None:
    table = PAGE.partition("## Settings")[2].partition("A mixture")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == {*StoreOptions.model_fields, "urls"}


def test_messages_are_those_of_the_code() -> None:
    code = "".join(path.read_text() for path in (ROOT / "gfm_pipeline").rglob("*.py"))
    squeezed = re.sub(r"[\"f]*\s*\n\s*f?\"", "", code)
    table = PAGE.partition("## When something fails")[2]
    messages = re.findall(r"^\| `([^`]+)`", table, re.MULTILINE)
    assert len(messages) > 10
    for message in messages:
        for words in re.split(r"\b[A-Z]\b|NAME|\(\w+\)|503 Service Unavailable| \d ", message):
            assert words.strip() in squeezed, words


def test_the_commands_work_against_a_real_bucket(s3: dict[str, str], demo_shards: Path) -> None:
    make_bucket(s3, "my-bucket")
    for name in ("geopile", "millionaid", "sen12ms", "mdas"):
        upload(demo_shards / name, f"s3://my-bucket/shards/{name}")
    commands = re.findall(r"^gfm (.*)$", PAGE, re.MULTILINE)
    assert len(commands) == 2
    said = [run_command("gfm", *words.split()).stdout for words in commands]
    assert all(f"{stream}: " in said[0] for stream in ("rgb", "sen12ms", "mdas"))
    assert "every sample once in a pass" in said[0]
    assert "sen12ms-000000" in said[1]
    far = load_config(ROOT / "configs/storage/aws.yaml", TrainConfig, ["data.root=s3://my-bucket/shards"]).data
    near = load_config(ROOT / "configs/storage/aws.yaml", TrainConfig, [f"data.root={demo_shards}"]).data
    assert first_batch(far) == first_batch(near)


def first_batch(config: DataConfig) -> list[object]:
    with Loader(open_mixture(config), config, 0, 0, 1) as loader:
        return [told(batch) for batch in next(loader)]
