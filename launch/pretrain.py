"""Start a pretraining run: `deepspeed launch/pretrain.py --config CONFIG` or the same with torchrun.

The command is the same for a new run and for one that was stopped: a run found in `run_dir` is continued.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

import click

from gfm_pipeline.command_line import run


@click.command()
@click.option("--config", "path", type=click.Path(path_type=Path), required=True, help="YAML file of the run.")
@click.option("--set", "overrides", multiple=True, metavar="SECTION.KEY=VALUE", help="Change a value; repeatable.")
@click.option("--local_rank", type=int, hidden=True, help="Given by the deepspeed launcher; LOCAL_RANK says the same.")
def pretrain(path: Path, overrides: tuple[str, ...], local_rank: int | None) -> int:
    """Pretrain a model as CONFIG says. Exit code 75: ended early with a checkpoint, to be started again."""
    # What is true of the data or the configuration is true on every rank; one of them says it.
    level = logging.WARNING if os.environ.get("RANK", "0") == "0" else logging.ERROR
    logging.basicConfig(level=level, format="%(levelname)s %(name)s: %(message)s")
    from gfm_pipeline.config import load_config
    from gfm_pipeline.train.config import TrainConfig

    config = load_config(path, TrainConfig, overrides)
    from gfm_pipeline.train.run import run_training

    return run_training(config)


if __name__ == "__main__":
    run(pretrain, "pretrain")
