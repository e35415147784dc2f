"""Memory and processor time of a process and all that it started, from /proc."""

from __future__ import annotations

import os
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def tree(root: int) -> list[int]:
    """Return the process `root` and its descendants."""
    parents: dict[int, int] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        fields = _stat(int(folder.name))
        if fields:
            parents[int(folder.name)] = int(fields[1])
    found = [root]
    for process in found:
        found += [child for child, parent in parents.items() if parent == process]
    return found


def cpu_seconds(processes: list[int]) -> float:
    """Return the processor time that `processes` have used, user and system, and what they started and saw end."""
    return sum(sum(map(int, f[11:15])) for process in processes if (f := _stat(process))) / _TICKS


def resident_bytes(processes: list[int]) -> int:
    """Return the memory of `processes`, what they share counted once; files in the page cache are not counted."""
    total = 0
    for process in processes:
        try:
            text = Path(f"/proc/{process}/smaps_rollup").read_text()
        except OSError:
            continue  # it has ended
        parts = dict(line.split(":", 1) for line in text.splitlines()[1:])
        total += sum(int(parts[name].split()[0]) for name in ("Pss_Anon", "Pss_Shmem") if name in parts) * 1024
    return total


def _stat(process: int) -> list[str]:
    """Return the fields of /proc/PID/stat after the name, from the state on; none when the process has ended."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
