"""Masked image modelling with cross-sensor reconstruction.

Every image is masked and encoded; a decoder then reconstructs the image itself or, for part of the images of
co-located samples, the image of another sensor of the same place. The loss is the L1 distance over the hidden cells.

A pixel that was not measured is no target. A direction's loss is the mean over what was measured of its images, and
directions count by how many of their images have any of that: the loss of a stream is that of its measured part.
Means are taken inside a lane, and lanes count alike, so the loss depends on no number of ranks.

Sources: Xie et al., "SimMIM", CVPR 2022 (masking, head, loss); Han et al., "Bridging remote sensors with multisensor
geospatial foundation models", CVPR 2024 (cross-sensor targets). torch is imported inside functions, see objective.py.

Legend: B images, C bands, H x W pixels, i x j cells.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, field_validator

from gfm_pipeline.objectives.objective import OBJECTIVES, Losses, Objective, ObjectiveConfig, Student, masked_images

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from gfm_pipeline.data.batch import HeterogeneousBatch, StreamBatch


class CrossSensorMIMConfig(ObjectiveConfig):
    """Options of the objective `cross_sensor_mim`."""

    cross_share: float = Field(default=0.5, ge=0, le=1)
    """Share of the images of co-located samples that reconstruct a partner instead of themselves."""
    loss_region: Literal["hidden", "all"] = "hidden"
    """Pixels that count: those hidden in the input, or all of them."""
    normalise_target_px: int | None = Field(default=None, ge=3)
    """Side of the neighbourhood in which targets are brought to mean 0 and variance 1 (SimMIM uses 47): odd, so that a
    pixel has a middle to lie in, and no larger than the image; None: off."""

    @field_validator("normalise_target_px")
    @classmethod
    def _neighbourhood_has_a_middle(cls, side_px: int | None) -> int | None:
        if side_px is not None and side_px % 2 == 0:
            raise ValueError(
                f"{side_px} is even, expected an odd number: a pixel lies in the middle of its neighbourhood. Set "
                f"{side_px - 1} or {side_px + 1}"
            )
        return side_px

    def check_image(self, image_px: int) -> None:
        """Raise ValueError for a neighbourhood that is larger than the image."""
        if self.normalise_target_px is not None and self.normalise_target_px > image_px:
            raise ValueError(
                f"objectives.cross_sensor_mim.normalise_target_px {self.normalise_target_px} is larger than "
                f"data.image_px {image_px}. Set an odd number up to it, or null"
            )


@OBJECTIVES.register("cross_sensor_mim")
class CrossSensorMIM(Objective):
    """L1 reconstruction of hidden cells, of the image itself or of a co-located one."""

    Config: ClassVar[type[ObjectiveConfig]] = CrossSensorMIMConfig
    config: CrossSensorMIMConfig

    def __call__(self, model: Student, batch: HeterogeneousBatch, rng: torch.Generator) -> Losses:
        """Return the losses of one lane: one encoder pass over the images of all streams, then the decoders."""
        images = masked_images(batch)
        encoded = dict(zip(images, model.encode(list(images.values())), strict=True))
        losses = Losses(streams={})
        for name, part in batch.streams.items():
            of_stream = {sensor: encoded[name, sensor] for sensor in part.images}
            losses.parts[name], losses.streams[name] = self._stream_loss(model, part, of_stream, batch.step)
        return losses

    def _stream_loss(
        self, model: Student, part: StreamBatch, encoded: dict[str, Tensor], step: int
    ) -> tuple[dict[str, Tensor], Tensor]:
        import torch

        sensors = list(part.images)
        directions: dict[str, Tensor] = {}
        num_samples, valid = len(part.keys), part.valid
        total = counted = torch.zeros((), device=part.images[sensors[0]].device)
        for position, source in enumerate(sensors):
            for target, rows in self.targets(sensors, position, num_samples, step).items():
                if not rows:
                    continue
                image_BCHW, target_BCHW = model.decode(target, encoded[source][rows]), part.images[target][rows]
                mask_Bij, there = part.masks[source][rows], [row not in part.skipped for row in rows]
                if valid:
                    known_BCHW = valid[target][rows] if target in valid else torch.ones_like(target_BCHW).bool()
                    known_BCHW = known_BCHW & torch.tensor(there, device=known_BCHW.device)[:, None, None, None]
                    loss, count = self._measured_distance(image_BCHW, target_BCHW, mask_Bij, known_BCHW)
                    counted = counted + count
                    total = total + loss * count
                else:
                    loss = self._distance(image_BCHW, target_BCHW, mask_Bij, there)
                    total = total + loss * (len(rows) / (num_samples * len(sensors)))
                directions[f"{source}->{target}"] = loss
        return directions, total / counted.clamp(min=1) if valid else total

    def targets(self, sensors: list[str], position: int, num_samples: int, step: int) -> dict[str, list[int]]:
        """Return, for the sensor at `position`, which samples of the sub-batch reconstruct which sensor.

        A counter over samples, steps and sensors crosses exactly `cross_share` of the time, in a fixed pattern that
        alternates between the sensors of a sample; partners of more than two sensors take turns.
        """
        out: dict[str, list[int]] = {sensor: [] for sensor in sensors}
        share = self.config.cross_share if len(sensors) > 1 else 0.0
        for row in range(num_samples):
            count = step * num_samples + row + position
            crossings = int((count + 1) * share)
            if crossings > int(count * share):
                turn = 1 + crossings % (len(sensors) - 1) if len(sensors) > 2 else 1
                out[sensors[(position + turn) % len(sensors)]].append(row)
            else:
                out[sensors[position]].append(row)
        return out

    def _distance(self, image_BCHW: Tensor, target_BCHW: Tensor, mask_Bij: Tensor, there: list[bool]) -> Tensor:
        """Return the mean L1 distance; `there` tells which rows hold a sample."""
        from gfm_pipeline.models.embed import cells_to_pixels

        if self.config.normalise_target_px is not None:
            target_BCHW = normalise_locally(target_BCHW, self.config.normalise_target_px)
        distance_BCHW = (image_BCHW.float() - target_BCHW).abs()
        if self.config.loss_region == "all":
            if not all(there):
                distance_BCHW = distance_BCHW[there]
            return distance_BCHW.sum() / (distance_BCHW.numel() + 1e-5)
        hidden_B1HW = cells_to_pixels(mask_Bij, target_BCHW.shape[-1])
        loss: Tensor = (distance_BCHW * hidden_B1HW).sum() / (hidden_B1HW.sum() + 1e-5) / target_BCHW.shape[1]
        return loss

    def _measured_distance(
        self, image_BCHW: Tensor, target_BCHW: Tensor, mask_Bij: Tensor, known_BCHW: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the mean L1 distance over the `known` pixels that count, 0 for none, and how many images have any."""
        from gfm_pipeline.models.embed import cells_to_pixels

        if self.config.normalise_target_px is not None:
            target_BCHW = normalise_locally(target_BCHW, self.config.normalise_target_px, known_BCHW)
        if self.config.loss_region == "hidden":
            known_BCHW = known_BCHW & cells_to_pixels(mask_Bij, target_BCHW.shape[-1]).bool()
        # Values of unmeasured pixels are cleared and not only multiplied by 0, which NaN would survive.
        distance_BCHW = (image_BCHW.float() - target_BCHW.masked_fill(~known_BCHW, 0)).abs()
        loss = (distance_BCHW * known_BCHW).sum() / known_BCHW.sum().clamp(min=1)
        return loss, known_BCHW.flatten(1).any(1).sum()


