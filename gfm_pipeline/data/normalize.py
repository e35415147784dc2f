"""Mean and standard deviation of each band. They are measured or given, never guessed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gfm_pipeline.data.agree import Agreed
from gfm_pipeline.data.config import BandStatistics
from gfm_pipeline.errors import ConfigError, nearest
from gfm_pipeline.sensors import SensorSpec
from gfm_pipeline.sensors.bands import canonical_band, match_bands
from gfm_pipeline.shards.stats import merge


@dataclass(frozen=True)
class Normalisation:
    """Statistics of one sensor in its units; a training image holds (pixel - mean) / std of its band."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def columns(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return mean and std as [C,1,1], to broadcast over an image [C,H,W] or a batch [B,C,H,W]."""
        mean = np.asarray(self.mean, dtype=np.float32)[:, None, None]
        return mean, np.asarray(self.std, dtype=np.float32)[:, None, None]


def resolve_normalisation(
    sensors: Mapping[str, Agreed], given: Mapping[str, BandStatistics]
) -> dict[str, Normalisation]:
    """Return the statistics of each of `sensors`: those `given`, else those measured over all its collections.

    Bands are merged by name. The result does not depend on the order of the collections. Raises ConfigError for a band
    without usable statistics, and for given ones of a sensor that is not used or with another number of bands.
    """
    for name in given:
        if name not in sensors:
            raise ConfigError(f"data.statistics.{name}: no stream uses this sensor. {nearest(name, sensors)}")
    return {
        name: _given(found.spec, given[name]) if name in given else _measured(found) for name, found in sensors.items()
    }


def _given(spec: SensorSpec, statistics: BandStatistics) -> Normalisation:
    key = f"data.statistics.{spec.name}"
    for field, values in (("mean", statistics.mean), ("std", statistics.std)):
        if len(values) != len(spec.bands):
            raise ConfigError(
                f"{key}.{field} has {len(values)} values, expected one for each of the {len(spec.bands)} bands "
                f"{', '.join(spec.bands)}."
            )
    for band, mean, std in zip(spec.bands, statistics.mean, statistics.std, strict=True):
        if not _usable(mean, std):
            raise ConfigError(f"{key}: band {band} has mean {mean} and std {std}, expected finite ones and std > 0.")
    return Normalisation(mean=statistics.mean, std=statistics.std)


def _measured(sensor: Agreed) -> Normalisation:
    spec = sensor.spec
    parts = []
    for collection in sorted(sensor.collections, key=lambda collection: collection.digest):
        entries = collection.manifest.statistics.get(spec.name, [])
        known = [entry.band for entry in entries]
        missing = [band for band in spec.bands if canonical_band(band) not in map(canonical_band, known)]
        if missing:
            raise ConfigError(
                f"collection {collection.name} has no statistics for band {', '.join(missing)} of sensor {spec.name} "
                f"(found: {', '.join(known) or 'none'}). {_remedy(spec)}"
            )
        order = match_bands(known, spec.bands, f"statistics of collection {collection.name}, sensor {spec.name}")
        parts.append([entries[i].model_copy(update={"band": band}) for i, band in zip(order, spec.bands, strict=True)])
    merged = merge(parts)
    for entry in merged:
        if not _usable(entry.mean, entry.std):
            raise ConfigError(
                f"band {entry.band} of sensor {spec.name} has mean {entry.mean} and std {entry.std} over "
                f"{entry.count} pixels, expected finite ones and std > 0. {_remedy(spec)}"
            )
    return Normalisation(mean=tuple(entry.mean for entry in merged), std=tuple(entry.std for entry in merged))


def _usable(mean: float, std: float) -> bool:
    return math.isfinite(mean) and math.isfinite(std) and std > 0


def _remedy(spec: SensorSpec) -> str:
    return (
        f"Set data.statistics.{spec.name}.mean and .std, or build the collection again with shard-builder build, "
        "which measures them."
    )
