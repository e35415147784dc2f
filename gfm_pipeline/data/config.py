"""What a training mixture is made of: the data section of a training configuration."""

from __future__ import annotations

import math
import re
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from gfm_pipeline.config import StrictModel
from gfm_pipeline.storage import CacheConfig, StorageConfig

_STREAM_NAME = re.compile(r"\w[\w .-]{0,63}")
"""It becomes a part of file names, of metrics' names and of the optimiser's groups."""
_DATE = r"\d{4}(-\d\d(-\d\d)?)?"


class FilterConfig(StrictModel):
    """Which samples of a stream's collections to use, by what their catalogs say. All that is set must hold."""

    region: tuple[float, float, float, float] | str | None = None
    """(west, south, east, north) in degrees, or the path or URL of a GeoJSON file with polygons. Samples whose
    footprint touches it; none without a footprint. A west beyond the east crosses 180 degrees; a polygon that does is
    split there, as RFC 7946 wants it, or drawn beyond it (170 to 190)."""
    since: str | None = Field(default=None, pattern=f"^{_DATE}$")
    """First date, as 2019, 2019-06 or 2019-06-30; samples with any date in the range, none without dates."""
    until: str | None = Field(default=None, pattern=f"^{_DATE}$")
    """Last date; 2019-06 means to the end of June."""
    labels: dict[str, tuple[str, ...]] = {}
    """By label, the values that are wanted, e.g. {"split": ["train"]}; of a list of labels, any."""
    sensors: tuple[str, ...] = ()
    """Sensors that the samples must carry, whether the stream reads them or not."""

    @field_validator("region")
    @classmethod
    def _region_is_on_earth(cls, region: tuple[float, ...] | str | None) -> tuple[float, ...] | str | None:
        if isinstance(region, tuple):
            west, south, east, north = region
            if not (-180 <= west <= 180 and -180 <= east <= 180 and -90 <= south < north <= 90 and west != east):
                raise ValueError(f"{list(region)} is no (west, south, east, north) in degrees")
        return region

    @model_validator(mode="after")
    def _something_is_asked(self) -> FilterConfig:
        if not (self.asks_catalog or self.sensors):
            raise ValueError("an empty filter: set region, since, until, labels or sensors, or leave it out")
        return self

    @property
    def asks_catalog(self) -> bool:
        """Whether anything is asked that the manifest cannot tell."""
        return bool(self.region is not None or self.since or self.until or self.labels)


class StreamConfig(StrictModel):
    """One or more collections as used in training, with a sub-batch and a learning rate of their own."""

    collections: tuple[str, ...] = Field(min_length=1)
    """Folders of collections, relative to `data.root` unless absolute. What they have of a sensor must agree in bands
    and units; the type of the pixels and the nodata value may differ."""
    sensors: tuple[str, ...] | None = None
    """Sensors to use, all others are not read; None takes every image sensor of the collections, no label rasters."""
    bands: dict[str, Annotated[tuple[str, ...], Field(min_length=1)]] = {}
    """By sensor, the bands to read, in the order in which images hold them, e.g. {"s2": ["B2", "B3", "B4", "B8"]}; of a
    sensor that is not here, all of them, in the order of the first collection. Collections may store them in any order
    and spelling (B1, B01), and have more. A sensor is read with the same bands by all streams."""
    filter: FilterConfig | None = None
    """Use only the samples that pass; None: all of them. Another choice is another order of samples."""
    sub_batch: Annotated[int, Field(gt=0)] | None = None
    """Images per lane and optimizer step. An image is one sensor of one sample: 32 images of Sentinel-1/2 pairs are
    16 pairs, as the paper counts them. Must be a multiple of the number of sensors. None: a share of
    `data.batch_images`."""
    lr: float = Field(gt=0)
    """Learning rate of this stream: that of the parameters it owns, and its share in the shared encoder's loss."""


