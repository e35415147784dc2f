"""What files declare and the configuration does not say is adopted, the same for whoever writes a shard."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile

from gfm_pipeline.errors import ItemError
from gfm_pipeline.shards.manifest import Manifest
from shard_builder.build.build import build_collection, build_share, merge_collection
from shard_builder.build.forecast import forecast
from shard_builder.config import BuildConfig
from tests.contracts.test_sources import read_with_public_libraries
from tests.make.archives import tar_gz, tiff, zipped

SENSOR = {"files": "{key}.tif", "bands": ["v"], "dtype": "uint16", "units": "1"}


def image(*corner: int) -> np.ndarray[Any, Any]:
    values = np.arange(100, 164, dtype=np.uint16).reshape(8, 8)
    values.ravel()[: len(corner)] = corner
    return values


def write(folder: Path, files: dict[str, tuple[np.ndarray[Any, Any], str | None]]) -> Path:
    (folder / "in").mkdir(parents=True)
    for key, (values, nodata) in files.items():
        tags = [] if nodata is None else [(42113, "s", 0, nodata, True)]
        (folder / "in" / f"{key}.tif").write_bytes(tiff(values, extratags=tags))
    return folder


def config(folder: Path, out: str = "out", sensor: dict[str, Any] = SENSOR, **more: Any) -> BuildConfig:
    options = {"sensors": {"x": sensor}}
    return BuildConfig(source="folder", input=str(folder / "in"), output=str(folder / out), options=options, **more)


def build(folder: Path, **more: Any) -> Manifest:
    manifest = build_collection(config(folder, **more), "build", lambda _: None).manifest
    assert manifest is not None
    return manifest


def stored(folder: Path, out: str = "out") -> dict[str, Any]:
    return {
        key: (rasters["x"], meta["sensors"]["x"]) for key, rasters, meta in read_with_public_libraries(folder / out)
    }


def test_declared_nodata_of_integers_is_the_collections(tmp_path: Path) -> None:
    write(tmp_path, {"a": (image(), None), "b": (image(7, 7), "7"), "c": (image(9), "9")})
    manifest = build(tmp_path)
    assert manifest.sensors["x"].nodata == 7
    shares = {key: about["nodata_share"] for key, (_, about) in stored(tmp_path).items()}
    assert shares == {"a": 0, "b": 2 / 64, "c": 1 / 64}
    assert stored(tmp_path)["c"][0].ravel()[0] == 7
    assert manifest.statistics["x"][0].min == 100
    assert manifest.counts["rule: x: nodata 7 as the files declare it"] == 1
    assert manifest.counts["rule: x: nodata 9 set to 7"] == 1


def test_shares_of_a_build_agree_and_the_plan_says_what_was_adopted(tmp_path: Path) -> None:
    files = {f"k{i}": (image(7), "7" if i == 4 else None) for i in range(6)}
    whole = build(write(tmp_path, files), max_samples=2)
    split = config(tmp_path, "shared", max_samples=2)
    for index in (2, 0, 1):
        build_share(split, index, 3, lambda _: None)
    shared = merge_collection(split, lambda _: None).manifest
    assert shared is not None
    assert shared.digest == whole.digest
    assert shared.sensors["x"].nodata == 7
    assert whole.counts["rule: x: file declares no nodata, its pixels of 7 count as not measured"] == 5
    planned = forecast(config(tmp_path, "planned", max_samples=2), False, lambda _: None)
    assert planned.plan.declared["x"].nodata == 7
    assert planned.problems == ()


def test_a_pixel_that_has_the_value_of_other_files_by_chance_is_refused(tmp_path: Path) -> None:
    write(tmp_path, {"a": (image(7), "7"), "b": (image(9, 7), "9")})
    with pytest.raises(ItemError, match=r"b.tif declares nodata 9 for x, and 1 of its pixels have the value 7"):
        build(tmp_path)


def test_what_is_configured_wins_and_what_fits_no_pixel_is_not_adopted(tmp_path: Path) -> None:
    write(tmp_path, {"a": (image(7, 65535), "7"), "b": (image(), "-9999"), "c": (image(), "nan")})
    manifest = build(tmp_path, sensors={"x": {"nodata": 65535}})
    assert manifest.sensors["x"].nodata == 65535
    assert stored(tmp_path)["a"][0].ravel()[:2].tolist() == [65535, 65535]
    write(tmp_path / "two", {"b": (image(), "-9999")})
    manifest = build(tmp_path / "two")
    assert manifest.sensors["x"].nodata is None
    assert manifest.counts["rule: x: file declares nodata -9999, which uint16 cannot be: not used"] == 1


def test_a_class_map_that_is_mostly_background_is_not_left_out(tmp_path: Path) -> None:
    classes = np.zeros((8, 8), np.uint8)
    classes[0, 0] = 3
    write(tmp_path, {"a": (classes, "0")})
    (tmp_path / "in" / "y").mkdir()
    np.save(tmp_path / "in" / "y" / "a.npy", classes)
    labels = SENSOR | {"dtype": "uint8", "units": "class", "kind": "labels"}
    image = {"files": "y/{key}.npy", "bands": ["v"], "dtype": "uint8", "units": "1"}
    options = {"sensors": {"x": labels, "y": image}}
    both = BuildConfig(source="folder", input=str(tmp_path / "in"), output=str(tmp_path / "out"), options=options)
    manifest = build_collection(both, "build", lambda _: None).manifest
    assert manifest is not None
    assert manifest.num_samples == 1
    assert manifest.sensors["x"].nodata == 0


def test_units_say_that_a_scale_was_not_applied(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with h5py.File(tmp_path / "in" / "a.nc", "w") as file:
        file["t"] = np.full((8, 8), 2000, np.int16)
        file["t"].attrs.update(scale_factor=0.01, add_offset=273.15, _FillValue=np.int16(-1))
    sensor = {"files": "{key}.nc", "dataset": "t", "bands": ["t"], "units": "K"}
    manifest = build(tmp_path, sensor=sensor | {"dtype": "int16"})
    assert manifest.sensors["x"].units == "K, before scale 0.01, offset 273.15"
    assert manifest.sensors["x"].nodata == -1
    applied = build(tmp_path, out="two", sensor=sensor | {"dtype": "float32"})
    assert applied.sensors["x"].units == "K"
    assert applied.statistics["x"][0].mean == pytest.approx(293.15, rel=1e-6)


def one_half() -> bytes:
    mask = np.full((8, 8), 255, np.uint8)
    mask[:4] = 0
    return tiff(mask)


@pytest.mark.parametrize("source", ["folder", "scenes"])
@pytest.mark.parametrize("archive", ["", "a.zip", "a.tar.gz"])
@pytest.mark.parametrize("kind", ["", "_{band}", "_{date}"])
def test_a_mask_beside_the_image_is_read_wherever_it_is_listed(
    kind: str, archive: str, source: str, tmp_path: Path
) -> None:
    first, second = {"": ("", None), "_{band}": ("_v", "_w"), "_{date}": ("_20200101", "_20200102")}[kind]
    images = {f"{key}{part}.tif": tiff(image()) for key in ("k1", "k2") for part in (first, second) if part is not None}
    mask = {f"k1{first}.tif.msk": one_half()}
    files = {f"k1{first}.tif": images.pop(f"k1{first}.tif"), **images, "k1.tif.txt": b"x", **mask}
    files = files if archive != "a.zip" else dict(reversed(files.items()))  # the mask far behind it, or before it
    (tmp_path / "in").mkdir()
    if archive:
        (zipped if archive == "a.zip" else tar_gz)(tmp_path / "in" / archive, files)
    else:
        for name, data in files.items():
            (tmp_path / "in" / name).write_bytes(data)
    bands = ["v", "w"] if kind == "_{band}" else ["v"]
    sensor = SENSOR | {"files": f"{{key}}{kind}.tif", "bands": bands}
    raw = BuildConfig(
        source=source,
        input=str(tmp_path / "in"),
        output=str(tmp_path / "out"),
        options={"sensors": {"x": sensor}, "archives": bool(archive)},
        sensors={"x": {"nodata": 0}},
        **({"tile_px": 8} if source == "scenes" else {}),
    )
    manifest = build_collection(raw, "build", lambda _: None).manifest
    assert manifest is not None
    assert manifest.counts["rule: x: masked pixels set to nodata"] == 1
    samples = {key.partition("_r0")[0]: sample for key, sample in stored(tmp_path).items()}
    pixels = samples["k1"][0].reshape(-1, 8, 8)
    assert not pixels[0, :4].any()
    np.testing.assert_array_equal(pixels[0, 4:], image()[4:])
    assert all((other == image()).all() for other in pixels[1:])
    assert samples["k1"][1]["nodata_share"] == 0.5 / len(pixels)
    assert samples["k2"][1]["nodata_share"] == 0


def test_what_lies_beside_an_image_and_is_not_read_is_named(tmp_path: Path) -> None:
    write(tmp_path, {"k1": (image(), None), "k2": (image(), None)})
    band = '<PAMRasterBand band="1">{}</PAMRasterBand>'
    for key, said in (("k1", "<NoDataValue>100</NoDataValue><Scale>2</Scale>"), ("k2", "<Metadata/>")):
        text = f"<PAMDataset>{band.format(said)}</PAMDataset>"
        (tmp_path / "in" / f"{key}.tif.aux.xml").write_text(text)
    planned = forecast(config(tmp_path, sensor=SENSOR | {"files": "{key}.*"}), False, lambda _: None)
    reasons = [item.reason for item in planned.plan.ignored]
    assert reasons == [
        ".aux.xml beside images with nodata, scale: not read; write it into the images with gdal_translate",
        ".aux.xml beside images, which hold statistics alone",
    ]
    assert planned.problems == ()


@pytest.mark.parametrize(("axes", "bands"), [("TCHW", 2), ("THW", 1)])
def test_images_of_one_file_are_dates_where_the_axes_say_so(axes: str, bands: int, tmp_path: Path) -> None:
    steps = np.arange(6 * bands * 64, dtype=np.uint16).reshape(6, bands, 8, 8)
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as out:
        for step in steps:
            planar: dict[str, Any] = {"planarconfig": "contig"} if bands > 1 else {}
            pixels = step.transpose(1, 2, 0) if bands > 1 else step[0]
            out.write(pixels, photometric="minisblack", contiguous=False, metadata=None, **planar)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "k1.tif").write_bytes(buffer.getvalue())
    build(tmp_path, sensor=SENSOR | {"axes": axes, "bands": ["a", "b"][:bands]})
    np.testing.assert_array_equal(stored(tmp_path)["k1"][0], steps)


@pytest.mark.parametrize("part", ["band", "date"])
@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_files_of_one_raster_that_declare_other_values(part: str, dtype: str, tmp_path: Path) -> None:
    names = ("a", "b", "c") if part == "band" else ("20200101", "20200102", "20200103")
    files = [(image(7).astype(dtype), "7"), (image(9, 7).astype(dtype), "9"), (image().astype(dtype), None)]
    if dtype == "uint16":
        files[1] = (image(9), "9")  # a pixel of the other file's value would be refused
    write(tmp_path, {f"k_{name}": file for name, file in zip(names, files, strict=True)})
    bands = list(names) if part == "band" else ["v"]
    build(tmp_path, sensor={"files": f"{{key}}_{{{part}}}.tif", "bands": bands, "dtype": dtype, "units": "1"})
    found = stored(tmp_path)["k"][0].reshape(3, 64)
    gone = np.isnan(found) if dtype == "float32" else found == 7
    assert [row.tolist() for row in np.argwhere(gone)] == [[0, 0], [1, 0]]
    if dtype == "float32":
        assert found[1, 1] == 7


def test_a_date_with_the_value_that_another_declares_as_a_pixel_is_refused(tmp_path: Path) -> None:
    write(tmp_path, {"k_20200101": (image(7), "7"), "k_20200102": (image(9, 7), "9")})
    with pytest.raises(ItemError, match=r"declares nodata 7, 9 for x, and 1 of its pixels have the value 7"):
        build(tmp_path, sensor=SENSOR | {"files": "{key}_{date}.tif"})
