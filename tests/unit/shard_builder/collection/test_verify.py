"""Every kind of damage is found, and told in a line that says where."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from gfm_pipeline.errors import StorageError, UsageError
from gfm_pipeline.shards.manifest import (
    Manifest,
    Sidecar,
    dump_document,
    dump_manifest,
    load_manifest,
    load_sidecar,
    sidecar_path,
    tar_path,
)
from gfm_pipeline.shards.tar import ShardTar
from gfm_pipeline.storage import LocalStore, open_store
from shard_builder.collection.problem import Problem
from shard_builder.collection.tar_stream import TarStream
from shard_builder.collection.verify import VerifyReport, verify_collection


def check(folder: Path, sample: str | None = None, workers: int = 1) -> tuple[VerifyReport, list[Problem]]:
    found: list[Problem] = []
    report = verify_collection(str(folder), sample, workers, found.append, lambda done, total: None)
    assert report.problems >= len(found) > 0 or not report.problems
    return report, found


def lines(folder: Path, sample: str | None = None) -> str:
    return "\n".join(str(problem) for problem in check(folder, sample)[1])


def sidecar_of(folder: Path, number: int) -> Sidecar:
    return load_sidecar(open_store(str(folder)), f"mixed-{number:06d}")


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 0x10
    path.write_bytes(data)


def rewrite_manifest(folder: Path, change: Callable[[dict], None]) -> None:
    manifest = load_manifest(open_store(str(folder))).model_dump(mode="json")
    change(manifest)
    (folder / "manifest.json").write_bytes(dump_manifest(Manifest.model_validate(manifest)))


def rewrite_sidecar(folder: Path, number: int, change: Callable[[dict], None]) -> None:
    """Change a sidecar as a defective builder would: the manifest agrees with it."""
    tree = sidecar_of(folder, number).model_dump(mode="json")
    change(tree)
    data = dump_document(Sidecar.model_validate(tree))
    (folder / sidecar_path(tree["name"])).write_bytes(data)

    def adopt(manifest: dict) -> None:
        manifest["shards"][number]["sidecar_sha256"] = hashlib.sha256(data).hexdigest()

    rewrite_manifest(folder, adopt)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_sound_collection_has_no_problems_and_everything_was_read(pristine, workers):
    report, found = check(pristine, workers=workers)
    manifest = load_manifest(open_store(str(pristine)))
    assert not found
    assert (report.shards, report.samples, report.members) == (4, 10, 38)
    assert report.bytes == sum(shard.bytes for shard in manifest.shards)


def test_a_flipped_pixel_byte_names_shard_key_sensor_and_offset(collection):
    entry = sidecar_of(collection, 1).samples[2]
    member = entry.sensors["ms"]
    flip(collection / tar_path("mixed-000001"), member.offset + member.size // 2)
    report, found = check(collection)
    assert [problem.what for problem in found] == ["crc32", "sha256 of the tar"]
    text = str(found[0])
    for word in (tar_path("mixed-000001"), entry.key, "ms", str(member.offset), f"{member.crc32:08x}"):
        assert word in text
    assert report.problems == 2
    assert report.samples == 10


def test_a_flipped_header_byte_is_found_where_it_is(collection):
    entry = sidecar_of(collection, 0).samples[1]
    header = entry.sensors["s1"].offset - 512
    flip(collection / tar_path("mixed-000000"), header + 5)
    assert f"sample {entry.key}, member s1, byte {header}: tar header" in lines(collection)


def test_a_flipped_padding_byte_changes_the_sum_of_the_tar(collection):
    tar = collection / tar_path("mixed-000000")
    flip(tar, tar.stat().st_size - 3)
    found = lines(collection)
    assert "end of the tar" in found
    assert "sha256 of the tar" in found


def test_a_missing_tar(collection):
    (collection / tar_path("mixed-000002")).unlink()
    found = lines(collection)
    assert f"{tar_path('mixed-000002')}: object: expected one, as the manifest lists it, found none" in found
    assert "shard mixed-000002: tar" in found


def test_a_truncated_tar_is_told_once_and_with_the_first_sample_that_is_cut(collection):
    entry = sidecar_of(collection, 0).samples[1]
    tar = collection / tar_path("mixed-000000")
    size = tar.stat().st_size
    tar.write_bytes(tar.read_bytes()[: entry.sensors["ms"].offset + 7])
    _, found = check(collection)
    assert f"expected {size}, found {entry.sensors['ms'].offset + 7}" in str(found[0])
    assert found[1].key == entry.key
    assert len(found) == 2


def test_an_edited_sidecar(collection):
    path = collection / sidecar_path("mixed-000001")
    entry = sidecar_of(collection, 1).samples[0]
    tree = json.loads(path.read_text())
    tree["samples"][0]["sensors"]["ms"]["crc32"] ^= 1
    path.write_text(json.dumps(tree))
    found = lines(collection)
    assert f"{path}: shard mixed-000001: sidecar: expected sha256" in found
    assert f"sample {entry.key}, member ms, byte {entry.sensors['ms'].offset}: crc32" in found


def test_a_sidecar_that_is_no_json(collection):
    (collection / sidecar_path("mixed-000003")).write_text("{")
    assert "shard mixed-000003: sidecar" in lines(collection)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m.update(num_samples=11), "num_samples: expected 10, found 11"),
        (lambda m: m["samples_with"].update(s1=3), "samples_with"),
        (lambda m: m["shards"][2].update(sha256="0" * 64), "sha256 of the tar: expected " + "0" * 64),
        (lambda m: m["shards"][2].update(bytes=7), "shard mixed-000002: bytes of the tar: expected 7"),
        (lambda m: m["statistics"]["s1"][1].update(mean=0.5), "statistics of s1 VH"),
        (lambda m: m["shards"].pop(), "a foreign or left-over one"),
        (lambda m: m["sensors"]["ms"].update(bands=["B", "G", "N", "R"]), "bands of ms"),
    ],
    ids=["samples", "samples_with", "sha256", "bytes", "statistics", "shard", "bands"],
)
def test_an_edited_manifest(collection, change, words):
    rewrite_manifest(collection, change)
    assert words in lines(collection)


def test_a_manifest_that_was_reformatted_or_cut(collection):
    path = collection / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()), indent=1))
    assert "canonical form" in lines(collection)
    path.write_text(path.read_text()[:100])
    assert "is not JSON" in lines(collection)


def test_an_extra_tar_and_leftovers_but_not_the_card(collection):
    (collection / "shards" / "mixed-000099.tar").write_bytes(b"x")
    (collection / "shards" / ".tmp-abc").write_bytes(b"x")
    (collection / "README.md").write_text("card")
    found = lines(collection)
    assert "mixed-000099.tar: object: expected none that the manifest does not list" in found
    assert ".tmp-abc: object: expected no unfinished write" in found
    assert "README" not in found


def test_swapped_tars_are_told_briefly(collection):
    first, second = (collection / tar_path(f"mixed-00000{i}") for i in (0, 1))
    data = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(data)
    report, found = check(collection)
    assert {problem.shard for problem in found} >= {"mixed-000000", "mixed-000001"}
    assert "place-0000" in lines(collection)
    assert len(found) <= 2 * 21
    assert report.problems >= len(found) - 2


def test_a_member_that_the_sidecar_does_not_list(collection):
    """The same tar with one more sample, adopted by both documents: only the listing can tell."""
    sidecar = sidecar_of(collection, 0)
    old = (collection / tar_path(sidecar.name)).read_bytes()
    buffer = io.BytesIO()
    tar = ShardTar(buffer)
    for entry in sidecar.samples:
        members = {"json": entry.meta} | {f"{s}.blosc2": member for s, member in entry.sensors.items()}
        tar.add(entry.key, {name: old[m.offset : m.offset + m.size] for name, m in members.items()})
    tar.add("stowaway", {"json": b"{}"})
    size, sha256 = tar.close()
    (collection / tar_path(sidecar.name)).write_bytes(buffer.getvalue())
    rewrite_sidecar(collection, 0, lambda tree: tree.update(tar_bytes=size, tar_sha256=sha256))
    rewrite_manifest(collection, lambda m: m["shards"][0].update(bytes=size, sha256=sha256))
    assert "end of the tar" in lines(collection)


def test_wrong_statistics(collection):
    rewrite_sidecar(collection, 2, lambda tree: tree["statistics"]["ms"][0].update(mean=1.0))
    found = lines(collection)
    assert f"{sidecar_path('mixed-000002')}: shard mixed-000002: statistics of ms B" in found
    assert "manifest.json: statistics of ms B" in found


def test_pixels_that_are_not_of_the_recorded_shape(collection):
    def change(tree: dict) -> None:
        tree["samples"][0]["sensors"]["cover"]["shape"] = [1, 12, 12]

    rewrite_sidecar(collection, 0, change)
    found = lines(collection)
    assert "member cover" in found
    assert "raster: expected uint8[1, 12, 12] as blosc2" in found


def test_a_catalog_row_that_is_missing_or_changed_and_a_catalog_that_is_cut(collection):
    path = collection / "catalog.parquet"
    table = pq.read_table(path)
    pq.write_table(table.slice(1), path)
    found = lines(collection)
    assert "catalog.parquet: number of rows: expected 10, found 9" in found
    assert "catalog.parquet: shard mixed-000000, sample place-0000: row of the sample: expected one row" in found
    crs = ["EPSG:1", *table["crs"].to_pylist()[1:]]
    pq.write_table(table.set_column(table.schema.get_field_index("crs"), table.schema.field("crs"), [crs]), path)
    assert "sample place-0000: column crs: expected EPSG:4326, found EPSG:1" in lines(collection)
    path.write_bytes(path.read_bytes()[:-20])
    assert "catalog.parquet: catalog: expected a readable one" in lines(collection)


def test_the_same_key_in_two_shards(collection):
    key = sidecar_of(collection, 0).samples[0].key

    def change(tree: dict) -> None:
        tree["samples"][0]["key"] = key

    rewrite_sidecar(collection, 1, change)
    assert f"sample {key}: key: expected one sample of this key, that of shard mixed-000000" in lines(collection)


def test_a_sample_is_the_same_every_time_and_says_what_it_left_out(pristine):
    report, found = check(pristine, "40%")
    again, _ = check(pristine, "4")
    assert not found
    assert report.samples == again.samples == 4
    assert (report.bytes, report.members) == (again.bytes, again.members)
    assert "6 of 10 samples" in report.not_checked[0]


def test_a_sample_finds_damage_in_what_it_reads(collection):
    for shard in range(4):
        for entry in sidecar_of(collection, shard).samples:
            flip(collection / tar_path(f"mixed-{shard:06d}"), entry.sensors["cover"].offset + 20)
    report, _ = check(collection, "3")
    assert report.problems == 3


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "200%", "some", "0%"])
def test_nonsense_for_a_share_is_refused(pristine, text):
    with pytest.raises(UsageError, match="--sample"):
        check(pristine, text)


def test_a_tar_is_read_in_bounded_ranges(pristine, monkeypatch):
    monkeypatch.setattr("shard_builder.collection.tar_stream.RANGE_BYTES", 700)
    path = tar_path("mixed-000000")
    data = (pristine / path).read_bytes()
    stream = TarStream(open_store(str(pristine)), path, len(data))
    assert stream.read(1500) + stream.read(1) == data[:1501]
    assert stream.finish() == (False, hashlib.sha256(data).hexdigest())
    assert not check(pristine)[1]


def test_a_server_that_lists_nothing_is_said_and_a_missing_tar_is_still_found(collection, monkeypatch):
    def refuse(self: LocalStore, prefix: str) -> Iterator[str]:
        raise StorageError("a plain web server lists nothing.")

    monkeypatch.setattr(LocalStore, "list", refuse)
    monkeypatch.setattr(LocalStore, "local_path", lambda self, path: None)
    report, found = check(collection)
    assert not found
    assert "foreign objects: a plain web server lists nothing." in report.not_checked
    (collection / tar_path("mixed-000002")).unlink()
    (collection / "failures.jsonl").unlink()
    found_lines = lines(collection)
    assert "shard mixed-000002: tar" in found_lines
    assert "failures.jsonl: object: expected one" in found_lines
