"""msGFM: per-sensor embedding -> shared SwinV2 with experts -> per-sensor decoder.

Source: Han et al., "Bridging remote sensors with multisensor geospatial foundation models", CVPR 2024.

Legend: B images, C bands, H x W pixels, i x j cells or features, D channels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gfm_pipeline.errors import ConfigError
from gfm_pipeline.models.decode import SensorDecoder
from gfm_pipeline.models.embed import SensorEmbed, cells_to_patches
from gfm_pipeline.models.moe import ExpertPlacement, LocalMoE, MoELayer, ShardedMoE, build_moe, initialise_moe
from gfm_pipeline.models.seeding import seeded
from gfm_pipeline.models.swin import SwinEncoder, check_size

if TYPE_CHECKING:
    from gfm_pipeline.models.config import ModelConfig
    from gfm_pipeline.sensors import SensorSpec


@dataclass(frozen=True)
class SensorImages:
    """Normalised images of one sensor and the cells to hide in them."""

    sensor: str
    image_BCHW: Tensor
    mask_Bij: Tensor | None = None


def check_module_name(name: str, what: str) -> None:
    """Raise ConfigError for a name that torch keeps for its containers of modules, as `values` or `training`."""
    if "." in name or hasattr(nn.ModuleDict(), name):
        raise ConfigError(f"{what} '{name}' cannot be trained on: torch has a word of that name. Rename the {what}.")


class MsGFM(nn.Module):
    """The multisensor model for `sensors` and square images of `image_px`, freshly initialised.

    The weights depend on the configuration and the seed only: any `placement` of the experts gives the same model;
    None keeps all of them in this process. Raises ConfigError when sizes do not divide.
    """

    def __init__(
        self,
        config: ModelConfig,
        sensors: Mapping[str, SensorSpec],
        image_px: int,
        seed: int,
        placement: ExpertPlacement | None = None,
    ) -> None:
        super().__init__()
        encoder = config.encoder
        if image_px % encoder.stride_px:
            raise ConfigError(
                f"data.image_px {image_px} is not a multiple of the encoder's stride of {encoder.stride_px} px "
                f"(model.encoder.patch_px {encoder.patch_px} and {len(encoder.depths)} stages)."
            )
        self.patch_px = encoder.patch_px
        self._tallies: dict[str, Tensor] = {}
        self.embeds = nn.ModuleDict()
        self.decoders = nn.ModuleDict()
        for name, spec in sensors.items():
            check_module_name(name, "sensor")
            with seeded(seed, "sensor", name):
                self.embeds[name] = SensorEmbed(len(spec.bands), config.embed, encoder.patch_px, encoder.embed_dim)
                self.decoders[name] = SensorDecoder(encoder.num_features, len(spec.bands), encoder.stride_px)
        with seeded(seed, "encoder"):
            # Not zeros: cosine attention divides by the norm of q and k, and its gradients would explode.
            self.mask_token_D = nn.Parameter(torch.empty(encoder.embed_dim))
            nn.init.trunc_normal_(self.mask_token_D, std=0.02)
            self.encoder = SwinEncoder(encoder, image_px)
        self.objectives = nn.ModuleDict()
        """What objectives train beside the model, by objective: empty outside of training."""
        if config.moe.num_experts > 1:
            self._add_experts(config, seed, placement)

    def _add_experts(self, config: ModelConfig, seed: int, placement: ExpertPlacement | None) -> None:
        for stage, indices in sorted(config.moe.blocks.items()):
            dim = config.encoder.embed_dim * 2 ** (stage - 1)
            for index in indices:
                with seeded(seed, "moe", stage, index):
                    layer = build_moe(dim, int(dim * config.encoder.mlp_ratio), config.moe, placement)
                initialise_moe(layer, seed, f"moe/{stage}/{index}")
                self.encoder.block(stage, index).mlp = layer

    def moe_layers(self) -> Iterator[tuple[str, MoELayer]]:
        """Yield (module path, layer) for every mixture-of-experts layer, in forward order."""
        for name, module in self.named_modules():
            if isinstance(module, LocalMoE | ShardedMoE):
                yield name, module

    def moe_labels(self) -> dict[str, MoELayer]:
        """Return the mixture-of-experts layers by the names that configurations use, "stage3.block1"."""
        labels = {}
        for name, layer in self.moe_layers():
            _, _, stage, _, block, _ = name.split(".")  # encoder.layers.<stage>.blocks.<block>.mlp
            labels[f"stage{int(stage) + 1}.block{block}"] = layer
        return labels

    def take_tallies(self) -> dict[str, Tensor]:
        """Return what became of the tokens since the last call, by layer label, and start again from nothing.

        Counts [sensors, E + 1] as of `Routing.tally`; rows are the model's sensors in their order.
        """
        tallies, self._tallies = self._tallies, {}
        return tallies

    def _tally(self, inputs: Sequence[SensorImages]) -> None:
        positions = {sensor: index for index, sensor in enumerate(self.embeds)}
        owner_B = torch.cat([torch.full((len(i.image_BCHW),), positions[i.sensor]) for i in inputs])
        for label, layer in self.moe_labels().items():
            assert layer.routing is not None
            tally = layer.routing.tally(owner_B.to(layer.routing.expert_R.device), len(positions))
            self._tallies[label] = self._tallies[label] + tally if label in self._tallies else tally

    def no_decay_names(self) -> set[str]:
        """Return the names of parameters without weight decay: 1-D ones, biases, mask token and timm's own list."""
        timm_list = ("cpb_mlp", "logit_scale")
        return {
            name
            for name, parameter in self.named_parameters()
            if parameter.ndim <= 1 or name.endswith(".bias") or any(part in name for part in timm_list)
        }

    def compile_encoder(self) -> None:
        """Let torch.compile take every stage in place, expert layers left out; names of parameters stay as they are."""
        disable: Any = torch.compiler.disable
        for _, layer in self.moe_layers():
            # Sorting, collectives and sizes known late: a compiler gains nothing there and breaks the graph anyway.
            layer.forward = disable(layer.forward)  # type: ignore[method-assign]
        for stage in self.encoder.layers:
            stage.compile(dynamic=False)

    def encode(self, inputs: Sequence[SensorImages]) -> list[Tensor]:
        """Return the features [B,i,j,D] of each input, after ONE pass of the shared encoder over all of them."""
        return [stages[-1] for stages in self.encode_stages(inputs)]

    def encode_stages(self, inputs: Sequence[SensorImages]) -> list[list[Tensor]]:
        """Return for each input the features [B,i,j,D] of every stage, after one pass; `encode` gives the last."""
        tokens = [self._embed(item) for item in inputs]
        sizes = [len(part) for part in tokens]
        stages = self.encoder.stages(torch.cat(tokens))
        self._tally(inputs)
        parts = [torch.split(features_BijD, sizes) for features_BijD in stages]
        return [list(of_input) for of_input in zip(*parts, strict=True)]

    def decode(self, sensor: str, features_BijD: Tensor) -> Tensor:
        """Return the normalised image [B,C,H,W] of `sensor` that the features tell of."""
        image_BCHW: Tensor = self.decoders[sensor](features_BijD)
        return image_BCHW

    def _embed(self, item: SensorImages) -> Tensor:
        height, width = item.image_BCHW.shape[-2:]
        check_size(height, width, self.patch_px, len(self.encoder.layers), f"images of {item.sensor}")
        mask_Bhw = None
        if item.mask_Bij is not None:
            patches = item.image_BCHW.shape[-1] // self.patch_px
            cells = item.mask_Bij.shape[-1]
            if patches % cells:
                raise ConfigError(
                    f"data.mask.cell_px gives {cells} cells over {patches} patches of {self.patch_px} px: "
                    "a cell must be a whole number of patches."
                )
            mask_Bhw = cells_to_patches(item.mask_Bij, patches // cells)
        tokens_BhwD: Tensor = self.embeds[item.sensor](item.image_BCHW, mask_Bhw, self.mask_token_D)
        return tokens_BhwD
