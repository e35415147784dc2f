"""Who takes part in an evaluation: the ranks of a training run, or one process."""

from __future__ import annotations

from typing import Any, Protocol


class Team(Protocol):
    """Processes that share the samples of an evaluation and exchange what they found."""

    @property
    def rank(self) -> int:
        """Number of this process."""
        ...

    @property
    def size(self) -> int:
        """How many there are."""
        ...

    def gather(self, value: Any) -> list[Any]:
        """Return the `value` of every process, in rank order; every process must call it."""
        ...


class Alone:
    """A single process."""

    rank = 0
    size = 1

    def gather(self, value: Any) -> list[Any]:
        """Return the value, as a list of one."""
        return [value]
