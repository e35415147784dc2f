"""Strict configuration: YAML + `--set a.b=c` -> frozen pydantic models, with errors a user can act on."""

from gfm_pipeline.config.load import (
    StrictModel,
    apply_overrides,
    config_digest,
    dump_config,
    load_config,
    parse_config,
)
from gfm_pipeline.config.strict import load_json, load_yaml

__all__ = [
    "StrictModel",
    "apply_overrides",
    "config_digest",
    "dump_config",
    "load_config",
    "load_json",
    "load_yaml",
    "parse_config",
]
