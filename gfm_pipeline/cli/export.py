"""`gfm export`: a trained model as a folder that others can use."""

from __future__ import annotations

from pathlib import Path

import click

from gfm_pipeline.cli.options import of_a_run


@click.command()
@of_a_run("data.root")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="New folder for the model.")
@click.option("--dense", is_flag=True, help="Merge the experts of each layer into one; says what that costs.")
def export(run_dir: Path, out: Path, dense: bool, overrides: tuple[str, ...]) -> None:
    """Write the newest checkpoint of a run as model.safetensors, config.json and a model card."""
    from gfm_pipeline.export.exporter import export_run

    done = export_run(run_dir, out, overrides, dense)
    click.echo(f"{done.folder}: {done.parameters:,} parameters of step {done.step}")
    if done.merged:
        click.echo(f"{done.merged.experts} experts merged in {done.merged.layers} layers; loss before and after:")
        for direction, loss in done.merged.loss_before.items():
            click.echo(f"  {direction:<24} {loss:.4f} -> {done.merged.loss_after[direction]:.4f}")
