"""`shard-builder card`: the dataset card of a collection."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("url")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder of README.md.")
@click.option("--licence", metavar="TEXT", help="Terms of this collection; otherwise what is known of its source.")
def card(url: str, out: Path, licence: str | None) -> None:
    """Write README.md and its pictures: contents, licence, statistics, histograms, map and origin of a collection.

    The card may lie in the collection's own folder. Hugging Face shows it as the page of a dataset.
    """
    from shard_builder.collection.card import write_card

    click.echo(str(write_card(url, out, licence)))
