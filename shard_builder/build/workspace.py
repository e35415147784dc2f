"""Where a build reads and writes: its input, its output, and a work folder that is gone when it ends."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gfm_pipeline.errors import ConfigError, StorageError, UsageError
from gfm_pipeline.shards import CATALOG_PATH, FAILURES_PATH, MANIFEST_PATH, SHARDS_PREFIX
from gfm_pipeline.shards.manifest import sidecar_path, tar_path
from gfm_pipeline.storage import LocalStore, Store, open_store
from gfm_pipeline.storage.local import TEMPORARY_PREFIX
from shard_builder.archives import ArchiveReader, kind_of
from shard_builder.config import BuildConfig

WORK = ".build"
_SHARD_FILE = re.compile(r"([a-z0-9][a-z0-9_-]{0,31})-\d{6,}\.(tar|json)")


def open_input(config: BuildConfig) -> tuple[Store, str | None]:
    """Return the store of the input folder, and the name of the one archive when that is what was given.

    Raises UsageError for a local input that is not there.
    """
    where = config.input.rstrip("/")
    if "://" in where:
        parent, _, name = where.rpartition("/")
        if kind_of(name):
            return open_store(parent, config.storage), name
        return open_store(where, config.storage), None
    path = Path(config.input)
    if not path.exists():
        raise UsageError(f"input {path} does not exist. Set input to the folder of the archives, or to one archive.")
    return (LocalStore(path), None) if path.is_dir() else (LocalStore(path.parent), path.name)


def open_reader(config: BuildConfig, output: Store, scratch: Path) -> ArchiveReader:
    """Return a reader of the input's archives."""
    return ArchiveReader(open_input(config)[0], output, scratch, config.limits, config.trusted)


@contextmanager
def scratch_folder(output: Store) -> Iterator[Path]:
    """Give a local folder for what this process makes on its way, on the disk of a local output; remove it after."""
    local = output.local_path(WORK)
    try:
        if local is not None:
            local.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f"{TEMPORARY_PREFIX}{os.getpid()}-", dir=local))
    except OSError as error:
        raise StorageError(
            f"cannot write to {local or tempfile.gettempdir()}: {error.strerror}. Set output to a folder you may write "
            "to, or TMPDIR for a build into a bucket."
        ) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def hold(output: Store, shared: bool = False) -> Iterator[None]:
    """Keep other builds out of a local output, or with `shared` only those that need it for themselves.

    A bucket has no locks, nor have some cluster file systems: there, running one build at a time is the user's care.
    Raises StorageError when another build is at work.
    """
    root = output.local_path("")
    if root is None:
        yield
        return
    work = root / WORK
    try:
        made = not root.exists()
        work.mkdir(parents=True, exist_ok=True)
        lock = (work / "lock").open("w")
    except OSError as error:
        raise StorageError(
            f"cannot write to {root}: {error.strerror}. Set output to a folder you may write to."
        ) from error
    with lock:
        try:
            fcntl.flock(lock, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            held = os.fstat(lock.fileno()).st_nlink > 0  # 0: a build that ended just now has removed it
        except BlockingIOError:
            held = False
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                raise StorageError(f"cannot lock {work / 'lock'}: {error.strerror}.") from error
            held = True
        if not held:
            raise StorageError(f"another build is writing to {root}; wait for it, or set output to another folder.")
        try:
            yield
        finally:
            if not (work / "plan.json").exists() and not shared:
                clear_work(output)
            if made or not any(root.iterdir()):
                with suppress(OSError):
                    root.rmdir()  # only when nothing is in it


def clear_work(output: Store) -> None:
    """Remove the work folder of a build that is over."""
    local = output.local_path(WORK)
    if local is not None:
        shutil.rmtree(local, ignore_errors=True)
        return
    for path in list(output.list(WORK)):
        output.delete(path)


def clear_collection(output: Store) -> None:
    """Remove what builds write, and nothing else: the folder "shards" may hold other tars or collections, say."""
    for name in (MANIFEST_PATH, CATALOG_PATH, FAILURES_PATH):
        output.delete(name)
    for name in committed_names(output):
        output.delete(tar_path(name))
        output.delete(sidecar_path(name))


def sweep(output: Store, collection: str) -> None:
    """Remove unfinished writes of processes that are gone: temporary files, and own tars without their sidecar.

    Tars of another name are somebody's data, whatever folder they lie in.
    """
    sweep_temporary(output)
    files = _shard_files(output)
    for name in files:
        match = _SHARD_FILE.fullmatch(name)
        if match and match[1] == collection and match[2] == "tar" and f"{name[:-4]}.json" not in files:
            output.delete(f"{SHARDS_PREFIX}/{name}")


def sweep_temporary(output: Store) -> None:
    """Remove temporary files that no process minds any more; an interrupt may come before one does."""
    root = output.local_path("")
    if root is not None:
        for folder in (root, root / SHARDS_PREFIX):
            for leftover in folder.glob(f"{TEMPORARY_PREFIX}*"):
                leftover.unlink(missing_ok=True)


def committed_names(output: Store) -> list[str]:
    """Return the names of all shards that have a sidecar, whatever plan they are of, sorted."""
    return sorted(name[:-5] for name in _shard_files(output) if name.endswith(".json"))


def check_writable(output: Store) -> None:
    """Raise ConfigError for an output that cannot be written to at all."""
    if output.url.startswith(("http://", "https://")):
        raise ConfigError(f"output {output.url} is read-only. Give a local folder or an s3://, gs:// or az:// URL.")


def _shard_files(output: Store) -> set[str]:
    local = output.local_path(SHARDS_PREFIX)
    if local is not None and not local.is_dir():
        return set()
    return {name for name, is_folder in output.names(SHARDS_PREFIX) if not is_folder and _SHARD_FILE.fullmatch(name)}
