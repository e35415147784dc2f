"""The base installation alone: what a machine that only builds shards needs."""

import subprocess
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BUILD = ("--config", str(ROOT / "configs/build/sen12ms.yaml"))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_base_installation_builds_verifies_and_shows(tmp_path: Path) -> None:
    home = tmp_path / "home"  # not the checkout: what is used has to be installed
    home.mkdir()
    venv.create(tmp_path / "venv", with_pip=True)
    programs = tmp_path / "venv" / "bin"

    def run(program: str, *arguments: str) -> str:
        done = subprocess.run([programs / program, *arguments], capture_output=True, text=True, check=False, cwd=home)
        assert done.returncode == 0, f"{program} {arguments}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    run("python", "-m", "pip", "install", "--quiet", "--no-compile", "--disable-pip-version-check", str(ROOT))
    installed = run("python", "-m", "pip", "list", "--format=freeze").lower()
    assert not [name for name in ("torch==", "deepspeed==", "timm==") if name in installed]
    raw, out = tmp_path / "raw", tmp_path / "sen12ms"
    run("shard-builder", "demo", "--out", str(raw), "--places", "4", "--tile-px", "32", "--families", "sen12ms")
    run("shard-builder", "build", *BUILD, "--set", f"input={raw}", "--set", f"output={out}")
    run("shard-builder", "verify", str(out))
    run("shard-builder", "stats", str(out), "--catalog")
    run("shard-builder", "show", str(out), "--out", str(tmp_path / "look.png"))
    run("shard-builder", "card", str(out), "--out", str(tmp_path / "card"))
    assert (tmp_path / "look.png").stat().st_size > 0
    run("gfm", "config", "copy", "pretrain/ablations/dense", "--out", str(tmp_path / "configs"))
    assert (tmp_path / "configs" / "pretrain" / "msgfm_base.yaml").is_file()
