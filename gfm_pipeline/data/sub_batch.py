"""How many samples of each stream a lane takes in a step: as configured, or a share of the lane's images.

A sample of k sensors is k images, so a stream's images are its samples times its sensors. Shares are in proportion to
images: streams whose sub-batches were derived go through their samples in the same number of steps, but for rounding.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from gfm_pipeline.data.config import DataConfig
from gfm_pipeline.errors import ConfigError


class StreamSize(NamedTuple):
    """What the share of a stream depends on."""

    samples: int
    sensors: tuple[str, ...]


def samples_per_step(config: DataConfig, sizes: Mapping[str, StreamSize]) -> dict[str, int]:
    """Return the samples per lane and step of each stream.

    Raises ConfigError for a sub-batch that its sensors do not divide, and for a total too small for a sample of each.
    """
    told = {
        name: _told(f"data.streams.{name}", stream.sub_batch, sizes[name].sensors)
        for name, stream in config.streams.items()
        if stream.sub_batch is not None
    }
    open_sizes = {name: size for name, size in sizes.items() if name not in told}
    if not open_sizes:
        return told
    assert config.batch_images is not None
    if config.batches == "homogeneous":
        shares = {name: _whole(name, config.batch_images, size.sensors) for name, size in open_sizes.items()}
    else:
        taken = sum(count * len(sizes[name].sensors) for name, count in told.items())
        shares = _share_out(config.batch_images, taken, open_sizes)
    return {name: told[name] if name in told else shares[name] for name in sizes}


def _told(where: str, sub_batch: int, sensors: tuple[str, ...]) -> int:
    if sub_batch % len(sensors):
        raise ConfigError(
            f"{where}.sub_batch is {sub_batch} images, expected a multiple of its {len(sensors)} sensors "
            f"({', '.join(sensors)}): a sample is one image of each."
        )
    return sub_batch // len(sensors)


def _whole(name: str, images: int, sensors: tuple[str, ...]) -> int:
    if images < len(sensors):
        raise ConfigError(
            f"data.batch_images is {images}, a sample of stream {name} has {len(sensors)} images "
            f"({', '.join(sensors)}). Set it to at least {len(sensors)}."
        )
    return images // len(sensors)


def _share_out(total: int, taken: int, sizes: Mapping[str, StreamSize]) -> dict[str, int]:
    """Share `total` - `taken` images: one sample each, then always one more for who would be seen least with it."""
    images = {name: len(size.sensors) for name, size in sizes.items()}  # of one sample
    spare = total - taken - sum(images.values())
    if spare < 0:
        raise ConfigError(
            f"data.batch_images is {total}, too few for one sample of each stream: {', '.join(sizes)} need "
            f"{sum(images.values())} images beside the {taken} of streams with a sub_batch. Set it to at least "
            f"{taken + sum(images.values())}."
        )
    shares = dict.fromkeys(sizes, 1)
    while fitting := [name for name in shares if images[name] <= spare]:
        least = min(fitting, key=lambda name: (shares[name] + 1) / sizes[name].samples)
        shares[least] += 1
        spare -= images[least]
    return shares
