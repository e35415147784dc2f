"""What is built from demo archives is recognisable as synthetic, wherever the archives went; nothing else is."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import pytest

from gfm_pipeline.shards.manifest import Manifest, dump_document
from shard_builder.collection.card_text import CardFacts, compose_card
from shard_builder.collection.statistics import PlaceSummary
from tests.contracts.test_sources import build
from tests.make.archives import MAKERS


def built(source: str, raw: Path, out: Path) -> Manifest:
    manifest = build(source, raw, out, unpaired="keep").manifest
    assert manifest is not None
    return manifest


@pytest.mark.parametrize(("source", "pattern"), [("sen12ms", "ROIs1158*"), ("geopile", "GeoPile*")])
def test_archives_say_so_themselves(demo_folder: Path, source: str, pattern: str, tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    for path in demo_folder.glob(pattern):
        shutil.copy(path, tmp_path / "raw")
    manifest = built(source, tmp_path / "raw", tmp_path / "out")
    assert manifest.synthetic
    text = compose_card(CardFacts(manifest, PlaceSummary(), {}, None, ()))
    assert "**Synthetic.**" in text
    assert "- synthetic\n" in text
    assert "license: unknown" in text
    for claim in ("Copernicus", "Please cite", "CC BY", "cc-by", "mediatum", "NAIP", "github.com"):
        assert claim not in text


def test_unpacked_they_are_known_by_the_record_beside_them(demo_folder: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(demo_folder / "GeoPileV0.zip") as archive:
        archive.extractall(tmp_path / "raw")
    assert not built("geopile", tmp_path / "raw", tmp_path / "plain").synthetic
    shutil.copy(demo_folder / "demo.json", tmp_path / "raw")
    assert built("geopile", tmp_path / "raw", tmp_path / "out").synthetic


def test_clean_archives_are_as_they_were(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    MAKERS["sen12ms"](tmp_path / "raw")
    manifest = built("sen12ms", tmp_path / "raw", tmp_path / "out")
    assert not manifest.synthetic
    said = manifest.model_copy(update={"synthetic": True})
    assert said.digest != manifest.digest
    assert b'"synthetic":false' in dump_document(manifest)
    assert "cc-by-4.0" in compose_card(CardFacts(manifest, PlaceSummary(), {}, None, ()))
