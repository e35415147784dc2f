"""`gfm evaluate`: what a checkpoint is worth on samples that it was not trained on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from gfm_pipeline.cli.options import of_a_run


@click.command()
@of_a_run("evaluate.probes")
@click.option("--untrained", is_flag=True, help="Evaluate the weights that the run began with, for comparison.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def evaluate(run_dir: Path, overrides: tuple[str, ...], untrained: bool, as_json: bool) -> None:
    """Measure the newest checkpoint of a run: reconstruction, nearest neighbours, linear probe, backscatter."""
    import json

    from gfm_pipeline.evaluate.run import evaluate_run

    found = evaluate_run(run_dir, overrides, untrained)
    if as_json:
        from gfm_pipeline.train.track import finite

        click.echo(json.dumps(finite(found), allow_nan=False))  # null for a mean of nothing, which JSON has no word for
        return
    click.echo(f"{run_dir}, after {found.pop('step') + 1} steps")
    for name, value in _leaves(found):
        click.echo(f"  {name:<64} {_printed(value):>12}")


def _printed(value: bool | float) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else f"{value:.5f}"


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        name = f"{prefix} {key}".lstrip()
        if isinstance(value, Mapping):
            yield from _leaves(value, name)
        else:
            yield name, value
