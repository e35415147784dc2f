"""The one rule of what an exception means for a build: a fault of the item that was read, unless it cannot be one.

Files come from anywhere, and the libraries that read them raise whatever their authors thought of, up to MemoryError
and RecursionError. None of that may end the build of all other files.
"""

from __future__ import annotations

import errno
import logging

from gfm_pipeline.errors import ConfigError, GfmError, ItemError, StorageError, UsageError

_MACHINE = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.EROFS)
"""Errors of the operating system that are no fault of what was read."""
_log = logging.getLogger(__name__)


def item_error(error: Exception, source_file: str) -> ItemError:
    """Return `error` as that of the item in `source_file`, which it names.

    Raises what is no item's fault: a store out of reach, a disk that is full, a configuration that cannot work.
    """
    if isinstance(error, ItemError):
        return error
    if isinstance(error, StorageError | ConfigError | UsageError):
        raise error
    if isinstance(error, OSError) and error.errno in _MACHINE:
        raise StorageError(f"cannot read {source_file}: {error.strerror}. Mend the cause and run again.") from error
    if isinstance(error, GfmError):
        text = str(error)
        return ItemError(text if source_file in text else f"{source_file}: {text}")
    _log.debug("while %s was read", source_file, exc_info=error)
    reason = " ".join(str(error).split())[:200].rstrip(".")
    if isinstance(error, MemoryError):
        reason = "it needs more memory than there is"
    elif isinstance(error, RecursionError):
        reason = "it is nested too deeply"
    return ItemError(f"{source_file} cannot be read: {reason or 'no reason given'} ({type(error).__name__}).")
