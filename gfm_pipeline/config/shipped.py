"""The configurations that ship with the product, in a checkout and in an installed wheel alike."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path, PurePosixPath

from gfm_pipeline.config.base import read_tree
from gfm_pipeline.errors import ConfigError, UsageError, nearest

DISTRIBUTION = "gfm-pipeline"
INSTALLED_AT = "share/gfm-pipeline/configs/"
"""Where a wheel puts them, below the prefix of its environment; setup.cfg says the same."""


def shipped_configs() -> dict[str, Path]:
    """Return every shipped configuration by its name, e.g. "pretrain/msgfm_base", sorted.

    Raises ConfigError for an installation that lost them.
    """
    checkout = Path(__file__).parents[2] / "configs"
    if checkout.is_dir():
        found = {path.relative_to(checkout).as_posix(): path for path in checkout.rglob("*.yaml")}
    else:
        # `files` knows where an installation with another prefix (--user, --target) has put them.
        listed = metadata.files(DISTRIBUTION) or []
        found = {
            PurePosixPath(file).as_posix().partition(INSTALLED_AT)[2]: Path(str(file.locate())).resolve()
            for file in listed
            if INSTALLED_AT in file.as_posix()
        }
    if not found:
        raise ConfigError(f"{DISTRIBUTION} was installed without its configurations. Install it again.")
    return {name.removesuffix(".yaml"): found[name] for name in sorted(found)}


def summary_of(path: Path) -> str:
    """Return the first sentence of the comment at the top of a configuration."""
    lines: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#") or line.startswith("#  "):
            break
        lines.append(line.lstrip("# "))
    return " ".join(lines).partition(". ")[0].rstrip(".")


def copy_config(name: str, folder: Path) -> list[Path]:
    """Copy a shipped configuration and the ones that it builds on below `folder`; return their paths, its own first.

    They keep their places relative to each other, so that `base:` finds them. A file that is there and equal is left
    as it is. Raises UsageError for an unknown name and for a file that is there and differs.
    """
    known = shipped_configs()
    if name.removesuffix(".yaml") not in known:
        raise UsageError(f"no shipped configuration is called '{name}'. {nearest(name, known)}")
    first = known[name.removesuffix(".yaml")]
    root = first.resolve().parents[name.count("/")]
    sources = [path.resolve() for path in read_tree(first)[1]]
    targets = [folder / source.relative_to(root) for source in sources]
    for source, target in zip(sources, targets, strict=True):
        if target.exists() and target.read_bytes() != source.read_bytes():
            raise UsageError(f"{target} is there and differs from the shipped one. Move it, or give another --out.")
    for source, target in zip(sources, targets, strict=True):
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(source.read_bytes())
    return targets