class AugmentConfig(StrictModel):
    """Random crop and flip, the same for all sensors of a sample."""

    kind: Literal["resized_crop", "crop"] = "resized_crop"
    """resized_crop: a crop of random size and shape, resized to `data.image_px`. crop: one of `data.image_px` at a
    random place, whose pixels are kept as they are; `scale` and `ratio` do not apply."""
    scale: tuple[float, float] = (0.67, 1.0)
    """Range of the crop's share of the area."""
    ratio: tuple[float, float] = (0.75, 4 / 3)
    """Range of the crop's aspect ratio."""
    flip: bool = True
    """Mirror left to right for half of the samples."""

    @field_validator("scale", "ratio")
    @classmethod
    def _ranges_are_ordered(cls, bounds: tuple[float, float]) -> tuple[float, float]:
        if not 0 < bounds[0] <= bounds[1] < math.inf:
            raise ValueError(f"{bounds} is no range of positive numbers (low, high)")
        return bounds

    @field_validator("scale")
    @classmethod
    def _scale_is_a_share(cls, scale: tuple[float, float]) -> tuple[float, float]:
        if scale[1] > 1:
            raise ValueError(f"a crop cannot take {scale[1]} of the area, at most 1")
        return scale


class MaskConfig(StrictModel):
    """Which cells of an image the model must reconstruct (SimMIM)."""

    cell_px: int = Field(default=32, gt=0)
    """Side of a square cell in pixels of the training image."""
    ratio: float = Field(default=0.6, gt=0, lt=1)
    """Share of hidden cells: ceil(ratio * number of cells) of them."""


class TimeConfig(StrictModel):
    """How many dates of a sensor's series [T,C,H,W] go into a batch."""

    frames: int = Field(gt=0)
    """Dates of a sample; images are [B,frames,C,H,W], and [B,C,H,W] for one frame. Of a longer series so many are
    drawn anew in each pass, in the order of time."""
    short: Literal["pad", "repeat"] = "pad"
    """A series with fewer dates. pad: blank images at the end, which the batch's `times` tell apart. repeat: dates are
    taken more than once, evenly, so that nothing is blank."""


