"""Held-out collections are read as the model was trained, by the names of bands, whatever they store."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from gfm_pipeline.data.config import DataConfig, MaskConfig, StreamConfig
from gfm_pipeline.data.mixture import Mixture, open_mixture
from gfm_pipeline.errors import ConfigError
from gfm_pipeline.evaluate.config import SamplesConfig
from gfm_pipeline.evaluate.samples import HeldOut, first_batch, open_held_out
from gfm_pipeline.sensors import SensorSpec
from tests.make_collection import make_collection

TRAINED = SensorSpec(name="s2", bands=("B1", "B2", "B8A"), dtype="uint16", units="reflectance x 1e4", nodata=0)
HELD = SensorSpec(name="s2", bands=("B08A", "B03", "B02", "B01"), dtype="float32", units="Reflectance x 1e4")
SIDE = 8


def data(root: Path) -> tuple[DataConfig, Mixture]:
    rng = np.random.default_rng(0)
    images = [(f"t{i}", {"s2": rng.integers(1, 9000, (3, SIDE, SIDE)).astype(np.uint16)}) for i in range(4)]
    make_collection(root / "train", images, [TRAINED])
    stream = StreamConfig(collections=("train",), sub_batch=2, lr=1.0)
    config = DataConfig(root=str(root), lanes=1, image_px=SIDE, mask=MaskConfig(cell_px=4), streams={"a": stream})
    return config, open_mixture(config)


def held_out(root: Path, spec: SensorSpec) -> HeldOut:
    planes = np.stack([np.full((SIDE, SIDE), 100.0 * (1 + band)) for band in range(len(spec.bands))])
    planes[:, :2] = np.nan if spec.nodata is None else spec.nodata
    make_collection(root / "val", [(f"v{i}", {"s2": (planes + i).astype(spec.dtype)}) for i in range(4)], [spec])
    config, training = data(root)
    wanted = SamplesConfig(collections=("val",), sensors=("s2",))
    return open_held_out("evaluate.reconstruct.val", wanted, config, training, 4, None)


def test_bands_are_found_by_name_and_gaps_are_known(tmp_path: Path) -> None:
    opened = held_out(tmp_path, HELD)
    batch = first_batch(opened)
    mean, std = (torch.from_numpy(column) for column in opened.mixture.normalisation["s2"].columns())
    for row, key in enumerate(batch.keys):
        pixel = (batch.images["s2"][row] * std + mean)[:, -1, -1]
        assert pixel.tolist() == pytest.approx([part + int(key[1:]) for part in (400, 300, 100)], abs=0.05)
    assert not batch.valid["s2"][:, :, :2].any()
    assert batch.valid["s2"][:, :, 2:].all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bands": ("B2", "B8A")}, r"^evaluate.reconstruct.val: .*collection val: found B2, B8A; B1 is not among them"),
        (
            {"units": "dB"},
            r"^evaluate.reconstruct.val: sensor s2 is in dB, the model trains on it in reflectance x 1e4",
        ),
    ],
)
def test_what_the_model_was_not_trained_on_is_refused(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        held_out(tmp_path, HELD.model_copy(update=changes))
