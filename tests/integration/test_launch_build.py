"""The examples of launch/ that build on many machines, run as far as a machine without those systems can."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.conftest import BIN, ROOT, run_command
from tests.contracts.test_sources import digests
from tests.integration.test_build import command
from tests.manifests import follow_the_schema

SBATCH = """#!/usr/bin/env bash
# Runs what is submitted at once, the tasks of an array last one first, as an array may.
set -euo pipefail
echo "$*" >> "$SBATCH_LOG"
tasks="" wrap=""
while [ $# -gt 0 ]; do
    case $1 in
        --array=0-*) tasks=${1#--array=0-} ;;
        --cpus-per-task=*) export SLURM_CPUS_PER_TASK=${1#--cpus-per-task=} ;;
        --wrap) wrap=$2; shift ;;
    esac
    shift
done
for task in $(seq "${tasks:-0}" -1 0); do SLURM_ARRAY_TASK_ID=$task bash -c "$wrap" >&2; done
echo "$((100 + $(wc -l < "$SBATCH_LOG")));cluster"
"""


@pytest.fixture(scope="module")
def expected(demo_archives: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    out = tmp_path_factory.mktemp("expected") / "out"
    run_command(*command("sen12ms", demo_archives, out, "max_samples=2"))
    return digests(out)


def shell(*words: str | Path, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
    path = f"{environment.pop('before', BIN)}{os.pathsep}{BIN}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", *map(str, words)],
        cwd=ROOT,
        env={**os.environ, "PATH": path, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert not check or done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done


def test_slurm(demo_archives: Path, expected: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "sbatch").write_text(SBATCH)
    (tmp_path / "bin" / "sbatch").chmod(0o755)
    out = tmp_path / "a folder" / "out"  # quoting is where such scripts fail
    words = ["--config", "configs/build/sen12ms.yaml", "--shares", "3", "--set", f"input={demo_archives}"]
    words += ["--set", f"output={out}", "--set", "max_samples=2", "--", "--partition=cpu", "--cpus-per-task=2"]
    log = tmp_path / "sbatch.log"
    done = shell("launch/build_slurm.sh", *words, before=str(tmp_path / "bin"), SBATCH_LOG=str(log))
    assert "Submitted: plan 101, shares 102_[0-2], merge 103." in done.stdout
    assert digests(out) == expected
    plan, array, merge = log.read_text().splitlines()
    assert "--partition=cpu" in plan
    assert "--dependency=afterok:101 --array=0-2" in array
    assert "--dependency=afterok:102" in merge
    assert all("--requeue" in line for line in (plan, array, merge))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--config", "nowhere.yaml", "--shares", "3"], "found no file 'nowhere.yaml'"),
        (["--config", "configs/build/sen12ms.yaml", "--shares", "0"], "--shares: found '0'"),
        (["--config", "configs/build/sen12ms.yaml", "--shares", "2"], "found no sbatch here"),
        (["--tasks", "2"], "unknown option --tasks"),
        (["--config"], "--config needs a value"),
    ],
)
def test_slurm_refuses_what_cannot_work(words: list[str], message: str) -> None:
    done = shell("launch/build_slurm.sh", *words, check=False)
    assert (done.returncode, message in done.stderr) == (2, True), done.stderr


def test_kubernetes(demo_archives: Path, expected: dict[str, str], tmp_path: Path) -> None:
    config, build, merge = documents = list(yaml.safe_load_all((ROOT / "launch" / "build_kubernetes.yaml").read_text()))
    follow_the_schema(documents)
    assert build["spec"]["completionMode"] == "Indexed"
    (container,) = build["spec"]["template"]["spec"]["containers"]
    shares = {item["name"]: item["value"] for item in container["env"]}["SHARES"]
    assert int(shares) == build["spec"]["completions"]
    tree = yaml.safe_load(config["data"]["build.yaml"])
    tree |= {"input": str(demo_archives), "output": str(tmp_path / "out"), "max_samples": 2}
    tree["on_error"] = "fail"
    (tmp_path / "build.yaml").write_text(yaml.safe_dump(tree))
    (mount,) = container["volumeMounts"]

    def pod(job: dict[str, object], **environment: str) -> subprocess.CompletedProcess[str]:
        (one,) = job["spec"]["template"]["spec"]["containers"]  # type: ignore[index]
        assert one["command"] == ["bash", "-c"]
        (text,) = one["args"]
        text = text.replace(mount["mountPath"], str(tmp_path))
        return shell("-c", text, check=False, **environment)

    assert pod(merge).returncode == 2  # applied together with the other one, it is too early
    for index in (2, 0, 1):
        done = pod(build, JOB_COMPLETION_INDEX=str(index), SHARES="3")
        assert done.returncode == 0, done.stderr
    assert pod(merge).returncode == 0
    assert digests(tmp_path / "out") == expected


def test_dask(demo_archives: Path, expected: dict[str, str], tmp_path: Path) -> None:
    words = ["--config", "configs/build/sen12ms.yaml", "--set", f"input={demo_archives}"]
    words += ["--set", f"output={tmp_path / 'out'}", "--set", "max_samples=2", "--workers", "2"]
    shell("launch/build_dask.sh", *words)
    assert digests(tmp_path / "out") == expected
    refused = shell("launch/build_dask.sh", "--config", "nowhere.yaml", check=False)
    assert (refused.returncode, "found no file 'nowhere.yaml'" in refused.stderr) == (2, True)
