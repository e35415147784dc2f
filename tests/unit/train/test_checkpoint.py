"""The canonical checkpoint without a process group: pointers, versions, strict loading."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from gfm_pipeline.errors import CheckpointError
from gfm_pipeline.models.config import EncoderConfig, ModelConfig, MoEConfig
from gfm_pipeline.models.msgfm import MsGFM
from gfm_pipeline.sensors import BUILTIN_SENSORS
from gfm_pipeline.storage import open_store
from gfm_pipeline.train.checkpoint import (
    CheckpointState,
    StoredFile,
    load_weights,
    named_parameters,
    read_state,
    sha256_of,
)
from gfm_pipeline.train.load import latest_name

SENSORS = {"rgb": BUILTIN_SENSORS["rgb"]}


def model(seed: int) -> MsGFM:
    config = ModelConfig(
        encoder=EncoderConfig(embed_dim=16, depths=(1, 1), num_heads=(2, 2), window=4),
        moe=MoEConfig(num_experts=2, blocks={2: (0,)}),
    )
    return MsGFM(config, SENSORS, 16, seed)


def write(folder: Path, tensors: dict[str, torch.Tensor], version: int = 2) -> None:
    folder.mkdir(parents=True)
    path = folder / "dense.safetensors"
    save_file({f"param/{name}": value.detach().clone() for name, value in tensors.items()}, path)
    state = CheckpointState(
        step=3,
        loader={},
        config={},
        sensors=SENSORS,
        normalisation={},
        manifests={},
        files={path.name: StoredFile(bytes=path.stat().st_size, sha256=sha256_of(path))},
    )
    tree = state.model_dump(mode="json") | {"version": version}
    (folder / "state.json").write_text(json.dumps(tree))


def test_weights_load_strictly(tmp_path: Path) -> None:
    stored, fresh = model(0), model(1)
    write(tmp_path / "good", dict(named_parameters(stored)))
    assert load_weights(tmp_path / "good", fresh).step == 3
    for (name, ours), (_, theirs) in zip(fresh.named_parameters(), stored.named_parameters(), strict=True):
        assert torch.equal(ours, theirs), name


@pytest.mark.parametrize("change", ["missing", "unexpected", "shape"])
def test_another_models_weights_are_refused(change: str, tmp_path: Path) -> None:
    tensors: dict[str, torch.Tensor] = dict(named_parameters(model(0)))
    if change == "missing":
        del tensors["mask_token_D"]
    elif change == "unexpected":
        tensors["extra"] = torch.zeros(1)
    else:
        tensors["mask_token_D"] = torch.zeros(3)
    write(tmp_path / "bad", tensors)
    with pytest.raises(CheckpointError, match=r"mask_token_D|extra"):
        load_weights(tmp_path / "bad", model(0))


def test_version_1_is_read(tmp_path: Path) -> None:
    write(tmp_path / "old", dict(named_parameters(model(0))), version=1)
    state = load_weights(tmp_path / "old", model(1))
    assert (state.version, state.updates) == (1, None)


def test_a_part_lies_in_the_folder_of_its_checkpoint(tmp_path: Path) -> None:
    write(tmp_path / "odd", dict(named_parameters(model(0))))
    path = tmp_path / "odd" / "state.json"
    path.write_text(path.read_text().replace('"dense.safetensors"', '"../dense.safetensors"'))
    with pytest.raises(CheckpointError, match="files"):
        read_state(tmp_path / "odd")


def test_a_newer_version_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "new", dict(named_parameters(model(0))), version=3)
    with pytest.raises(CheckpointError, match="has version 3, this program reads versions 1 to 2"):
        read_state(tmp_path / "new")


def test_latest_must_name_a_checkpoint(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    assert latest_name(store) is None
    (tmp_path / "latest").write_text("step-00000009\n")
    with pytest.raises(CheckpointError, match="step-00000009"):
        latest_name(store)
