"""Our shards in other people's pipelines: a decoder for webdataset and everything that takes functions over samples.

    import webdataset
    from gfm_pipeline.shards.interop import decode_sample

    for sample in webdataset.WebDataset(urls).map(decode_sample):
        sample["s2"], sample["json"]["labels"]

Members of type npy, tif and jpg need no code of ours; the json member tells dtype and shape of blosc2 and the layout
of jxl. This module imports neither webdataset nor torch.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from gfm_pipeline.errors import ShardError, nearest
from gfm_pipeline.shards.codec import CODECS, decode
from gfm_pipeline.shards.sample import parse_record


def decode_sample(sample: Mapping[str, Any], sensors: Collection[str] | None = None) -> dict[str, Any]:
    """Return a webdataset sample with an array [C,H,W] or [T,C,H,W] under the name of each sensor.

    `sensors` are those to decode, None means all that the sample has. "json" becomes its record as a dictionary; other
    entries ("__key__", "__url__") stay. Quantised sensors are restored to float32, NaN where nothing was measured.
    Raises ShardError for bytes that are not what the record says.
    """
    if "json" not in sample:
        raise ShardError(f"sample {sample.get('__key__')} has no json member: it is not from a shard of ours.")
    record = parse_record(sample["json"], f"the json member of sample {sample.get('__key__')}")
    decoded = {name: value for name, value in sample.items() if name.rpartition(".")[2] not in CODECS}
    decoded["json"] = json.loads(sample["json"])
    for sensor in record.sensors if sensors is None else sensors:
        if sensor not in record.sensors:
            raise ShardError(f"sample {record.key} has no sensor '{sensor}'. {nearest(sensor, record.sensors)}")
        about = record.sensors[sensor]
        name = f"{sensor}.{about.codec}"
        if name not in sample:
            raise ShardError(f"sample {record.key} has no member {name}, its record promises one.")
        raster = decode(sample[name], about.codec, about.dtype, about.shape)
        if about.step is not None:
            values = (raster.astype(np.float64) * about.step).astype(np.float32)
            values[raster == np.iinfo(np.int16).min] = np.nan
            raster = values
        decoded[sensor] = raster
    return decoded
