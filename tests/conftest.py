"""What several tests share: demo archives and collections made once per session, by the product's own commands."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ranks import run_program
from tests.servers import s3_server
from tests.serving import environment

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent

# Two processes with many threads each would fight over the cores.
os.environ["OMP_NUM_THREADS"] = "1"


def pytest_configure(config: pytest.Config) -> None:
    """Take Ctrl-C as usual. Hide GPUs, where there are any, from all but tests that are marked so (`pytest -m gpu`)."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A shell has its background jobs ignore Ctrl-C, and so would the commands that are tested.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if config.option.markexpr != "gpu":
        os.environ |= {"CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu"}


def run_command(*arguments: str | Path, check: bool = True, timeout: float = 280) -> subprocess.CompletedProcess[str]:
    """Run a command of this environment in the project folder, as a user would.

    `shard-builder` is forked with its imports done (see `tests.ranks`); tests that kill it or look at what it imports
    start it themselves.
    """
    first, *more = (str(argument) for argument in arguments)
    if first == "shard-builder":
        done = run_program(first, more, timeout)
    else:
        environment = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
        done = subprocess.run(
            [first, *more], capture_output=True, text=True, cwd=ROOT, env=environment, check=False, timeout=timeout
        )
    assert not check or done.returncode == 0, f"{arguments} exited {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


@pytest.fixture
def lone_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process group of one, which DeepSpeed's layer needs."""
    import deepspeed
    import torch
    from deepspeed.utils import groups

    for name, value in list(vars(groups).items()):  # it keeps groups for ever, and these will be gone
        if name.isupper() and "GROUP" in name:
            monkeypatch.setattr(groups, name, {} if isinstance(value, dict) else None)
    for name, value in (("RANK", "0"), ("LOCAL_RANK", "0"), ("WORLD_SIZE", "1")):
        monkeypatch.setenv(name, value)
    deepspeed.init_distributed(
        "gloo",
        auto_mpi_discovery=False,
        verbose=False,
        init_method=f"file://{tmp_path}/rendezvous",
        rank=0,
        world_size=1,
    )
    yield
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """An S3 server with a bucket "bucket", and the environment that reaches it; also set in this process."""
    with s3_server(tmp_path_factory.mktemp("s3")) as found, environment(**found):
        yield found


@pytest.fixture(scope="session")
def demo_archives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Raw archives of a small synthetic planet."""
    out = tmp_path_factory.mktemp("demo") / "raw"
    run_command("shard-builder", "demo", "--out", out, "--places", "12", "--tile-px", "64", "--seed", "1")
    return out


@pytest.fixture(scope="session")
def demo_shards(demo_archives: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The collections geopile, millionaid, sen12ms and mdas of that planet, below one folder."""
    out = tmp_path_factory.mktemp("shards")
    for source in ("geopile", "millionaid", "sen12ms", "mdas"):
        config = f"configs/build/{source}.yaml"
        target = out / source
        run_command(
            "shard-builder", "build", "--config", config, "--set", f"input={demo_archives}", "--set", f"output={target}"
        )
    return out
