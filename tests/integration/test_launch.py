"""Runs that are launched for real: on this machine, and on two hosts of network namespaces."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.conftest import BIN, ROOT, run_command
from tests.hosts import INTERFACE, PORT, missing, two_hosts
from tests.integration.test_pretrain import TINY, metrics

SETTINGS = [*TINY, "data.steps_per_epoch=2", "schedule.epochs=2", "checkpoint.every_steps=2"]


def words(shards: Path, run_dir: Path, *more: str) -> list[str]:
    values = [*SETTINGS, f"data.root={shards}", f"run_dir={run_dir}", *more]
    return ["--config", "configs/pretrain/quickstart.yaml", *(word for value in values for word in ("--set", value))]


def test_local(demo_shards: Path, tmp_path: Path) -> None:
    done = run_command("gfm-launch", "local", "--cpu", "--processes", "2", *words(demo_shards, tmp_path / "run"))
    first, *_ = done.stdout.splitlines()
    assert "torch.distributed.run --standalone --nproc-per-node 2" in first
    assert "finished: 4 steps" in done.stdout
    assert len(metrics(tmp_path / "run")) == 4


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_hosts_over_ssh(demo_shards: Path, tmp_path: Path) -> None:
    reason = missing()
    if reason:
        pytest.skip(reason)
    run_command("gfm-launch", "local", "--cpu", "--processes", "2", *words(demo_shards, tmp_path / "here"))
    keys = tmp_path / "keys"
    keys.mkdir()
    with two_hosts(keys) as hosts:
        hostfile = tmp_path / "hosts.txt"
        hostfile.write_text("".join(f"{address} slots=1\n" for address in hosts.addresses))
        command = [
            *(*hosts.first, str(BIN / "gfm-launch"), "hostfile", "--cpu", "--hostfile", str(hostfile)),
            *("--master-addr", hosts.addresses[0], "--ssh-port", str(PORT), "--env", f"GLOO_SOCKET_IFNAME={INTERFACE}"),
            *words(demo_shards, tmp_path / "there"),
        ]
        path = os.pathsep.join([str(hosts.path), str(BIN), os.environ["PATH"]])
        done = subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, "PATH": path, "PYTHONPATH": os.environ.get("PYTHONPATH", str(ROOT))},
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "finished: 4 steps" in done.stdout
    # One machine adds through shared memory, two through the network: the same up to rounding.
    here, there = metrics(tmp_path / "here"), metrics(tmp_path / "there")
    assert [row["loss"] for row in there] == pytest.approx([row["loss"] for row in here], rel=1e-5)
