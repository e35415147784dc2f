"""`gfm data bench`: what loading costs on this machine."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import click


@click.command()
@click.argument("collections", nargs=-1, metavar="[COLLECTION]...")
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a size, say crop_px, or task=train."
)
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder to work in; keeps what was made. Temporary if not set."
)
@click.option("--json", "path", type=click.Path(path_type=Path), help="Write all that was measured to this file.")
def bench(collections: tuple[str, ...], overrides: tuple[str, ...], out: Path | None, path: Path | None) -> None:
    """Time this loader beside webdataset, GeoTIFF files and the limit, with the same work in one run.

    On given collections (paths or URLs), or on made ones. Prints samples/s, ratios, processor time, time to the first
    batch, memory, and where the loader's time goes. MosaicML Streaming and litData take part where they are installed.
    """
    from gfm_pipeline.config.load import apply_overrides, parse_config
    from gfm_pipeline.data.bench import report
    from gfm_pipeline.data.bench.config import DataBenchConfig
    from gfm_pipeline.data.bench.inputs import installed, make_collections, works, write_copies
    from gfm_pipeline.data.bench.race import race

    config = parse_config(apply_overrides({}, overrides), DataBenchConfig, "gfm data bench")
    say = partial(click.echo, err=True)
    with ExitStack() as stack:
        folder = out or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gfm-data-bench-")))
        folder.mkdir(parents=True, exist_ok=True)
        wanted = works(list(collections) or make_collections(folder, config, say), folder, config)
        for work in wanted:
            if len(work.sensors) > 1 or len(wanted) == 1:
                write_copies(installed(config.contenders, work), work, say)
        with click.progressbar(length=1, label="Measuring") as bar:
            scores = race(wanted, config, partial(_advance, bar))
    for line in report.describe(scores):
        click.echo(line)
    if path is not None:
        path.write_text(report.dump(report.as_json(scores)))


def _advance(bar: Any, done: int, total: int) -> None:
    bar.length = total
    bar.update(done - bar.pos)
