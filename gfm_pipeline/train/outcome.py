"""How a run ended, for whoever started it: an exit code and a file, since launchers replace the codes of processes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

OUTCOME_FILE = "outcome.json"
"""In the run folder; written by the first rank when it ends, and removed when it starts."""
REQUEUE_CODE = 75
"""Exit code of a run that stopped before its end with a checkpoint and wants to be started again (EX_TEMPFAIL)."""

Outcome = Literal["finished", "requeue", "failed"]


def write_outcome(run_dir: Path, outcome: Outcome, reason: str) -> None:
    """Write how the run ended."""
    path = run_dir / OUTCOME_FILE
    temporary = path.with_name(f".tmp-{path.name}")
    temporary.write_text(json.dumps({"outcome": outcome, "reason": reason}) + "\n", encoding="utf-8")
    temporary.replace(path)


def clear_outcome(run_dir: Path) -> None:
    """Remove what an earlier process wrote."""
    (run_dir / OUTCOME_FILE).unlink(missing_ok=True)
