"""Devices, memory, disk, clock, and whether two processes of this machine find each other."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

from gfm_pipeline.doctor.finding import Finding

SHARED_MEMORY_BYTES = 2**30
"""NCCL exchanges through /dev/shm; containers give 64 MiB by default."""
_MEET = """
import os, sys, torch, torch.distributed as dist
dist.init_process_group("gloo", rank=int(sys.argv[1]), world_size=2, init_method="tcp://127.0.0.1:" + sys.argv[2])
value = torch.ones(1)
dist.all_reduce(value)
assert value.item() == 2
dist.destroy_process_group()
"""


def check_devices() -> list[Finding]:
    """Name the GPUs, their memory and whether they multiply in bfloat16; or the cores that stand in for them."""
    import torch

    if not torch.cuda.is_available():
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        why = "torch was built without CUDA" if torch.version.cuda is None else "torch sees no GPU"
        return [
            Finding(
                "devices", "warning", f"{why}: {cores} CPU cores", "fine for trying things out; else check nvidia-smi"
            )
        ]
    findings = []
    for index in range(torch.cuda.device_count()):
        found = torch.cuda.get_device_properties(index)
        text = f"GPU {index}: {found.name}, {found.total_memory / 2**30:.0f} GiB, compute {found.major}.{found.minor}"
        findings.append(
            Finding("devices", "ok", text)
            if torch.cuda.is_bf16_supported()
            else Finding("devices", "warning", f"{text}, no bfloat16", "set engine.dtype=fp32")
        )
    return findings


def check_memory() -> list[Finding]:
    """Say how much main and shared memory there is."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    findings = [Finding("memory", "ok", f"{total / 2**30:.0f} GiB")]
    if Path("/dev/shm").is_dir():  # noqa: S108 - its size is all that is looked at
        free = shutil.disk_usage("/dev/shm").free  # noqa: S108
        text = f"{free / 2**30:.1f} GiB free in /dev/shm"
        findings.append(
            Finding("memory", "ok", text)
            if free >= SHARED_MEMORY_BYTES
            else Finding(
                "memory", "warning", text, "give the container more: --shm-size=8g, or an emptyDir of medium Memory"
            )
        )
    return findings


def check_clock() -> list[Finding]:
    """Compare the clock with the files of this installation: stores refuse requests that are minutes off."""
    now = time.time()
    newest = max(Path(str(path.locate())).stat().st_mtime for path in (metadata.files("torch") or [])[:1])
    text = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now))
    if now < newest - 86400:
        return [Finding("clock", "failure", f"{text} lies before this installation was made", "set the clock (NTP)")]
    return [Finding("clock", "ok", text)]


def check_network() -> list[Finding]:
    """Let two processes meet over loopback, and see whether this host's own name resolves."""
    findings = []
    name = socket.gethostname()
    try:
        findings.append(Finding("network", "ok", f"{name} is {socket.gethostbyname(name)}"))
    except OSError:
        remedy = f"add it to /etc/hosts: 127.0.0.1 {name}"
        findings.append(Finding("network", "warning", f"the name of this host, {name}, does not resolve", remedy))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    words = [sys.executable, "-c", _MEET]
    environment = {"GLOO_SOCKET_IFNAME": "lo", **os.environ, "CUDA_VISIBLE_DEVICES": ""}
    pair = [
        subprocess.Popen([*words, rank, port], env=environment, stderr=subprocess.PIPE, text=True)  # noqa: S603
        for rank in ("0", "1")
    ]
    for process in pair:
        try:
            _, errors = process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            errors = "they did not meet within 60 s"
            for other in pair:
                other.kill()
        if process.returncode:
            last = errors.strip().splitlines()[-1] if errors.strip() else f"exit code {process.returncode}"
            remedy = "check the firewall on loopback and GLOO_SOCKET_IFNAME"
            return [*findings, Finding("network", "failure", f"two processes cannot meet on loopback: {last}", remedy)]
    return [*findings, Finding("network", "ok", "two processes met on loopback and added a number")]
