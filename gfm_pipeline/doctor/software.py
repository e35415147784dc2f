"""Python, the packages that training stands on, and the compiler that DeepSpeed asks for."""

from __future__ import annotations

import platform
import shutil
import sysconfig
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from gfm_pipeline.doctor.finding import Finding

PACKAGE = "gfm-pipeline"


def check_python() -> list[Finding]:
    """Say which Python and system this is."""
    return [Finding("python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}")]


def check_packages() -> list[Finding]:
    """Compare what is installed with what this package requires of it."""
    try:
        texts = metadata.requires(PACKAGE) or []
    except metadata.PackageNotFoundError:
        return [Finding("packages", "failure", f"{PACKAGE} is not installed", "pip install -e . in its folder")]
    findings, versions = [], []
    for requirement in map(Requirement, texts):
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            findings.append(
                Finding("packages", "failure", f"{requirement.name} is missing", f"pip install '{requirement}'")
            )
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            findings.append(
                Finding(
                    "packages",
                    "failure",
                    f"{requirement.name} {version} does not fit",
                    f"pip install --upgrade '{requirement}'",
                )
            )
        versions.append(f"{requirement.name} {version}")
    main = [
        text for text in versions if text.split()[0] in ("torch", "deepspeed", "timm", "webdataset", "obstore", "numpy")
    ]
    return [*findings, Finding("packages", "ok", f"{', '.join(main)}; {len(versions)} in all")]


def check_compiler() -> list[Finding]:
    """Look for what DeepSpeed compiles its operator with at the first start."""
    findings = []
    for program, remedy in (("g++", "sudo apt install g++"), ("ninja", "pip install ninja")):
        path = shutil.which(program)
        findings.append(
            Finding("compiler", "ok", path)
            if path
            else Finding("compiler", "failure", f"found no {program}, which DeepSpeed's first start needs", remedy)
        )
    header = Path(sysconfig.get_path("include")) / "Python.h"
    if not header.is_file():
        findings.append(Finding("compiler", "failure", f"found no {header}", "sudo apt install python3-dev"))
    return findings


def check_operators() -> list[Finding]:
    """Ask DeepSpeed whether its collective operator for CPUs can be built or loaded here; GPUs use NCCL."""
    import torch

    if torch.cuda.is_available():
        return [Finding("operators", "ok", f"{_nccl()}")]
    if not torch.distributed.is_gloo_available():
        return [Finding("operators", "failure", "this torch has no gloo", "install torch from its own wheels")]
    return [Finding("operators", "ok", "gloo, for processes on CPUs")]


def _nccl() -> str:
    from torch.cuda import nccl

    version: tuple[int, ...] = nccl.version()  # type: ignore[no-untyped-call]
    return f"NCCL {'.'.join(map(str, version))}"
