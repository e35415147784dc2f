"""Checkpoints in an object store: written by parts, found, brought to this machine and checked."""

from pathlib import Path
from typing import Any

import pytest
import torch

from gfm_pipeline.errors import CheckpointError
from gfm_pipeline.storage import open_store
from gfm_pipeline.train import load, save
from gfm_pipeline.train.checkpoint import CheckpointState
from gfm_pipeline.train.comm import World
from gfm_pipeline.train.load import latest_name, load_checkpoint
from gfm_pipeline.train.save import Saver


class Alone(World):
    def gather(self, value: Any) -> list[Any]:
        return [value]

    def barrier(self) -> None:
        pass


WORLD = Alone(0, 1, torch.device("cpu"))


def state(step: int) -> CheckpointState:
    return CheckpointState(step=step, updates=step, loader={}, config={}, sensors={}, normalisation={}, manifests={})


def test_a_checkpoint_in_an_object_store_comes_back_or_is_refused(
    tmp_path: Path, s3: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    share = {"param/a": torch.arange(1000.0)}
    monkeypatch.setattr(save, "collect_share", lambda engine, model, world: share)
    store = open_store("s3://bucket/survival/run")
    assert latest_name(store) is None
    saver = Saver(store, tmp_path / "scratch", WORLD, keep=2, background=False)
    for step in (4, 8, 12):
        saver.save(None, None, state(step))  # type: ignore[arg-type]
    assert latest_name(store) == "step-00000012"
    assert [name for name, is_folder in store.names() if is_folder] == ["step-00000008", "step-00000012"]
    seen: dict[str, torch.Tensor] = {}

    def set_all(folder: Path, found: CheckpointState, engine: Any, model: Any) -> None:
        seen["param/a"] = load.StoredTensors(folder, list(found.files)).read("param/a", share["param/a"]).clone()

    monkeypatch.setattr(load, "_set", set_all)
    arguments = (tmp_path / "scratch", (None, None), WORLD, lambda found: None)
    loaded = load_checkpoint(store, "step-00000012", *arguments)  # type: ignore[arg-type]
    assert loaded.step == 12
    assert torch.equal(seen["param/a"], share["param/a"])
    assert not list((tmp_path / "scratch").rglob("*.safetensors"))
    store.put("step-00000012/part-00000-of-00001.safetensors", b"damaged")
    with pytest.raises(CheckpointError, match=r"part-00000-of-00001\.safetensors is damaged"):
        load_checkpoint(store, "step-00000012", *arguments)  # type: ignore[arg-type]
