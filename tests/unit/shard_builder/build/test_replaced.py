"""Archives that are replaced while a build is under way, by others of the same names and sizes."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest

from gfm_pipeline.errors import ArchiveError, ConfigError
from shard_builder.build.build import Event, build_collection
from shard_builder.config import BuildConfig
from tests.contracts.test_sources import digests
from tests.make.archives import tiff

TOP = "ROIs1158_spring"


def write(raw: Path, value: int, suffix: str) -> None:
    """Write archives in which every pixel is `value`; tars of any two values have one size."""
    raw.mkdir(exist_ok=True)
    for sensor, bands, dtype in (("s1", 2, np.float32), ("s2", 13, np.uint16)):
        with tarfile.open(raw / f"{TOP}_{sensor}.{suffix}", "w:gz" if suffix == "tar.gz" else "w") as archive:
            for i in range(4):
                data = tiff(np.full((64, 64, bands), -value if sensor == "s1" else value, dtype))
                info = tarfile.TarInfo(f"{TOP}/{sensor}_1/{TOP}_{sensor}_1_p{i}.tif")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))


def configured(raw: Path, out: Path) -> BuildConfig:
    return BuildConfig(source="sen12ms", input=str(raw), output=str(out), max_samples=1)


class StoppedError(Exception):
    pass


def stop(event: Event) -> None:
    if event.written == 2:
        raise StoppedError


@pytest.mark.parametrize("suffix", ["tar", "tar.gz"])
def test_a_build_that_goes_on_mixes_no_pixels(suffix: str, tmp_path: Path) -> None:
    raw, out = tmp_path / "raw", tmp_path / "out"
    write(raw, 3, suffix)
    with pytest.raises(StoppedError):
        build_collection(configured(raw, out), "build", stop)
    write(raw, 7, suffix)
    if suffix == "tar.gz":  # its checksum tells another archive, which is not gone on with unasked
        with pytest.raises(ConfigError, match="shards of another plan"):
            build_collection(configured(raw, out), "build", lambda _: None)
    report = build_collection(configured(raw, out), "retry" if suffix == "tar.gz" else "build", lambda _: None)
    assert report.resumed_shards == 0
    build_collection(configured(raw, tmp_path / "whole"), "build", lambda _: None)
    assert digests(out) == digests(tmp_path / "whole")


@pytest.mark.parametrize("suffix", ["tar", "tar.gz"])
def test_a_build_in_which_it_happens_does_not_end_well(suffix: str, tmp_path: Path) -> None:
    raw, out = tmp_path / "raw", tmp_path / "out"
    write(raw, 3, suffix)

    def replace(event: Event) -> None:
        if event.written == 2:
            write(raw, 7, suffix)

    with pytest.raises(ArchiveError, match=rf"{TOP}_s1\.{suffix} was replaced while it was read.*retry"):
        build_collection(configured(raw, out), "build", replace)
    assert not (out / "manifest.json").exists()
    build_collection(configured(raw, out), "retry", lambda _: None)
    build_collection(configured(raw, tmp_path / "whole"), "build", lambda _: None)
    assert digests(out) == digests(tmp_path / "whole")


def test_a_copy_with_another_time_is_the_same_archive(tmp_path: Path) -> None:
    raw, out = tmp_path / "raw", tmp_path / "out"
    write(raw, 3, "tar.gz")
    with pytest.raises(StoppedError):
        build_collection(configured(raw, out), "build", stop)
    os.utime(raw / f"{TOP}_s1.tar.gz", (1, 1))
    assert build_collection(configured(raw, out), "build", lambda _: None).resumed_shards == 2
