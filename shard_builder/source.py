"""What a source is: the knowledge of one raw archive family, in one file of `shard_builder/sources/`.

A source scans its input into planned samples (which bytes make which sensor of which place) and decodes the bytes of
one item. Everything else, tiling aside, is common: planning shards, checking, encoding, writing, reporting.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

from gfm_pipeline.errors import ArchiveError, ConfigError, ItemError, UsageError
from gfm_pipeline.registry import Registry
from gfm_pipeline.shards.codec import Raster
from gfm_pipeline.shards.manifest import InputFile, Rejected
from gfm_pipeline.shards.sample import is_key
from shard_builder.archive import ArchiveReader, Listing, MemberRef, list_archive
from shard_builder.config import BuildConfig
from shard_builder.georeference import Georeference

Window = tuple[int, int, int, int]
"""(row, column, height, width) in pixels of the source raster."""


@dataclass(frozen=True)
class PlannedRaster:
    """The bytes that become one sensor of a sample; `window` for a tile of them."""

    ref: MemberRef
    window: Window | None = None


@dataclass(frozen=True)
class PlannedSample:
    """One sample to be: its key and where each of its sensors comes from."""

    key: str
    rasters: dict[str, PlannedRaster]
    labels: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Ignored:
    """Files of the input that this source does not pack, and why."""

    path: str
    reason: str
    files: int = 1


@dataclass
class Scan:
    """All that a source found in its input."""

    samples: list[PlannedSample] = field(default_factory=list)
    inputs: list[InputFile] = field(default_factory=list)
    ignored: list[Ignored] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    items: int = 0
    """Archive members that belong to this source, rejected ones included."""


@dataclass(frozen=True)
class Decoded:
    """One raster as the archive holds it."""

    raster: Raster
    """[C,H,W]."""
    georeference: Georeference | None = None
    original: tuple[str, bytes] | None = None
    """(extension, bytes) when the archive's own encoding can be stored as it is."""
    rules: tuple[str, ...] = ()
    """Stated rules that changed the item, e.g. "alpha channel dropped"."""


@dataclass
class InputView:
    """The input of a build, for a source to look at."""

    root: Path
    """The input folder, or the folder of the one archive that was given."""
    only: str | None
    """Name of the one archive given, or None for a folder."""
    index_folder: Path
    config: BuildConfig
    scan: Scan

    def names(self) -> list[str]:
        """Return the names in the input folder, sorted; just the one archive where one was given."""
        return [self.only] if self.only else sorted(path.name for path in self.root.iterdir())

    def open(self, relative: str) -> Listing:
        """List an archive or folder below the input, taking note of what had to be refused."""
        listing = list_archive(self.root, relative, self.index_folder)
        for name, reason in listing.refused:
            self.reject(name, f"{relative}!{name}", f"refused: {reason}")
        return listing

    def add_input(self, relative: str, items: int) -> None:
        """Record the provenance of an archive or folder."""
        self.scan.inputs.append(InputFile(path=relative, bytes=input_bytes(self.root, relative), items=items))

    def reject(self, item: str, source_file: str, reason: str, members: int = 1) -> None:
        """Leave an item (of so many archive members) out under `on_error: skip`; raise ItemError under `fail`."""
        if self.config.on_error == "fail":
            raise ItemError(f"{source_file}: {reason}. Remove the item, or set on_error=skip to build without it.")
        self.scan.items += members
        self.scan.rejected.append(Rejected(item=item, source_file=source_file, reason=reason, policy="on_error=skip"))

    def reader(self) -> ArchiveReader:
        """Return a reader of the input's archives."""
        return ArchiveReader(self.root, self.index_folder, self.config.max_member_bytes)


class Source(Protocol):
    """One raw archive family."""

    sensors: ClassVar[tuple[str, ...]]
    """Names of the sensors a complete sample has."""
    tiled: ClassVar[bool]
    """Whether it cuts tiles, as `tile_px`, `stride_px` and `edge` say."""

    def scan(self, view: InputView) -> None:
        """Fill `view.scan`; samples in an order that is good to read in and the same every time."""
        ...

    def decode(self, data: bytes, ref: MemberRef, sensor: str) -> Decoded:
        """Return the raster in the bytes of an item; raise ItemError when there is none."""
        ...


SOURCES: Registry[type[Source]] = Registry("source", "shard_builder.sources")


def check_settings(config: BuildConfig, source: type[Source]) -> None:
    """Raise ConfigError for a setting that the source would ignore."""
    for key in ("tile_px", "stride_px", "edge"):
        if key in config.model_fields_set and not source.tiled:
            raise ConfigError(f"{key} is set, but source {config.source} packs its images whole. Remove the setting.")


def scan_input(config: BuildConfig, index_folder: Path) -> Scan:
    """Return what the configured source finds in the configured input.

    Raises UsageError for an input that is not there, ArchiveError when nothing of the source is in it.
    """
    source = SOURCES.get(config.source)()
    path = Path(config.input)
    if not path.exists():
        raise UsageError(f"input {path} does not exist. Give the folder that holds the archives, or one archive.")
    only = None if path.is_dir() else path.name
    view = InputView(path if path.is_dir() else path.parent, only, index_folder, config, Scan())
    source.scan(view)
    _check_keys(view)
    if not view.scan.samples and not view.scan.rejected:
        found = ", ".join(view.names()[:6]) or "nothing"
        raise ArchiveError(f"{path} holds nothing that source {config.source} knows; found {found}.")
    return view.scan


def input_bytes(root: Path, relative: str) -> int:
    """Return the size of an archive, or of all files in a folder."""
    path = root / relative
    if path.is_file():
        return path.stat().st_size
    return sum(ref.size for ref in list_archive(root, relative, root).members)


def _check_keys(view: InputView) -> None:
    """Reject what has the key of an earlier sample (an archive beside its unpacked copy, say) or one that is none."""
    holders: dict[str, PlannedSample] = {}
    samples, view.scan.samples = view.scan.samples, []
    for sample in samples:
        source_file = next(iter(sample.rasters.values())).ref.source_file
        first = holders.setdefault(sample.key.lower(), sample)
        if first is not sample:
            earlier = next(iter(first.rasters.values())).ref.source_file
            view.reject(sample.key, source_file, f"its key {sample.key} is that of {earlier} already", members=0)
        elif not is_key(sample.key):
            view.reject(sample.key, source_file, f"{sample.key!r} cannot be a sample key", members=0)
        else:
            view.scan.samples.append(sample)


def ignore_rest(view: InputView, used: Iterable[str], why: dict[str, str], otherwise: str) -> None:
    """List every name of the input that was not used, with the reason in `why` or the one for all others."""
    used = set(used)
    for name in view.names():
        if name not in used:
            view.scan.ignored.append(Ignored(name, why.get(name, otherwise)))
