"""docs/resume.md names what there is: keys, files, exit codes, and exactly what may change between two starts."""

import re
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from gfm_pipeline.config import load_config
from gfm_pipeline.train.checkpoint import LATEST, STATE
from gfm_pipeline.train.config import TrainConfig
from gfm_pipeline.train.loop import EVENTS
from gfm_pipeline.train.outcome import OUTCOME_FILE, REQUEUE_CODE
from gfm_pipeline.train.preemption import REPEAT_S
from gfm_pipeline.train.resume import MAY_CHANGE
from launch.cli import gfm_launch

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "resume.md").read_text()


def test_every_key_that_is_named_exists() -> None:
    config: Any = load_config(ROOT / "configs" / "pretrain" / "quickstart.yaml", TrainConfig)
    sections = set(TrainConfig.model_fields)
    named = {word for word in re.findall(r"[`\s=]([a-z_]+\.[a-z_]+)", PAGE) if word.split(".")[0] in sections}
    assert len(named) > 12
    for word in sorted(named):
        section, key = word.split(".")
        value = getattr(config, section)
        assert isinstance(value, BaseModel), word
        assert key in type(value).model_fields, word


def test_the_examples_are_configurations() -> None:
    for text in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL):
        for section, values in yaml.safe_load(text).items():
            model = type(getattr(load_config(ROOT / "configs/pretrain/quickstart.yaml", TrainConfig), section))
            assert set(values) <= set(model(**values).model_dump())


def test_what_may_change_is_what_the_program_allows() -> None:
    (paragraph,) = re.findall(r"\n\n(`run_dir`.*?) may be changed between", PAGE, re.DOTALL)
    named = set(re.findall(r"`([a-z_.]+)`", paragraph))
    assert len(named) > 12
    assert named <= set(MAY_CHANGE)


def test_the_commands_have_these_options() -> None:
    commands = re.findall(r"gfm-launch (\w+) (--[^;#\n]*)", PAGE)
    assert len(commands) > 4
    for verb, rest in commands:
        command = gfm_launch.commands[verb]
        known = {option for parameter in command.params for option in parameter.opts}
        assert set(re.findall(r"--[a-z-]+", rest)) <= known


def test_codes_files_and_times_are_those_of_the_program() -> None:
    assert f"| {REQUEUE_CODE} | `requeue` |" in PAGE
    assert f"more than {REPEAT_S:g} seconds later" in PAGE
    for name in (OUTCOME_FILE, STATE, f"checkpoints/{LATEST}", f"{EVENTS}.jsonl"):
        assert name in PAGE
