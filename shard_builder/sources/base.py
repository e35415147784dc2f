"""What a source is: the knowledge of one raw archive family, in one file of `shard_builder/sources/`.

A source scans its input, telling which files make which sensor of which place, and loads the raster in them. All else
is common: pairing by key, duplicates, tiles over shards, units and nodata, checking, encoding, writing, reporting.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from gfm_pipeline.config import StrictModel
from gfm_pipeline.errors import ArchiveError, ConfigError, GfmError, ItemError, StorageError
from gfm_pipeline.registry import Registry
from gfm_pipeline.sensors import SensorSpec
from gfm_pipeline.storage import Store
from shard_builder.archives import (
    LITTER,
    ArchiveReader,
    Kind,
    Listing,
    MemberRef,
    Passed,
    Refused,
    is_litter,
    item_error,
    kind_of,
)
from shard_builder.archives.origin import DEMO_RECORD
from shard_builder.build.scan import Ignored, Scan
from shard_builder.config import BuildConfig
from shard_builder.planned import PlannedRaster
from shard_builder.rasters.images import load_tiff
from shard_builder.rasters.raster import Decoded, Original
from shard_builder.rasters.units import offset_applies


class NoOptions(StrictModel):
    """A source that has no settings of its own."""


class InputView:
    """The input of a build, for a source to look at and to tell what it found."""

    def __init__(self, store: Store, only: str | None, reader: ArchiveReader, config: BuildConfig, scan: Scan) -> None:
        self.store = store
        self.only = only
        """Name of the one archive given, or None for a folder."""
        self.reader = reader
        """Reads the bytes of members, for headers and tables that the scan needs."""
        self.config = config
        self.scan = scan
        self._folders: dict[str, bool] | None = None
        self._opened: set[str] = set()
        self.left_out: list[str] = []
        """Archives and folders that could not be read: nothing of them is planned."""
        self.idle_offsets = {  # of sensors without an image yet that their configured offset applies to
            sensor: override
            for sensor, override in config.sensors.items()
            if override.offset and (override.offset_files or override.offset_since)
        }

    @property
    def where(self) -> str:
        """The URL or path of the input folder."""
        return self.store.url

    @property
    def folder_name(self) -> str:
        """The name of the input folder itself."""
        where = self.where if "://" in self.where else Path(self.where).resolve().as_posix()
        return where.rstrip("/").rpartition("/")[2]

    def names(self) -> list[str]:
        """Return the names in the input folder, sorted; just the one archive where one was given."""
        if self._folders is None:
            names = dict(self.store.names()) if self.only is None else {self.only: False}
            self._folders = {name: is_folder for name, is_folder in names.items() if not is_litter(name)}
            for name in sorted(names.keys() - self._folders):
                self.ignore(name, LITTER)
        return sorted(self._folders)

    def kind(self, name: str) -> Kind | None:
        """Return what a name in the input folder is: a folder, an archive by its extension, or None."""
        self.names()
        assert self._folders is not None
        return "folder" if self._folders.get(name) else kind_of(name)

    def open(self, name: str) -> Iterator[MemberRef]:
        """Yield the files of an archive or folder of the input, "" for all of it, in an order that is always the same.

        What has to be refused is rejected by the build's policy; an archive that cannot be read to its end, or holds
        nothing, is rejected as a whole, and nothing of it is yielded. Raises ArchiveError for it under `fail`.
        """
        if self.kind(name) not in (None, "folder"):
            local = self.store.local_path(name)
            if local is not None and not local.is_file():  # a pipe would keep its reader waiting for ever
                self.reject(name, name, "refused: no regular file")
                self.left_out.append(name)
                return
            self.scan.versions[name] = self.store.stat(name).version
        yield from self._listed(partial(self.reader.list, name), name)
        self._opened.add(name)

    def enter(self, ref: MemberRef) -> Iterator[MemberRef]:
        """Yield the files of an archive that is itself a member of one; no deeper."""
        yield from self._listed(partial(self.reader.list_inside, ref), ref.source_file)

    def add(self, key: str, sensor: str, raster: PlannedRaster, /, **labels: Any) -> None:
        """Plan one sensor of the sample `key`; what is said of a key in several calls becomes one sample.

        A second raster of the same sensor and key is rejected, and so is a key that no shard can hold.
        """
        if sensor in self.idle_offsets and offset_applies(raster, self.idle_offsets[sensor]):
            del self.idle_offsets[sensor]
        trouble = self.scan.add(key, sensor, raster, labels)
        if trouble:
            self.reject(key, raster.files[0].source_file, trouble, members=0)

    def label(self, key: str, table: str | None = None, /, **labels: Any) -> None:
        """Say something of the content of a sample that `add` has planned or will; alone it plans nothing.

        `table` is the file of the input that says it: the report names one whose keys are of no sample.
        """
        self.scan.label(key, labels)
        if table is not None:
            self.scan.tell(table, key)

    def warn(self, text: str) -> None:
        """Take note of a setting that has nothing to do in this input: plan and report name it."""
        self.scan.warnings.append(text)

    def mask(self, source_file: str, mask: MemberRef) -> None:
        """Give the image `source_file`, planned before or after, the mask that lies in a file beside it."""
        self.scan.mask(source_file, mask)

    def ignore(self, path: str, reason: str, files: int = 1) -> None:
        """Take note of files that this source does not pack, and why."""
        self.scan.ignore(Ignored(path, reason, files))

    def ignore_rest(self, used: Iterable[str], otherwise: str) -> None:
        """Take note of every name in the input folder that is not in `used`."""
        for name in sorted(set(self.names()) - set(used)):
            self.ignore(name, otherwise)

    def reject(self, item: str, source_file: str, reason: str, members: int = 1) -> None:
        """Leave an item (of so many archive members) out under `on_error: skip`; raise ItemError under `fail`."""
        if self.config.on_error == "fail":
            said = reason if reason.startswith(source_file) else f"{source_file}: {reason}"
            raise ItemError(f"{said.removesuffix('.')}. Remove the item, or set on_error=skip to build without it.")
        self.scan.reject(item, source_file, reason, "on_error=skip", members)

    def leave_out(self, name: str, error: Exception) -> None:
        """Leave a whole archive out under `on_error: skip`; raise `error` under `fail`, or where it is no archive's."""
        found = item_error(error, name)
        if self.config.on_error == "fail":
            raise error
        self.left_out.append(name)
        self.scan.reject(name, name, str(found), "on_error=skip", 1)

    def _listed(self, start: Callable[[], Listing], name: str) -> Iterator[MemberRef]:
        """Yield the files of a listing; what else it tells is filed."""
        listings: list[Listing] = []
        found = False
        for entry in self._entries(start, name, listings):
            member = entry.member if isinstance(entry, MemberRef) else entry.name
            if is_litter(member):
                top = name or member.partition("/")[0]
                if not is_litter(top) and (name or top not in self._opened):  # else it was counted before
                    self.ignore(top, LITTER)
                continue
            found = True
            if isinstance(entry, MemberRef):
                yield entry
            elif isinstance(entry, Passed):
                self.ignore(f"{name}!{entry.name}" if name else entry.name, entry.reason)
            else:
                self.reject(entry.name, f"{name}!{entry.name}" if name else entry.name, f"refused: {entry.reason}")
        for listing in listings:
            if not found and name:
                error = ArchiveError(f"{self.where}/{name} holds no files. Copy or download it again, or remove it.")
                self.leave_out(name, error)
            self.scan.listed(listing.provenance, listing.synthetic)

    def _entries(
        self, start: Callable[[], Listing], name: str, ended: list[Listing]
    ) -> Iterator[MemberRef | Refused | Passed]:
        """Yield what a listing tells, and add it to `ended`; an archive that breaks off is left out as a whole.

        Archives are read to their end before the first of their members is told; a folder's fault ends the build.
        """
        begun = False
        try:
            listing = start()
            for entry in listing:
                begun = True
                yield entry
            ended.append(listing)
        except Exception as error:  # the archive may lie in another one, and that be damaged where it lies
            if begun or kind_of(name) is None:
                raise
            self.leave_out(name, error)


