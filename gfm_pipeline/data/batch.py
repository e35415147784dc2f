"""What the loader hands to the trainer. Legend: B samples, T dates, C bands, H and W pixels, h and w mask cells."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch


@dataclass(frozen=True)
class StreamBatch:
    """The sub-batch of one stream; row i of every tensor is sample i."""

    images: dict[str, torch.Tensor]
    """By sensor, normalised float32 [B,C,H,W]; [B,T,C,H,W] for a series of which more than one date is taken."""
    masks: dict[str, torch.Tensor]
    """By sensor, bool [B,h,w]: true cells are hidden and to be reconstructed."""
    keys: tuple[str, ...]
    """[B] keys of the samples."""
    passes: tuple[int, ...]
    """[B] how often the stream had been gone through before."""
    skipped: tuple[int, ...] = ()
    """Rows that hold no sample: its bytes were damaged and the policy is to skip. Nothing of them is hidden."""
    valid: dict[str, torch.Tensor] = field(default_factory=dict)
    """By sensor, bool shaped like its images: true where a pixel was measured. It has only the sensors of which a
    pixel of this sub-batch was not measured; of all others every pixel was, but for skipped rows and padding, which
    `skipped` and `times` tell and which are false where the sensor is here. A pixel that was not measured is 0, the
    mean, in `images`. A resized pixel counts as measured where at least half of its weight fell on measured ones, and
    is their mean alone."""

    times: dict[str, torch.Tensor] = field(default_factory=dict)
    """By sensor with a time axis, bool [B,T]: true where there is a date, false in the padding of short series."""
    days: dict[str, torch.Tensor] = field(default_factory=dict)
    """With `carry: [dates]`, by sensor, int64 [B,T] days since 1970-01-01 of its images (T is 1 without a time axis);
    `frames.NO_DAY` where the archive tells none, and in padding."""
    bounds: torch.Tensor | None = None
    """With `carry: [footprint]`, float64 [B,4] west, south, east, north in degrees; NaN for a sample without a place.
    The west lies beyond the east where a footprint crosses 180 degrees."""

    def to(self, device: torch.device | str, non_blocking: bool = False) -> StreamBatch:
        """Return the sub-batch with its tensors on `device`."""
        return self._mapped(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> StreamBatch:
        """Return the sub-batch in pinned memory: what a torch DataLoader with `pin_memory=True` calls."""
        return self._mapped(torch.Tensor.pin_memory)

    def _mapped(self, change: Callable[[torch.Tensor], torch.Tensor]) -> StreamBatch:
        def changed(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            return {sensor: change(tensor) for sensor, tensor in tensors.items()}

        return replace(
            self,
            images=changed(self.images),
            masks=changed(self.masks),
            valid=changed(self.valid),
            times=changed(self.times),
            days=changed(self.days),
            bounds=None if self.bounds is None else change(self.bounds),
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

    def pin_memory(self) -> HeterogeneousBatch:
        """Return the batch in pinned memory: what a torch DataLoader with `pin_memory=True` calls."""
        return HeterogeneousBatch(
            self.step, self.lane, {name: part.pin_memory() for name, part in self.streams.items()}
        )

    def layout(self) -> tuple[tuple[str, str, tuple[int, ...]], ...]:
        """Return (stream, sensor, shape) of every image, in order: equal on all ranks, or collectives mismatch."""
        return tuple(
            (name, sensor, tuple(image.shape))
            for name, stream in self.streams.items()
            for sensor, image in stream.images.items()
        )