class BandStatistics(StrictModel):
    """Statistics given by hand, in the order of the bands that are read of the sensor and in its units."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


class DataConfig(StrictModel):
    """Streams, how their samples are ordered and read, and how they become training images."""

    root: str = "."
    """Folder that holds the collections: a local path or the URL of a bucket's folder or of a web server's."""
    storage: StorageConfig = StorageConfig()
    """How remote collections are reached."""
    cache: CacheConfig | None = None
    """A local folder that keeps what was read of remote collections; None keeps nothing."""
    streams: dict[str, StreamConfig] = Field(min_length=1)
    """The mixture by stream name: letters, digits, _ and, but for the first character, - . and spaces."""
    batches: Literal["heterogeneous", "homogeneous"] = "heterogeneous"
    """heterogeneous: every optimizer step takes one sub-batch of each stream. homogeneous: all of a step comes from one
    stream, drawn in proportion to the sizes of the streams; the baseline of the paper's ablation."""
    batch_images: Annotated[int, Field(gt=0)] | None = None
    """Images per lane and optimizer step, for streams without a sub_batch. heterogeneous: of all streams; those with a
    sub_batch keep it and the others share the rest in proportion to their sizes, each at least one sample.
    homogeneous: of the stream that has its turn. `gfm data check` prints what comes out."""
    image_px: int = Field(default=192, gt=0)
    """Side of a training image in pixels."""
    lanes: int = Field(default=8, gt=0)
    """Number of independent sample sequences. One lane fills one forward pass; a world size must divide the lanes.
    The global sub-batch of a stream is lanes * sub_batch, at any world size."""
    chunk_samples: int = Field(default=32, gt=0)
    """Samples in a chunk, the contiguous run of a shard that is fetched with one range read."""
    window_chunks: int = Field(default=16, gt=0)
    """Chunks of a lane among which samples are shuffled; also what a lane keeps in memory per stream."""
    steps_per_epoch: Annotated[int, Field(gt=0)] | Literal["longest", "shortest"] = "longest"
    """Optimizer steps per epoch: a number; what the longest stream needs to be seen once, shorter ones wrap; or what
    the shortest has before one of its samples comes again. The next epoch goes on where each stream stopped. With
    homogeneous batches all streams end together: "longest" is one pass over each, and "shortest" is refused."""
    augment: AugmentConfig = AugmentConfig()
    mask: MaskConfig = MaskConfig()
    time: dict[str, TimeConfig] = {}
    """By sensor that comes as a series of dates, how many of them to take. All dates of a sample have one crop and one
    mask. msGFM takes single images: frames must be 1."""
    carry: tuple[Literal["dates", "footprint"], ...] = ()
    """What else a batch tells of its samples, read from their json members: the days of each image, and where the
    sample lies. Costs the bytes of those members, some hundred per sample."""
    statistics: dict[str, BandStatistics] = {}
    """Per sensor, overrides of the mean and standard deviation measured in the manifests."""
    on_error: Literal["fail", "skip"] = "fail"
    """A sample whose bytes are damaged and stay so. fail: the run ends with its name. skip: its row of the sub-batch is
    blank and counts in no loss, the order of all others stays; it is recorded in skipped-RANK.jsonl and counted in the
    metrics. A store that cannot be reached, or a damaged sidecar, always fails."""
    pixels: Literal["normalised", "stored"] = "normalised"
    """What images hold. normalised: float32, (pixel - mean) / std, 0 where nothing was measured. stored: the sensor's
    own type, units and nodata values, for a program that normalises on its GPU: a quarter to a half of the bytes.
    A batch's `valid` tells what was not measured, whatever the nodata value of a collection. Needs `augment.kind: crop`
    of sensors of one resolution, as nothing can be resized; pretraining refuses it."""
    threads: int = Field(default=2, gt=0)
    """Threads of a rank that check, decode and augment samples."""
    prefetch_steps: int = Field(default=2, gt=0)
    """Steps prepared ahead of the trainer."""
    requests: int = Field(default=16, gt=0)
    """Chunks of remote collections that a rank fetches at a time."""
    buffer_mb: int = Field(default=4096, gt=0)
    """Encoded bytes of remote collections that a rank may hold: the shuffle windows that its lanes have open, and what
    is fetched ahead of them. Local collections are read in place and hold none."""
    map_local: bool = True
    """Read local collections through memory maps, the faster way. false: by reads, whose errors can be named; for
    network file systems that lose connections, where an error of a map ends the process."""

    @field_validator("streams")
    @classmethod
    def _names_can_stand_anywhere(cls, streams: dict[str, StreamConfig]) -> dict[str, StreamConfig]:
        shown: dict[str, str] = {}  # by the name under which TensorBoard and files show a stream
        for name in streams:
            if not _STREAM_NAME.fullmatch(name):
                raise ValueError(
                    f"{name!r} cannot be a stream's name: found {_odd_character(name)}, expected up to 64 letters, "
                    "digits, _ and, but for the first, - . and spaces; e.g. "
                    f"{re.sub(r'[^0-9A-Za-z_]+', '_', name)[:64].strip('_') or 'stream'!r}"
                )
            other = shown.setdefault(name.replace(" ", "_"), name)
            if other != name:
                raise ValueError(f"{other!r} and {name!r} look the same in metrics and file names: rename one of them")
        return streams

    @property
    def least_images(self) -> int:
        """Images of the smallest forward pass, but for what no whole sample fills."""
        told = [stream.sub_batch or self.batch_images or 0 for stream in self.streams.values()]
        return min(told) if self.batches == "homogeneous" else self.batch_images or sum(told)

    @model_validator(mode="after")
    def _sizes_are_told(self) -> DataConfig:
        deriving = [name for name, stream in self.streams.items() if stream.sub_batch is None]
        if deriving and self.batch_images is None:
            raise ValueError(
                f"streams.{deriving[0]}.sub_batch is not set: set it, or data.batch_images to derive it from"
            )
        if self.batch_images is not None and not deriving:
            raise ValueError(
                "batch_images is set and every stream has a sub_batch of its own: leave out one or the other"
            )
        if self.batches == "homogeneous" and self.steps_per_epoch == "shortest":
            raise ValueError("steps_per_epoch cannot be shortest with homogeneous batches: all streams end together")
        return self


def _odd_character(name: str) -> str:
    """Return what keeps `name` from being a stream's."""
    odd = re.search(r"[^\w .-]", name)
    if odd:
        return repr(odd[0])
    return f"{len(name)} characters" if not name or len(name) > 64 else f"{name[0]!r} at its beginning"
