"""Check one sample against its records: tar headers, checksums, the json member, and that every raster decodes."""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from gfm_pipeline.errors import ShardError
from gfm_pipeline.sensors import SensorSpec
from gfm_pipeline.shards.codec import Raster, decode
from gfm_pipeline.shards.manifest import Member, RasterMember, SampleEntry
from gfm_pipeline.shards.quantise import decode_member
from gfm_pipeline.shards.sample import SampleRecord, parse_record
from gfm_pipeline.shards.tar import BLOCK
from shard_builder.collection.problem import Place, ProblemList


@dataclass
class CheckedSample:
    """What of a sample is sound."""

    record: SampleRecord | None = None
    rasters: dict[str, Raster] = field(default_factory=dict)
    """By sensor; a raster with a wrong checksum or shape is not here."""


def members_of(entry: SampleEntry) -> list[tuple[str, Member]]:
    """Return ("json" or sensor, member), in the order of the tar."""
    members: list[tuple[str, Member]] = [("json", entry.meta), *entry.sensors.items()]
    return sorted(members, key=lambda item: item[1].offset)


def span_of(entry: SampleEntry) -> tuple[int, int]:
    """Return [start, end) of a sample in its tar, from its first header to the padding of its last member."""
    members = members_of(entry)
    return members[0][1].offset - BLOCK, _padded_end(members[-1][1])


def check_sample(
    data: bytes, entry: SampleEntry, specs: Mapping[str, SensorSpec], problems: ProblemList
) -> CheckedSample:
    """Check the bytes [start, end) of `span_of(entry)`; what is wrong is added to `problems`."""
    start, position = span_of(entry)[0], span_of(entry)[0]
    checked = CheckedSample()
    for name, member in members_of(entry):
        at = Place(entry.key, name, member.offset)
        problems.compare("offset that the members before leave", position + BLOCK, member.offset, at)
        position = _padded_end(member)
        begin = member.offset - start
        content = data[begin : begin + member.size]
        if len(content) < member.size:
            problems.add("bytes of the member", member.size, len(content), at)
            break
        file_name = f"{entry.key}.{name}" if name == "json" else f"{entry.key}.{name}.{member.extension}"
        _check_header(data[begin - BLOCK : begin], file_name, member, at, problems)
        if not problems.compare("crc32", f"{member.crc32:08x}", f"{zlib.crc32(content):08x}", at):
            continue
        if isinstance(member, RasterMember):
            raster = _decode(content, member, specs.get(name), at, problems)
            if raster is not None:
                checked.rasters[name] = raster
        else:
            checked.record = _read_record(content, entry, specs, at, problems)
    return checked


def _check_header(header: bytes, name: str, member: Member, at: Place, problems: ProblemList) -> None:
    at = at._replace(offset=member.offset - BLOCK)
    try:
        info = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
    except tarfile.HeaderError as error:
        problems.add("tar header", f"that of {name}", str(error), at)
        return
    found = (info.name, info.size, "file" if info.isreg() else f"type {info.type!r}")
    expected = (name, member.size, "file")
    if found != expected:
        problems.add("tar header", "{}, {} bytes, {}".format(*expected), "{}, {} bytes, {}".format(*found), at)


def _decode(
    content: bytes, member: RasterMember, spec: SensorSpec | None, at: Place, problems: ProblemList
) -> Raster | None:
    stored = (content, member.extension, member.dtype, member.shape)
    try:
        return decode(*stored) if spec is None else decode_member(*stored, spec)
    except ShardError as error:
        problems.add("raster", f"{member.dtype}{list(member.shape)} as {member.extension}", str(error), at)
        return None


def _read_record(
    content: bytes, entry: SampleEntry, specs: Mapping[str, SensorSpec], at: Place, problems: ProblemList
) -> SampleRecord | None:
    try:
        record = parse_record(content, "it")
    except ShardError as error:
        problems.add("record", "a sample record", str(error), at)
        return None
    problems.compare("key in the record", entry.key, record.key, at)
    problems.compare("sensors in the record", sorted(entry.sensors), sorted(record.sensors), at)
    for name, member in entry.sensors.items():
        sensor = record.sensors.get(name)
        if sensor is None:
            continue
        stored = (member.extension, member.dtype, list(member.shape))
        problems.compare(f"codec, dtype, shape of {name}", stored, (sensor.codec, sensor.dtype, list(sensor.shape)), at)
        if name in specs:
            problems.compare(f"bands of {name}", list(specs[name].bands), list(sensor.bands), at)
        if len(member.shape) == 4 and sensor.dates:
            problems.compare(f"number of dates of {name}", member.shape[0], len(sensor.dates), at)
    return record


def _padded_end(member: Member) -> int:
    return member.offset + -(-member.size // BLOCK) * BLOCK
