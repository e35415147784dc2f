"""A run on the hosts of a file, over ssh: DeepSpeed's launcher with pdsh.

DeepSpeed takes a hostfile that is not there for one machine and trains alone; it checks ssh to the first host only
and hands on few environment variables. So the file and every host are checked here, and the variables travel in the
file that DeepSpeed reads them from.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from gfm_pipeline.errors import ConfigError, GfmError
from launch.job import RENDEZVOUS_PORT, TRAINER, Job

SSH_SECONDS = 10
ENVIRONMENT_FILE = "launch.env"
"""In the run folder: what every host gets, NAME=VALUE per line."""


def read_hostfile(path: Path) -> dict[str, int]:
    """Return the slots (processes) of each host; raise ConfigError for a missing file or a line that is no host."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"cannot read the hostfile {path}: {error}. Give a file with lines 'HOST slots=N'."
        ) from error
    hosts: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        match = re.fullmatch(r"([A-Za-z0-9][\w.:-]*)\s+slots=([1-9]\d*)", text)
        if not match:
            raise ConfigError(f"{path}, line {number}: found {text!r}, expected 'HOST slots=N' with N of at least 1.")
        if match[1] in hosts:
            raise ConfigError(
                f"{path}, line {number}: host {match[1]} stands here twice; add its slots up in one line."
            )
        hosts[match[1]] = int(match[2])
    if not hosts:
        raise ConfigError(f"the hostfile {path} names no host, expected lines 'HOST slots=N'.")
    if len(set(hosts.values())) > 1:
        raise ConfigError(
            f"the hosts of {path} have different numbers of slots ({', '.join(f'{h} {n}' for h, n in hosts.items())}); "
            "the experts' exchange needs the same number everywhere."
        )
    return hosts


def check_hosts(hosts: dict[str, int], ssh_port: int | None) -> None:
    """Raise ConfigError when pdsh is missing here, or ssh without a password does not reach some host."""
    for program in ("pdsh", "ssh"):
        if shutil.which(program) is None:
            raise ConfigError(f"found no {program} here; install it (sudo apt install pdsh openssh-client).")
    port = ["-p", str(ssh_port)] if ssh_port else []
    options = ["-o", "BatchMode=yes", "-o", f"ConnectTimeout={SSH_SECONDS}"]

    def reach(host: str) -> str | None:
        words = ["ssh", *options, *port, host, "true"]
        done = subprocess.run(  # noqa: S603 - the host is a checked name
            words, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
        )
        return None if done.returncode == 0 else f"{host}: {' '.join(done.stderr.split()) or 'no answer'}"

    with ThreadPoolExecutor(16) as pool:
        failed = [problem for problem in pool.map(reach, hosts) if problem]
    if failed:
        raise ConfigError(
            f"ssh without a password does not reach {len(failed)} of {len(hosts)} hosts: {'; '.join(failed)}. "
            "Try: ssh HOST true"
        )


def hostfile_command(
    job: Job, hostfile: Path, master: str | None, ssh_port: int | None
) -> tuple[dict[str, str], list[str]]:
    """Return the environment to add and the command; raise ConfigError for words that pdsh would change."""
    words = [
        *(sys.executable, "-m", "deepspeed.launcher.runner", "--hostfile", str(hostfile.resolve())),
        *("--launcher", "pdsh", "--no_ssh_check", "--force_multi", "--master_port", str(RENDEZVOUS_PORT)),
        *(["--master_addr", master] if master else []),
        *(["--ssh_port", str(ssh_port)] if ssh_port else []),
        *("--module", TRAINER, *job.arguments()),
    ]
    for word in (*job.arguments(), *_exports(job).values()):
        # DeepSpeed puts words with blanks into quotes, where patterns are not expanded.
        patterns = "" if " " in word else "*?{"
        if set(word) & set("%\"'`$\\\n;&|<>()" + patterns):
            raise ConfigError(
                f"{word!r} holds a character that ssh and pdsh would change; put the value into the YAML file."
            )
    return {"DS_ENV_FILE": str(_environment_path(job))}, words


def write_environment(job: Job) -> None:
    """Write the file of environment variables to the run folder, which all hosts share."""
    path = _environment_path(job)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{name}={value}\n" for name, value in _exports(job).items()), encoding="utf-8")
    except OSError as error:
        raise GfmError(f"cannot write {path}: {error}. Set run_dir to a folder that all hosts share.") from error


def describe(job: Job, hosts: dict[str, int], environment: dict[str, str], words: list[str]) -> str:
    """Return what is run, as a user would type it."""
    exports = "".join(f"# on every host: {name}={value}\n" for name, value in _exports(job).items())
    line = " ".join([*(f"{name}={shlex.quote(value)}" for name, value in environment.items()), shlex.join(words)])
    return f"# {job.world} processes on {len(hosts)} hosts: {', '.join(hosts)}\n{exports}{line}"


def _exports(job: Job) -> dict[str, str]:
    """Return what every host gets: what was chosen, and a PATH to this environment's programs (ninja among them)."""
    return {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}", **job.exports}


def _environment_path(job: Job) -> Path:
    return Path(job.config.run_dir).resolve() / ENVIRONMENT_FILE
