"""PASTIS-R as published."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from tests.make.archives import Truth, zipped
from tests.make.folder import npy

STEPS = {"10000": (4, 3, 5), "10001": (2, 3, 1), "20005": (3, 2, 2)}
"""Dates of S2, S1A and S1D."""


def pastis(folder: Path) -> Truth:
    """Write `PASTIS-R.zip` and return the series and crops."""
    rng = np.random.default_rng(6)
    members: dict[str, bytes] = {}
    truth: Truth = {}
    features = []
    for fold, (place, counts) in enumerate(STEPS.items(), start=1):
        s2 = rng.integers(-50, 9000, (counts[0], 10, 16, 16)).astype(np.int16)
        s1a, s1d = (rng.normal(-12, 3, (count, 3, 16, 16)).astype(np.float16) for count in counts[1:])
        target = rng.integers(0, 19, (3, 16, 16)).astype(np.uint8)
        for name, array in (
            (f"DATA_S2/S2_{place}", s2),
            (f"DATA_S1A/S1A_{place}", s1a),
            (f"DATA_S1D/S1D_{place}", s1d),
        ):
            members[f"PASTIS-R/{name}.npy"] = npy(array)
        members[f"PASTIS-R/ANNOTATIONS/TARGET_{place}.npy"] = npy(target)
        members[f"PASTIS-R/INSTANCE_ANNOTATIONS/INSTANCES_{place}.npy"] = npy(target[0].astype(np.int64))
        truth[place] = {"s2_theia": s2, "s1a": s1a.astype("f4"), "s1d": s1d.astype("f4"), "crops": target[:1]}
        dates = {
            f"dates-{name}": {str(step): 20180917 + step for step in range(count)}
            for name, count in zip(("S2", "S1A", "S1D"), counts, strict=True)
        }
        about = {"Fold": fold, "ID_PATCH": int(place), "TILE": "t30uxv", **dates}
        features.append({"type": "Feature", "properties": about, "geometry": None})
    table = {"type": "FeatureCollection", "features": features}
    zipped(folder / "PASTIS-R.zip", members | {"PASTIS-R/metadata.geojson": json.dumps(table).encode()})
    return truth


def broken(folder: Path) -> None:
    """Write a `PASTIS-R.zip` with a pickle, a series of fewer steps than are dated, and a place nobody knows."""
    import pickle

    steps = {str(step): 20180917 for step in range(3)}
    about = [{"Fold": 1, "ID_PATCH": number, "dates-S2": steps} for number in (1, 2)]
    table = {"type": "FeatureCollection", "features": [{"properties": properties} for properties in about]}
    short = npy(np.zeros((2, 10, 8, 8), np.int16))
    members = {
        "PASTIS-R/metadata.geojson": json.dumps(table).encode(),
        "PASTIS-R/DATA_S2/S2_1.npy": pickle.dumps([1, 2, 3]),
        "PASTIS-R/DATA_S2/S2_2.npy": short,
        "PASTIS-R/DATA_S2/S2_3.npy": short,
    }
    zipped(folder / "PASTIS-R.zip", members)
