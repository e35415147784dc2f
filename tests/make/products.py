"""Tiny products of the space agencies and of Planet in the layouts in which they are published, with what is in them.

Each maker writes below a folder and returns the truth of one product: its key and, by sensor, the raster [C,H,W] of all
of it in the pixels of the finest band, as the files hold it.
"""

from __future__ import annotations

import io
import tarfile
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import rasterio
from rasterio.crs import CRS
from rasterio.transform import Affine

from gfm_pipeline.sensors import builtin_sensor
from tests.make.archives import Raster, zipped

PX = 48
"""Pixels of a product's side, of its finest band."""
HLS_CRS = CRS.from_wkt(
    'PROJCS["UTM Zone 32, Northern Hemisphere",GEOGCS["Unknown datum based upon the WGS 84 ellipsoid",'
    'DATUM["Not_specified_based_on_WGS_84_spheroid",SPHEROID["WGS 84",6378137,298.257223563]],PRIMEM["Greenwich",0],'
    'UNIT["degree",0.0174532925199433]],PROJECTION["Transverse_Mercator"],PARAMETER["latitude_of_origin",0],'
    'PARAMETER["central_meridian",9],PARAMETER["scale_factor",0.9996],PARAMETER["false_easting",500000],'
    'PARAMETER["false_northing",0],UNIT["metre",1]]'
)
"""That of official files: no EPSG code."""


class Product(NamedTuple):
    """What a maker wrote."""

    key: str
    rasters: dict[str, Raster]


def raster_file(image: Raster, gsd: float, driver: str = "GTiff", names: tuple[str, ...] = (), **profile: Any) -> bytes:
    """Return an image [C,H,W] as a file, with its corner at (600000, 5400000) where the profile says nothing else."""
    count, height, width = image.shape
    place = {"crs": CRS.from_epsg(32632), "transform": Affine(gsd, 0, 600000, 0, -gsd, 5400000)}
    lossless = {"QUALITY": "100", "REVERSIBLE": "YES", "YCBCR420": "NO"} if driver == "JP2OpenJPEG" else {}
    shape = {"count": count, "height": height, "width": width, "dtype": image.dtype}
    with tempfile.TemporaryDirectory() as work:  # without the extension, JPEG 2000 would lose its place
        path = Path(work) / ("image.jp2" if driver == "JP2OpenJPEG" else "image.tif")
        with rasterio.open(path, "w", driver=driver, **shape, **(place | lossless | profile)) as dataset:
            dataset.write(image)
            if names:
                dataset.descriptions = names
        return path.read_bytes()


def landsat_c2(folder: Path, satellite: str = "LC08", date: str = "20200703", seed: int = 1) -> Product:
    """Write a Level 2 tar of Landsat; its files lie side by side in it."""
    rng = np.random.default_rng(seed)
    oli = satellite in ("LC08", "LC09")
    sensor = "landsat_oli" if oli else "landsat_tm"
    name = f"{satellite}_L2SP_193027_{date}_20200913_02_T1"
    bands = builtin_sensor(sensor).bands
    image = rng.integers(7273, 43637, (len(bands), PX, PX)).astype(np.uint16)
    image[:, :, :3] = 0  # fill
    qa = np.where(image[:1] == 0, 1, 21824).astype(np.uint16)
    thermal = rng.integers(29000, 50000, (1, PX, PX)).astype(np.uint16)
    members = {f"{name}_SR_{band}.TIF": raster_file(image[i, None], 30, nodata=0) for i, band in enumerate(bands)}
    members[f"{name}_QA_PIXEL.TIF"] = raster_file(qa, 30, nodata=1)
    members[f"{name}_ST_B{10 if oli else 6}.TIF"] = raster_file(thermal, 30, nodata=0)
    members[f"{name}_SR_QA_AEROSOL.TIF"] = raster_file(qa.astype(np.uint8), 30)
    members[f"{name}_MTL.txt"] = b"GROUP = LANDSAT_METADATA_FILE\n"
    with tarfile.open(folder / f"{name}.tar", "w") as archive:
        for member, data in members.items():
            info = tarfile.TarInfo(member)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    rasters: dict[str, Raster] = {sensor: image, "landsat_qa": qa}
    return Product(f"{satellite}_193027_{date}", rasters | ({"landsat_st": thermal} if oli else {}))


_RESOLUTION = {"B1": 60, "B5": 20, "B6": 20, "B7": 20, "B8A": 20, "B9": 60, "B10": 60, "B11": 20, "B12": 20}
"""Metres; 10 for the other bands."""


