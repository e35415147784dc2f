"""The watch over a job: the lifeline to the other ranks, the watchdog over phases, and which error to tell.

When a rank is lost, the others first see a broken collective, whose message names a socket. What a user needs is the
reason, which arrives over the lifeline a moment later; so an error that may be a consequence waits for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gfm_pipeline.errors import GfmError, TrainingError
from gfm_pipeline.train.comm import World
from gfm_pipeline.train.lifeline import Lifeline
from gfm_pipeline.train.watchdog import Watchdog

REASON_S = 2.0
"""How long a broken collective waits for the reason."""


@contextmanager
def watched(world: World, run_dir: Path, deadline_s: float | None) -> Iterator[Watchdog]:
    """Watch the job while entered; every rank must enter it at the same point.

    Raises TrainingError in place of an error that follows from the loss of another rank.
    """
    lines: list[Lifeline] = []
    watchdog = Watchdog(deadline_s, run_dir / f"stacks-{world.rank:05d}.txt", lambda why: lines[0].report_hang(why))
    lifeline = Lifeline(world, watchdog.dump)
    lines.append(lifeline)
    with watchdog:
        try:
            yield watchdog
        except GfmError as error:
            lifeline.close(str(error))
            raise
        except RuntimeError as error:
            reason = lifeline.reason(REASON_S if world.size > 1 else 0)
            lifeline.close(reason or repr(error))
            if reason:
                raise TrainingError(f"{reason}. Run the same command again to continue.") from error
            raise
        except BaseException as error:
            lifeline.close(repr(error))
            raise
        lifeline.close()
