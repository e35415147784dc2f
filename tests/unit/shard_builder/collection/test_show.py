from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from gfm_pipeline.errors import ChecksumError, UsageError
from gfm_pipeline.sensors.render import MISSING, class_colour
from gfm_pipeline.shards.manifest import load_manifest, load_sidecar, tar_path
from gfm_pipeline.storage import open_store
from shard_builder.collection.pixels import read_chosen, read_keys, wanted_sensors
from shard_builder.collection.sheet import CELL_PX, Column, Row, Tile, draw_sheet
from shard_builder.collection.show import draw_image, show_collection, stretch_of
from tests.unit.shard_builder.collection.conftest import COVER, S1, SERIES


def test_a_picture_of_everything(pristine, tmp_path):
    out = show_collection(str(pristine), tmp_path / "new" / "all.png", count=10, seed=0)
    image = Image.open(out)
    assert image.width > 6 * CELL_PX  # a class map, radar and four dates
    assert image.height > 10 * CELL_PX
    again = show_collection(str(pristine), tmp_path / "again.png", count=10, seed=0)
    assert out.read_bytes() == again.read_bytes()


def test_keys_and_sensors_are_what_was_asked_for(pristine):
    store = open_store(str(pristine))
    manifest = load_manifest(store)
    samples = list(read_keys(store, manifest, ["s1"], ["place-0007", "place-0001"]))
    assert [sample.record.key for sample in samples] == ["place-0007", "place-0001"]
    assert [list(sample.rasters) for sample in samples] == [["s1"], ["s1"]]
    assert wanted_sensors(manifest, []) == ["ms", "s1", "cover"]
    with pytest.raises(UsageError, match="place-0099"):
        list(read_keys(store, manifest, ["s1"], ["place-0099"]))
    with pytest.raises(UsageError, match=r"no sensor 's2'\. Known: cover, ms, s1"):
        wanted_sensors(manifest, ["s2"])


def test_chosen_samples_carry_a_wanted_sensor(pristine):
    store = open_store(str(pristine))
    samples = list(read_chosen(store, load_manifest(store), ["s1"], 100, seed=0))
    assert len(samples) == 8
    assert all("s1" in sample.rasters for sample in samples)


def test_pixels_that_were_not_measured_look_so(pristine):
    store = open_store(str(pristine))
    (sample,) = read_keys(store, load_manifest(store), ["ms", "s1", "cover"], ["place-0000"])
    radar, series, cover = (sample.rasters[name] for name in ("s1", "ms", "cover"))
    picture = draw_image(radar, S1, stretch_of(S1, [radar]))
    assert (picture[:, :3] == MISSING).all()
    assert not (picture[:, 3:] == MISSING).all(axis=2).any()
    limits = stretch_of(SERIES, [series])
    assert limits is not None
    assert min(limits.low) >= 200  # nodata is no part of the stretch
    assert (draw_image(series[0], SERIES, limits)[:5] == MISSING).all()
    classes = draw_image(cover, COVER, None)
    assert (classes[0] == MISSING).all()
    for value in np.unique(cover[0, 1:]):
        assert (classes[1:][cover[0, 1:] == value] == class_colour(int(value))).all()


def test_damaged_pixels_are_never_drawn(collection, tmp_path):
    member = load_sidecar(open_store(str(collection)), "mixed-000000").samples[0].sensors["s1"]
    path = collection / tar_path("mixed-000000")
    data = bytearray(path.read_bytes())
    data[member.offset + 30] ^= 1
    path.write_bytes(data)
    with pytest.raises(ChecksumError, match="place-0000"):
        show_collection(str(collection), tmp_path / "x.png", 1, 0, keys=["place-0000"])
    assert not (tmp_path / "x.png").exists()


def test_any_size_and_shape_fits_its_cell():
    wide, tall = np.zeros((3, 900, 3), np.uint8), np.full((700, 2, 3), 9, np.uint8)
    rows = [Row("a" * 300, "b" * 300, [[Tile(wide, "c" * 300)], []]), Row("", "", [[Tile(tall, "")], []])]
    data = draw_sheet("t", "n", [Column("x", "y"), Column("z", "")], rows)
    assert Image.open(io.BytesIO(data)).width < 1400


def test_colours_of_classes_are_their_own():
    colours = [class_colour(value) for value in range(60)]
    assert len(set(colours)) == 60
    assert all(0 <= part <= 255 for colour in colours for part in colour)
