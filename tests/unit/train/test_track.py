"""metrics.jsonl across crashes: one row per step, a torn line is no row."""

import json
from pathlib import Path

from gfm_pipeline.train.track import METRICS_FILE, Tracker, read_metrics


def row(step: int) -> dict[str, object]:
    return {"step": step, "loss": 0.1 * step, "streams": {"rgb": {"loss": 1.0, "losses": {"rgb->rgb": 1.0}}}}


def test_a_resumed_run_drops_the_rows_it_takes_again(tmp_path: Path) -> None:
    with Tracker(tmp_path, 0) as tracker:
        for step in range(5):
            tracker.write(row(step))
    with (tmp_path / METRICS_FILE).open("a") as file:
        file.write('{"step": 5, "lo')  # killed in mid-write
    assert [r["step"] for r in read_metrics(tmp_path)] == [0, 1, 2, 3, 4]
    with Tracker(tmp_path, 3) as tracker:
        tracker.write(row(3))
    lines = (tmp_path / METRICS_FILE).read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [0, 1, 2, 3]
    assert read_metrics(tmp_path)[1] == row(1)
