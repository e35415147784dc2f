"""What each verb prints, and what each refuses before anything is started."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from gfm_pipeline.errors import GfmError
from launch.cli import gfm_launch
from tests.manifests import follow_the_schema

GOLDEN = Path(__file__).parent / "golden"
CONFIG = "/etc/my runs/run.yaml"


def launch(*words: str | Path) -> Result:
    return CliRunner().invoke(gfm_launch, [str(word) for word in words])


def refusal(*words: str | Path) -> str:
    """Return what a user reads when the words are refused."""
    result = launch(*words)
    assert result.exception is not None
    if isinstance(result.exception, GfmError):
        assert result.exception.exit_code == 2
        return str(result.exception)
    assert result.exit_code == 2, result.exception
    return result.output


def golden(name: str, text: str, config: Path) -> None:
    """Compare with a file; WRITE_GOLDEN=1 writes it."""
    shown = text.replace(str(config.resolve()), CONFIG).replace(str(config.parent / "shards"), "/data/shards")
    path = GOLDEN / name
    if os.environ.get("WRITE_GOLDEN"):
        path.write_text(shown)
    assert shown == path.read_text()


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/venv/bin/python")
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    monkeypatch.setattr("launch.cli._count_gpus", lambda: 4)
    monkeypatch.setattr("pathlib.Path.cwd", lambda: Path("/home/me/project"))


def test_local(run_config: Path) -> None:
    result = launch("local", "--config", run_config, "--set", "seed=7", "--env", "NCCL_DEBUG=INFO", "--print")
    assert result.exit_code == 0, result.exception
    golden("local.txt", result.output, run_config)


def test_hostfile(run_config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("node-a slots=4  # the first one\n\nnode-b slots=4\n")
    config = tmp_path / "run.yaml"
    config.write_text(run_config.read_text())
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "eth0")
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    result = launch("hostfile", "--config", config, "--hostfile", hosts, "--master-addr", "10.0.0.1", "--print")
    assert result.exit_code == 0, result.exception
    text = result.output.replace(str(hosts), "/etc/hosts.txt").replace(str(config), CONFIG)
    golden("hostfile.txt", text, run_config)


def test_slurm(run_config: Path) -> None:
    result = launch(
        *("slurm", "--config", run_config, "--set", "optim.grad_clip=1.0", "--nodes", "2", "--per-node", "4"),
        *("--print", "--", "--partition=gpu", "--account=geo"),
    )
    assert result.exit_code == 0, result.exception
    golden("slurm.sh", result.output, run_config)


@pytest.mark.parametrize("said", ["--cpus-per-task=32", "-c32", "--cpus-per-gpu=8"])
def test_the_cpus_that_the_user_asks_for_are_the_only_ones(run_config: Path, said: str) -> None:
    result = launch("slurm", "--config", run_config, "--nodes", "2", "--per-node", "4", "--print", "--", said)
    asked = [line for line in result.output.splitlines() if re.match(r"#SBATCH (--cpus-per|-c)", line)]
    assert asked == [f"#SBATCH {said}"]


@pytest.mark.parametrize(("given", "words"), [("32", ["--cpus-per-task=32"]), (None, [])])
def test_srun_is_given_the_cpus_of_the_job(
    run_config: Path, given: str | None, words: list[str], tmp_path: Path
) -> None:
    """The batch script, run with commands of Slurm that only write down what they are given."""
    (tmp_path / "srun").write_text('#!/bin/bash\nprintf "%s\\n" "$@"\n')
    (tmp_path / "scontrol").write_text("#!/bin/bash\necho here\n")
    for name in ("srun", "scontrol"):
        (tmp_path / name).chmod(0o755)
    script = launch("slurm", "--config", run_config, "--per-node", "4", "--print").output
    variables = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "here", "SLURM_JOB_NUM_NODES": "1"}
    variables |= {"SLURM_CPUS_PER_TASK": given} if given else {}
    done = subprocess.run(
        ["bash", "-c", script],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    got = done.stdout.splitlines()
    assert [word for word in got[: got.index("-m")] if "cpus" in word] == words


def test_jobs_on_cpus_ask_for_them(run_config: Path) -> None:
    asked = ("--config", run_config, "--per-node", "4", "--cpu", "--print")
    assert "#SBATCH --cpus-per-task=16\n" in launch("slurm", *asked).output
    job = list(yaml.safe_load_all(launch("kubernetes", *asked, "--image", "x").output))[-1]
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["limits"] == {"cpu": "16"}


def test_kubernetes(run_config: Path) -> None:
    result = launch(
        *("kubernetes", "--config", run_config, "--nodes", "2", "--per-node", "4", "--image", "example.org/gfm:1"),
        *("--secret", "bucket", "--claim", "lab", "--set", "run_dir=/data/runs/first", "--env", "AWS_REGION=eu-west-1"),
        "--print",
    )
    assert result.exit_code == 0, result.exception
    config_map, service, job = documents = list(yaml.safe_load_all(result.output))
    follow_the_schema(documents)
    golden("kubernetes.yaml", re.sub(r"(config.yaml: \|\n)(    .*\n)+", r"\1    ...\n", result.output), run_config)
    assert yaml.safe_load(config_map["data"]["config.yaml"])["run_dir"] == "/data/runs/first"
    assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}
    spec = job["spec"]
    assert spec["completions"] == spec["parallelism"] == 2
    (container,) = spec["template"]["spec"]["containers"]
    assert container["resources"] == {
        "requests": {"cpu": "16", "memory": "32768Mi"},
        "limits": {"nvidia.com/gpu": 4},
    }
    assert {mount["name"] for mount in container["volumeMounts"]} == {
        volume["name"] for volume in spec["template"]["spec"]["volumes"]
    }


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--processes", "3"], "the world size 3 does not divide data.lanes 8"),
        (["--processes", "1"], "engine.ep_size 2"),
        (["--processes", "8"], "this machine has 4 GPUs"),
        (["--set", "engine.ep_size=4", "--processes", "2"], "engine.ep_size 4"),
        (["--set", "engine.zero_stage=3"], "engine.zero_stage"),
        (["--set", "model.moe.num_experts=1024"], "1024 experts for"),
        (["--set", "data.streams.rgb.collections=[villages]"], "villages"),
        (["--env", "AWS_SECRET_ACCESS_KEY=canary"], "looks like a secret"),
        (["--env", "NOWHERE_SET"], "not set here"),
    ],
)
def test_what_cannot_work_is_refused(run_config: Path, words: list[str], message: str) -> None:
    text = refusal("local", "--config", run_config, *words, "--print")
    assert message in text
    assert "canary" not in text


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (None, "cannot read the hostfile"),
        ("", "names no host"),
        ("node-a", "line 1: found 'node-a', expected 'HOST slots=N'"),
        ("node-a slots=0", "expected 'HOST slots=N'"),
        ("a slots=4\na slots=4", "stands here twice"),
        ("a slots=4\nb slots=2", "different numbers of slots"),
        ("-oProxyCommand=true slots=4", "expected 'HOST slots=N'"),
    ],
)
def test_a_hostfile_that_cannot_work_is_refused(
    run_config: Path, tmp_path: Path, lines: str | None, message: str
) -> None:
    hosts = tmp_path / "hosts"
    if lines is not None:
        hosts.write_text(lines)
    assert message in refusal("hostfile", "--config", run_config, "--hostfile", hosts, "--print")


def test_words_that_a_remote_shell_would_change_are_refused(run_config: Path, tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("a slots=4\nb slots=4\n")
    words = ["hostfile", "--config", run_config, "--hostfile", hosts, "--print"]
    for value in ("$HOME/run", "runs/{a,b}", "runs/*"):
        assert "would change" in refusal(*words, "--set", f"run_dir={value}")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["slurm", "--per-node", "4", "--time", "tomorrow"], "expected minutes, HH:MM:SS"),
        (["slurm", "--per-node", "4", "--", "partition=gpu"], "no option of sbatch"),
        (["slurm", "--per-node", "4"], "found no sbatch here"),
        (["kubernetes", "--per-node", "4", "--image", "a b"], "no name of an image"),
        (["kubernetes", "--per-node", "4", "--image", "x", "--secret", "No_Name"], "--secret 'No_Name'"),
        (["kubernetes", "--per-node", "4", "--image", "x", "--claim", "lab"], "which is lost with the pod"),
        (["kubernetes", "--per-node", "4", "--image", "x"], "found no kubectl here"),
    ],
)
def test_schedulers_refuse(
    run_config: Path, words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    verb, *rest = words
    assert message in refusal(verb, "--config", run_config, "--set", f"run_dir={tmp_path}", *rest)


def test_secrets_of_the_environment_stay_here(run_config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from launch.exports import chosen_exports

    environment = {"AWS_SECRET_ACCESS_KEY": "canary", "GFM_TOKEN": "canary", "NCCL_DEBUG": "INFO", "HOME": "/root"}
    assert chosen_exports(environment, ["HOME"]) == {"HOME": "/root", "NCCL_DEBUG": "INFO"}
