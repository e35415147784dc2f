"""From the stored pixels of a sample to its rows in a batch: crop, flip, resize, normalise, mask.

Every random choice is named by (seed, stream, pass, sample, purpose), so a sample of a pass looks the same in any
rank, thread and batch position, and after any resume.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from gfm_pipeline.data.augment import apply_crop, draw_crop
from gfm_pipeline.data.batch import StreamBatch
from gfm_pipeline.data.config import DataConfig
from gfm_pipeline.data.masking import draw_mask, mask_grid
from gfm_pipeline.data.mixture import Mixture, Stream
from gfm_pipeline.data.normalize import fill_unmeasured
from gfm_pipeline.data.plan import Pick
from gfm_pipeline.data.seeding import stable_id
from gfm_pipeline.shards.codec import Raster

_CROP = stable_id("crop")


@dataclass(frozen=True)
class Rows:
    """Where the samples of one sub-batch go: the tensors of a StreamBatch while they are being filled."""

    images: dict[str, torch.Tensor]
    masks: dict[str, torch.Tensor]
    skipped: list[int] = field(default_factory=list)

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

    def __init__(self, stream: Stream, mixture: Mixture, config: DataConfig, seed: int) -> None:
        self._stream = stream
        self._augment = config.augment
        self._image_px = config.image_px
        self._side, self._hidden = mask_grid(config.mask, config.image_px)
        self._name = (seed, stable_id(stream.name))
        self._mask_name = {sensor: stable_id(f"mask/{sensor}") for sensor in stream.sensors}
        self._bands = {sensor: len(mixture.sensors[sensor].bands) for sensor in stream.sensors}
        self._nodata = {sensor: mixture.sensors[sensor].nodata for sensor in stream.sensors}
        self._statistics = {
            sensor: tuple(torch.from_numpy(column) for column in mixture.normalisation[sensor].columns())
            for sensor in stream.sensors
        }

    def new_rows(self) -> Rows:
        """Return tensors for one sub-batch; their content is undefined until every row is filled."""
        count, px, side = self._stream.samples_per_step, self._image_px, self._side
        return Rows(
            images={sensor: torch.empty(count, bands, px, px) for sensor, bands in self._bands.items()},
            masks={sensor: torch.empty(count, side, side, dtype=torch.bool) for sensor in self._bands},
        )

    def fill(self, rows: Rows, row: int, pick: Pick, rasters: Mapping[str, Raster]) -> None:
        """Write the sample `pick` with its `rasters` [C,H,W] to row `row`."""
        name = (*self._name, pick.window.pass_index, pick.number)
        sizes = [(raster.shape[1], raster.shape[2]) for raster in rasters.values()]
        crop = draw_crop(self._augment, sizes, *name, _CROP)
        for sensor, raster in rasters.items():
            mean, std = self._statistics[sensor]  # [C,1,1] each
            filled = fill_unmeasured(raster, self._nodata[sensor], mean.numpy())
            image = apply_crop(filled, crop, self._image_px)  # [C,px,px]
            torch.sub(image, mean, out=rows.images[sensor][row]).div_(std)
            mask = draw_mask(self._side, self._hidden, *name, self._mask_name[sensor])
            rows.masks[sensor][row] = torch.from_numpy(mask)
