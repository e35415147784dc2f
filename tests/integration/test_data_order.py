"""`gfm data order` prints what the loader delivers, from sidecars alone and without torch."""

from __future__ import annotations

import sys

import pytest
import yaml

from gfm_pipeline.config import load_config
from gfm_pipeline.data.loader import Loader
from gfm_pipeline.data.mixture import open_mixture
from gfm_pipeline.sensors import builtin_sensor
from gfm_pipeline.train.config import TrainConfig
from tests.conftest import run_command
from tests.make_collection import make_collection, random_samples


@pytest.fixture(scope="module")
def config_path(tmp_path_factory):
    root = tmp_path_factory.mktemp("order")
    s1, s2, rgb = (builtin_sensor(name) for name in ("s1", "s2", "rgb"))
    make_collection(root / "pairs", random_samples([s1, s2], 23), [s1, s2])
    make_collection(root / "photos", random_samples([rgb], 40, prefix="photo"), [rgb])
    streams = {
        "pairs": {"collections": ["pairs"], "sub_batch": 4, "lr": 1e-4},
        "photos": {"collections": ["photos"], "sub_batch": 3, "lr": 1e-4},
    }
    data = {"root": str(root), "streams": streams, "lanes": 4, "chunk_samples": 4, "image_px": 64}
    path = root / "train.yaml"
    path.write_text(yaml.safe_dump({"seed": 5, "data": data}))
    return path


def order(path, *arguments, check=True):
    return run_command("gfm", "data", "order", "--config", path, *arguments, check=check)


def test_the_shuffle_is_measured(config_path):
    done = run_command("gfm", "data", "check", "--config", config_path)
    assert "pairs: 23 samples in 3 shards, sensors s1, s2" in done.stdout
    assert "photos: 40 samples in 5 shards, sensors rgb" in done.stdout
    assert done.stdout.count("every sample once in a pass") == 2
    assert done.stdout.count("correlation of followers") == 2


def test_derived_sub_batches_are_printed(config_path):
    derived = ("--set", "data.streams.pairs.sub_batch=null", "--set", "data.streams.photos.sub_batch=null")
    done = run_command("gfm", "data", "check", "--config", config_path, *derived, "--set", "data.batch_images=9")
    assert "sub-batch of a lane: 4 images, 2 samples" in done.stdout
    assert "sub-batch of a lane: 5 images, 5 samples" in done.stdout
    done = run_command("gfm", "data", "check", "--config", config_path, *derived, check=False)
    assert done.returncode == 2
    assert "streams.pairs.sub_batch is not set: set it, or data.batch_images" in done.stderr


@pytest.mark.parametrize("batches", ["heterogeneous", "homogeneous"])
def test_the_printed_order_is_the_delivered_order(config_path, batches):
    window = ("--rank", "1", "--world", "2", "--step", "3", "--steps", "5")
    printed = order(config_path, *window, "--set", "seed=6", "--set", f"data.batches={batches}")
    header, *lines = [line.split("\t") for line in printed.stdout.splitlines()]
    assert header == ["step", "epoch", "lane", "stream", "pass", "shard", "key"]
    config = load_config(config_path, TrainConfig, ["seed=6", f"data.batches={batches}"])
    expected = []
    with Loader(open_mixture(config.data), config.data, config.seed, 1, 2, start_step=3) as loader:
        for _ in range(5):
            for batch in next(loader):
                for name, part in batch.streams.items():
                    for key, number in zip(part.keys, part.passes, strict=True):
                        expected.append([str(batch.step), str(batch.lane), name, str(number), key])
    assert [[step, lane, name, number, key] for step, _, lane, name, number, _, key in lines] == expected
    assert {line[1] for line in lines} == {"0", "1"}  # 4 or 7 steps per epoch: steps 3 to 7


def test_no_pixels_are_touched(config_path):
    for tar in config_path.parent.glob("*/shards/*.tar"):
        tar.rename(tar.with_suffix(".hidden"))
    try:
        assert len(order(config_path).stdout.splitlines()) == 1 + 4 * (2 + 3)
    finally:
        for tar in config_path.parent.glob("*/shards/*.hidden"):
            tar.rename(tar.with_suffix(".tar"))


def test_torch_is_not_loaded():
    code = "import sys, gfm_pipeline.cli.data, gfm_pipeline.train.config; sys.exit('torch' in sys.modules)"
    run_command(sys.executable, "-c", code)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--world", "3"), "error: 3 ranks cannot share 4 lanes evenly. Start one of 1, 2, 4 ranks"),
        (("--world", "2", "--rank", "2"), "error: there is no rank 2 in a world of 2"),
        (("--set", "data.streams.pairs.sensors=[s11]"), "error: data.streams.pairs.sensors: no sensor 's11' in pairs"),
        (("--set", "data.lanez=2"), "Did you mean 'lanes'?"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(config_path, arguments, message):
    done = order(config_path, *arguments, check=False)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
