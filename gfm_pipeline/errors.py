"""The error tree. Every message says what was found, where, what was expected and what to do.

Command lines turn a `GfmError` into one line on stderr and its `exit_code`: 2 for wrong usage or configuration,
1 for a failure. Anything else that escapes is a defect of this product and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class GfmError(Exception):
    """Base of every error that a user can cause or mend."""

    exit_code = 1


class ConfigError(GfmError, ValueError):
    """A configuration (file, `--set`, or their combination) that cannot work."""

    exit_code = 2


class UsageError(GfmError, ValueError):
    """A wrong command line: missing path, contradicting options."""

    exit_code = 2


class StorageError(GfmError, OSError):
    """A path or URL that cannot be read or written."""


class ArchiveError(GfmError, ValueError):
    """A raw archive that is corrupt, hostile or not in the layout its source declares."""


class ItemError(GfmError, ValueError):
    """One item of an archive that cannot be packed; subject to the build's `on_error` policy."""


class ShardError(GfmError, ValueError):
    """A collection, shard or sidecar that breaks the shard contract."""


class DamageError(ShardError):
    """Bytes of a shard that are cut short or cannot be decoded; subject to the loader's `on_error` policy."""


class ChecksumError(DamageError):
    """Bytes of a shard that differ from what its sidecar recorded."""


class PlanError(GfmError, ValueError):
    """A sample order that cannot exist: too few samples, a world size that does not divide the lanes."""

    exit_code = 2


class CheckpointError(GfmError, ValueError):
    """A checkpoint that is incomplete, damaged or of another model."""


class TrainingError(GfmError, RuntimeError):
    """A run that cannot go on: ranks that disagree, a loss that is not finite."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a sentence that names the closest of `known`, or all of them when nothing is close."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if close:
        return f"Did you mean '{close[0]}'? Known: {', '.join(names)}."
    return f"Known: {', '.join(names) or 'none'}."
