"""A manifest proves itself, an older one is verified against its shards, and damage of a sidecar is a problem told."""

from __future__ import annotations

import copy
import hashlib
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gfm_pipeline.data.config import FilterConfig
from gfm_pipeline.data.select import select_samples
from gfm_pipeline.errors import ShardError
from gfm_pipeline.shards.manifest import canonical, load_manifest, load_sidecar
from gfm_pipeline.storage import LocalStore, open_store
from shard_builder.collection.card import write_card
from shard_builder.collection.problem import Problem
from shard_builder.collection.statistics import summarise_places
from shard_builder.collection.verify import verify_collection

FLIPS = 1000


class OneObject(LocalStore):
    """A store in which every path holds the same bytes."""

    def __init__(self, data: bytes) -> None:
        super().__init__(Path("nowhere"))
        self.data = data

    def exists(self, path: str) -> bool:
        return True

    def get(self, path: str) -> bytes:
        return self.data


def check(folder: Path) -> list[Problem]:
    found: list[Problem] = []
    verify_collection(str(folder), None, 1, found.append, lambda *_: None)
    return found


def flips(data: bytes, count: int, seed: int) -> Iterator[tuple[int, bytes]]:
    """Yield a byte's position and the data with one bit of it changed."""
    rng = np.random.default_rng(seed)
    for at, bit in zip(rng.integers(0, len(data), count), rng.integers(0, 8, count), strict=True):
        changed = bytearray(data)
        changed[at] ^= 1 << bit
        yield int(at), bytes(changed)


def older(folder: Path, change: Callable[[dict[str, Any]], object] = lambda tree: None) -> None:
    """Write the manifest as it was before it had a digest."""
    path = folder / "manifest.json"
    tree = json.loads(path.read_text())
    del tree["manifest_sha256"], tree["file_sha256"], tree["synthetic"]
    change(tree)
    path.write_bytes(canonical(tree))


def test_every_flip_of_a_manifest_is_caught(pristine: Path) -> None:
    data = (pristine / "manifest.json").read_bytes()
    whole = load_manifest(open_store(str(pristine)))
    refused = 0
    for at, changed in flips(data, FLIPS, seed=0):
        try:
            found = load_manifest(OneObject(changed))
        except ShardError:
            refused += 1
            continue
        assert found == whole, f"byte {at}"  # the same in meaning: a space for the last newline, e for E
    assert refused > FLIPS * 0.99


def test_the_last_character_and_a_line_break_mean_nothing(pristine: Path) -> None:
    text = (pristine / "manifest.json").read_text()
    assert load_manifest(OneObject(json.dumps(json.loads(text), indent=1).encode())).digest


def test_an_older_manifest_loads_with_a_warning_and_means_the_same(
    collection: Path, caplog: pytest.LogCaptureFixture
) -> None:
    digest = load_manifest(open_store(str(collection))).digest
    older(collection)
    with caplog.at_level(logging.WARNING):
        assert load_manifest(open_store(str(collection))).digest == digest
    assert "shard-builder verify" in caplog.text
    assert check(collection) == []
    assert hashlib.sha256((collection / "manifest.json").read_bytes()).hexdigest() == digest


@pytest.mark.parametrize("field", ["count", "mean", "m2", "min", "max"])
def test_an_older_manifest_is_verified_to_the_last_digit(collection: Path, field: str) -> None:
    def change(tree: dict[str, Any]) -> None:
        band = tree["statistics"]["s1"][0]
        band[field] = band[field] + 1 if field == "count" else float(np.nextafter(band[field], np.inf))

    older(collection, change)
    assert any("statistics of s1 VV" in str(problem) for problem in check(collection))


@pytest.mark.parametrize("name", ["catalog.parquet", "failures.jsonl"])
def test_files_beside_the_shards_are_held_by_the_manifest(collection: Path, name: str) -> None:
    older(collection)  # it does not know them
    tree = json.loads((collection / "manifest.json").read_text())
    beside = {path: hashlib.sha256((collection / path).read_bytes()).hexdigest() for path in (name,)}
    (collection / "manifest.json").write_bytes(canonical(tree | {"file_sha256": beside}))
    assert check(collection) == []
    (collection / name).write_bytes((collection / name).read_bytes() + b"\n")
    assert f"{name}: sha256: expected {beside[name]}" in "\n".join(map(str, check(collection)))