def metadata_of(level: str, offsets: tuple[float, ...], baseline: str, quantification: int = 10000) -> bytes:
    """Return the metadata of a product of Sentinel-2: its offsets band by band, as far as the builder reads them."""
    kind, values = ("BOA", "BOA_ADD_OFFSET_VALUES_LIST") if level == "L2A" else ("RADIO", "Radiometric_Offset_List")
    listed = "".join(
        f'<{kind}_ADD_OFFSET band_id="{i}">{value:g}</{kind}_ADD_OFFSET>' for i, value in enumerate(offsets)
    )
    tag = "BOA_QUANTIFICATION_VALUE" if level == "L2A" else "QUANTIFICATION_VALUE"
    root = f"n1:Level-{level[1:]}_User_Product"
    return (
        f'<?xml version="1.0" encoding="UTF-8" standalone="no"?>\n<{root} xmlns:n1="https://psd-14.sentinel2.eo.esa.int/">'
        f"<n1:General_Info><Product_Info><PROCESSING_BASELINE>{baseline}</PROCESSING_BASELINE></Product_Info>"
        f'<Product_Image_Characteristics><{tag} unit="none">{quantification}</{tag}>'
        f"{f'<{values}>{listed}</{values}>' if offsets else ''}"
        f"</Product_Image_Characteristics></n1:General_Info></{root}>"
    ).encode()


