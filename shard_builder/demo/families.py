"""The families of published archives, each as a stream of (archive, member, bytes).

Number i of a family depends on the seed and i alone, never on how many there are, and only one place is in memory at
a time. What a family holds for N places:

- SEN12MS: N places, dealt in turn to the four seasons, as Sentinel-1, Sentinel-2 and land-cover patches.
- MDAS: one sub-area of 800 x 800 px for every 16 places, as aerial colour image, surface model, buildings and water.
- GeoPile: 2 N aerial colour images, half of them JPEG, a quarter PNG and a quarter TIFF.
- MillionAID: N / 2 aerial colour images as JPEG.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gfm_pipeline.errors import UsageError, nearest
from shard_builder.demo.encode import Georeference, encode_jpeg, encode_png, encode_tiff
from shard_builder.demo.materials import COVER_NAMES, LAND_COVER_CODES, Cover
from shard_builder.demo.optical import render_rgb, render_s2
from shard_builder.demo.place import Place
from shard_builder.demo.planet import make_place
from shard_builder.demo.radar import render_s1
from shard_builder.demo.scenery import AERIAL, CHARACTERS, LANDSCAPE, URBAN_CHARACTERS, Season, draw_character

LABELS_HEADER = ",".join(["archive", "member", "label", *COVER_NAMES])
SUB_AREA_PX = 800
"""Four tiles of 384 px and a margin."""

_SEASON_ROIS = ("ROIs1158_spring", "ROIs1868_summer", "ROIs1970_fall", "ROIs2017_winter")
_PATCHES_PER_SCENE = 8
_MDAS_ROOT = "Augsburg_data_4_publication"
_CITY = Georeference(epsg=32632, easting=640_000.0, northing=5_360_000.0, gsd_m=1.0)

Member = tuple[str, str, bytes]


@dataclass(frozen=True)
class Request:
    """What to make: archives of `places` land-cover places of `tile_px` pixels from `seed`."""

    places: int
    tile_px: int
    seed: int
    families: tuple[str, ...] = ()
    """Names of the archive families; none for all."""

    def stream(self, family: int, index: int) -> np.random.Generator:
        """Return the random stream of member `index` of a family."""
        return np.random.Generator(np.random.Philox(np.random.SeedSequence(self.seed, spawn_key=(family, index))))


@dataclass(frozen=True)
class Family:
    """Archives that are written together."""

    name: str
    count: Callable[[int], int]
    """How many items it has for a number of places."""
    item: Callable[[Request, int], Iterator[Member]]
    """Members of item number i."""
    labels: str | None = None
    """File with a line of labels per member."""


def sen12ms_place(request: Request, index: int) -> tuple[Place, str, int, int]:
    """Return place `index`, its season's folder, its scene and its patch number."""
    season = Season(index % len(_SEASON_ROIS))
    scene, patch = divmod(index // len(_SEASON_ROIS), _PATCHES_PER_SCENE)
    field, _, _ = request.stream(0, index).spawn(3)
    shape = (request.tile_px, request.tile_px)
    place = make_place(field, shape, LANDSCAPE, draw_character(field, CHARACTERS), season)
    return place, _SEASON_ROIS[season], scene + 1, patch + 1


def _sen12ms(request: Request, index: int) -> Iterator[Member]:
    place, rois, scene, patch = sen12ms_place(request, index)
    _, optical, radar = request.stream(0, index).spawn(3)
    where = _patch_corner(request, place.season, scene, patch)
    images: dict[str, npt.NDArray[Any]] = {
        "s1": render_s1(radar, place),
        "s2": render_s2(optical, place),
        "lc": LAND_COVER_CODES[place.cover],
    }
    for sensor, image in images.items():
        member = f"{rois}/{sensor}_{scene}/{rois}_{sensor}_{scene}_p{patch}.tif"
        yield f"{rois}_{sensor}.tar.gz", member, encode_tiff(image, where)


def _patch_corner(request: Request, season: Season, scene: int, patch: int) -> Georeference:
    """Return where a patch lies: scenes in random zones, patches of a scene side by side in two rows."""
    rng = request.stream(4, scene * len(_SEASON_ROIS) + season)
    zone, south = int(rng.integers(1, 61)), bool(rng.integers(2))
    easting = 10.0 * int(rng.integers(30_000, 70_000))
    from_equator = 10.0 * int(rng.integers(170_000, 610_000))  # latitudes of 15 to 55 degrees
    northing = 10_000_000.0 - from_equator if south else from_equator
    row, column = divmod(patch - 1, _PATCHES_PER_SCENE // 2)
    extent_m = request.tile_px * LANDSCAPE.gsd_m
    epsg = (32700 if south else 32600) + zone
    return Georeference(epsg, easting + column * extent_m, northing - row * extent_m, LANDSCAPE.gsd_m)


def _mdas(request: Request, index: int) -> Iterator[Member]:
    field, optical, survey = request.stream(1, index).spawn(3)
    shape = (SUB_AREA_PX, SUB_AREA_PX)
    place = make_place(field, shape, AERIAL, draw_character(field, URBAN_CHARACTERS), Season.SUMMER)
    measured = place.surface + 0.08 * survey.standard_normal(shape, dtype=np.float32)
    row, column = divmod(index, 100)
    corner = Georeference(
        _CITY.epsg, _CITY.easting + column * SUB_AREA_PX, _CITY.northing - row * SUB_AREA_PX, _CITY.gsd_m
    )
    number = index + 1
    images: dict[str, npt.NDArray[Any]] = {
        "3K_RGB": render_rgb(optical, place),
        "3K_DSM": measured.astype(np.float32),
        "osm_buildings": (place.buildings > 0).astype(np.uint8),
        "osm_water": (place.cover == Cover.WATER).astype(np.uint8),
    }
    for name, image in images.items():
        member = f"{_MDAS_ROOT}/sub_area_{number}/{name}_sub_area{number}.tif"
        yield f"{_MDAS_ROOT}.zip", member, encode_tiff(image, corner)


def aerial_place(request: Request, family: int, index: int) -> Place:
    """Return the place of one aerial colour image."""
    field, _ = request.stream(family, index).spawn(2)
    season = Season(int(field.integers(len(Season))))
    return make_place(field, (request.tile_px, request.tile_px), AERIAL, draw_character(field, CHARACTERS), season)


def _geopile(request: Request, index: int) -> Iterator[Member]:
    place = aerial_place(request, 2, index)
    _, optical = request.stream(2, index).spawn(2)
    subset, extension, encode = (
        ("SyntheticAerial", "jpg", encode_jpeg),
        ("SyntheticDrone", "png", encode_png),
        ("SyntheticAerial", "jpg", encode_jpeg),
        ("SyntheticSurvey", "tif", encode_tiff),
    )[index % 4]
    member = f"GeoPileV0/{subset}/{index:06d}.{extension}"
    yield "GeoPileV0.zip", member, encode(render_rgb(optical, place))
    yield from _label("GeoPileV0", member, place)


def _millionaid(request: Request, index: int) -> Iterator[Member]:
    place = aerial_place(request, 3, index)
    _, optical = request.stream(3, index).spawn(2)
    member = f"test/P{index:07d}.jpg"
    yield "millionaid_test.zip", member, encode_jpeg(render_rgb(optical, place))
    yield from _label("millionaid_test", member, place)


def _label(archive: str, member: str, place: Place) -> Iterator[Member]:
    shares = ",".join(f"{share:.4f}" for share in place.cover_shares())
    line = f"{archive}.zip,{member},{COVER_NAMES[place.dominant_cover()]},{shares}"
    yield f"{archive}_labels.csv", member, line.encode()


FAMILIES = (
    Family("SEN12MS", lambda places: places, _sen12ms),
    Family("MDAS", lambda places: -(-places // 16), _mdas),
    Family("GeoPile", lambda places: 2 * places, _geopile, "GeoPileV0_labels.csv"),
    Family("MillionAID", lambda places: max(1, places // 2), _millionaid, "millionaid_test_labels.csv"),
)


def choose_families(names: str) -> tuple[Family, ...]:
    """Return the families of a list like "sen12ms,mdas", all for an empty one; raise UsageError for an unknown name."""
    known = {family.name.lower(): family for family in FAMILIES}
    wanted = {name.strip().lower() for name in names.split(",")} - {""}
    for name in sorted(wanted - set(known)):
        raise UsageError(f"--families: the demo has no archive family '{name}'. {nearest(name, known)}")
    return tuple(family for name, family in known.items() if not wanted or name in wanted)