def adopt(folder: Path, number: int, data: bytes) -> None:
    """Write a sidecar of any bytes, to which an older manifest agrees."""
    name = f"mixed-{number:06d}"
    (folder / "shards" / f"{name}.json").write_bytes(data)
    older(folder, lambda tree: tree["shards"][number].update(sidecar_sha256=hashlib.sha256(data).hexdigest()))


def test_damage_of_a_sidecar_ends_no_verification(collection: Path) -> None:
    path = collection / "shards" / "mixed-000001.json"
    whole, manifest = path.read_bytes(), (collection / "manifest.json").read_bytes()
    before = load_sidecar(open_store(str(collection)), "mixed-000001")
    for at, changed in flips(whole, 25, seed=1):
        (collection / "manifest.json").write_bytes(manifest)
        adopt(collection, 1, changed)
        try:
            same = load_sidecar(open_store(str(collection)), "mixed-000001") == before
        except ShardError:
            same = False
        found = check(collection)
        unprovable = b'"task_digest"' in whole[max(0, at - 80) : at]  # what it was planned from, nothing can recompute
        assert same or unprovable or found, f"byte {at}"
        assert all("mixed-000001" in str(p) or "manifest" in str(p) or "catalog" in str(p) for p in found)


@pytest.mark.parametrize(
    "change",
    [
        lambda tree: tree["samples"][0]["sensors"].pop("ms"),
        lambda tree: tree["samples"][0]["sensors"].update(other=tree["samples"][0]["sensors"]["ms"]),
        lambda tree: tree["samples"].pop(),
        lambda tree: tree.update(samples=[]),
        lambda tree: tree.update(statistics={}),
        lambda tree: tree["statistics"]["ms"].pop(),
        lambda tree: tree["statistics"]["ms"].reverse(),
        lambda tree: tree["samples"][0]["meta"].update(offset=0),
        lambda tree: tree["samples"][0]["meta"].update(offset=10**18),
        lambda tree: tree["samples"][0]["meta"].update(size=10**18),
        lambda tree: tree["samples"][0]["sensors"]["ms"].update(shape=[2**30, 2**30, 2**30]),
        lambda tree: tree["samples"][0]["sensors"]["ms"].update(shape=[]),
        lambda tree: tree["samples"][0]["sensors"]["ms"].update(shape=[-1, 4]),
        lambda tree: tree["samples"][0]["sensors"]["ms"].update(extension="pickle"),
        lambda tree: tree["samples"][0]["sensors"]["ms"].update(dtype="object"),
        lambda tree: tree.update(samples=tree["samples"] * 2),
    ],
)
@pytest.mark.parametrize("number", [0, 1])
def test_a_sidecar_that_says_other_things(collection: Path, number: int, change: Callable[[Any], object]) -> None:
    tree = json.loads((collection / "shards" / f"mixed-{number:06d}.json").read_text())
    change(tree)
    adopt(collection, number, canonical(tree))
    found = check(collection)
    assert any(f"mixed-{number:06d}" in str(problem) for problem in found)


def evil(tree: dict[str, Any], name: str) -> None:
    """Rename a sensor everywhere."""
    for mapping in (tree["sensors"], tree["samples_with"], tree["statistics"]):
        mapping[name] = mapping.pop("ms")
    tree["sensors"][name]["name"] = name
    for shard in tree["shards"]:
        shard["sensors"] = [name if sensor == "ms" else sensor for sensor in shard["sensors"]]


