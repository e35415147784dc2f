"""What a check says, and how it is told."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple

Status = Literal["ok", "warning", "failure"]


class Finding(NamedTuple):
    """One line of the doctor's report."""

    check: str
    status: Status
    found: str
    remedy: str = ""
    """What to do; empty when all is well."""


Check = Callable[[], list[Finding]]


def run_checks(checks: Iterable[tuple[str, Check]]) -> list[Finding]:
    """Return the findings of all checks, given with their names; one that raises becomes a failure."""
    findings: list[Finding] = []
    for name, check in checks:
        try:
            findings += check()
        except Exception as error:  # a doctor goes on with the next organ
            text = " ".join(str(error).split()) or type(error).__name__
            findings.append(Finding(name, "failure", f"the check itself failed: {text}"))
    return findings


def worst(findings: Iterable[Finding]) -> Status:
    """Return the gravest status."""
    found = {finding.status for finding in findings}
    return "failure" if "failure" in found else "warning" if "warning" in found else "ok"


def report(findings: Iterable[Finding]) -> str:
    """Return the findings as text, a line each and a line for what to do."""
    mark = {"ok": "ok   ", "warning": "WARN ", "failure": "FAIL "}
    lines = []
    for finding in findings:
        lines.append(f"{mark[finding.status]} {finding.check:<18} {finding.found}")
        if finding.remedy:
            lines.append(f"{'':6}{'':<18} -> {finding.remedy}")
    return "\n".join(lines)
