"""CORINE land cover: the 43 classes of BigEarthNet version 1, and the 19 that its authors make of them.

The table is that of Sumbul et al., "BigEarthNet dataset with a new class-nomenclature for remote sensing image
understanding", 2020: 32 classes are merged to 19, 11 are left out as what one image cannot tell.
"""

from __future__ import annotations

from collections.abc import Iterable

from gfm_pipeline.errors import ItemError

NINETEEN: dict[str, tuple[str, ...]] = {
    "Urban fabric": ("Continuous urban fabric", "Discontinuous urban fabric"),
    "Industrial or commercial units": ("Industrial or commercial units",),
    "Arable land": ("Non-irrigated arable land", "Permanently irrigated land", "Rice fields"),
    "Permanent crops": (
        "Vineyards",
        "Fruit trees and berry plantations",
        "Olive groves",
        "Annual crops associated with permanent crops",
    ),
    "Pastures": ("Pastures",),
    "Complex cultivation patterns": ("Complex cultivation patterns",),
    "Land principally occupied by agriculture, with significant areas of natural vegetation": (
        "Land principally occupied by agriculture, with significant areas of natural vegetation",
    ),
    "Agro-forestry areas": ("Agro-forestry areas",),
    "Broad-leaved forest": ("Broad-leaved forest",),
    "Coniferous forest": ("Coniferous forest",),
    "Mixed forest": ("Mixed forest",),
    "Natural grassland and sparsely vegetated areas": ("Natural grassland", "Sparsely vegetated areas"),
    "Moors, heathland and sclerophyllous vegetation": ("Moors and heathland", "Sclerophyllous vegetation"),
    "Transitional woodland, shrub": ("Transitional woodland/shrub",),
    "Beaches, dunes, sands": ("Beaches, dunes, sands",),
    "Inland wetlands": ("Inland marshes", "Peatbogs"),
    "Coastal wetlands": ("Salt marshes", "Salines"),
    "Inland waters": ("Water courses", "Water bodies"),
    "Marine waters": ("Coastal lagoons", "Estuaries", "Sea and ocean"),
}
LEFT_OUT = (
    "Road and rail networks and associated land",
    "Port areas",
    "Airports",
    "Mineral extraction sites",
    "Dump sites",
    "Construction sites",
    "Green urban areas",
    "Sport and leisure facilities",
    "Bare rock",
    "Burnt areas",
    "Intertidal flats",
)
_MERGED = {old: new for new, classes in NINETEEN.items() for old in classes} | dict.fromkeys(LEFT_OUT)


def nineteen(labels: Iterable[str]) -> list[str]:
    """Return classes of the 43 as classes of the 19, in the order of those; raise ItemError for an unknown one."""
    found = set()
    for label in labels:
        if label not in _MERGED:
            raise ItemError(f"{label[:80]!r} is none of the 43 classes of BigEarthNet")
        found.add(_MERGED[label])
    return [name for name in NINETEEN if name in found]
