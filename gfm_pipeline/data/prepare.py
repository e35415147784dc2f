"""From the stored pixels of a sample to its rows in a batch: crop, flip, resize, normalise, mask.

Every random choice is named by (seed, stream, pass, sample, purpose), so a sample of a pass looks the same in any
rank, thread and batch position, and after any resume. Pixels are touched as few times as possible: a crop that needs
no resizing goes from the decoded raster to its row in one pass, normalised on the way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gfm_pipeline.data.augment import draw_crop
from gfm_pipeline.data.batch import StreamBatch
from gfm_pipeline.data.buffers import BufferPool
from gfm_pipeline.data.config import DataConfig
from gfm_pipeline.data.masking import draw_mask, mask_grid
from gfm_pipeline.data.mixture import Mixture, Stream
from gfm_pipeline.data.normalize import unmeasured
from gfm_pipeline.data.plan import Pick
from gfm_pipeline.data.resize import resize_into
from gfm_pipeline.data.scratch import Scratch
from gfm_pipeline.data.seeding import stable_id
from gfm_pipeline.data.stages import Stopwatch
from gfm_pipeline.errors import ShardError
from gfm_pipeline.shards.codec import Raster

_CROP = stable_id("crop")


@dataclass(frozen=True)
class Rows:
    """Where the samples of one sub-batch go: the tensors of a StreamBatch while they are being filled."""

    images: dict[str, torch.Tensor]
    masks: dict[str, torch.Tensor]
    skipped: list[int] = field(default_factory=list)
    pixels: dict[str, NDArray[Any]] = field(init=False)
    """The memory of `images`."""
    hidden: dict[str, NDArray[np.bool_]] = field(init=False)
    """The memory of `masks`."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "pixels", {sensor: image.numpy() for sensor, image in self.images.items()})
        object.__setattr__(self, "hidden", {sensor: mask.numpy() for sensor, mask in self.masks.items()})

    def blank(self, row: int) -> None:
        """Fill row `row` with the mean of every band and hide nothing: it has no sample and counts in no loss."""
        for tensor in (*self.images.values(), *self.masks.values()):
            tensor[row] = 0
        self.skipped.append(row)

    def finished(self, keys: Sequence[str], picks: Sequence[Pick]) -> StreamBatch:
        """Return the filled sub-batch."""
        passes = tuple(pick.window.pass_index for pick in picks)
        return StreamBatch(self.images, self.masks, tuple(keys), passes, tuple(sorted(self.skipped)))


class Preparer:
    """Prepares the samples of one stream; safe to use from many threads for different rows."""

    def __init__(
        self, stream: Stream, mixture: Mixture, config: DataConfig, seed: int, buffers: BufferPool | None = None
    ) -> None:
        self._stream = stream
        self._augment = config.augment
        self._image_px = config.image_px
        self._stored = config.pixels == "stored"
        self._side, self._hidden = mask_grid(config.mask, config.image_px)
        self._name = (seed, stable_id(stream.name))
        self._mask_name = {sensor: stable_id(f"mask/{sensor}") for sensor in stream.sensors}
        self._specs = {sensor: mixture.sensors[sensor] for sensor in stream.sensors}
        self._statistics = {sensor: mixture.normalisation[sensor].columns() for sensor in stream.sensors}
        self._buffers = buffers or BufferPool()
        self._scratch = Scratch()

    def new_rows(self) -> Rows:
        """Return tensors for one sub-batch; their content is undefined until every row is filled."""
        count, px, side, take = self._stream.samples_per_step, self._image_px, self._side, self._buffers.take
        return Rows(
            images={
                sensor: take((count, len(spec.bands), px, px), np.dtype(spec.dtype if self._stored else np.float32))
                for sensor, spec in self._specs.items()
            },
            masks={sensor: take((count, side, side), np.dtype(np.bool_)) for sensor in self._specs},
        )

    def fill(self, rows: Rows, row: int, pick: Pick, rasters: Mapping[str, Raster], watch: Stopwatch) -> None:
        """Write the sample `pick` with its `rasters` [C,H,W] to row `row`."""
        name = (*self._name, pick.window.pass_index, pick.number)
        sizes = [(raster.shape[1], raster.shape[2]) for raster in rasters.values()]
        crop = draw_crop(self._augment, sizes, self._image_px, *name, _CROP)
        for sensor, raster in rasters.items():
            mask = draw_mask(self._side, self._hidden, *name, self._mask_name[sensor])
            rows.hidden[sensor][row] = mask
            down, across = crop.box(raster.shape[1], raster.shape[2])
            self._write(sensor, raster[:, down, across], crop.flip, rows.pixels[sensor][row], watch)

    def _write(self, sensor: str, part: Raster, flip: bool, out: NDArray[Any], watch: Stopwatch) -> None:
        """Bring the crop `part` [C,h,w] to `out` [C,px,px]."""
        exact = part.shape[1:] == out.shape[1:]
        seen = part[:, :, ::-1] if flip else part
        if self._stored:
            if not exact:
                raise ShardError(
                    f"a crop of {sensor} has {part.shape[1]} x {part.shape[2]} pixels, data.image_px is "
                    f"{self._image_px}, and data.pixels is stored: nothing can be resized. Set data.augment.kind to "
                    "crop and put sensors of other resolutions in other streams, or set data.pixels to normalised."
                )
            watch.lap("augment")
            out[...] = seen
            watch.lap("collate")
            return
        mean, std = self._statistics[sensor]  # [C,1,1] each
        missing = unmeasured(part, self._specs[sensor].nodata)
        if exact:
            watch.lap("augment")
            np.subtract(seen, mean, out=out, dtype=np.float32, casting="unsafe")
            np.divide(out, std, out=out)
            if missing is not None:
                out[missing[:, :, ::-1] if flip else missing] = 0
        else:
            image = self._scratch.floats("image", part.shape)
            np.copyto(image, part, casting="unsafe")  # before resizing, so that integers are not rounded
            if missing is not None:
                np.copyto(image, mean, where=missing)
            resize_into(out, image, flip, self._scratch)
            watch.lap("augment")
            np.subtract(out, mean, out=out)
            np.divide(out, std, out=out)
        watch.lap("collate")
