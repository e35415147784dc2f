"""`shard-builder show`: a picture of samples."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("url")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), required=True, help="PNG to write.")
@click.option("--samples", type=click.IntRange(1, 200), default=8, show_default=True, help="Rows of the picture.")
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True, help="Which samples.")
@click.option("--keys", metavar="KEY,KEY", default="", help="These samples instead of chosen ones.")
@click.option("--sensors", metavar="NAME,NAME", default="", help="These sensors instead of all.")
def show(url: str, out: Path, samples: int, seed: int, keys: str, sensors: str) -> None:
    """Draw samples of the collection at URL, a row each, with all their sensors side by side.

    Samples are chosen evenly over the whole collection. All rows of a sensor share one stretch, so that equal colours
    mean equal values; surface heights are shaded with a stretch of their own. Of a series up to four dates are shown.
    """
    from shard_builder.collection.show import show_collection

    click.echo(str(show_collection(url, out, samples, seed, _split(keys), _split(sensors))))


def _split(names: str) -> list[str]:
    return [name for part in names.split(",") if (name := part.strip())]