def _warn_of_idle_settings(source: Source, view: InputView) -> None:
    """Name the settings and tables that fit nothing of what was found."""
    present = {sensor for sensors in view.scan.sensor_sets() for sensor in sensors}
    for sensor, override in view.idle_offsets.items():
        if sensor not in present:
            continue  # its absence is named, once
        asked = [
            f"offset_files {override.offset_files!r}" if override.offset_files else "",
            f"offset_since {override.offset_since}" if override.offset_since else "",
        ]
        what = " and ".join(filter(None, asked))
        view.warn(f"sensors.{sensor}: {what} fits no image of {sensor}: offset {override.offset:g} is added to none")
    for spec in source.sensors:
        wanted = spec.name in source.required or spec.name in view.config.sensors
        known = any(f"options.sensors.{spec.name}.files" in text for text in view.scan.warnings)
        if spec.name not in present and wanted and not known:
            view.warn(f"no sample has {spec.name}")
    for table, keys, strange, example in view.scan.strangers():
        if keys == strange or not source.lists_more:
            view.warn(strange_keys(table, keys, strange, example))


def strange_keys(table: str, keys: int, strange: int, example: str) -> str:
    """Return the warning of a table of which so many keys are of no sample."""
    if keys == strange:
        return f"{table}: none of its {keys} keys is that of a sample, e.g. {example}"
    return f"{table}: {strange} of its {keys} keys are of no sample, e.g. {example}"


