"""Manifest and sidecars: the two documents that describe a collection. Both carry the format version.

Opening a collection reads the manifest only, which costs O(shards); the sidecar of a shard, which lists its samples,
is read when the shard is first touched.
"""

from __future__ import annotations

import hashlib
import json
import logging
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, Field, ValidationError, model_validator
from typing_extensions import Self

from gfm_pipeline.config import StrictModel, load_json
from gfm_pipeline.config.names import InputPath, KeyName, PlainName, SensorName
from gfm_pipeline.errors import ShardError, StorageError
from gfm_pipeline.sensors import SensorSpec
from gfm_pipeline.shards import FORMAT_NAME, FORMAT_VERSION, MANIFEST_PATH, SHARDS_PREFIX
from gfm_pipeline.shards.stats import BandStats
from gfm_pipeline.storage import Store

D = TypeVar("D", bound=BaseModel)
MOST = 2**53
"""Of bytes and samples, more than there can be: every number below it is exact in JSON and in arithmetic."""
_log = logging.getLogger(__name__)


class Member(StrictModel):
    """One tar member of a sample: where its bytes are and what they must sum to."""

    extension: PlainName
    """"json", or the codec of a sensor's raster."""
    offset: int = Field(ge=0, lt=MOST)
    """Byte offset of the content (not of the tar header) in the shard."""
    size: int = Field(ge=0, lt=MOST)
    crc32: int = Field(ge=0, lt=2**32)


class RasterMember(Member):
    """The raster of one sensor."""

    dtype: str = Field(pattern=r"^(bool|u?int(8|16|32|64)|float(16|32|64))$")
    shape: tuple[Annotated[int, Field(ge=1, lt=2**31)], ...]


class SampleEntry(StrictModel):
    """One sample of a shard, in the order of the tar."""

    key: KeyName
    meta: Member
    sensors: dict[SensorName, RasterMember]


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
    name: PlainName
    """Shard name without extension, e.g. "sen12ms-000003"."""
    sensors: tuple[SensorName, ...]
    """The sensors that every sample of this shard carries: a shard never mixes complete and incomplete samples."""
    task_digest: str
    """sha256 of the planned task (config, inputs, keys): a shard of another plan is never taken for this one."""
    tar_bytes: int = Field(ge=0, lt=MOST)
    tar_sha256: str
    samples: tuple[SampleEntry, ...]
    statistics: dict[SensorName, list[BandStats]]
    rejected: tuple[Rejected, ...] = ()
    rules: dict[str, int] = {}
    """How often a stated rule changed what the archive held, e.g. {"alpha channel dropped": 3}."""


class ShardEntry(StrictModel):
    """What the manifest says about one shard."""

    name: PlainName
    sensors: tuple[SensorName, ...]
    """The sensors that every sample of this shard carries."""
    samples: int = Field(ge=0, lt=MOST)
    bytes: int = Field(ge=0, lt=MOST)
    sha256: str
    sidecar_sha256: str


class InputFile(StrictModel):
    """Provenance: one raw file that the collection was made from."""

    path: InputPath
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
    name: PlainName
    source: PlainName
    """Name of the raw archive family the collection was built from."""
    sensors: dict[SensorName, SensorSpec]
    num_samples: int = Field(ge=0, lt=MOST)
    samples_with: dict[SensorName, int]
    """Number of samples that carry each sensor."""
    shards: tuple[ShardEntry, ...]
    statistics: dict[SensorName, list[BandStats]]
    """Per sensor, one entry per band, over the pixels of all shards."""
    inputs: tuple[InputFile, ...]
    build_digest: str
    """sha256 of the resolved build configuration."""
    counts: dict[str, int]
    """The build's account: items found, packed, rejected, unpaired ..."""

    synthetic: bool = False
    """Whether the raw archives say that their images show no real place: those of shard-builder demo."""
    file_sha256: dict[InputPath, str] = {}
    """Of the files that belong to no shard, the catalog and the list of failures."""
    manifest_sha256: str | None = None
    """sha256 of the canonical form of all else in this document. None in a document of before this field."""

    @property
    def digest(self) -> str:
        """sha256 of what the collection is; equal digests mean equal collections.

        The bytes of the catalog do not count, which depend on the version of the library that wrote them.
        """
        left_out = {"manifest_sha256", "file_sha256"} | (set() if self.synthetic else {"synthetic"})
        tree = self.model_dump(mode="json", exclude=left_out)
        return hashlib.sha256(canonical(tree)).hexdigest()

    @model_validator(mode="after")
    def _sensors_are_those_that_are_described(self) -> Self:
        for name, spec in self.sensors.items():
            if name != spec.name:
                raise ValueError(f"sensor {name} has the specification of {spec.name}")
        named = {*self.samples_with, *self.statistics, *(sensor for shard in self.shards for sensor in shard.sensors)}
        if unknown := sorted(named - set(self.sensors)):
            raise ValueError(f"sensor {unknown[0]} is in a shard or has statistics, and no specification")
        return self


