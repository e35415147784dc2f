"""What is refused before a GPU is touched."""

from pathlib import Path

import pytest

from gfm_pipeline.config import load_config
from gfm_pipeline.sensors import BUILTIN_SENSORS
from gfm_pipeline.train.config import EngineConfig, TrainConfig
from gfm_pipeline.train.topology import check_topology
from tests.make_collection import make_collection, random_samples

CONFIGS = Path(__file__).parents[3] / "configs" / "pretrain"


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shards")
    for name, sensors in [("geopile", ["rgb"]), ("sen12ms", ["s1", "s2"]), ("mdas", ["rgb", "dsm"])]:
        specs = [BUILTIN_SENSORS[sensor] for sensor in sensors]
        make_collection(root / name, random_samples(specs, 16, side=8), specs)
    return root


def problems(shards: Path, world: int, *overrides: str, per_node: int | None = None) -> list[str]:
    only_geopile = "data.streams.rgb.collections=[geopile]"
    values = [f"data.root={shards}", only_geopile, "data.lanes=4", *overrides]
    return check_topology(load_config(CONFIGS / "quickstart.yaml", TrainConfig, values), world, per_node)


@pytest.mark.parametrize("world", [1, 2, 4])
def test_what_fits_has_no_problem(world: int, shards: Path) -> None:
    assert problems(shards, world) == []


@pytest.mark.parametrize(
    ("world", "overrides", "words"),
    [
        (3, [], "world size 3 does not divide data.lanes 4. Start [1, 2, 4] processes"),
        (
            2,
            ["engine.ep_size=4"],
            "ep_size 4 does not divide the world size 2. Set engine.ep_size to auto or one of [1, 2]",
        ),
        (1, ["data.root=/nowhere"], "/nowhere"),
        (1, ["data.streams.rgb.collections=[geopile, millionaid]"], "millionaid"),
        (1, ["data.streams.sen12ms.sensors=[s1, s3]"], "s3"),
        (1, ["data.lanes=64", "data.streams.rgb.sub_batch=64"], "rgb"),
        (
            1,
            ["data.image_px=8", "data.streams.sen12ms=null", "data.streams.mdas=null", "model.moe.num_experts=16"],
            "stage 2 has 16 experts for 8 tokens of a forward pass (8 images)",
        ),
    ],
)
def test_what_cannot_work_is_named(world: int, overrides: list[str], words: str, shards: Path) -> None:
    (problem,) = problems(shards, world, *overrides)
    assert words in problem


def test_several_problems_are_all_told(shards: Path) -> None:
    assert len(problems(shards, 3, "engine.ep_size=2", "data.streams.sen12ms.sensors=[s9]")) == 3


@pytest.mark.parametrize(
    ("num_experts", "world", "per_node", "ranks"),
    [(8, 8, None, 8), (8, 4, None, 4), (8, 64, 8, 8), (8, 64, 4, 4), (8, 6, None, 2), (6, 4, None, 2), (1, 8, None, 1)],
)
def test_auto_shares_experts_over_as_many_ranks_of_a_machine_as_it_can(
    num_experts: int, world: int, per_node: int | None, ranks: int
) -> None:
    assert EngineConfig().expert_ranks(num_experts, world, per_node) == ranks
