"""`trusted: true`: files that lead to others are read from a local folder, and refused by name without it."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from gfm_pipeline.errors import GfmError
from shard_builder.build.build import build_collection
from shard_builder.config import BuildConfig
from tests.contracts.test_sources import read_with_public_libraries
from tests.make.archives import tiff, utm, zipped

PIXELS = np.arange(64, dtype=np.uint16).reshape(8, 8)
VRT = """<VRTDataset rasterXSize="8" rasterYSize="8">
  <SRS>EPSG:32633</SRS><GeoTransform>400000, 10, 0, 5600000, 0, -10</GeoTransform>
  <VRTRasterBand dataType="UInt16" band="1">
    <SimpleSource>
      <SourceFilename relativeToVRT="1">../elsewhere.tif</SourceFilename><SourceBand>1</SourceBand>
    </SimpleSource>
  </VRTRasterBand>
</VRTDataset>
"""


def config(folder: Path, files: str, trusted: bool, dataset: str | None = None) -> BuildConfig:
    sensor = {"files": files, "bands": ["v"], "dtype": "uint16", "units": "1"}
    if dataset:
        sensor["dataset"] = dataset
    return BuildConfig(
        source="scenes",
        input=str(folder / "raw"),
        output=str(folder / "out"),
        options={"sensors": {"x": sensor}, "archives": True},
        tile_px=8,
        trusted=trusted,
    )


def virtual_raster(folder: Path) -> tuple[str, str | None]:
    (folder / "elsewhere.tif").write_bytes(tiff(PIXELS, **utm(400000, 5600000, 33)))
    (folder / "raw" / "p_x.vrt").write_text(VRT)
    return "{key}_x.vrt", None


def external_link(folder: Path) -> tuple[str, str | None]:
    with h5py.File(folder / "elsewhere.h5", "w") as file:
        file["v"] = PIXELS
    with h5py.File(folder / "raw" / "p_x.h5", "w") as file:
        file["v"] = h5py.ExternalLink("../elsewhere.h5", "v")
    return "{key}_x.h5", "v"


def virtual_array(folder: Path) -> tuple[str, str | None]:
    with h5py.File(folder / "elsewhere.h5", "w") as file:
        file["v"] = PIXELS
    layout = h5py.VirtualLayout(PIXELS.shape, PIXELS.dtype)
    layout[:] = h5py.VirtualSource(str(folder / "elsewhere.h5"), "v", PIXELS.shape)
    with h5py.File(folder / "raw" / "p_x.h5", "w") as file:
        file.create_virtual_dataset("v", layout)
    return "{key}_x.h5", "v"


@pytest.mark.parametrize("make", [virtual_raster, external_link, virtual_array])
def test_what_leads_elsewhere_is_read_where_it_is_trusted(make, tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    files, dataset = make(tmp_path)
    with pytest.raises(GfmError, match="trusted"):
        build_collection(config(tmp_path, files, trusted=False, dataset=dataset), "build", lambda _: None)
    trusted = config(tmp_path, files, trusted=True, dataset=dataset)
    assert build_collection(trusted, "build", lambda _: None).manifest.num_samples == 1
    ((_, rasters, _),) = read_with_public_libraries(tmp_path / "out")
    assert np.array_equal(rasters["x"], PIXELS[None])


def test_a_virtual_raster_in_an_archive_is_never_read(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    virtual_raster(tmp_path)
    data = (tmp_path / "raw" / "p_x.vrt").read_bytes()
    (tmp_path / "raw" / "p_x.vrt").unlink()
    zipped(tmp_path / "raw" / "a.zip", {"p_x.vrt": data})
    with pytest.raises(GfmError, match="only from a local folder"):
        build_collection(config(tmp_path, "{key}_x.vrt", trusted=True), "build", lambda _: None)


def test_builds_from_before_the_setting_keep_their_digest(tmp_path: Path) -> None:
    old, new = (config(tmp_path, "{key}_x.vrt", trusted=trusted) for trusted in (False, True))
    assert old.digest() != new.digest()
    assert old.digest() == BuildConfig.model_validate(old.model_dump(exclude={"trusted"})).digest()
