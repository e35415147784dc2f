"""The `gfm` command line."""

from __future__ import annotations

import click

from gfm_pipeline import __version__
from gfm_pipeline.command_line import LazyGroup, run

COMMANDS = {
    "config": ("gfm_pipeline.cli.config:config", "List, copy, check and show configurations, defaults included."),
    "data": ("gfm_pipeline.cli.data:data", "Look at the order of samples without touching pixels; time their loading."),
    "evaluate": (
        "gfm_pipeline.cli.evaluate:evaluate",
        "Measure a checkpoint on held-out samples: reconstruction, nearest neighbours, linear probe.",
    ),
    "doctor": ("gfm_pipeline.cli.doctor:doctor", "Check whether this machine, and a run on it, will work."),
    "bench": ("gfm_pipeline.cli.bench:bench", "Measure training on this machine."),
    "export": ("gfm_pipeline.cli.export:export", "Write a trained model as a folder that others can use."),
    "embed": ("gfm_pipeline.cli.embed:embed", "Write the embeddings of a collection."),
    "visualize": (
        "gfm_pipeline.cli.visualize:visualize",
        "Draw reconstructions, loss curves and expert load of a run.",
    ),
}


@click.group(cls=LazyGroup, commands_at=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="gfm")
def gfm() -> None:
    """Pretrain and inspect multisensor geospatial foundation models.

    Training itself is started by the DeepSpeed launcher: deepspeed launch/pretrain.py --config CONFIG.
    """


def main() -> None:
    """Entry point of the console script."""
    run(gfm, "gfm")
