"""Evaluation of a model on small collections: what it measures, how ranks share it, and what it refuses."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gfm_pipeline.config import parse_config
from gfm_pipeline.data.mixture import open_mixture
from gfm_pipeline.errors import ConfigError
from gfm_pipeline.evaluate.evaluator import Evaluator
from gfm_pipeline.evaluate.team import Alone
from gfm_pipeline.models.msgfm import MsGFM
from gfm_pipeline.sensors import SensorSpec, builtin_sensor
from gfm_pipeline.train.config import TrainConfig
from tests.make_collection import Sample, make_collection, random_samples

S1, S2 = builtin_sensor("s1"), builtin_sensor("s2")
LC = SensorSpec(name="lc", bands=("IGBP", "LCCS"), dtype="uint16", units="class", kind="labels")
COUNT = 45
CPU = torch.device("cpu")


def labelled(seed: int, prefix: str) -> list[Sample]:
    """Samples whose brightness in s2 tells their class of land cover; 60% of a tile is of that class."""
    samples = random_samples([S1, S2], COUNT, seed=seed, prefix=prefix)
    samples = [(key + "x" * (number % 2), rasters) for number, (key, rasters) in enumerate(samples)]
    for number, (_, rasters) in enumerate(samples):
        kind = number % 3
        rasters["s2"] = (rasters["s2"] + 600 * kind).astype(np.uint16)
        rasters["s1"] = -10 - rasters["s1"] / 20
        cover = np.full((2, 16, 16), 10 + kind, np.uint16)
        cover[0, 10:] = 20
        rasters["lc"] = cover
    return samples


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("evaluate")
    for name, seed in (("train", 0), ("val", 1)):
        make_collection(root / name, labelled(seed, name), [S1, S2, LC])
    return root


def config_of(root: Path, evaluate: dict[str, Any], **data: Any) -> TrainConfig:
    streams = {"pairs": {"collections": ["train"], "sensors": ["s1", "s2"], "sub_batch": 4, "lr": 1e-3}}
    tree = {
        "data": {"root": str(root), "streams": streams, "lanes": 4, "chunk_samples": 4, "image_px": 16}
        | {"mask": {"cell_px": 4}}
        | data,
        "model": {
            "encoder": {"patch_px": 2, "embed_dim": 16, "depths": [1, 1], "num_heads": [2, 4], "window": 4},
            "moe": {"num_experts": 4, "blocks": {2: [0]}},
        },
        "evaluate": evaluate,
    }
    return parse_config(tree, TrainConfig, "test")


WHOLE = {
    "batch_samples": 4,
    "reconstruct": {"val": {"collections": ["val"], "sensors": ["s1", "s2"]}},
    "probes": {
        "cover": {"collections": ["val"], "sensors": ["s1", "s2"], "label": "lc.IGBP"},
        "covers": {"collections": ["val"], "sensors": ["s2"], "label": "lc.IGBP", "task": "multi", "min_share": 0.3},
        "parity": {"collections": ["val"], "sensors": ["s2"], "label": "class"},
    },
}


def evaluator_of(config: TrainConfig) -> tuple[Evaluator, MsGFM]:
    mixture = open_mixture(config.data)
    model = MsGFM(config.model, mixture.sensors, config.data.image_px, config.seed).eval()
    assert config.evaluate is not None
    return Evaluator(config.evaluate, config.data, mixture), model


@pytest.fixture(scope="module")
def measured(root: Path) -> dict[str, Any]:
    evaluator, model = evaluator_of(config_of(root, WHOLE))
    return evaluator.measure(model, CPU, Alone())


def test_every_sensor_is_reconstructed_from_every_sensor(measured: dict[str, Any]) -> None:
    found = measured["reconstruct"]["val"]
    assert found["samples"] == COUNT
    assert found["loss"].keys() == {"s1->s1", "s1->s2", "s2->s1", "s2->s2"}
    assert all(0 < loss < 5 for loss in found["loss"].values())
    assert found["backscatter"].keys() == {"s1->s1", "s2->s1"}
    assert found["backscatter"]["s1->s1"].keys() == {"VV", "VH"}
    # Of the images as the model sees them, in dB: 10 + (10 .. 210) / 20 below zero.
    assert -16.5 < found["backscatter"]["s1->s1"]["VV"]["mean_db_before"] < -14.5


def test_probes_tell_classes_by_features_that_differ(measured: dict[str, Any]) -> None:
    found = measured["probes"]["cover"]
    assert found["train"] + found["test"] == COUNT
    assert found["classes"] == 3
    assert found.keys() == {"train", "test", "classes", "s1", "s2", "s1+s2", "pixel_statistics"}
    assert found["pixel_statistics"]["linear_accuracy"] > 0.9  # brightness is the class
    assert found["s1"]["linear_accuracy"] < 0.8  # noise
    many = measured["probes"]["covers"]
    assert many["classes"] == 4  # 20 covers 37.5% of every tile
    assert many["pixel_statistics"]["linear_map_macro"] > 0.7  # chance: 0.5
    assert measured["probes"]["parity"]["classes"] == 2


class Ranks:
    """`size` threads that meet in every gather, as ranks of a process group do."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.barrier = threading.Barrier(size)
        self.values: list[Any] = [None] * size

    def run(self, work: Any) -> list[Any]:
        found: list[Any] = [None] * self.size

        def one(rank: int) -> None:
            found[rank] = work(Rank(self, rank))

        threads = [threading.Thread(target=one, args=(rank,)) for rank in range(self.size)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        return found


class Rank:
    def __init__(self, team: Ranks, rank: int) -> None:
        self.team, self.rank, self.size = team, rank, team.size

    def gather(self, value: Any) -> list[Any]:
        self.team.values[self.rank] = value
        self.team.barrier.wait(60)
        values = list(self.team.values)
        self.team.barrier.wait(60)
        return values


def test_any_number_of_ranks_finds_the_same_to_the_bit(root: Path, measured: dict[str, Any]) -> None:
    parts = [evaluator_of(config_of(root, WHOLE)) for _ in range(2)]
    found = Ranks(2).run(lambda team: parts[team.rank][0].measure(parts[team.rank][1], CPU, team))
    assert found == [measured, measured]


def test_the_run_seed_changes_the_model_and_not_the_task(root: Path, measured: dict[str, Any]) -> None:
    config = config_of(root, WHOLE).model_copy(update={"seed": 1})
    evaluator, model = evaluator_of(config)
    found = evaluator.measure(model, CPU, Alone())
    assert found["probes"]["cover"]["pixel_statistics"] == measured["probes"]["cover"]["pixel_statistics"]
    assert found["reconstruct"]["val"]["loss"] != measured["reconstruct"]["val"]["loss"]


def test_some_samples_are_always_the_same_ones(root: Path) -> None:
    few = {"reconstruct": {"val": {"collections": ["val"], "sensors": ["s2"], "max_samples": 10}}, "batch_samples": 2}
    evaluator, model = evaluator_of(config_of(root, few))
    first, second = (evaluator.measure(model, CPU, Alone()) for _ in range(2))
    assert first == second
    assert first["reconstruct"]["val"]["samples"] == 8  # 2 of each of 4 lanes


@pytest.mark.parametrize(
    ("part", "change", "words"),
    [
        ("reconstruct", {"collections": ["train"]}, r"45 of its 45 samples are trained on by data.streams.pairs"),
        ("reconstruct", {"sensors": ["s3"]}, r"evaluate.reconstruct.x.sensors: the model trains on no sensor 's3'"),
        ("probes", {"label": "lc.IGPB"}, "Did you mean 'IGBP'"),
        ("probes", {"label": "classes"}, "has a label 'classes'. Did you mean 'class'"),
        ("probes", {"test_filter": {"labels": {"class": ["even"]}}}, "pass both filter and test_filter"),
    ],
)
def test_what_cannot_be_judged_is_refused_before_training(
    root: Path, part: str, change: dict[str, Any], words: str
) -> None:
    section: dict[str, Any] = {"collections": ["val"], "sensors": ["s1", "s2"]}
    section |= {"label": "class"} if part == "probes" else {}
    with pytest.raises(ConfigError, match=words):
        evaluator_of(config_of(root, {part: {"x": section | change}}))


def test_copies_of_trained_samples_are_found_by_their_content(root: Path, tmp_path: Path) -> None:
    make_collection(tmp_path / "train", labelled(0, "train"), [S1, S2, LC])
    copied = {"reconstruct": {"x": {"collections": [str(tmp_path / "train")], "sensors": ["s2"]}}}
    with pytest.raises(ConfigError, match="45 of its 45 samples are trained on"):
        evaluator_of(config_of(root, copied))


def test_filters_keep_one_collection_apart(root: Path) -> None:
    kinds = ["even", "odd"]
    streams = {
        "pairs": {"collections": ["train"], "sensors": ["s1", "s2"], "sub_batch": 4, "lr": 1e-3}
        | {"filter": {"labels": {"class": kinds[:1]}}}
    }
    apart = {"collections": ["train"], "sensors": ["s2"], "filter": {"labels": {"class": kinds[1:]}}}
    with pytest.raises(ConfigError):
        evaluator_of(config_of(root, {"reconstruct": {"x": apart}}))
    evaluator_of(config_of(root, {"reconstruct": {"x": apart}}, streams=streams))


def test_reconstruction_needs_decoders_of_pixels() -> None:
    with pytest.raises(ConfigError, match="normalise_target_px"):
        parse_config(
            {
                "data": {"streams": {"a": {"collections": ["a"], "sub_batch": 1, "lr": 1}}},
                "objectives": {"cross_sensor_mim": {"normalise_target_px": 47}},
                "evaluate": {"reconstruct": {"x": {"collections": ["b"], "sensors": ["s1"]}}},
            },
            TrainConfig,
            "test",
        )
