from __future__ import annotations

import imagecodecs
import numpy as np
import pytest

from gfm_pipeline.viz.curves import loss_curves, smooth
from gfm_pipeline.viz.experts import expert_load_heatmap
from gfm_pipeline.viz.grid import GridRow, reconstruction_grid


def read(path):
    return imagecodecs.png_decode(path.read_bytes())


def metrics(num_steps, streams, layers=("blocks.1", "blocks.3"), num_experts=4):
    rng = np.random.default_rng(0)
    rows = []
    for step in range(1, num_steps + 1):
        parts = {}
        for stream, directions in streams.items():
            seen = {name: float(0.2 + np.exp(-step / 9) * rng.uniform(0.8, 1.2)) for name in directions}
            parts[stream] = {"loss": float(np.mean(list(seen.values()))), "lr": 1e-4, "losses": seen}
        load = {layer: rng.dirichlet([30.0] * num_experts).tolist() for layer in layers}
        rows.append(
            {
                "step": step,
                "loss": 1.0,
                "streams": parts,
                "grad_norm": 1.0,
                "images_per_s": 30.0,
                "expert_load": load,
                "drop_rate": dict.fromkeys(layers, 0.02),
            }
        )
    return rows


STREAMS = {"geopile": ["rgb->rgb"], "sen12ms": ["s1->s1", "s1->s2", "s2->s1", "s2->s2"]}


def test_grid_shows_every_picture_in_its_place(tmp_path):
    colours = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 0, 255]], [[0, 255, 255], [90, 60, 30]]])
    rows = [
        GridRow(f"key{n}", [np.full((48, 48, 3), colour, np.uint8) for colour in row]) for n, row in enumerate(colours)
    ]
    path = reconstruction_grid(rows, ["input", "target"], "S1 → S2", tmp_path / "out" / "grid.png")
    image = read(path)[..., :3]
    seen = {tuple(colour): np.argwhere((image == colour).all(2)).mean(0) for colour in colours.reshape(-1, 3).tolist()}
    centres = np.array([[seen[tuple(colour)] for colour in row] for row in colours.tolist()])  # [rows,columns,(y,x)]
    assert (np.diff(centres[..., 0], axis=0) > 48).all()
    assert (np.diff(centres[..., 1], axis=1) > 48).all()
    assert np.ptp(centres[..., 0], axis=1).max() < 2
    assert [entry.name for entry in path.parent.iterdir()] == ["grid.png"]


def test_grid_refuses_rows_that_do_not_fit(tmp_path):
    picture = np.zeros((8, 8, 3), np.uint8)
    with pytest.raises(ValueError, match="key7 has 1 pictures for 2 columns"):
        reconstruction_grid([GridRow("key7", [picture])], ["a", "b"], "title", tmp_path / "grid.png")
    with pytest.raises(ValueError, match="no samples"):
        reconstruction_grid([], ["a"], "title", tmp_path / "grid.png")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("num_steps", [1, 2, 60])
def test_curves_are_drawn_for_runs_of_any_length(tmp_path, num_steps):
    image = read(loss_curves(metrics(num_steps, STREAMS), tmp_path / "loss.png"))
    assert image.shape[1] > 1500
    assert len(np.unique(image[..., :3].astype(np.uint32) @ (65536, 256, 1))) > 50  # colours


def test_curves_take_streams_and_directions_that_are_sometimes_missing(tmp_path):
    rows = metrics(30, STREAMS)
    for row in rows[::2]:
        del row["streams"]["geopile"]
        del row["streams"]["sen12ms"]["losses"]["s1->s2"]
    rows[7]["streams"]["sen12ms"]["loss"] = float("nan")
    assert loss_curves(rows, tmp_path / "loss.png").is_file()


def test_smoothing_keeps_constants_and_skips_what_is_no_number():
    values = np.full(20, 3.0)
    values[4] = np.nan
    np.testing.assert_allclose(smooth(values, 5), 3.0)
    np.testing.assert_allclose(smooth(np.arange(9.0), 3)[1:-1], np.arange(1, 8))


@pytest.mark.parametrize(("layers", "num_experts", "num_steps"), [(1, 2, 1), (2, 4, 40), (9, 8, 25)])
def test_expert_load_is_drawn(tmp_path, layers, num_experts, num_steps):
    rows = metrics(num_steps, STREAMS, [f"layers.2.blocks.{2 * n + 1}" for n in range(layers)], num_experts)
    assert read(expert_load_heatmap(rows, tmp_path / "experts.png")).shape[0] > 200


def test_expert_load_without_experts_says_so(tmp_path):
    rows = metrics(3, STREAMS)
    for row in rows:
        row["expert_load"] = {}
    with pytest.raises(ValueError, match="no experts"):
        expert_load_heatmap(rows, tmp_path / "experts.png")


def test_nothing_to_draw_says_so(tmp_path):
    with pytest.raises(ValueError, match="not logged a step"):
        loss_curves([], tmp_path / "loss.png")
