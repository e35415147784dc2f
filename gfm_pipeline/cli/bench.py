"""`gfm bench`: what training costs on this machine."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gfm_pipeline.cli.options import of_a_config

if TYPE_CHECKING:
    from gfm_pipeline.train.comm import World
    from gfm_pipeline.train.config import TrainConfig


@click.group()
def bench() -> None:
    """Measure training on this machine, on one process or as many as a launcher starts.

    For several: deepspeed --num_gpus N launch/bench.py ..., or torchrun --nproc-per-node N launch/bench.py ...
    """


def _options(command: Callable[..., None]) -> Callable[..., None]:
    out = click.option(
        "--json", "out", type=click.Path(path_type=Path), help="Write all that was measured to this file."
    )
    return of_a_config(out(command))


@bench.command()
@_options
@click.option("--steps", type=click.IntRange(min=1), default=5, show_default=True, help="Steps measured, after two.")
@click.option("--only", multiple=True, help="A contender: timm, dense, moe, dense compiled, moe compiled; repeatable.")
@click.option("--compile", "compiled", is_flag=True, help="Measure compiled models, too; compiling takes minutes.")
@click.option("--data", is_flag=True, help="Take batches from the collections instead of random pixels.")
def step(
    path: Path,
    overrides: tuple[str, ...],
    out: Path | None,
    steps: int,
    only: tuple[str, ...],
    compiled: bool,
    data: bool,
) -> None:
    """Time training steps: the configured model, the same without experts, and timm's at equal sizes.

    Prints images/s, FLOP/s against what a matrix product reaches here, memory, ratios, and where the time goes.
    """
    from gfm_pipeline.bench.contenders import contenders
    from gfm_pipeline.errors import UsageError, nearest

    config = _load(path, overrides)
    if config.data.batches == "homogeneous":
        raise UsageError("steps of homogeneous batches differ in size; measure with --set data.batches=heterogeneous.")
    known = contenders(config, compiled)
    for name in only:
        if name not in known:
            raise UsageError(f"--only {name}: no such contender here. {nearest(name, known)}")
    with _world() as world:
        import torch

        from gfm_pipeline.bench.device import matmul_rate
        from gfm_pipeline.bench.report import step_lines, step_tree
        from gfm_pipeline.bench.step import measure

        peak = matmul_rate(world.device, torch.bfloat16 if config.engine.dtype == "bf16" else torch.float32)
        chosen = {name: found for name, found in known.items() if not only or name in only}
        scores = measure(chosen, config, world, steps, data)
        _tell(world, list(step_lines(scores, peak, world.size)), step_tree(scores, peak), out)


@bench.command()
@_options
@click.option(
    "--tokens", type=click.IntRange(min=64), default=18432, show_default=True, help="Tokens of a rank: 128 images."
)
@click.option("--repeats", type=click.IntRange(min=1), default=5, show_default=True, help="Passes of each, after one.")
def layer(path: Path, overrides: tuple[str, ...], out: Path | None, tokens: int, repeats: int) -> None:
    """Time one expert layer against a dense MLP and against DeepSpeed's own layer."""
    from gfm_pipeline.errors import UsageError

    config = _load(path, overrides)
    if config.model.moe.num_experts == 1 or not config.model.moe.blocks:
        raise UsageError("the configuration has no expert layers; set model.moe.num_experts and model.moe.blocks.")
    with _world() as world:
        from gfm_pipeline.bench.layer import race
        from gfm_pipeline.bench.report import layer_lines

        seconds = race(config, world, tokens, repeats)
        _tell(world, list(layer_lines(seconds, tokens)), {"tokens": tokens, "seconds": seconds}, out)


def _load(path: Path, overrides: tuple[str, ...]) -> TrainConfig:
    from gfm_pipeline.config import load_config
    from gfm_pipeline.train.config import TrainConfig

    return load_config(path, TrainConfig, overrides)


@contextmanager
def _world() -> Iterator[World]:
    from gfm_pipeline.train.comm import start_world, stop_world

    world = start_world()
    try:
        yield world
    finally:
        stop_world()


def _tell(world: World, lines: list[str], tree: dict[str, Any], out: Path | None) -> None:
    from gfm_pipeline.bench.device import describe

    if not world.is_first:
        return
    machine = {"device": describe(world.device), "ranks": world.size}
    click.echo(f"{machine['device']}, {world.size} ranks")
    for line in lines:
        click.echo(line)
    if out is not None:
        out.write_text(json.dumps({"machine": machine, **tree}, indent=1) + "\n", encoding="utf-8")