class Source(ABC):
    """One raw archive family."""

    reads: ClassVar[str]
    """The names by which it knows its archives, for messages."""
    sensors: tuple[SensorSpec, ...]
    """What a sample may hold, as the archive ships it; label rasters too."""
    optional: ClassVar[frozenset[str]] = frozenset()
    """Sensors that a sample is complete without; label rasters are optional always."""
    tiled: ClassVar[bool] = False
    """Whether it cuts tiles, as `tile_px`, `stride_px` and `edge` say."""
    asks_products: ClassVar[bool] = False
    """Whether it knows what the metadata of products say, as `offset_evidence: product` needs."""
    lists_more: ClassVar[bool] = True
    """Whether its tables are published ones of the whole archive, of which an input may be a part."""

    def __init__(self, config: BuildConfig) -> None:
        """Raise ConfigError for options that the source does not know."""
        config.parse_options(NoOptions)

    @property
    def stated_gsd_m(self) -> dict[str, float]:
        """Ground sampling distances by sensor that the options state: they win over what the files say."""
        return {}

    @property
    def required(self) -> tuple[str, ...]:
        """Names of the sensors that a complete sample has."""
        return tuple(s.name for s in self.sensors if s.kind == "image" and s.name not in self.optional)

    @abstractmethod
    def scan(self, view: InputView) -> None:
        """Tell `view` what the input holds; in an order that is good to read in and the same every time."""

    def load(self, planned: PlannedRaster, spec: SensorSpec, files: ArchiveReader) -> Decoded:
        """Return the raster [C,H,W] or [T,C,H,W] of a planned sensor; raise ItemError when there is none.

        Unless a source says otherwise, it is the one TIFF in `planned.files`, cut to its window.
        """
        return load_tiff(planned, spec, files)

    def original(self, planned: PlannedRaster, spec: SensorSpec, files: ArchiveReader) -> Original | None:
        """Return the image of a planned sensor without decoding it, where its own encoding can be stored.

        Raises ItemError where that shows without decoding that it is damaged.
        """
        return None


SOURCES: Registry[type[Source]] = Registry("source", "shard_builder.sources")


def make_source(config: BuildConfig) -> Source:
    """Return the configured source; raise ConfigError for settings that it would ignore or does not know."""
    kind = SOURCES.get(config.source)
    for key in ("tile_px", "stride_px", "edge"):
        if key in config.model_fields_set and not kind.tiled:
            raise ConfigError(f"{key} is set, but source {config.source} packs its images whole. Remove the setting.")
    for name, override in config.sensors.items():
        if override.offset_evidence == "product" and not kind.asks_products:
            raise ConfigError(
                f"sensors.{name}.offset_evidence is product, but source {config.source} reads no metadata of products. "
                "Use source scenes, or set it to pixels."
            )
    return kind(config)


def _digest(reader: ArchiveReader, raster: PlannedRaster) -> bytes:
    """Return a digest of the bytes that a raster comes from; of the window too, as tiles share a file."""
    joined = hashlib.blake2b(repr((raster.window, raster.grid)).encode(), digest_size=16)
    for ref in (one for file in raster.files for one in (file, file.mask) if one is not None):
        try:
            digest = reader.keep("digest", ref, lambda ref: hashlib.blake2b(reader.read(ref), digest_size=16).digest())
        except ItemError:  # it equals no other file; the shard that it is planned for will say what is wrong
            digest = repr(ref).encode()
        joined.update(digest)
    return joined.digest()


def _is_demo(view: InputView) -> bool:
    """Return whether the record of demo archives lies in the input folder, beside archives or what was in them."""
    if view.only is not None or DEMO_RECORD not in view.names():
        return False
    try:
        return b"shard-builder demo" in view.store.get_range(DEMO_RECORD, 0, 4096)
    except StorageError:
        return False


def scan_input(source: Source, view: InputView) -> None:
    """Fill the scan of `view` with what the source finds; raise ArchiveError when nothing of the source is there."""
    try:
        source.scan(view)
    except GfmError:
        raise
    except Exception as error:  # a table of all places that lies: nothing of the input can be told without it
        raise ArchiveError(str(item_error(error, view.where))) from error
    view.scan.synthetic |= _is_demo(view)
    view.scan.finish()
    if view.scan.num_samples:
        _warn_of_idle_settings(source, view)
    if view.config.duplicates == "drop":
        view.scan.drop_duplicates(partial(_digest, view.reader))
    if not view.scan.num_samples and not view.scan.num_rejected:
        found = ", ".join(view.names()[:6]) or "nothing"
        raise ArchiveError(
            f"{view.where} holds nothing that source {view.config.source} knows; found {found}, expected "
            f"{source.reads}, packed or unpacked. Set input to where that is."
        )
