"""`gfm embed`: embeddings of a collection."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.option("--model", "folder", type=click.Path(path_type=Path), required=True, help="What gfm export wrote.")
@click.option("--collection", required=True, help="Folder or URL of a collection.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Parquet file to write.")
@click.option("--sensors", help="Sensors, separated by commas; default: all that model and collection share.")
@click.option("--batch", default=64, show_default=True, type=click.IntRange(min=1), help="Samples at once.")
@click.option("--threads", default=2, show_default=True, type=click.IntRange(min=1), help="Threads that read samples.")
def embed(folder: Path, collection: str, out: Path, sensors: str | None, batch: int, threads: int) -> None:
    """Write one embedding per sample and sensor to a Parquet file; rows have the keys of the collection's catalog."""
    from gfm_pipeline.export.embed import embed_collection

    chosen = tuple(name.strip() for name in sensors.split(",")) if sensors else ()
    count = embed_collection(folder, collection, out, chosen, batch, threads)
    click.echo(f"{out}: {count} samples")
