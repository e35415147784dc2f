"""`gfm visualize`: the pictures of a run."""

from __future__ import annotations

from pathlib import Path

import click

from gfm_pipeline.cli.options import of_a_run


@click.command()
@of_a_run("data.root")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder for the pictures.")
@click.option("--samples", type=click.IntRange(1, 64), default=5, show_default=True, help="Rows of each picture.")
def visualize(run_dir: Path, out: Path, samples: int, overrides: tuple[str, ...]) -> None:
    """Draw reconstructions per sensor and across sensors, loss curves and expert load of a run."""
    from gfm_pipeline.viz.run import draw_run

    for path in draw_run(run_dir, out, samples, overrides):
        click.echo(str(path))
