"""metrics.jsonl across crashes: one row per step, a torn line is no row."""

import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from gfm_pipeline.data.config import DataConfig, StreamConfig
from gfm_pipeline.errors import ConfigError
from gfm_pipeline.train.config import LogConfig, TrainConfig
from gfm_pipeline.train.track import METRICS_FILE, Tracking, open_tracking, read_metrics
from gfm_pipeline.train.trackers.tracker import TRACKERS, Picture, RunRecord, build_trackers, check_trackers


def config(run_dir: Path, **trackers: dict[str, object]) -> TrainConfig:
    data = DataConfig(streams={"rgb": StreamConfig(collections=("c",), sub_batch=1, lr=1.0)})
    return TrainConfig(run_dir=str(run_dir), data=data, log=LogConfig(trackers=trackers))


def row(step: int) -> dict[str, object]:
    return {"step": step, "loss": 0.1 * step, "streams": {"rgb": {"loss": 1.0, "losses": {"rgb->rgb": 1.0}}}}


def test_a_resumed_run_drops_the_rows_it_takes_again(tmp_path: Path) -> None:
    with open_tracking(config(tmp_path), 0) as tracker:
        for step in range(5):
            tracker.write(row(step))
    with (tmp_path / METRICS_FILE).open("a") as file:
        file.write('{"step": 5, "lo')  # killed in mid-write
    assert [r["step"] for r in read_metrics(tmp_path)] == [0, 1, 2, 3, 4]
    with open_tracking(config(tmp_path), 3) as tracker:
        tracker.write(row(3))
    lines = (tmp_path / METRICS_FILE).read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [0, 1, 2, 3]
    assert read_metrics(tmp_path)[1] == row(1)


class Noting:
    """A tracker that remembers."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, dict[str, float]]] = []
        self.pictures: list[str] = []
        self.closed = False

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        self.rows.append((step, dict(values)))

    def picture(self, name: str, picture: Picture, step: int) -> None:
        self.pictures.append(name)

    def close(self) -> None:
        self.closed = True


def test_trackers_get_numbers_by_path_and_other_tables_have_files_of_their_own(tmp_path: Path) -> None:
    tracker = Noting()
    with Tracking(tmp_path, [tracker]) as track:
        track.write(row(1) | {"note": "words"})
        track.write({"step": 1, "knn": 0.5, "ssi": [1.0, math.nan]}, table="evaluation")
        track.picture("panel", np.zeros((2, 2, 3), np.uint8), 1)
    assert tracker.closed
    assert tracker.pictures == ["panel"]
    assert tracker.rows[0] == (1, {"loss": 0.1, "streams/rgb/loss": 1.0, "streams/rgb/losses/rgb->rgb": 1.0})
    assert tracker.rows[1][1]["evaluation/knn"] == 0.5
    assert math.isnan(tracker.rows[1][1]["evaluation/ssi/1"])
    assert json.loads((tmp_path / "evaluation.jsonl").read_text()) == {"step": 1, "knn": 0.5, "ssi": [1.0, None]}


def test_a_tracking_without_a_folder_does_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with Tracking() as track:
        track.write(row(0))
        assert not track.is_open
    assert not list(tmp_path.iterdir())


def test_tensorboard_takes_what_it_is_given(tmp_path: Path) -> None:
    with open_tracking(config(tmp_path, tensorboard={}), 0) as track:
        track.write(row(0))
        track.picture("panel", np.zeros((4, 4, 3), np.uint8), 0)
    assert list((tmp_path / "tensorboard").glob("events*"))


@pytest.mark.parametrize(("name", "options"), [("wandb", {"project": "p"}), ("mlflow", {"experiment": "e"})])
def test_an_extra_that_is_missing_says_how_to_install_it(
    name: str, options: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match=rf"pip install 'gfm-pipeline\[{name}\]'"):
        build_trackers({name: options}, RunRecord(tmp_path, 0, {}))


def test_trackers_are_found_by_name_and_checked(tmp_path: Path) -> None:
    assert TRACKERS.names() == ["mlflow", "tensorboard", "wandb"]
    assert config(tmp_path, wandb={"project": "p"}).log.trackers["wandb"]["mode"] == "online"
    with pytest.raises(ConfigError, match="Did you mean 'tensorboard'"):
        check_trackers({"tensorbord": {}})
    with pytest.raises(ConfigError, match=r"log\.trackers\.wandb: 'project' is required"):
        check_trackers({"wandb": {}})
