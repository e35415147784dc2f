"""From the stored pixels of a sample to its rows in a batch: crop, flip, resize, normalise, mask.

Every random choice is named by (seed, stream, pass, sample, purpose), so a sample of a pass looks the same in any
rank, thread and batch position, and after any resume. Pixels are touched as few times as possible: a crop that needs
no resizing goes from the decoded raster to its row in one pass, normalised on the way.

A pixel that was not measured becomes 0, the mean of its band, and the batch says where that was (`StreamBatch.valid`).
Resizing takes no part of it into its neighbours: a resized pixel is the mean of the measured ones under it, and counts
as measured where at least half of its weight fell on those.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gfm_pipeline.data.augment import choose_crop, crop_draws
from gfm_pipeline.data.batch import StreamBatch
from gfm_pipeline.data.buffers import BufferPool
from gfm_pipeline.data.config import DataConfig
from gfm_pipeline.data.frames import NO_DAY, bounds_of, days_of, draw_frames
from gfm_pipeline.data.masking import draw_mask, mask_grid
from gfm_pipeline.data.mixture import Mixture, Stream
from gfm_pipeline.data.plan import Pick
from gfm_pipeline.data.reader import SamplePixels
from gfm_pipeline.data.resize import resize_into, resize_missing
from gfm_pipeline.data.scratch import Scratch
from gfm_pipeline.data.seeding import stable_id
from gfm_pipeline.data.stages import Stopwatch
from gfm_pipeline.errors import ShardError
from gfm_pipeline.sensors.bands import match_bands
from gfm_pipeline.sensors.missing import unmeasured
from gfm_pipeline.shards.codec import Raster

_CROP = stable_id("crop")
_MOST_MISSING = 0.5 + 1e-6
"""Share of a resized pixel's weight that missing ones may have: a half, but for the rounding of weights."""


