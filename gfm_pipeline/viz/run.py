"""All pictures of a run: reconstructions of every direction, loss curves, expert load."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from gfm_pipeline.errors import CheckpointError
from gfm_pipeline.sensors.render import Picture, hide, limits_of, paste, render
from gfm_pipeline.train.track import METRICS_FILE, read_metrics
from gfm_pipeline.viz.curves import loss_curves
from gfm_pipeline.viz.experts import expert_load_heatmap
from gfm_pipeline.viz.figure import save
from gfm_pipeline.viz.grid import GRID_DPI, GridRow, grid_figure
from gfm_pipeline.viz.reconstruct import Reconstruction, load_run, reconstruct_samples


def draw_run(run_dir: Path, out: Path, num_samples: int, overrides: tuple[str, ...] = ()) -> list[Path]:
    """Write the pictures of the run to `out` and return their paths.

    Raises CheckpointError for a run without a checkpoint or metrics.
    """
    run = load_run(run_dir, overrides)
    rows = read_metrics(run_dir)
    if not rows:
        raise CheckpointError(
            f"{run_dir / METRICS_FILE} holds no complete line; give the folder of a run that trained."
        )
    paths = [
        draw_direction(out, stream, found, run.state.step) for stream, found in reconstruct_samples(run, num_samples)
    ]
    paths.append(loss_curves(rows, out / "loss-curves.png"))
    if any(row.get("expert_load") for row in rows):
        paths.append(expert_load_heatmap(rows, out / "expert-load.png"))
    return paths


def draw_direction(out: Path, stream: str, found: list[Reconstruction], step: int) -> Path:
    """Write the grid of one stream and one (source, target) pair of sensors; all of `found` are of that pair."""
    source, target = found[0].source.name, found[0].target.name
    return save(direction_figure(stream, found, step), out / f"{stream}-{source}-to-{target}.png", dpi=GRID_DPI)


def direction_figure(stream: str, found: list[Reconstruction], step: int) -> Figure:
    """Return the grid of one (source, target) pair of sensors; all of `found` are of that pair."""
    source, target = found[0].source.name, found[0].target.name
    if source == target:
        columns = [f"{source}, masked", "reconstruction", "hidden cells filled in", f"{target}, the truth"]
        title = f"{stream}: {source} reconstructed from its visible cells (step {step})"
    else:
        columns = [f"{source}, masked", f"{source}, the truth", f"{target}, reconstruction", f"{target}, the truth"]
        title = f"{stream}: {target} reconstructed from masked {source} (step {step})"
    return grid_figure([GridRow(one.key, _pictures(one)) for one in found], columns, title)


def _pictures(one: Reconstruction) -> list[Picture]:
    # One stretch for prediction and truth: what differs in the picture differs in the numbers.
    source_limits, target_limits = limits_of(one.source_CHW, one.source), limits_of(one.target_CHW, one.target)
    source = render(one.source_CHW, one.source, source_limits)
    predicted = render(one.predicted_CHW, one.target, target_limits)
    truth = render(one.target_CHW, one.target, target_limits)
    masked = hide(source, one.mask_ij)
    if one.source.name != one.target.name:
        return [masked, source, predicted, truth]
    pasted = paste(one.source_CHW, one.predicted_CHW, one.mask_ij)
    return [masked, predicted, render(pasted, one.target, target_limits), truth]
