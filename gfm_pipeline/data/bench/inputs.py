"""Input for the comparison: given collections, or pairs that shard-builder makes and packs."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from gfm_pipeline.data.bench.config import DataBenchConfig
from gfm_pipeline.data.bench.copies import describe
from gfm_pipeline.data.bench.work import CONTENDERS, Contender, Work
from gfm_pipeline.errors import GfmError

_SHARDS = 8
"""Of a made collection, so that no worker process is without one."""
Say = Callable[[str], None]


def make_collections(folder: Path, config: DataBenchConfig, say: Say) -> list[str]:
    """Return the paths of made collections, one for each encoding; those that are there are used."""
    raw = folder / f"raw-{config.places}-{config.tile_px}"
    if not (raw / "demo.json").exists():
        say(f"making {config.places} places of {config.tile_px} px")
        shutil.rmtree(raw, ignore_errors=True)
        sizes = ["--places", str(config.places), "--tile-px", str(config.tile_px), "--families", "sen12ms"]
        _shard_builder("demo", "--out", str(raw), *sizes)
    made = []
    for encoding in config.encodings:
        output = folder / f"{encoding}-{config.places}-{config.tile_px}"
        if not (output / "manifest.json").exists():
            say(f"packing them as {encoding}")
            build = folder / "build.yaml"
            build.write_text(f"source: sen12ms\ninput: {raw}\noutput: {output}\n")
            most = max(1, config.places // _SHARDS)
            chosen = [f"sensors.s1.codec={encoding}", f"sensors.s2.codec={encoding}", f"max_samples={most}"]
            _shard_builder("build", "--config", str(build), *(part for value in chosen for part in ("--set", value)))
        made.append(str(output))
    return made


def works(urls: list[str], folder: Path, config: DataBenchConfig) -> list[Work]:
    """Return what is to be measured: all sensors of each collection, and one by itself of the first with several."""
    found: list[Work] = []
    for number, url in enumerate(urls):
        sensors, encoding, count = describe(url, config.sensors)
        work = Work(
            url=url,
            encoding=encoding,
            copies=str(folder / f"copies-{number}-{Path(url).name}"),
            sensors=sensors,
            task=config.task,
            crop_px=config.crop_px,
            batch=config.batch,
            workers=config.workers,
            samples=min(count, config.most_samples),
            passes=config.passes,
            seed=config.seed,
        )
        found.append(work)
        alone = config.alone or min(sensors)
        if len(sensors) > 1 and alone in sensors and not any(len(w.sensors) == 1 for w in found):
            found.append(work.model_copy(update={"sensors": {alone: sensors[alone]}}))
    return found


def installed(names: tuple[str, ...] | None, work: Work) -> dict[str, Contender]:
    """Return the contenders that can run here on this work."""
    wanted = CONTENDERS.names() if names is None else list(names)
    found = {name: CONTENDERS.get(name) for name in wanted}
    remote = "://" in work.url
    return {
        name: contender
        for name, contender in found.items()
        if all(importlib.util.find_spec(module.partition(".")[0]) for module in contender.needs)
        and (contender.remote or contender.copy or not remote or work.url.startswith("http"))
    }


def write_copies(contenders: dict[str, Contender], work: Work, say: Say) -> None:
    """Make the copies that `contenders` read, but for those that are there."""
    for contender in contenders.values():
        if contender.copy is None or contender.write_copy is None:
            continue
        folder = Path(work.copies) / contender.copy
        done = folder.with_suffix(f".{work.samples}.done")
        if not done.exists():
            say(f"copying {work.samples} samples of {work.url} for {contender.label}")
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            contender.write_copy(work, folder)
            done.touch()


def _shard_builder(*arguments: str) -> None:
    code = "import sys; from shard_builder.cli import main; sys.argv[0] = 'shard-builder'; main()"
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise GfmError(f"shard-builder {' '.join(arguments)} failed: {done.stderr.strip().splitlines()[-1:]}")
