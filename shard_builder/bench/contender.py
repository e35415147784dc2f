"""The ways to make tars of an input that are compared. Each runs in a process of its own, this module's.

`python -m shard_builder.bench.contender JSON` runs one and prints what it measured as its last line.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, Literal

from gfm_pipeline.config import StrictModel
from gfm_pipeline.errors import GfmError
from gfm_pipeline.shards import codec
from shard_builder.archives.member import MemberRef
from shard_builder.bench.stopwatch import Stopwatch
from shard_builder.build.build import build_collection
from shard_builder.build.pack import DEFAULT_CODEC
from shard_builder.catalog import dump_rows
from shard_builder.config import BuildConfig
from shard_builder.rasters.images import decode_tiff

Kind = Literal["builder", "profile", "tar", "shardwriter"]


class Task(StrictModel):
    """One thing to run."""

    contender: Kind
    workers: int
    source: Literal["sen12ms", "millionaid"]
    input: str
    output: str
    """A folder that is not there yet."""
    max_samples: int
    decode: Literal["all", "sample"] = "all"
    """What the builder decodes of images that it stores as they are."""


class Timing(StrictModel):
    """What one run took, from a process that is ready to work to bytes that are on the disk."""

    seconds: float
    cpu_seconds: float
    """Of all its processes, user and system."""
    samples: int | None = None
    phases: dict[str, float] = {}
    peak_bytes: int = 0
    """Most memory that this process had at any time."""
    peak_bytes_children: int = 0
    """The same of the largest of its children."""


def run(task: Task) -> Timing:
    """Run a task in a new process."""
    command = [sys.executable, "-m", "shard_builder.bench.contender", task.model_dump_json()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise GfmError(f"the bench of {task.contender} failed: {done.stderr.strip()[-2000:]}")
    return Timing.model_validate_json(done.stdout.strip().splitlines()[-1])


def measure(task: Task) -> Timing:
    """Run a task in this process."""
    Path(task.output).mkdir(parents=True)
    phases: dict[str, float] = {}
    work = {"builder": _build, "profile": _build, "tar": _tar, "shardwriter": _shardwriter}[task.contender]
    prepared = work(task)
    watch = Stopwatch()
    if task.contender == "profile":
        watch.install()
    cpu, started = sum(os.times()[:4]), time.perf_counter()
    watch.start()
    samples = prepared()
    if task.contender == "profile":
        phases = watch.stop()
    seconds = time.perf_counter() - started
    cpu = sum(os.times()[:4]) - cpu
    own, children = (
        resource.getrusage(who).ru_maxrss * 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return Timing(
        seconds=seconds,
        cpu_seconds=cpu,
        samples=samples,
        phases=phases,
        peak_bytes=own,
        peak_bytes_children=children,
    )


def _build(task: Task) -> Callable[[], int]:
    config = BuildConfig(
        source=task.source,
        input=task.input,
        output=task.output,
        workers=task.workers,
        max_samples=task.max_samples,
        decode=task.decode,
    )
    dump_rows("warm", [])  # imports what it needs

    def build() -> int:
        manifest = build_collection(config, "build", lambda event: None).manifest
        assert manifest is not None
        return manifest.num_samples

    return build


def _tar(task: Task) -> Callable[[], None]:
    path = Path(task.output) / "all.tar"
    names = sorted(entry.name for entry in Path(task.input).iterdir())

    def tar() -> None:
        subprocess.run(["tar", "cf", str(path), "-C", task.input, *names], check=True)  # noqa: S603, S607
        _sync(path)

    return tar


def _shardwriter(task: Task) -> Callable[[], int]:
    """Read, decode and encode as the builder does, without checks, statistics, records and checksums of its own."""
    from webdataset.writer import ShardWriter  # imports torch: in this process alone

    samples = _pairs if task.source == "sen12ms" else _images

    def write() -> int:
        count = 0
        pattern = f"{task.output}/bench-%06d.tar"
        with ShardWriter(pattern, maxcount=task.max_samples, maxsize=2**62, verbose=0) as writer:
            for key, members in samples(Path(task.input)):
                writer.write({"__key__": key, "json": b"{}", **members})
                count += 1
        for path in Path(task.output).iterdir():
            _sync(path)
        return count

    return write


def _pairs(folder: Path) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Yield pairs: the archives of both sensors hold their patches in one order and are read side by side."""
    for first in sorted(path for path in folder.iterdir() if "_s1" in path.name):
        second = first.with_name(first.name.replace("_s1", "_s2"))
        with ExitStack() as stack:
            sides = [_files(path, stack) for path in (first, second)]
            for (name, radar), (_, optical) in zip(*sides, strict=True):
                key = Path(name).stem.replace("_s1_", "_")
                yield key, {f"s1.{DEFAULT_CODEC}": _encoded(radar), f"s2.{DEFAULT_CODEC}": _encoded(optical)}


def _encoded(data: bytes) -> bytes:
    return codec.encode(decode_tiff(data, MemberRef("", "folder", "tile.tif", len(data))).raster, DEFAULT_CODEC)


def _images(folder: Path) -> Iterator[tuple[str, dict[str, bytes]]]:
    with ExitStack() as stack:
        for path in sorted(folder.iterdir()):
            if path.is_dir() or path.suffix == ".zip":
                for name, data in _files(path, stack):
                    yield Path(name).stem, {"rgb.jpg": data}


def _files(path: Path, stack: ExitStack) -> Iterator[tuple[str, bytes]]:
    """Yield (name, bytes) of the files of a folder, zip or tar.gz."""
    if path.is_dir():
        for file in sorted(path.rglob("*.*")):
            yield file.name, file.read_bytes()
    elif path.suffix == ".zip":
        import zipfile

        archive = stack.enter_context(zipfile.ZipFile(path))
        for entry in archive.infolist():
            yield entry.filename, archive.read(entry)
    else:
        stream = stack.enter_context(tarfile.open(path, "r|gz"))  # noqa: SIM115
        for info in stream:
            content: IO[bytes] | None = stream.extractfile(info)
            assert content is not None
            yield info.name, content.read()


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _main(text: str) -> None:
    tree: dict[str, Any] = json.loads(text)
    print(measure(Task.model_validate(tree)).model_dump_json())


if __name__ == "__main__":
    _main(sys.argv[1])
