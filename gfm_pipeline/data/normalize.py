"""Mean and standard deviation of each band. They are measured or given, never guessed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gfm_pipeline.data.config import BandStatistics
from gfm_pipeline.errors import ConfigError, nearest
from gfm_pipeline.sensors import SensorSpec
from gfm_pipeline.shards.manifest import Manifest
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
    sensors: Mapping[str, SensorSpec], manifests: Iterable[Manifest], given: Mapping[str, BandStatistics]
) -> dict[str, Normalisation]:
    """Return the statistics of each of `sensors`: those `given`, else those measured over all `manifests`.

    The result does not depend on the order of the manifests. Raises ConfigError for a band without usable
    statistics, and for given ones of a sensor that is not used or with another number of bands.
    """
    for name in given:
        if name not in sensors:
            raise ConfigError(f"data.statistics.{name}: no stream uses this sensor. {nearest(name, sensors)}")
    ordered = sorted(manifests, key=lambda manifest: manifest.digest)
    return {
        name: _given(spec, given[name]) if name in given else _measured(spec, ordered) for name, spec in sensors.items()
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


def _measured(spec: SensorSpec, manifests: list[Manifest]) -> Normalisation:
    carrying = [manifest for manifest in manifests if spec.name in manifest.sensors]
    for manifest in carrying:
        bands = tuple(entry.band for entry in manifest.statistics.get(spec.name, []))
        missing = [band for band in spec.bands if band not in bands]
        if missing or bands != spec.bands:
            raise ConfigError(
                f"collection {manifest.name} has no statistics for band {', '.join(missing) or spec.bands[0]} of "
                f"sensor {spec.name} (found: {', '.join(bands) or 'none'}). {_remedy(spec)}"
            )
    merged = merge(manifest.statistics[spec.name] for manifest in carrying)
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
