"""Whether a run fits a number of processes, told before a GPU is touched. Nothing here loads torch."""

from __future__ import annotations

from gfm_pipeline.errors import ConfigError, GfmError
from gfm_pipeline.train.config import TrainConfig, divisors


def check_topology(
    config: TrainConfig, world_size: int, per_node: int | None = None, with_data: bool = True
) -> list[str]:
    """Return what keeps `config` from running on `world_size` processes, one sentence each; none: it can start.

    Collections are opened (manifests, and catalogs where a stream has a filter) unless `with_data` is false, for a
    machine that does not see them; no sample is read.
    """
    problems = []
    lanes = config.data.lanes
    if lanes % world_size:
        problems.append(
            f"the world size {world_size} does not divide data.lanes {lanes}. Start {divisors(lanes)} processes, or "
            "set data.lanes (which changes the batch)."
        )
    try:
        config.engine.expert_ranks(config.model.moe.num_experts, world_size, per_node)
    except ConfigError as error:
        problems.append(str(error))
    return problems + _too_many_experts(config) + (_unready_data(config) if with_data else [])


def _too_many_experts(config: TrainConfig) -> list[str]:
    """Find layers with more experts than tokens in a forward pass: some experts could never be chosen."""
    moe, encoder, data = config.model.moe, config.model.encoder, config.data
    if moe.num_experts == 1:
        return []
    images = data.least_images
    found = []
    for stage, blocks in sorted(moe.blocks.items()):
        tokens = images * (data.image_px // (encoder.patch_px * 2 ** (stage - 1))) ** 2
        if blocks and tokens < moe.num_experts:
            found.append(
                f"stage {stage} has {moe.num_experts} experts for {tokens} tokens of a forward pass ({images} images). "
                "Set model.moe.num_experts or model.moe.blocks lower, or the streams' sub_batch higher."
            )
    return found


def _unready_data(config: TrainConfig) -> list[str]:
    from gfm_pipeline.data.mixture import make_plan, open_mixture

    try:
        make_plan(open_mixture(config.data), config.data, config.seed)
    except GfmError as error:
        return [str(error)]
    return []
