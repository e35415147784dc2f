"""Everything that a configuration wants measured, opened and checked before the first step, measured on demand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from gfm_pipeline.data.config import DataConfig, FilterConfig
from gfm_pipeline.data.mixture import Mixture
from gfm_pipeline.errors import ConfigError, GfmError
from gfm_pipeline.evaluate.config import EvaluateConfig, ProbeConfig, SamplesConfig
from gfm_pipeline.evaluate.features import Features, extract_features
from gfm_pipeline.evaluate.labels import Shares, check_label, read_labels
from gfm_pipeline.evaluate.probe import chosen_by_hash, run_probe
from gfm_pipeline.evaluate.reconstruct import evaluate_reconstruction
from gfm_pipeline.evaluate.samples import HeldOut, open_held_out, refuse_common
from gfm_pipeline.evaluate.team import Team
from gfm_pipeline.models.msgfm import MsGFM
from gfm_pipeline.sensors import SensorSpec

T = TypeVar("T")


@dataclass
class _Probe:
    where: str
    config: ProbeConfig
    samples: HeldOut
    asked: HeldOut | None
    """The samples to predict, where a filter says which."""
    labels: dict[str, Shares] = field(default_factory=dict)
    """By key; read once."""

    @property
    def sets(self) -> list[HeldOut]:
        """All samples of the probe."""
        return [self.samples, self.asked] if self.asked else [self.samples]


class Evaluator:
    """Measures a model on held-out samples; the same samples, masks and splits every time."""

    def __init__(self, config: EvaluateConfig, data: DataConfig, training: Mixture) -> None:
        """Raise ConfigError for samples that are trained on, unknown sensors and labels that do not exist."""

        sets: dict[str, HeldOut] = {}

        def opened(where: str, part: SamplesConfig, filter_: FilterConfig | None) -> HeldOut:
            asked = (part.collections, part.sensors, part.max_samples, filter_ and filter_.model_dump_json())
            if str(asked) not in sets:  # probes of the same samples share them, and one pass over them
                sets[str(asked)] = open_held_out(where, part, data, training, config.batch_samples, filter_)
            return sets[str(asked)]

        self._sensors: Mapping[str, SensorSpec] = training.sensors
        self.reconstructed: dict[str, HeldOut] = {
            name: opened(f"evaluate.reconstruct.{name}", part, part.filter) for name, part in config.reconstruct.items()
        }
        self._probes: dict[str, _Probe] = {}
        for name, probe in config.probes.items():
            where = f"evaluate.probes.{name}"
            samples = opened(where, probe, probe.filter)
            asked = opened(f"{where}.test_filter", probe, probe.test_filter) if probe.test_filter else None
            if asked:
                refuse_common(where, samples.stream, asked.stream)
            check_label(samples.stream, probe.label, where)
            self._probes[name] = _Probe(where, probe, samples, asked)

    def measure(self, model: MsGFM, device: torch.device, team: Team) -> dict[str, Any]:
        """Return {"reconstruct": {name: ...}, "probes": {name: ...}}, the same on every process; all must call it.

        `model` holds all experts, is in evaluation mode and on `device`.
        """
        found: dict[str, Any] = {}
        if self.reconstructed:
            found["reconstruct"] = {
                name: evaluate_reconstruction(model, held_out, self._sensors, device, team)
                for name, held_out in self.reconstructed.items()
            }
        if self._probes:
            features: dict[str, Features] = {}
            for held_out in (one for probe in self._probes.values() for one in probe.sets):
                if held_out.where not in features:
                    features[held_out.where] = extract_features(model, held_out, device, team)
            found["probes"] = {name: _run(probe, features, team) for name, probe in self._probes.items()}
        return found


def _run(probe: _Probe, extracted: Mapping[str, Features], team: Team) -> dict[str, Any]:
    features = extracted[probe.samples.where]
    if probe.asked is None:
        is_test_N = chosen_by_hash(features.keys, probe.config.test_share)
    else:
        features, is_test_N = _with_test(features, extracted[probe.asked.where])

    def judged() -> dict[str, Any]:
        if not probe.labels:
            probe.labels = _labels(probe, features)
        return run_probe(features, is_test_N, probe.labels, probe.config, probe.where)

    return _by_the_first(team, judged)


def _labels(probe: _Probe, features: Features) -> dict[str, Shares]:
    wanted = set(features.keys)
    if len(wanted) < len(features.keys):
        raise ConfigError(f"{probe.where}.collections: two samples have one key. Make a probe of each collection.")
    # One look at the shards of both filters.
    shards = probe.samples.stream.shards + (probe.asked.stream.shards if probe.asked else ())
    return read_labels(shards, probe.config.label, wanted, probe.where)


def _with_test(train: Features, test: Features) -> tuple[Features, NDArray[np.bool_]]:
    by_name = {name: np.concatenate([values, test.by_name[name]]) for name, values in train.by_name.items()}
    is_test_N = np.arange(len(train.keys) + len(test.keys)) >= len(train.keys)
    return Features(train.keys + test.keys, by_name), is_test_N


def _by_the_first(team: Team, work: Callable[[], T]) -> T:
    """Return on every process what the first one found, or raise there what it raised."""
    outcome: T | GfmError | None = None
    if team.rank == 0:
        try:
            outcome = work()
        except GfmError as error:
            outcome = error
    outcome = team.gather(outcome)[0]
    if isinstance(outcome, GfmError):
        raise outcome
    assert outcome is not None
    return outcome
