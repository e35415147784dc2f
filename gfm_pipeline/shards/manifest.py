"""Manifest and sidecars: the two documents that describe a collection. Both carry the format version.

Opening a collection reads the manifest only, which costs O(shards); the sidecar of a shard, which lists its samples,
is read when the shard is first touched.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, Field, ValidationError

from gfm_pipeline.config import StrictModel
from gfm_pipeline.errors import ShardError, StorageError
from gfm_pipeline.sensors import SensorSpec
from gfm_pipeline.shards import FORMAT_NAME, FORMAT_VERSION, MANIFEST_PATH, SHARDS_PREFIX
from gfm_pipeline.shards.stats import BandStats
from gfm_pipeline.storage import Store

D = TypeVar("D", bound=BaseModel)


class Member(StrictModel):
    """One tar member of a sample: where its bytes are and what they must sum to."""

    extension: str
    """"json", or the codec of a sensor's raster."""
    offset: int = Field(ge=0)
    """Byte offset of the content (not of the tar header) in the shard."""
    size: int = Field(ge=0)
    crc32: int = Field(ge=0, lt=2**32)


class RasterMember(Member):
    """The raster of one sensor."""

    dtype: str
    shape: tuple[int, ...]


class SampleEntry(StrictModel):
    """One sample of a shard, in the order of the tar."""

    key: str
    meta: Member
    sensors: dict[str, RasterMember]


class Rejected(StrictModel):
    """An item that was planned or found but is not in the collection, and why."""

    item: str
    """Key of the sample or path of the archive member."""
    source_file: str
    reason: str
    policy: str
    """The configured rule that let the build go on without it, e.g. "on_error=skip"."""
    shard: str | None = None


class Sidecar(StrictModel):
    """Commit record of one shard, written after its tar. No sidecar, no shard."""

    format: Literal["gfm-shard"] = "gfm-shard"
    version: Literal[1] = 1
    name: str
    """Shard name without extension, e.g. "sen12ms-000003"."""
    sensors: tuple[str, ...]
    """The sensors that every sample of this shard carries: a shard never mixes complete and incomplete samples."""
    task_digest: str
    """sha256 of the planned task (config, inputs, keys): a shard of another plan is never taken for this one."""
    tar_bytes: int
    tar_sha256: str
    samples: tuple[SampleEntry, ...]
    statistics: dict[str, list[BandStats]]
    rejected: tuple[Rejected, ...] = ()
    rules: dict[str, int] = {}
    """How often a stated rule changed what the archive held, e.g. {"alpha channel dropped": 3}."""


class ShardEntry(StrictModel):
    """What the manifest says about one shard."""

    name: str
    sensors: tuple[str, ...]
    """The sensors that every sample of this shard carries."""
    samples: int
    bytes: int
    sha256: str
    sidecar_sha256: str


class InputFile(StrictModel):
    """Provenance: one raw file that the collection was made from."""

    path: str
    """Relative to the build's input."""
    bytes: int
    items: int
    """Files found inside."""
    fingerprint: str
    """sha256 over names, sizes and whatever checksums the archive itself carries; of no time or owner."""


class Manifest(StrictModel):
    """A whole collection: written last of all, when every planned shard is committed."""

    format: Literal["gfm-collection"] = "gfm-collection"
    version: Literal[1] = 1
    name: str
    source: str
    """Name of the raw archive family the collection was built from."""
    sensors: dict[str, SensorSpec]
    num_samples: int
    samples_with: dict[str, int]
    """Number of samples that carry each sensor."""
    shards: tuple[ShardEntry, ...]
    statistics: dict[str, list[BandStats]]
    """Per sensor, one entry per band, over the pixels of all shards."""
    inputs: tuple[InputFile, ...]
    build_digest: str
    """sha256 of the resolved build configuration."""
    counts: dict[str, int]
    """The build's account: items found, packed, rejected, unpaired ..."""

    @property
    def digest(self) -> str:
        """sha256 of the manifest's canonical form; equal digests mean equal collections."""
        return hashlib.sha256(dump_document(self)).hexdigest()


def tar_path(shard: str) -> str:
    """Return the path of a shard's tar inside its collection."""
    return f"{SHARDS_PREFIX}/{shard}.tar"


def sidecar_path(shard: str) -> str:
    """Return the path of a shard's sidecar inside its collection."""
    return f"{SHARDS_PREFIX}/{shard}.json"


def dump_document(document: BaseModel) -> bytes:
    """Return the one canonical serialisation: sorted keys, no spaces, one trailing newline."""
    tree = document.model_dump(mode="json")
    return (json.dumps(tree, sort_keys=True, separators=(",", ":"), allow_nan=False) + "\n").encode()


def load_manifest(store: Store) -> Manifest:
    """Return the manifest of the collection at `store`.

    Raises ShardError when there is none (the build is not finished), when it is damaged or of another version.
    """
    if not store.exists(MANIFEST_PATH):
        raise ShardError(
            f"{store.url} holds no {MANIFEST_PATH}: it is no collection, or its build has not finished. "
            "Run shard-builder build (again) for it."
        )
    return _parse(store.get(MANIFEST_PATH), Manifest, f"{store.url}/{MANIFEST_PATH}", FORMAT_NAME)


def load_sidecar(store: Store, shard: str, sha256: str | None = None) -> Sidecar:
    """Return the sidecar of `shard`; raise ShardError when it is missing, damaged or of another shard.

    With `sha256`, the one that the manifest recorded, a sidecar of another build is refused too.
    """
    return load_sidecar_with_digest(store, shard, sha256)[0]


def load_sidecar_with_digest(store: Store, shard: str, sha256: str | None = None) -> tuple[Sidecar, str]:
    """Return the sidecar of `shard` and the sha256 of its bytes; raise ShardError as above."""
    path = sidecar_path(shard)
    try:
        data = store.get(path)
    except StorageError as error:
        if not isinstance(error.__cause__, FileNotFoundError):
            raise  # a store out of reach says nothing about the shard
        raise ShardError(f"{store.url}: shard {shard} has no sidecar {path}: {error}") from error
    found = hashlib.sha256(data).hexdigest()
    if sha256 is not None and found != sha256:
        raise ShardError(
            f"{store.url}/{path} has sha256 {found[:16]}..., the manifest recorded {sha256[:16]}...: it is damaged or "
            "of another build. Copy or build the collection again."
        )
    sidecar = _parse(data, Sidecar, f"{store.url}/{path}", "gfm-shard")
    if sidecar.name != shard:
        raise ShardError(f"{store.url}/{path} describes shard {sidecar.name}, expected {shard}.")
    return sidecar, found


def _parse(data: bytes, model: type[D], where: str, format_name: str) -> D:
    try:
        tree: Any = json.loads(data)
    except ValueError as error:
        raise ShardError(f"{where} is not JSON: {error}. The file is damaged; build the collection again.") from error
    if not isinstance(tree, dict) or tree.get("format") != format_name:
        raise ShardError(f"{where} is not a {format_name} document.")
    if tree.get("version") != FORMAT_VERSION:
        raise ShardError(
            f"{where} has format version {tree.get('version')!r}, this program reads version {FORMAT_VERSION}."
        )
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        dotted = ".".join(str(part) for part in first["loc"])
        raise ShardError(f"{where} breaks the shard contract at '{dotted}': {first['msg']}.") from None