@pytest.mark.parametrize(
    "change",
    [
        *(lambda tree, name=name: evil(tree, name) for name in ("x/../../../out", "..", "/abs", "a\n", "ä", "", "A")),
        lambda tree: tree["sensors"]["ms"].update(name="s1"),
        lambda tree: tree["statistics"].update({"../up": tree["statistics"]["ms"]}),
        lambda tree: tree["samples_with"].update({"../up": 3}),
        lambda tree: tree["shards"][0].update(sensors=["../up"]),
        *(
            lambda tree, name=name: tree["shards"][0].update(name=name)
            for name in ("../../up", "/abs", "a/b", "", ".hidden", "a\x00b", "a..b", "x" * 200)
        ),
        *(lambda tree, name=name: tree.update(name=name) for name in ("../up", "a/b", "", "a\x1b[2J")),
        lambda tree: tree.update(source="../up"),
        *(
            lambda tree, band=band: tree["sensors"]["ms"].update(bands=[band, "b", "c", "d"])
            for band in ("../b", "/abs", "a\x1b[2Jb", "a\nb", "", "a\\b", "b/..", " b", "x" * 200)
        ),
        lambda tree: tree.update(inputs=[{"path": "../x", "bytes": 1, "items": 1, "fingerprint": "f"}]),
        lambda tree: tree.update(inputs=[{"path": "/etc/x", "bytes": 1, "items": 1, "fingerprint": "f"}]),
        lambda tree: tree.update(file_sha256={"../../etc/passwd": "0"}),
    ],
)
def test_names_that_a_manifest_must_not_carry(
    pristine: Path, change: Callable[[dict[str, Any]], object], tmp_path: Path
) -> None:
    tree = json.loads((pristine / "manifest.json").read_text())
    del tree["manifest_sha256"]
    change(changed := copy.deepcopy(tree))
    assert changed != tree
    with pytest.raises(ShardError, match="breaks the shard contract"):
        load_manifest(OneObject(canonical(changed)))


def test_a_card_is_written_in_its_folder_alone(collection: Path, tmp_path: Path) -> None:
    older(collection, lambda tree: evil(tree, "x/../../../up"))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ShardError, match="sensors"):
        write_card(str(collection), tmp_path / "deep" / "card", None)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["VV", "B8A", "VV/VH", "NIR 833 nm", "Δ", "850.5nm", "b-1", "(B8-B4)/(B8+B4)", "R."])
def test_bands_may_be_called_nearly_anything(pristine: Path, name: str) -> None:
    tree = json.loads((pristine / "manifest.json").read_text())
    del tree["manifest_sha256"]
    tree["sensors"]["ms"]["bands"][0] = name
    assert load_manifest(OneObject(canonical(tree))).sensors["ms"].bands[0] == name


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"format": "gfm-collection", "version": 1, "name": "a", "name": "b"}', "'name' stands twice"),
        ('{"format": "gfm-collection", "version": 1, "x": ' + "[" * 100_000, "nested too deeply"),
        ('{"format": "gfm-collection", "version": 1, "x": NaN}', "NaN is no JSON"),
        ('{"format": "gfm-collection", "version": 1, "x": 1e999}', "damaged"),
        ("\ufeff{}", "is not a gfm-collection"),
    ],
)
def test_json_that_is_no_manifest(text: str, words: str) -> None:
    with pytest.raises(ShardError, match=words):
        load_manifest(OneObject(text.encode()))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("num_samples",), 10**4000),
        (("shards", 0, "bytes"), 10**400),
        (("shards", 0, "samples"), 2**62),
        (("statistics",), {}),
        (("sensors", "s1", "units"), "x" * 10**6),
        (("sensors", "s1", "units"), "m\n# A heading"),
    ],
)
def test_a_manifest_that_lies_is_refused_by_the_card(
    path: tuple[str | int, ...], value: object, collection: Path, tmp_path: Path
) -> None:
    def change(tree: Any) -> None:
        for part in path[:-1]:
            tree = tree[part]
        tree[path[-1]] = value

    older(collection, change)
    with pytest.raises(ShardError):
        write_card(str(collection), tmp_path / "card", None)


@pytest.mark.parametrize("labels", [1, None, "[1]", "[" * 100_000, '{"\\ud800": 1}', '{"a": ' + "9" * 5000 + "}"])
def test_labels_in_a_catalog_may_be_anything(labels: object, collection: Path) -> None:
    path = collection / "catalog.parquet"
    table = pq.read_table(path)
    column = pa.array([labels] * len(table))
    pq.write_table(table.set_column(table.schema.get_field_index("labels"), "labels", column), path)
    store = open_store(str(collection))
    with pytest.raises(ShardError, match=r"catalog\.parquet is damaged.*shard-builder verify"):
        summarise_places(store)
    with pytest.raises(ShardError, match=r"catalog\.parquet is damaged.*shard-builder verify"):
        select_samples(store, load_manifest(store).shards, FilterConfig(labels={"class": ("x",)}))


def test_a_range_costs_no_more_than_the_file_has(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    store = LocalStore(tmp_path)
    assert store.get_range("a", 1, 2**62) == b"bc"
    assert store.get_range("a", 9, 2) == b""
