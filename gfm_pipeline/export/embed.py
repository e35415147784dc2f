"""Embeddings of a collection, one row per sample, written to Parquet as they come.

The training loader reads the collection, with all its checks; the whole image of every sensor goes through the encoder
and is averaged over its places. Rows carry the key, which is that of the collection's catalog: footprints, dates and
labels are a join away. The file appears when it is complete.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from gfm_pipeline.data.agree import same_units
from gfm_pipeline.data.batch import StreamBatch
from gfm_pipeline.data.config import AugmentConfig, BandStatistics, DataConfig, MaskConfig, StreamConfig
from gfm_pipeline.data.loader import Loader
from gfm_pipeline.data.mixture import Mixture, open_mixture
from gfm_pipeline.errors import ConfigError, GfmError, UsageError, nearest
from gfm_pipeline.export.extractor import SensorEncoder
from gfm_pipeline.export.pretrained import load_encoder, read_config

FORMAT = "gfm-embeddings"
VERSION = 1
_STREAM = "collection"
_WHOLE_IMAGE = AugmentConfig(scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=False)


def embed_collection(
    folder: Path, collection: str, out: Path, sensors: tuple[str, ...] = (), batch_samples: int = 64, threads: int = 2
) -> int:
    """Write the embeddings of a collection by the exported model in `folder`; return the number of samples.

    Columns: `key` and, for each sensor, a list of D numbers (float32). `sensors` are those of the model that the
    collection has, when empty. Raises UsageError when `out` exists and ConfigError for sensors that do not fit.
    """
    if out.exists():
        raise UsageError(f"{out} exists already; give another file, or remove it.")
    config = read_config(folder)
    data = _data_config(config, collection, sensors, batch_samples, threads)
    mixture = open_mixture(data)
    chosen = mixture.streams[_STREAM].sensors
    _check_units(config, mixture, collection)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    encoder = load_encoder(folder, chosen).to(device)
    temporary = out.with_name(f".tmp-{out.name}-{os.getpid()}")
    out.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    try:
        with pq.ParquetWriter(temporary, _schema(encoder, collection, folder), compression="zstd") as writer:
            for batch in _batches(mixture, data):
                rows = [row for row, again in enumerate(batch.passes) if not again]
                writer.write_batch(_rows(encoder, batch, rows, writer.schema, device))
                count += len(rows)
        expected = mixture.streams[_STREAM].num_samples
        if count != expected:
            raise GfmError(
                f"{count} of the {expected} samples of {collection} were embedded; the file was not written."
            )
        temporary.replace(out)
    finally:
        temporary.unlink(missing_ok=True)
    return count


def _data_config(
    config: dict[str, object], collection: str, sensors: tuple[str, ...], batch_samples: int, threads: int
) -> DataConfig:
    known: dict[str, dict[str, list[float]]] = config["normalisation"]  # type: ignore[assignment]
    image_px: int = config["image_px"]  # type: ignore[assignment]
    specs: dict[str, dict[str, list[str]]] = config["sensors"]  # type: ignore[assignment]
    wanted = sensors or _common_sensors(collection, known)
    for sensor in wanted:
        if sensor not in known:
            raise ConfigError(f"the model knows no sensor '{sensor}'. {nearest(sensor, known)}")
    statistics = {
        name: BandStatistics(mean=tuple(known[name]["mean"]), std=tuple(known[name]["std"])) for name in wanted
    }
    return DataConfig(
        streams={
            _STREAM: StreamConfig(
                collections=(str(Path(collection).resolve()) if "://" not in collection else collection,),
                sensors=tuple(wanted),
                bands={name: tuple(specs[name]["bands"]) for name in wanted},
                sub_batch=batch_samples * len(wanted),
                lr=1.0,
            )
        },
        image_px=image_px,
        lanes=1,
        augment=_WHOLE_IMAGE,
        mask=MaskConfig(cell_px=image_px // 2, ratio=0.5),
        statistics=statistics,
        threads=threads,
    )


def _common_sensors(collection: str, known: dict[str, dict[str, list[float]]]) -> tuple[str, ...]:
    from gfm_pipeline.shards.manifest import load_manifest
    from gfm_pipeline.storage import open_store

    carried = load_manifest(open_store(collection)).sensors
    common = tuple(sensor for sensor in known if sensor in carried)
    if not common:
        raise ConfigError(
            f"{collection} has the sensors {', '.join(carried)}, the model knows {', '.join(known)}: none in common."
        )
    return common


def _check_units(config: dict[str, object], mixture: Mixture, collection: str) -> None:
    specs: dict[str, dict[str, str]] = config["sensors"]  # type: ignore[assignment]
    for name, spec in mixture.sensors.items():
        if not same_units(spec.units, specs[name]["units"]):
            raise ConfigError(
                f"sensor {name} is in {spec.units} in {collection}, the model was trained on it in "
                f"{specs[name]['units']}. Build the collection with the same units."
            )


def _schema(encoder: SensorEncoder, collection: str, folder: Path) -> pa.Schema:
    fields = [pa.field("key", pa.string())]
    fields += [pa.field(sensor, pa.list_(pa.float32(), encoder.num_features)) for sensor in encoder.sensors]
    about = {"format": FORMAT, "version": str(VERSION), "collection": collection, "model": folder.name}
    return pa.schema(fields, metadata=about)


def _batches(mixture: Mixture, data: DataConfig) -> Iterator[StreamBatch]:
    stream = mixture.streams[_STREAM]
    steps = -(-stream.num_samples // stream.samples_per_step)
    with Loader(mixture, data, seed=0, rank=0, world=1) as loader:
        for _ in range(steps):
            (lane,) = next(loader)
            yield lane.streams[_STREAM]


@torch.inference_mode()
def _rows(
    encoder: SensorEncoder, batch: StreamBatch, rows: list[int], schema: pa.Schema, device: torch.device
) -> pa.RecordBatch:
    columns: list[pa.Array] = [pa.array([batch.keys[row] for row in rows])]
    for sensor in encoder.sensors:
        features_BijD = encoder.forward_features(batch.images[sensor].to(device), sensor, normalise=False)
        values: NDArray[np.float32] = encoder.forward_head(features_BijD)[rows].float().cpu().numpy()
        columns.append(pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), encoder.num_features))
    return pa.record_batch(columns, schema=schema)