def tar_path(shard: str) -> str:
    """Return the path of a shard's tar inside its collection."""
    return f"{SHARDS_PREFIX}/{shard}.tar"


def sidecar_path(shard: str) -> str:
    """Return the path of a shard's sidecar inside its collection."""
    return f"{SHARDS_PREFIX}/{shard}.json"


def canonical(tree: object) -> bytes:
    """Return the one serialisation of a tree of JSON values: sorted keys, no spaces, one trailing newline."""
    return (json.dumps(tree, sort_keys=True, separators=(",", ":"), allow_nan=False) + "\n").encode()


def dump_document(document: BaseModel) -> bytes:
    """Return the canonical serialisation of a document."""
    return canonical(document.model_dump(mode="json"))


def dump_manifest(manifest: Manifest) -> bytes:
    """Return the bytes of a manifest, with its own digest in them."""
    tree = manifest.model_dump(mode="json", exclude={"manifest_sha256"})
    return canonical(tree | {"manifest_sha256": hashlib.sha256(canonical(tree)).hexdigest()})


def load_manifest(store: Store, unproved: bool = False) -> Manifest:
    """Return the manifest of the collection at `store`.

    Raises ShardError when there is none (the build is not finished), when it is damaged or of another version. One that
    carries no digest of its own, as they were once written, loads with a warning. `unproved` loads one whose content is
    not what its digest says, for those who look for what was changed.
    """
    if not store.exists(MANIFEST_PATH):
        raise ShardError(
            f"{store.url} holds no {MANIFEST_PATH}: it is no collection, or its build has not finished. "
            "Run shard-builder build (again) for it."
        )
    where = f"{store.url}/{MANIFEST_PATH}"
    tree = _read_tree(store.get(MANIFEST_PATH), where, FORMAT_NAME)
    recorded = tree.get("manifest_sha256")
    try:
        found = hashlib.sha256(canonical({k: v for k, v in tree.items() if k != "manifest_sha256"})).hexdigest()
    except ValueError as error:  # 1e999 is a number of JSON, and infinite here
        raise ShardError(f"{where} is damaged: {error}. Copy or build the collection again.") from error
    if recorded is None:
        _log.warning("%s is older than manifests with a digest: shard-builder verify tells whether it is whole", where)
    elif recorded != found and not unproved:
        raise ShardError(
            f"{where} was changed after it was written: its content has sha256 {found[:16]}..., it recorded "
            f"{str(recorded)[:16]}.... Copy or build the collection again; shard-builder verify says what differs."
        )
    return _validate(tree, Manifest, where)


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
    where = f"{store.url}/{path}"
    sidecar = _validate(_read_tree(data, where, "gfm-shard"), Sidecar, where)
    if sidecar.name != shard:
        raise ShardError(f"{store.url}/{path} describes shard {sidecar.name}, expected {shard}.")
    return sidecar, found


def _read_tree(data: bytes, where: str, format_name: str) -> dict[str, Any]:
    try:
        tree: Any = load_json(data)
    except ValueError as error:
        raise ShardError(f"{where} is not JSON: {error}. The file is damaged; build the collection again.") from error
    if not isinstance(tree, dict) or tree.get("format") != format_name:
        raise ShardError(f"{where} is not a {format_name} document.")
    if tree.get("version") != FORMAT_VERSION:
        raise ShardError(
            f"{where} has format version {tree.get('version')!r}, this program reads version {FORMAT_VERSION}."
        )
    return tree


def _validate(tree: dict[str, Any], model: type[D], where: str) -> D:
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        dotted = ".".join(str(part) for part in first["loc"])
        found = f" (found {ascii(first['input'])[:80]})" if isinstance(first["input"], str) else ""
        raise ShardError(f"{where} breaks the shard contract at '{dotted[:200]}': {first['msg']}{found}.") from None
