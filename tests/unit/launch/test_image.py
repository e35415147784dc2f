"""The image for Kubernetes: its steps are those of a script, which runs without Docker."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
DOCKERFILE = ROOT / "launch" / "image" / "Dockerfile"


def test_the_dockerfile_copies_and_runs_what_is_there() -> None:
    text = DOCKERFILE.read_text().replace("\\\n", " ")
    assert "COPY . ." in text
    scripts = re.findall(r"bash (\S+\.sh)", text)
    assert scripts == ["launch/image/install.sh"]
    assert all((ROOT / script).is_file() for script in scripts)
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert not {"launch", "configs", "setup.cfg", "pyproject.toml", "README.md", "LICENSE"} & set(ignored)
    # environment.sh refuses to begin without these.
    assert {"g++", "python3-dev", "python3-venv", "bash"} <= set(text.split())


@pytest.mark.slow
def test_the_script_of_the_image_runs_to_its_end() -> None:
    environment = {**os.environ, "GFM_VENV": sys.prefix}
    command = ["bash", "launch/image/install.sh"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "gfm-launch, version" in done.stdout
