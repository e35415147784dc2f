"""`shard-builder stats`: what a collection holds."""

from __future__ import annotations

import json

import click

from shard_builder.collection.statistics import describe, summarise, to_document


@click.command()
@click.argument("url")
@click.option("--catalog", is_flag=True, help="Read the catalog too: dates, labels, coordinate systems.")
@click.option("--classes", is_flag=True, help="Decode all label rasters too and count the pixels of each class.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def stats(url: str, catalog: bool, classes: bool, as_json: bool) -> None:
    """Print counts, sizes and per-band statistics of the collection at URL, from its manifest alone."""
    summary = summarise(url, catalog, classes)
    if as_json:
        click.echo(json.dumps(to_document(summary)))
    else:
        for line in describe(summary):
            click.echo(line)
