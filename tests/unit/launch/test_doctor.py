"""What the doctor finds, and that nothing it cannot look at ends it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from gfm_pipeline.cli.doctor import doctor
from gfm_pipeline.doctor import machine, run, software
from gfm_pipeline.doctor.finding import Finding, report, run_checks, worst


def test_a_run_that_fits(run_config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    words = ["--config", str(run_config), "--set", f"run_dir={tmp_path / 'run'}", "--per-node", "2", "--json"]
    result = CliRunner().invoke(doctor, words, standalone_mode=False)
    findings = json.loads(result.output)
    assert result.return_value == 0, result.output
    by_check = {finding["check"]: finding for finding in findings}
    assert by_check.keys() >= {"python", "packages", "compiler", "devices", "memory", "clock", "topology", "run folder"}
    assert "2 processes can train together" in by_check["topology"]["found"]
    assert "gave" in by_check["collections"]["found"]
    assert "two processes met" in by_check["network"]["found"]


def test_a_run_that_does_not_fit(run_config: Path) -> None:
    result = CliRunner().invoke(
        doctor,
        ["--config", str(run_config), "--per-node", "3", "--set", "data.root=/nowhere", "--set", "run_dir=/proc/run"],
        standalone_mode=False,
    )
    assert result.return_value == 1
    failures = [line for line in result.output.splitlines() if line.startswith("FAIL")]
    assert any("topology" in line and "does not divide data.lanes 8" in line for line in failures)
    assert any("collections" in line and "/nowhere" in line for line in failures)
    assert any("run folder" in line and "cannot write below /proc" in line for line in failures)


def test_missing_and_old_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        software.metadata, "requires", lambda _: ["no-such-package>=1", "click>=999", "x; extra == 'y'"]
    )
    found = software.check_packages()
    assert [finding.status for finding in found] == ["failure", "failure", "ok"]
    assert found[0].remedy == "pip install 'no-such-package>=1'"
    assert "does not fit" in found[1].found


def test_a_wrong_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.time, "time", lambda: 86400.0)
    assert machine.check_clock()[0].status == "failure"


def test_a_missing_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert {finding.found.split(",")[0] for finding in software.check_compiler()} >= {"found no g++", "found no ninja"}


def test_a_check_that_fails_is_a_finding() -> None:
    def broken() -> list[Finding]:
        raise OSError("disk on fire")

    findings = run_checks([("disk", broken), ("python", software.check_python)])
    assert worst(findings) == "failure"
    assert "disk on fire" in report(findings)
    assert findings[1].status == "ok"


def test_little_room_is_a_warning(run_config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gfm_pipeline.config import load_config
    from gfm_pipeline.train.config import TrainConfig

    config = load_config(run_config, TrainConfig, [f"run_dir={tmp_path}"])
    monkeypatch.setattr(run, "LEAST_FREE_BYTES", 2**60)
    assert run.check_run_folder(config)[0].status == "warning"
