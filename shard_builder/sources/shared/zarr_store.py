"""Zarr arrays inside archives and folders, read through the archive reader: a zarr.zip in a tar as well."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable
from typing import Any, TypeGuard

from gfm_pipeline.config import load_json
from gfm_pipeline.errors import ConfigError, ItemError
from shard_builder.archives import ArchiveReader, MemberRef, is_litter
from shard_builder.sources.shared.packed_size import unpacks_to_more

METADATA = (".zarray", ".zgroup", ".zattrs", ".zmetadata", "zarr.json")


def is_zarr(path: str) -> bool:
    """Return whether a path is that of a zipped zarr store or zarr folder, or lies in one."""
    return path.lower().endswith((".zarr.zip", ".zarr")) or zarr_folder(path) is not None


def zarr_folder(path: str) -> str | None:
    """Return the path of the zarr folder that a path lies in, or None."""
    head, found, _ = path.partition(".zarr/")
    return f"{head}.zarr" if found else None


def open_zarr(refs: tuple[MemberRef, ...], files: ArchiveReader) -> Any:
    """Return the zarr group or array in one zip, or in the files of a folder, of which the first one may stand for all.

    Raises ItemError for what cannot be read, and for arrays whose codecs would run code.
    """
    try:
        import zarr
    except ImportError as error:
        raise ConfigError(f"cannot read {refs[0].source_file}: {error}. Install zarr 3.") from error
    store = _store(_members(refs, files), files)
    try:
        return zarr.open(store, mode="r")
    except ItemError:
        raise
    except Exception as error:  # zarr raises types of several libraries for what is no store
        raise ItemError(f"{refs[0].source_file} is no readable zarr: {' '.join(str(error).split())[:200]}") from error


def _members(refs: tuple[MemberRef, ...], files: ArchiveReader) -> dict[str, MemberRef]:
    (first, *others) = refs
    folder = zarr_folder(first.member)
    if folder is None:
        listed: Iterable[Any] = files.list_inside(first)
        members = {ref.member: ref for ref in listed if _counts(ref)}
        tops = {name.partition("/")[0] for name in members}
        if len(tops) == 1 and not tops & set(METADATA):  # zipped with its folder
            return {name.partition("/")[2]: ref for name, ref in members.items()}
        return members
    if not others and not first.archive:
        listed = files.list(folder)
        return {ref.member[len(folder) + 1 :]: ref for ref in listed if _counts(ref)}
    return {ref.member.partition(".zarr/")[2]: ref for ref in refs}


def _counts(entry: object) -> TypeGuard[MemberRef]:
    return isinstance(entry, MemberRef) and not is_litter(entry.member)


def _checked(name: str, data: bytes, ref: MemberRef) -> bytes:
    """Return metadata that names no codec which unpickles."""
    if name.rpartition("/")[2] not in METADATA:
        return data
    try:
        plain = json.dumps(load_json(data, constants=True))  # escapes undone
    except ValueError as error:
        raise ItemError(f"{ref.source_file} is no JSON: {error}.") from error
    if 'pickle"' in plain.lower():
        raise ItemError(f"{ref.source_file} asks for a pickle codec: refused, it could run any code.")
    return data


def _store(members: dict[str, MemberRef], files: ArchiveReader) -> Any:
    """Return a read-only zarr 3 store over members."""
    from zarr.abc.store import OffsetByteRequest, RangeByteRequest, Store, SuffixByteRequest

    class MemberStore(Store):  # type: ignore[misc]
        """Keys are the names of members; a chunk that is not there is the fill value, as the format says."""

        supports_writes = False
        supports_deletes = False
        supports_listing = True

        def __init__(self) -> None:
            super().__init__(read_only=True)
            self.chunks: dict[str, tuple[int, str | None]] = {}
            """By the path of an array, the bytes of one of its chunks, and what compresses them."""

        def __eq__(self, other: object) -> bool:
            return self is other

        async def get(self, key: str, prototype: Any, byte_range: Any = None) -> Any:
            if key not in members:
                return None
            data = _checked(key, files.read(members[key]), members[key])
            if isinstance(byte_range, RangeByteRequest):
                data = data[byte_range.start : byte_range.end]
            elif isinstance(byte_range, OffsetByteRequest):
                data = data[byte_range.offset :]
            elif isinstance(byte_range, SuffixByteRequest):
                data = data[-byte_range.suffix :]
            self._check_chunk(key, data)
            return prototype.buffer.from_bytes(data)

        def _check_chunk(self, key: str, data: bytes) -> None:
            found = [path for path in self.chunks if key.startswith(path)]
            if not found or key.rpartition("/")[2] in METADATA:
                return
            most, codec = self.chunks[max(found, key=len)]
            if unpacks_to_more(data, most, codec):
                raise ItemError(
                    f"{members[key].source_file} unpacks to more than the {most} bytes of a chunk: refused."
                )

        async def get_partial_values(self, prototype: Any, key_ranges: Iterable[Any]) -> list[Any]:
            return [await self.get(key, prototype, byte_range) for key, byte_range in key_ranges]

        async def exists(self, key: str) -> bool:
            return key in members

        async def set(self, key: str, value: Any) -> None:
            raise NotImplementedError("archives are only read")

        async def delete(self, key: str) -> None:
            raise NotImplementedError("archives are only read")

        async def list(self) -> AsyncIterator[str]:
            for name in members:
                yield name

        async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
            for name in members:
                if name.startswith(prefix):
                    yield name

        async def list_dir(self, prefix: str) -> AsyncIterator[str]:
            start = f"{prefix.rstrip('/')}/" if prefix else ""
            for name in dict.fromkeys(n[len(start) :].partition("/")[0] for n in members if n.startswith(start)):
                yield name

    return MemberStore()
