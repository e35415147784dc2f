"""Saving: who writes what, and that a save which dies at any point leaves the checkpoint before it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gfm_pipeline.errors import CheckpointError, StorageError
from gfm_pipeline.storage import LocalStore, open_store
from gfm_pipeline.train import save
from gfm_pipeline.train.checkpoint import FOLDER, CheckpointState, read_state, verify_files
from gfm_pipeline.train.comm import World
from gfm_pipeline.train.load import latest_name
from gfm_pipeline.train.save import Saver, assign_writers


class Alone(World):
    """A world of one without a process group."""

    def gather(self, value: Any) -> list[Any]:
        return [value]

    def barrier(self) -> None:
        pass

    def with_own_group(self) -> World:
        return self


class Killed(BaseException):
    """The process ends here."""


class Fragile(LocalStore):
    """A store whose `fatal`-th change is the last thing that a process does, before or after it happens."""

    def __init__(self, root: Path, fatal: int | None = None, before: bool = True) -> None:
        super().__init__(root)
        self._left = fatal
        self._before = before

    def _change(self, action: Callable[[], None]) -> None:
        last = self._left == 0
        if self._left is not None:
            self._left -= 1
        if last and self._before:
            raise Killed
        action()
        if last:
            raise Killed

    def put(self, path: str, data: bytes) -> None:
        self._change(lambda: super(Fragile, self).put(path, data))

    def put_file(self, path: str, source: Path) -> None:
        self._change(lambda: super(Fragile, self).put_file(path, source))

    def delete(self, path: str) -> None:
        self._change(lambda: super(Fragile, self).delete(path))


class Full(LocalStore):
    """A store without room."""

    def put_file(self, path: str, source: Path) -> None:
        raise StorageError(f"cannot write {self.root / path}: No space left on device.")


def state(step: int) -> CheckpointState:
    return CheckpointState(step=step, updates=step, loader={}, config={}, sensors={}, normalisation={}, manifests={})


@pytest.fixture
def share(monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    """What the one rank writes; tests change it."""
    tensors = {"param/a": torch.zeros(3)}
    monkeypatch.setattr(save, "collect_share", lambda engine, model, world: {k: v.clone() for k, v in tensors.items()})
    return tensors


def saver(store: LocalStore, tmp_path: Path, keep: int = 1, background: bool = False) -> Saver:
    return Saver(store, tmp_path / "scratch", Alone(0, 1, torch.device("cpu")), keep, background)


def assert_intact(run_dir: Path, steps: tuple[int, ...]) -> None:
    name = latest_name(open_store(str(run_dir / FOLDER)))
    assert name is not None
    folder = run_dir / FOLDER / name
    found = read_state(folder)
    verify_files(folder, found, list(found.files))
    assert found.step in steps


@pytest.mark.parametrize("before", [True, False])
def test_killed_anywhere_in_a_save_the_run_has_a_whole_checkpoint(
    before: bool, share: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    kills = 0
    for fatal in range(100):
        root = tmp_path / f"{fatal}" / "checkpoints"
        saver(LocalStore(root), tmp_path).save(None, None, state(4))  # type: ignore[arg-type]
        share["param/a"] += 1
        try:
            saver(Fragile(root, fatal, before), tmp_path).save(None, None, state(8))  # type: ignore[arg-type]
        except Killed:
            kills += 1
            assert_intact(root.parent, (4, 8))
            saver(LocalStore(root), tmp_path).save(None, None, state(8))  # type: ignore[arg-type]
        assert_intact(root.parent, (8,))
        assert [path.name for path in sorted(root.iterdir())] == ["latest", "step-00000008"]
        if kills == fatal:
            break
    assert kills >= 5  # part, state.json, latest, and the removal of the old checkpoint


def test_a_repeated_save_leaves_nothing_of_the_attempt_before(share: dict[str, torch.Tensor], tmp_path: Path) -> None:
    root = tmp_path / "checkpoints"
    (root / "step-00000004").mkdir(parents=True)
    (root / "step-00000004" / "part-00003-of-00004.safetensors").write_bytes(b"of four ranks")
    (root / ".tmp-step-00000004-part").write_bytes(b"unfinished")
    saver(LocalStore(root), tmp_path).save(None, None, state(4))  # type: ignore[arg-type]
    assert_intact(tmp_path, (4,))
    assert [path.name for path in sorted(root.rglob("*")) if path.is_file()] == [
        "latest",
        "part-00000-of-00001.safetensors",
        "state.json",
    ]


def test_what_fails_in_the_background_is_raised_by_the_next_save(
    share: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    with saver(Full(tmp_path / "checkpoints"), tmp_path, background=True) as writer:
        writer.save(None, None, state(4))  # type: ignore[arg-type]
        with pytest.raises(CheckpointError, match=r"rank 0 could not write the checkpoint step-00000004: .*No space"):
            writer.save(None, None, state(8))  # type: ignore[arg-type]
    assert latest_name(LocalStore(tmp_path / "checkpoints")) is None


def test_a_background_save_keeps_what_was_there_when_it_was_asked_for(
    share: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    with saver(LocalStore(tmp_path / "checkpoints"), tmp_path, keep=2, background=True) as writer:
        for step in (4, 8, 12):
            writer.save(None, None, state(step))  # type: ignore[arg-type]
        writer.wait()
    assert sorted(path.name for path in (tmp_path / "checkpoints").glob("step-*")) == ["step-00000008", "step-00000012"]
    assert_intact(tmp_path, (12,))


def test_latest_that_names_nothing_is_refused(tmp_path: Path) -> None:
    for text in ("step-00000009", "../elsewhere", ""):
        (tmp_path / "latest").write_text(text)
        with pytest.raises(CheckpointError, match=r"holds no state\.json"):
            latest_name(LocalStore(tmp_path))


@given(
    dense=st.lists(st.integers(1, 1000), max_size=30),
    experts=st.lists(st.integers(1, 1000), max_size=10),
    ep_size=st.sampled_from([1, 2, 4]),
)
def test_all_ranks_agree_on_the_writers_and_share_the_work(dense: list[int], experts: list[int], ep_size: int) -> None:
    world = 4
    plans = []
    for rank in range(world):
        group = [other for other in range(world) if other % ep_size == rank % ep_size]
        holders = [(size, list(range(world))) for size in dense] + [(size, group) for size in experts]
        plans.append(assign_writers(holders))
        assert all(writer in ranks for writer, (_, ranks) in zip(plans[-1], holders, strict=True))
    assert all(plan[: len(dense)] == plans[0][: len(dense)] for plan in plans)
    for rank in range(world):
        peers = [other for other in range(world) if other % ep_size == rank % ep_size]
        assert all(plans[peer] == plans[rank] for peer in peers)
    load = [sum(size for size, writer in zip(dense, plans[0], strict=False) if writer == rank) for rank in range(world)]
    assert max(load) - min(load) <= max(dense, default=0)
