"""What the loader hands to the trainer. Legend: B samples, C bands, H and W pixels, h and w mask cells."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class StreamBatch:
    """The sub-batch of one stream; row i of every tensor is sample i."""

    images: dict[str, torch.Tensor]
    """By sensor, normalised float32 [B,C,H,W]."""
    masks: dict[str, torch.Tensor]
    """By sensor, bool [B,h,w]: true cells are hidden and to be reconstructed."""
    keys: tuple[str, ...]
    """[B] keys of the samples."""
    passes: tuple[int, ...]
    """[B] how often the stream had been gone through before."""
    skipped: tuple[int, ...] = ()
    """Rows that hold no sample: its bytes were damaged and the policy is to skip. Nothing of them is hidden."""

    def to(self, device: torch.device | str, non_blocking: bool = False) -> StreamBatch:
        """Return the sub-batch with its tensors on `device`."""
        return StreamBatch(
            images={name: image.to(device, non_blocking=non_blocking) for name, image in self.images.items()},
            masks={name: mask.to(device, non_blocking=non_blocking) for name, mask in self.masks.items()},
            keys=self.keys,
            passes=self.passes,
            skipped=self.skipped,
        )


@dataclass(frozen=True)
class HeterogeneousBatch:
    """What one forward pass takes: a sub-batch of every stream, or of one stream with `batches: homogeneous`."""

    step: int
    """Optimizer step it belongs to."""
    lane: int
    """The sequence it comes from."""
    streams: dict[str, StreamBatch]
    """By name, in the order of the configuration; the same streams on every rank."""

    def to(self, device: torch.device | str, non_blocking: bool = False) -> HeterogeneousBatch:
        """Return the batch with its tensors on `device`."""
        streams = {name: stream.to(device, non_blocking) for name, stream in self.streams.items()}
        return HeterogeneousBatch(self.step, self.lane, streams)

    def layout(self) -> tuple[tuple[str, str, tuple[int, ...]], ...]:
        """Return (stream, sensor, shape) of every image, in order: equal on all ranks, or collectives mismatch."""
        return tuple(
            (name, sensor, tuple(image.shape))
            for name, stream in self.streams.items()
            for sensor, image in stream.images.items()
        )
