"""`shard-builder bench`: what the builder costs on this machine."""

from __future__ import annotations

import sys
import tempfile
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import click


@click.command()
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder to work in; keeps the input. Temporary if not set."
)
@click.option("--places", type=click.IntRange(16, 100_000), default=512, show_default=True, help="SEN12MS-like pairs.")
@click.option("--repeats", type=click.IntRange(1, 99), default=3, show_default=True, help="Runs of every contender.")
@click.option(
    "--quick",
    is_flag=True,
    help="One input of 16 places, one run each: shows that it works, not how fast it is.",
)
@click.option("--memory", is_flag=True, help="Measure peak memory of builds of 1,000 and 20,000 places instead.")
@click.option("--json", "path", type=click.Path(path_type=Path), help="Write all that was measured to this file.")
def bench(out: Path | None, places: int, repeats: int, quick: bool, memory: bool, path: Path | None) -> None:
    """Time the builder against tar and webdataset's ShardWriter, on input like SEN12MS and RGB archives.

    All in one run on made input, as samples/s, MB/s and ratios, with where the builder's own time goes. With the
    defaults it takes a quarter to half an hour.
    """
    from shard_builder.bench import account, peak
    from shard_builder.bench.race import race
    from shard_builder.bench.raw import inputs, make

    if quick:
        places, repeats = 16, 1
    with ExitStack() as stack:
        folder = out or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="shard-builder-bench-")))
        folder.mkdir(parents=True, exist_ok=True)
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="run-", dir=folder)))
        if memory:
            peaks = peak.measure(folder, scratch, (16, 64) if quick else (1_000, 20_000))
            lines, tree = list(peak.describe(peaks)), peak.as_json(peaks)
        else:
            raws = inputs(places, 16)[:1] if quick else inputs(places, 64)
            for raw in raws:
                with click.progressbar(length=raw.rendered, label=f"Making {raw.name}") as bar:
                    make(raw, folder / raw.name, partial(_advance, bar))
            with click.progressbar(length=1, label="Measuring") as bar:
                scores = race(raws, folder, scratch, repeats, 0, partial(_count_runs, bar))
            lines, tree = list(account.describe(scores)), account.as_json(scores)
    for line in lines:
        click.echo(line)
    if path is not None:
        path.write_text(account.dump(tree))


def _advance(bar: Any, done: int, total: int) -> None:
    bar.length = total
    bar.update(done - bar.pos)


def _count_runs(bar: Any, done: int, total: int) -> None:
    _advance(bar, done, total)
    if not sys.stderr.isatty() and done % 10 == 0:  # where no bar is drawn, a run of half an hour is not silent either
        click.echo(f"run {done} of {total}", err=True)
