"""`shard-builder demo`: synthetic raw archives in the published layouts."""

from __future__ import annotations

import time
from pathlib import Path

import click


@click.command()
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="Folder for the archives; empty or not yet there."
)
@click.option("--places", type=click.IntRange(1, 10_000_000), default=64, show_default=True, help="Number N of places.")
@click.option(
    "--tile-px", type=click.IntRange(32, 1024), default=128, show_default=True, help="Rows and columns of an image."
)
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True, help="Which planet to make.")
@click.option("--families", metavar="NAME,NAME", default="", help="These families, e.g. sen12ms, instead of all.")
@click.option("--workers", type=click.IntRange(1, 1024), default=1, show_default=True, help="Processes that render.")
def demo(out: Path, places: int, tile_px: int, seed: int, families: str, workers: int) -> None:
    """Make raw archives of a synthetic planet, in the layouts of the published ones.

    For N places: N co-located Sentinel-1 / Sentinel-2 / land-cover patches (SEN12MS), one 800 px sub-area of aerial
    image and surface model for every 16 places (MDAS), 2 N aerial images (GeoPile) and N / 2 more (MillionAID) with
    their land-cover classes. All sensors of a place are rendered from the same terrain and land cover. The same
    arguments always give the same bytes, and place i does not depend on N.
    """
    from shard_builder.demo.families import Request, choose_families
    from shard_builder.demo.write import find_finished, write_archives

    chosen = choose_families(families)
    request = Request(places, tile_px, seed, tuple(family.name for family in chosen))
    record = find_finished(out, request)
    if record is None:
        total = sum(family.count(places) for family in chosen)
        started = time.monotonic()
        with click.progressbar(length=total, label="Rendering a synthetic planet") as bar:
            seen = dict.fromkeys((family.name for family in chosen), 0)

            def advance(family: str, done: int, count: int) -> None:
                bar.update(done - seen[family])
                seen[family] = done

            record = write_archives(out, request, advance, workers)
        click.echo(f"Made synthetic archives in {out} ({time.monotonic() - started:.1f} s); they show no real place.")
    else:
        click.echo(f"{out} already holds these synthetic archives; nothing to do.")
    for name, entry in record.archives.items():
        click.echo(f"  {name:<34} {entry.members:>8} members {entry.size / 1e6:>9.1f} MB  ({entry.family})")