def sentinel2_safe(
    folder: Path, level: str = "L2A", baseline: str = "0400", packed: bool = True, metadata: bytes | None = None
) -> Product:
    """Write a SAFE product of Sentinel-2: JPEG 2000, a file for each band in its own resolution.

    `metadata`: of the product, instead of what its baseline asks for; empty for none.
    """
    rng = np.random.default_rng(2)
    sensor = "s2_l2a" if level == "L2A" else "s2"
    date = "20220703T103041" if baseline >= "0400" else "20200703T103031"
    safe = f"S2A_MSI{level}_{date}_N{baseline}_R108_T32TMT_20220703T163015.SAFE"
    top = f"{safe}/GRANULE/{level}_T32TMT_A036719_20220703T103442"
    if metadata is None:
        offsets = (-1000.0,) * 13 if baseline >= "0400" else ()
        metadata = metadata_of(level, offsets, f"{baseline[:2]}.{baseline[2:]}")
    members: dict[str, bytes] = {f"{safe}/manifest.safe": b"<xml/>"}
    if metadata:
        members[f"{safe}/MTD_MSI{level}.xml"] = metadata
    bands: list[Raster] = []
    for band in builtin_sensor(sensor).bands:
        metres = _RESOLUTION.get(band, 10)
        side = PX * 10 // metres
        image = rng.integers(500, 9000, (1, side, side)).astype(np.uint16)
        image[:, : max(1, side // 8)] = 0  # no data
        bands.append(image.repeat(metres // 10, 1).repeat(metres // 10, 2))
        file = f"T32TMT_{date}_B{band[1:].zfill(2)}"
        inside = f"R{metres}m/{file}_{metres}m" if level == "L2A" else file
        members[f"{top}/IMG_DATA/{inside}.jp2"] = raster_file(image, metres, "JP2OpenJPEG")
        if level == "L2A" and metres < 60:  # coarser copies, as the product has them
            coarse = np.ones((1, PX // 6, PX // 6), np.uint16)
            members[f"{top}/IMG_DATA/R60m/{file}_60m.jp2"] = raster_file(coarse, 60, "JP2OpenJPEG")
    rasters = {sensor: np.concatenate(bands)}
    if level == "L2A":
        scl = rng.integers(1, 12, (1, PX // 2, PX // 2)).astype(np.uint8)
        file = f"{top}/IMG_DATA/R20m/T32TMT_{date}"
        members[f"{file}_SCL_20m.jp2"] = raster_file(scl, 20, "JP2OpenJPEG")
        members[f"{file}_TCI_20m.jp2"] = raster_file(np.repeat(scl, 3, 0), 20, "JP2OpenJPEG")
        rasters["s2_scl"] = scl.repeat(2, 1).repeat(2, 2)
    _write(folder, f"{safe}.zip", members, packed)
    return Product(f"32TMT_{date}", rasters)


def sentinel1_safe(folder: Path, packed: bool = True) -> Product:
    """Write a SAFE product of Sentinel-1: ground control points, no grid."""
    rng = np.random.default_rng(3)
    safe = "S1A_IW_GRDH_1SDV_20200703T052600_20200703T052625_033290_03DB6F_D8F1.SAFE"
    image = rng.integers(1, 900, (2, PX, PX)).astype(np.uint16)
    corners = ((0, 0), (0, PX), (PX, 0), (PX, PX))
    points = [
        rasterio.control.GroundControlPoint(row, column, 10 + column * 1e-4, 48 - row * 1e-4, 0)
        for row, column in corners
    ]
    profile = {"crs": CRS.from_epsg(4326), "gcps": points, "transform": None}
    members = {f"{safe}/manifest.safe": b"<xml/>"}
    for band, pixels in zip(("vv", "vh"), image, strict=True):
        name = f"{safe}/measurement/s1a-iw-grd-{band}-20200703t052600-20200703t052625-033290-03db6f-001.tiff"
        members[name] = raster_file(pixels[None], 10, **profile)
    _write(folder, f"{safe}.zip", members, packed)
    return Product("S1A_GRDH_20200703T052600", {"s1_grd": image})


def sentinel1_rtc(folder: Path) -> Product:
    """Write a terrain corrected product of Sentinel-1: power, 0 outside."""
    rng = np.random.default_rng(4)
    power = rng.uniform(0.01, 1, (2, PX, PX)).astype(np.float32)
    power[:, :, :4] = 0
    name = "S1A_IW_20200703T052600_DVP_RTC10_G_gpuned_A1B2"
    members = {f"{name}/{name}.README.md.txt": b"x"}
    for band, pixels in zip(("VV", "VH"), power, strict=True):
        members[f"{name}/{name}_{band}.tif"] = raster_file(pixels[None], 10, "COG", nodata=0)
    _write(folder, f"{name}.zip", members, packed=True)
    decibel = np.where(power > 0, 10 * np.log10(np.where(power > 0, power, 1).astype(np.float64)), np.nan)
    return Product("S1A_RTC10_20200703T052600", {"s1": decibel.astype(np.float32)})


def hls(folder: Path, product: str = "S30", day: str = "2020185T103031") -> Product:
    """Write a granule of HLS: loose files, a coordinate system without a code."""
    rng = np.random.default_rng(5)
    name = f"HLS.{product}.T32TMT.{day}.v2.0"
    rasters: dict[str, Raster] = {}
    (folder / name).mkdir()
    for sensor in ("hls_s30",) if product == "S30" else ("hls_l30", "hls_l30_thermal"):
        bands = builtin_sensor(sensor).bands
        rasters[sensor] = rng.integers(-100, 9000, (len(bands), PX, PX)).astype(np.int16)
        rasters[sensor][:, :, -5:] = -9999
        for band, pixels in zip(bands, rasters[sensor], strict=True):
            spelt = band if band == "B8A" else f"B{int(band[1:]):02d}"
            data = raster_file(pixels[None], 30, crs=HLS_CRS, nodata=-9999)
            (folder / name / f"{name}.{spelt}.tif").write_bytes(data)
    mask = rng.integers(0, 200, (1, PX, PX)).astype(np.uint8)
    (folder / name / f"{name}.Fmask.tif").write_bytes(raster_file(mask, 30, crs=HLS_CRS, nodata=255))
    (folder / name / f"{name}.jpg").write_bytes(b"x")
    return Product(f"{product}_32TMT_{day}", rasters | {"hls_fmask": mask})


def naip(folder: Path) -> Product:
    """Write a photograph of NAIP: four bands, pixels of 0.6 m."""
    image = np.random.default_rng(6).integers(0, 256, (4, PX, PX)).astype(np.uint8)
    data = raster_file(image, 0.6, crs=CRS.from_epsg(26918), photometric="RGB", alpha="unspecified")
    (folder / "m_4007410_ne_18_060_20190801_20191113.tif").write_bytes(data)
    return Product("m_4007410_ne_20190801", {"naip": image})


def planetscope(folder: Path, bands: int = 8, level: str = "") -> Product:
    """Write a scene of PlanetScope and its usable data mask, as an order delivers them."""
    rng = np.random.default_rng(7)
    image = rng.integers(1, 9000, (bands, PX, PX)).astype(np.uint16)
    image[:, :5] = 0
    udm2 = rng.integers(0, 2, (8, PX, PX)).astype(np.uint8)
    name = f"20230615_101010_12_24a{bands}"
    suffix = f"{level}_8b_clip" if bands == 8 else level
    names = builtin_sensor(f"planetscope_{bands}b").bands
    members = {
        f"files/PSScene/{name}/{name}_3B_AnalyticMS{suffix}.tif": raster_file(image, 3, nodata=0, names=names),
        f"files/PSScene/{name}/{name}_3B_udm2.tif": raster_file(
            udm2, 3, names=builtin_sensor("planetscope_udm2").bands
        ),
        f"files/PSScene/{name}/{name}_metadata.json": b"{}",
    }
    _write(folder, "order.zip", members, packed=False)
    rasters: dict[str, Raster] = {f"planetscope_{bands}b{level.lower()}": image, "planetscope_udm2": udm2}
    return Product(f"{name[:8]}_{name[9:]}", rasters)


def _write(folder: Path, name: str, members: dict[str, bytes], packed: bool) -> None:
    """Write members to an archive, or as the files that it would unpack to."""
    if packed:
        zipped(folder / name, members)
        return
    for member, data in members.items():
        (folder / member).parent.mkdir(parents=True, exist_ok=True)
        (folder / member).write_bytes(data)
