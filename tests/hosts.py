"""Two hosts on one machine: network namespaces with an address and an ssh server each. They share the disk."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

PORT = 2222
INTERFACE = "eth0"


@dataclass(frozen=True)
class Hosts:
    """Where the hosts are, and how a command is run on the first of them."""

    addresses: tuple[str, str]
    first: tuple[str, ...]
    """Words to put before a command."""
    path: Path
    """Folder to put first in PATH: its ssh knows the key of these hosts."""


def missing() -> str | None:
    """Return what keeps this machine from having two hosts; None: nothing."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    for program, package in (
        ("ip", "iproute2"),
        ("sshd", "openssh-server"),
        ("pdsh", "pdsh"),
        ("ssh-keygen", "openssh-client"),
    ):
        if shutil.which(program) is None:
            return f"found no {program}: apt install {package}"
    if subprocess.run(["ip", "netns", "add", "gfm-probe"], capture_output=True, check=False).returncode:
        return "this machine does not allow network namespaces"
    _run("ip", "netns", "del", "gfm-probe")
    return None


@contextmanager
def two_hosts(folder: Path) -> Iterator[Hosts]:
    """Make the hosts, and take them down again."""
    names = tuple(f"gfm-{os.getpid()}-{index}" for index in (1, 2))
    addresses = ("10.77.13.1", "10.77.13.2")
    with ExitStack() as stack:
        for name in names:
            _run("ip", "netns", "add", name)
            stack.callback(_run, "ip", "netns", "del", name)
        _run(
            "ip",
            "link",
            "add",
            INTERFACE,
            "netns",
            names[0],
            "type",
            "veth",
            "peer",
            "name",
            INTERFACE,
            "netns",
            names[1],
        )
        ssh = _keys(folder)
        for name, address in zip(names, addresses, strict=True):
            inside = ("ip", "netns", "exec", name)
            _run(*inside, "ip", "addr", "add", f"{address}/24", "dev", INTERFACE)
            for link in ("lo", INTERFACE):
                _run(*inside, "ip", "link", "set", link, "up")
            server = subprocess.Popen(
                [*inside, str(shutil.which("sshd")), "-D", "-e", "-f", str(folder / "sshd_config")]
            )
            stack.callback(server.wait)
            stack.callback(server.terminate)
        hosts = Hosts(addresses, ("ip", "netns", "exec", names[0]), ssh)
        for address in addresses:
            _await_ssh(hosts, address)
        yield hosts


def _keys(folder: Path) -> Path:
    """Write the keys and settings of server and client; return the folder of the client."""
    for name in ("host", "user"):
        _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name))
    (folder / "authorized").write_text((folder / "user.pub").read_text())
    (folder / "sshd_config").write_text(
        f"Port {PORT}\nHostKey {folder / 'host'}\nAuthorizedKeysFile {folder / 'authorized'}\nStrictModes no\n"
        "PidFile none\nUsePAM no\nPermitRootLogin yes\nPasswordAuthentication no\nMaxStartups 50\n"
    )
    (folder / "bin").mkdir()
    client = folder / "bin" / "ssh"
    options = f"-i {folder / 'user'} -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR"
    client.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} {options} "$@"\n')
    client.chmod(0o755)
    Path("/run/sshd").mkdir(exist_ok=True)
    return folder / "bin"


def _await_ssh(hosts: Hosts, address: str) -> None:
    for _ in range(100):
        done = subprocess.run(
            [*hosts.first, str(hosts.path / "ssh"), "-p", str(PORT), address, "true"], capture_output=True, check=False
        )
        if done.returncode == 0:
            return
        time.sleep(0.1)
    raise AssertionError(f"no ssh at {address}: {done.stderr.decode()}")


def _run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)