def normalise_locally(image_BCHW: Tensor, side_px: int, known_BCHW: Tensor | None = None) -> Tensor:
    """Return the image less its local mean, over its local deviation, in windows of `side_px` (odd) cut at the border.

    With `known`, bool, mean and deviation are those of the known pixels of a window, and all others become 0.
    Source: the target normalisation of SimMIM's public code for SwinV2.
    """
    from torch.nn import functional as F

    def local_mean(x: Tensor, count_padding: bool = False) -> Tensor:
        return F.avg_pool2d(x, side_px, stride=1, padding=side_px // 2, count_include_pad=count_padding)

    if known_BCHW is None:
        mean_BCHW = local_mean(image_BCHW)
        count_BCHW = local_mean(image_BCHW.new_ones(image_BCHW.shape), count_padding=True) * side_px**2
        variance_BCHW = (local_mean(image_BCHW**2) - mean_BCHW**2) * (count_BCHW / (count_BCHW - 1))
        return (image_BCHW - mean_BCHW) / (variance_BCHW.clamp(min=0) + 1e-6).sqrt()
    image_BCHW = image_BCHW.masked_fill(~known_BCHW, 0)
    share_BCHW = local_mean(known_BCHW.to(image_BCHW.dtype), count_padding=True)
    count_BCHW = (share_BCHW * side_px**2).round()
    share_BCHW = share_BCHW.clamp(min=0.5 / side_px**2)  # of windows without a known pixel, whose sums are 0
    mean_BCHW = local_mean(image_BCHW, count_padding=True) / share_BCHW
    mean_of_squares_BCHW = local_mean(image_BCHW**2, count_padding=True) / share_BCHW
    variance_BCHW = (mean_of_squares_BCHW - mean_BCHW**2) * (count_BCHW / (count_BCHW - 1).clamp(min=1))
    normalised_BCHW = (image_BCHW - mean_BCHW) / (variance_BCHW.clamp(min=0) + 1e-6).sqrt()
    return normalised_BCHW * known_BCHW