@dataclass(frozen=True)
class Rows:
    """Where the samples of one sub-batch go: the tensors of a StreamBatch while they are being filled."""

    images: dict[str, torch.Tensor]
    masks: dict[str, torch.Tensor]
    times: dict[str, torch.Tensor]
    days: dict[str, torch.Tensor]
    bounds: torch.Tensor | None
    take: Callable[[tuple[int, ...], type], torch.Tensor]
    """Gives memory for `valid`, which most sub-batches do without."""
    skipped: list[int] = field(default_factory=list)
    valid: dict[str, torch.Tensor] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)
    """Threads fill different rows; the first that finds a pixel missing makes the sensor's entry in `valid`."""
    pixels: dict[str, NDArray[Any]] = field(init=False)
    """The memory of `images`."""
    hidden: dict[str, NDArray[np.bool_]] = field(init=False)
    """The memory of `masks`."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "pixels", {sensor: image.numpy() for sensor, image in self.images.items()})
        object.__setattr__(self, "hidden", {sensor: mask.numpy() for sensor, mask in self.masks.items()})

    def blank(self, row: int) -> None:
        """Fill row `row` with the mean of every band and hide nothing: it has no sample and counts in no loss."""
        for tensor in (*self.images.values(), *self.masks.values(), *self.times.values()):
            tensor[row] = 0
        for days in self.days.values():
            days[row] = NO_DAY
        if self.bounds is not None:
            self.bounds[row] = torch.nan
        self.skipped.append(row)

    def validity(self, sensor: str) -> NDArray[np.bool_]:
        """Return the memory of the sensor's entry in `valid`, in which every pixel begins as measured."""
        with self.lock:
            if sensor not in self.valid:
                self.valid[sensor] = self.take(tuple(self.images[sensor].shape), np.bool_).fill_(True)
            return self.valid[sensor].numpy()

    def finished(self, keys: Sequence[str], picks: Sequence[Pick]) -> StreamBatch:
        """Return the filled sub-batch."""
        passes = tuple(pick.window.pass_index for pick in picks)
        skipped = tuple(sorted(self.skipped))
        for sensor, valid in self.valid.items():
            valid[list(skipped)] = False
            if sensor in self.times:
                valid[~self.times[sensor]] = False
        return StreamBatch(
            self.images,
            self.masks,
            tuple(keys),
            passes,
            skipped,
            {sensor: self.valid[sensor] for sensor in self.images if sensor in self.valid},
            times=self.times,
            days=self.days,
            bounds=self.bounds,
        )


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
        self._time = {sensor: config.time[sensor] for sensor in stream.sensors if sensor in config.time}
        self._carry = config.carry
        self._frames_name = {sensor: stable_id(f"frames/{sensor}") for sensor in stream.sensors}
        self._mask_name = {sensor: stable_id(f"mask/{sensor}") for sensor in stream.sensors}
        self._specs = {sensor: mixture.sensors[sensor] for sensor in stream.sensors}
        self._statistics = {sensor: mixture.normalisation[sensor].columns() for sensor in stream.sensors}
        self._buffers = buffers or BufferPool()
        self._scratch = Scratch()

    def new_rows(self) -> Rows:
        """Return tensors for one sub-batch; their content is undefined until every row is filled."""
        count, px, side, take = self._stream.samples_per_step, self._image_px, self._side, self._buffers.take
        dtypes = {sensor: np.dtype(s.dtype if self._stored else np.float32) for sensor, s in self._specs.items()}
        frames = {sensor: self._time[sensor].frames if sensor in self._time else 1 for sensor in self._specs}
        images = {}
        for sensor, spec in self._specs.items():
            dates = (frames[sensor],) if frames[sensor] > 1 else ()
            images[sensor] = take((count, *dates, len(spec.bands), px, px), dtypes[sensor])
        dated = frames if "dates" in self._carry else {}
        return Rows(
            images=images,
            masks={sensor: take((count, side, side), np.bool_) for sensor in self._specs},
            times={sensor: take((count, number), np.bool_) for sensor, number in frames.items() if number > 1},
            days={sensor: take((count, number), np.int64) for sensor, number in dated.items()},
            bounds=take((count, 4), np.float64) if "footprint" in self._carry else None,
            take=take,
        )

    def draw(self, rows: Rows, row: int, pick: Pick) -> NDArray[np.float64]:
        """Hide cells of row `row`, and return the random numbers that `fill` needs: all that no pixel is needed for.

        Drawing for several samples at once takes a third less time than between their pixels, which leave nothing of
        the code in the processor's cache.
        """
        name = self._sample_name(pick)
        for sensor, hidden in rows.hidden.items():
            hidden[row] = draw_mask(self._side, self._hidden, *name, self._mask_name[sensor])
        return crop_draws(*name, _CROP)

    def fill(
        self, rows: Rows, row: int, pick: Pick, sample: SamplePixels, draws: NDArray[np.float64], watch: Stopwatch
    ) -> None:
        """Write `sample`, which is `pick`, to row `row`; raise ShardError when its record contradicts its rasters."""
        name = self._sample_name(pick)
        sizes = [raster.shape[-2:] for raster in sample.rasters.values()]
        crop = choose_crop(self._augment, sizes, self._image_px, draws)
        for sensor, raster in sample.rasters.items():
            series = raster if raster.ndim == 4 else raster[None]  # [T,C,H,W]
            frames = self._draw_frames(sensor, len(series), *name)
            out = rows.pixels[sensor][row] if sensor in rows.times else rows.pixels[sensor][row, None]
            down, across = crop.box(*series.shape[-2:])
            spec, positions = sample.specs[sensor], self._positions(sensor, sample.specs[sensor].bands)
            for place, frame in enumerate(frames):
                part = series[frame][:, down, across]
                part = part if positions is None else part[positions]
                gaps = self._write(sensor, part, spec.nodata, crop.flip, out[place], watch)
                if gaps is not None:
                    valid = rows.validity(sensor)[row]
                    np.logical_not(gaps, out=valid[place] if sensor in rows.times else valid)
            out[len(frames) :] = 0
            if sensor in rows.times:
                rows.times[sensor].numpy()[row] = np.arange(len(out)) < len(frames)
            if sensor in rows.days:
                days = rows.days[sensor].numpy()[row]
                days[...] = NO_DAY
                days[: len(frames)] = _days(sample, sensor, len(series), frames)
        if rows.bounds is not None:
            assert sample.record is not None
            rows.bounds.numpy()[row] = bounds_of(sample.record.footprint)

    def _sample_name(self, pick: Pick) -> tuple[int, ...]:
        return *self._name, pick.window.pass_index, pick.number

    def _draw_frames(self, sensor: str, available: int, *name: int) -> NDArray[np.int64]:
        if sensor not in self._time:
            return np.zeros(1, dtype=np.int64)  # the reader has refused several
        return draw_frames(self._time[sensor], available, *name, self._frames_name[sensor])

    def _positions(self, sensor: str, stored: tuple[str, ...]) -> list[int] | None:
        """Return which of the stored bands to take, in order; None for all of them as they are."""
        wanted = self._specs[sensor].bands
        return None if stored == wanted else list(_matched(stored, wanted))

    def _write(
        self, sensor: str, part: Raster, nodata: float | None, flip: bool, out: NDArray[Any], watch: Stopwatch
    ) -> NDArray[np.bool_] | None:
        """Bring the crop `part` [C,h,w] to `out` [C,px,px]; return where that was not measured, None for nowhere."""
        exact = part.shape[1:] == out.shape[1:]
        missing = unmeasured(part, nodata)
        if self._stored and not exact:
            raise ShardError(
                f"a crop of {sensor} has {part.shape[1]} x {part.shape[2]} pixels, data.image_px is "
                f"{self._image_px}, and data.pixels is stored: nothing can be resized. Set data.augment.kind to "
                "crop and put sensors of other resolutions in other streams, or set data.pixels to normalised."
            )
        if not exact:
            return self._resize(sensor, part, missing, flip, out, watch)
        gaps = missing[:, :, ::-1] if missing is not None and flip else missing
        watch.lap("augment")
        if self._stored:
            out[...] = part[:, :, ::-1] if flip else part
        else:
            mean, std = self._statistics[sensor]  # [C,1,1] each
            np.subtract(part[:, :, ::-1] if flip else part, mean, out=out, dtype=np.float32, casting="unsafe")
            np.divide(out, std, out=out)
            if gaps is not None:
                out[gaps] = 0
        watch.lap("collate")
        return gaps

    def _resize(
        self,
        sensor: str,
        part: Raster,
        missing: NDArray[np.bool_] | None,
        flip: bool,
        out: NDArray[np.float32],
        watch: Stopwatch,
    ) -> NDArray[np.bool_] | None:
        """As `_write`, in another size; of `part` the pixels that are `missing` take no part in any other."""
        mean, std = self._statistics[sensor]
        image = self._scratch.floats("image", part.shape)
        np.copyto(image, part, casting="unsafe")  # before resizing, so that integers are not rounded
        if missing is not None:
            np.copyto(image, mean, where=missing)
        resize_into(out, image, flip, self._scratch)
        watch.lap("augment")
        np.subtract(out, mean, out=out)
        gaps = None
        if missing is not None:
            # What lies on missing pixels is the mean, 0 by now: the rest of the weight is scaled up to all of it.
            share = resize_missing(missing, self._image_px, flip, self._scratch)
            gaps = np.broadcast_to(share > _MOST_MISSING, out.shape)
            np.divide(out, 1 - np.minimum(share, _MOST_MISSING), out=out)
        np.divide(out, std, out=out)
        if gaps is not None:
            out[gaps] = 0
        watch.lap("collate")
        return gaps if gaps is not None and gaps.any() else None


@lru_cache(maxsize=256)
def _matched(stored: tuple[str, ...], wanted: tuple[str, ...]) -> tuple[int, ...]:
    return match_bands(stored, wanted)


def _days(sample: SamplePixels, sensor: str, available: int, frames: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the days of the chosen dates, NO_DAY where the record tells none; a composite has no day of its own."""
    assert sample.record is not None
    dates = sample.record.sensors[sensor].dates
    if sample.rasters[sensor].ndim == 3 and len(dates) > 1:
        dates = ()
    if len(dates) not in (0, available):
        raise ShardError(
            f"sample {sample.key}: its record tells {len(dates)} dates of {sensor}, its raster has {available}. Run "
            "shard-builder verify."
        )
    try:
        return days_of(dates, frames)
    except ValueError as error:
        raise ShardError(f"sample {sample.key}: a date of {sensor} is not ISO 8601: {error}.") from error
