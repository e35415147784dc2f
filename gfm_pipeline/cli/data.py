"""`gfm data`: look at the data of a training run without touching pixels."""

from __future__ import annotations

from pathlib import Path

import click

from gfm_pipeline.cli.data_bench import bench
from gfm_pipeline.cli.options import of_a_config
from gfm_pipeline.config import load_config
from gfm_pipeline.data.mixture import make_plan, open_mixture
from gfm_pipeline.data.reader import StreamReader
from gfm_pipeline.errors import PlanError


@click.group()
def data() -> None:
    """Look at the order of samples without touching pixels, and time their loading."""


data.add_command(bench)


@data.command()
@of_a_config
def check(path: Path, overrides: tuple[str, ...]) -> None:
    """Say what each stream uses and leaves out, and how well it is shuffled against a perfect shuffle."""
    from gfm_pipeline.data.shuffle import shuffle_quality
    from gfm_pipeline.train.config import TrainConfig

    config = load_config(path, TrainConfig, overrides)
    mixture = open_mixture(config.data)
    plan = make_plan(mixture, config.data, config.seed)
    steps = plan.steps_per_epoch
    click.echo(f"plan {plan.digest[:16]}: {steps} steps per epoch, {plan.lanes} lanes, {plan.batches} batches")
    for name, stream in mixture.streams.items():
        found = shuffle_quality(plan, stream)
        passes = plan.position(name, steps) * plan.lanes / stream.num_samples
        click.echo(
            f"{name}: {found.samples} samples in {len(stream.shards)} shards, sensors {', '.join(stream.sensors)}; "
            f"an epoch takes {passes:.2f} passes"
        )
        for sensor in config.data.streams[name].bands:
            click.echo(f"  bands of {sensor}: {', '.join(mixture.sensors[sensor].bands)}")
        click.echo(f"  sub-batch of a lane: {stream.sub_batch} images, {stream.samples_per_step} samples")
        for loss in stream.left_out:
            why = f"without {', '.join(loss.missing)}" if loss.missing else "that do not pass the filter"
            click.echo(f"  left out: {loss.samples} samples of {loss.collection} {why}")
        if found.repeated or found.missing:
            raise PlanError(f"stream {name}: {found.repeated} samples repeated and {found.missing} missing in a pass.")
        click.echo("  every sample once in a pass")
        click.echo(f"  {'shuffle':<34}{'this plan':>10}{'perfect':>12}")
        for label, ours, perfect in (
            ("correlation of followers", found.correlation, f"0 ± {found.correlation_noise:.3f}"),
            ("followers from the same shard", found.same_shard, f"{found.same_shard_perfect:.3f}"),
            ("shards in a lane's sub-batch", found.shards_in_batch, f"{found.shards_in_batch_perfect:.3f}"),
        ):
            click.echo(f"  {label:<34}{ours:>10.3f}{perfect:>12}")


@data.command()
@of_a_config
@click.option("--rank", default=0, show_default=True, type=click.IntRange(min=0), help="Rank to look at.")
@click.option("--world", default=1, show_default=True, type=click.IntRange(min=1), help="Number of ranks.")
@click.option("--step", default=0, show_default=True, type=click.IntRange(min=0), help="First optimizer step.")
@click.option("--steps", default=1, show_default=True, type=click.IntRange(min=1), help="How many steps.")
def order(path: Path, overrides: tuple[str, ...], rank: int, world: int, step: int, steps: int) -> None:
    """Print which samples a rank trains on, in order: step, epoch, lane, stream, pass, shard and key."""
    from gfm_pipeline.train.config import TrainConfig

    config = load_config(path, TrainConfig, overrides)
    mixture = open_mixture(config.data)
    plan = make_plan(mixture, config.data, config.seed)
    lanes = plan.rank_lanes(rank, world)
    readers = {name: StreamReader(stream) for name, stream in mixture.streams.items()}
    click.echo("step\tepoch\tlane\tstream\tpass\tshard\tkey")
    for now in range(step, step + steps):
        for lane in lanes:
            for name, stream in mixture.streams.items():
                for pick in plan.take(name, lane, now):
                    shard = stream.shards[pick.shard].entry.name
                    place = (now, plan.epoch(now), lane, name, pick.window.pass_index, shard, readers[name].key(pick))
                    click.echo("\t".join(str(part) for part in place))
