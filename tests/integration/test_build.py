"""Builds as a user runs them: killed, run again, on real archives where they are at hand."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from gfm_pipeline.config import load_config
from shard_builder.build.build import build_collection
from shard_builder.config import BuildConfig
from tests.conftest import BIN, ROOT, run_command
from tests.contracts.test_sources import build, digests, read_with_public_libraries
from tests.make.archives import MAKERS, sen12ms, tar_gz, tiff

REAL = ROOT.parent / "shared" / "raw"
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason="no real archives beside the project folder")


def command(source: str, raw: Path, out: Path, *more: str) -> list[str]:
    words = ["shard-builder", "build", "--config", f"configs/build/{source}.yaml"]
    for value in (f"input={raw}", f"output={out}", *more):
        words += ["--set", value]
    return words


@pytest.fixture(scope="module")
def whole(demo_archives: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The digests of what nobody disturbed: the demo's SEN12MS in shards of one sample."""
    out = tmp_path_factory.mktemp("whole") / "out"
    run_command(*command("sen12ms", demo_archives, out, "max_samples=1"))
    return digests(out)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_build_goes_on_to_the_same_bytes(
    workers: int, demo_archives: Path, whole: dict[str, str], tmp_path: Path
) -> None:
    more = ("max_samples=1", f"workers={workers}")
    out = tmp_path / "cut"
    environment = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    moments = random.Random(workers)
    kills = 0
    for _ in range(6):
        process = subprocess.Popen(
            command("sen12ms", demo_archives, out, *more),
            cwd=ROOT,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        target = len(list(out.glob("shards/*.json"))) + moments.randint(0, 3)
        while process.poll() is None and len(list(out.glob("shards/*.json"))) < target:
            time.sleep(0.002)
        time.sleep(moments.random() * 0.02)
        kills += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert kills >= 2, "the build was over before it could be killed"
    wait_for_orphans(out)
    run_command(*command("sen12ms", demo_archives, out, *more))
    assert digests(out) == whole  # equal names too: no leftovers


def test_a_dead_worker_is_an_error_and_costs_nothing(
    demo_archives: Path, whole: dict[str, str], tmp_path: Path
) -> None:
    words = command("sen12ms", demo_archives, tmp_path / "out", "max_samples=1", "workers=2")
    environment = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    process = subprocess.Popen(words, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)
    victim = None
    while victim is None and process.poll() is None:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        spawned = [int(pid) for pid in children if "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text()]
        victim = spawned[0] if spawned else None
        time.sleep(0.002)
    assert victim is not None
    os.kill(victim, signal.SIGSTOP)  # so that it cannot finish before it is killed
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and not list(tmp_path.glob("out/shards/*.json")):
        time.sleep(0.01)
    os.kill(victim, signal.SIGKILL)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "error: a worker process died" in errors
    assert "Traceback" not in errors
    run_command(*words)
    assert digests(tmp_path / "out") == whole


def test_the_second_run_has_nothing_to_do(demo_shards: Path, demo_archives: Path) -> None:
    before = digests(demo_shards / "geopile")
    done = run_command(*command("geopile", demo_archives, demo_shards / "geopile"))
    assert "Nothing to do" in done.stdout
    assert digests(demo_shards / "geopile") == before


def test_two_builds_do_not_share_a_folder(tmp_path: Path) -> None:
    import fcntl

    (tmp_path / "raw").mkdir()
    sen12ms(tmp_path / "raw")
    (tmp_path / "out" / ".build").mkdir(parents=True)
    with (tmp_path / "out" / ".build" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        refused(command("sen12ms", tmp_path / "raw", tmp_path / "out"), 1, "another build is writing")


def test_a_changed_archive_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    sen12ms(tmp_path / "raw")
    run_command(*command("sen12ms", tmp_path / "raw", tmp_path / "out"))
    s1 = tiff(np.zeros((8, 8, 2), np.float32))
    tar_gz(tmp_path / "raw" / "ROIs1158_spring_s1.tar.gz", {"ROIs1158_spring/s1_1/ROIs1158_spring_s1_1_p1.tif": s1})
    refused(command("sen12ms", tmp_path / "raw", tmp_path / "out"), 2, "has changed since")


@pytest.mark.parametrize(
    ("settings", "code", "words"),
    [
        (["source=sen12m"], 2, "Did you mean 'sen12ms'"),
        (["unpared=drop"], 2, "Did you mean 'unpaired'"),
        (["sensors.s22.bands=[a]"], 2, "sensors.s22"),
        (["sensors.s1.bands=[a,a]"], 2, "sensors.s1: 'bands': band names repeat"),
        (["sensors.s1.gsd_m=-1"], 2, "sensors.s1: 'gsd_m'"),
        (["edge=drop"], 2, "edge is set, but source sen12ms packs its images whole"),
        (["source=mdas", "tile_px=64", "stride_px=65"], 2, "pixels between tiles would be lost"),
        (["input=/nowhere/at/all"], 2, "/nowhere/at/all does not exist"),
        (["unpaired=error"], 1, "_p5 has no s1"),
        (["max_member_bytes=100"], 1, "the limit is 100"),
    ],
)
def test_nonsense_costs_one_line(settings: list[str], code: int, words: str, tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    sen12ms(tmp_path / "raw")
    refused(command("sen12ms", tmp_path / "raw", tmp_path / "out", *settings), code, words)
    build("sen12ms", tmp_path / "raw", tmp_path / "out")  # nothing that was left behind hinders


@pytest.mark.parametrize(
    ("source", "damage", "words", "workers"),
    [
        ("sen12ms", "cut", "ROIs1868_summer_s2.tar.gz is damaged or cut short", 1),
        ("sen12ms", "bands", "s2 has 12 bands in ROIs", 1),
        ("sen12ms", "bands", "s2 has 12 bands in ROIs", 2),
        ("geopile", "cut", "GeoPileV0.zip is no readable zip archive", 1),
    ],
)
def test_damage_costs_one_line(source: str, damage: str, words: str, workers: int, tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    bands = {"s2_bands": 12} if damage == "bands" else {}
    MAKERS[source](tmp_path / "raw", **bands)
    if damage == "cut":
        archives = sorted(path for path in (tmp_path / "raw").iterdir() if path.suffix in (".zip", ".gz"))
        victim = next((path for path in archives if path.suffix == ".zip"), archives[-1])
        victim.write_bytes(victim.read_bytes()[:-600])
    more = ("max_samples=1", f"workers={workers}")
    refused(command(source, tmp_path / "raw", tmp_path / "out", *more), 1, words)
    assert not (tmp_path / "out" / "manifest.json").exists()
    MAKERS[source](tmp_path / "raw")
    run_command(*command(source, tmp_path / "raw", tmp_path / "out", *more))
    shipped = load_config(ROOT / f"configs/build/{source}.yaml", BuildConfig, [f"input={tmp_path / 'raw'}"])
    whole = shipped.model_copy(update={"output": str(tmp_path / "whole"), "max_samples": 1, "workers": 1})
    build_collection(whole, "build", lambda _: None)
    assert digests(tmp_path / "out") == digests(tmp_path / "whole")


@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_is_clean(workers: int, demo_archives: Path, whole: dict[str, str], tmp_path: Path) -> None:
    words = command("sen12ms", demo_archives, tmp_path / "out", "max_samples=1", f"workers={workers}")
    environment = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    process = subprocess.Popen(
        words, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    while process.poll() is None and not list(tmp_path.glob("out/shards/*.json")):
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGINT)  # a terminal sends it to the workers too
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert {path.name for path in (tmp_path / "out").rglob(".*")} == {".build"}
    run_command(*words)
    assert digests(tmp_path / "out") == whole


def test_what_was_left_out_is_exit_code_three(tmp_path: Path) -> None:
    for folder, bands in (("raw", 12), ("good", 13)):
        (tmp_path / folder).mkdir()
        sen12ms(tmp_path / folder, s2_bands=bands)
    shutil.copy(tmp_path / "good/ROIs1158_spring_s2.tar.gz", tmp_path / "raw")
    done = run_command(*command("sen12ms", tmp_path / "raw", tmp_path / "out", "on_error=skip"), check=False)
    assert done.returncode == 3
    assert "2 rejected (on_error=skip)" in done.stdout
    again = run_command(*command("sen12ms", tmp_path / "raw", tmp_path / "out", "on_error=skip"), check=False)
    assert (again.returncode, "Nothing to do" in again.stdout) == (3, True)
    assert "Traceback" not in done.stderr


def test_a_changed_folder_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    sen12ms(tmp_path / "raw")
    for path in (tmp_path / "raw").glob("*.tar.gz"):
        with tarfile.open(path) as archive:
            archive.extractall(tmp_path / "folders", filter="data")
    words = command("sen12ms", tmp_path / "folders", tmp_path / "out")
    run_command(*words)
    assert "Nothing to do" in run_command(*words).stdout
    next((tmp_path / "folders").rglob("*_p2.tif")).unlink()
    refused(words, 2, "has changed since")


@pytest.mark.parametrize("wrong", ["input=/nowhere", "unpaired=error", "sensors.s3.bands=[a]"])
def test_a_refused_build_leaves_no_litter(wrong: str, tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    sen12ms(tmp_path / "raw")
    done = run_command(*command("sen12ms", tmp_path / "raw", tmp_path / "out", wrong), check=False)
    assert done.returncode in (1, 2)
    assert not (tmp_path / "out").exists()


def test_an_interrupted_build_says_so_and_goes_on(demo_archives: Path, whole: dict[str, str], tmp_path: Path) -> None:
    words = command("sen12ms", demo_archives, tmp_path / "out", "max_samples=1", "workers=2")
    environment = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    process = subprocess.Popen(words, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not list((tmp_path / "out").glob("shards/*.json")):
        time.sleep(0.002)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert {path.name for path in (tmp_path / "out").rglob("*") if path.name.startswith(".")} == {".build"}
    run_command(*words)
    assert digests(tmp_path / "out") == whole


def test_a_build_imports_nothing_that_it_does_not_need(tmp_path: Path) -> None:
    """Arrow would import pandas, which takes longer than a small build."""
    sen12ms(tmp_path)
    code = (
        "import sys\nfrom shard_builder.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert end.code == 0\n"
        "print(sorted(name for name in ('pandas', 'torch', 'matplotlib', 'dask') if sys.modules.get(name)))"
    )
    words = command("sen12ms", tmp_path, tmp_path / "out", "workers=1")[1:]
    assert run_command(sys.executable, "-c", code, *words).stdout.splitlines()[-1] == "[]"


def test_the_builder_needs_no_torch() -> None:
    code = (
        "import sys, shard_builder.build.build as build; build.EXECUTORS.names()\n"
        "from shard_builder.sources.base import SOURCES; SOURCES.names()\n"
        "print(sorted({'torch', 'webdataset', 'deepspeed', 'matplotlib'} & set(sys.modules)))"
    )
    assert run_command(sys.executable, "-c", code).stdout.strip() == "[]"


def test_leaving_out_what_has_no_partner_is_no_failure(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    sen12ms(tmp_path / "raw")
    done = run_command(*command("sen12ms", tmp_path / "raw", tmp_path / "out", "unpaired=drop"))
    assert "left out, listed in failures.jsonl" in done.stdout
    assert len((tmp_path / "out" / "failures.jsonl").read_text().splitlines()) == 1


@needs_real
def test_real_rgb_archives(tmp_path: Path) -> None:
    counts = {}
    for source, name in (("geopile", "GeoPileV0.zip"), ("millionaid", "millionaid_test.zip")):
        run_command(*command(source, REAL, tmp_path / source))
        raw = {}
        with zipfile.ZipFile(REAL / name) as archive:
            for info in archive.infolist():
                if not info.is_dir():
                    image = np.asarray(Image.open(io.BytesIO(archive.read(info))))[..., :3]
                    raw[hashlib.sha256(image.tobytes()).hexdigest()] = info.filename
        found = [rasters["rgb"].transpose(1, 2, 0) for _, rasters, _ in read_with_public_libraries(tmp_path / source)]
        counts[source] = len(found)
        packed = {hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest() for image in found}
        assert packed == raw.keys()
    assert counts == {"geopile": 444, "millionaid": 68}


@needs_real
def test_real_pairs_and_tiles(tmp_path: Path) -> None:
    done = run_command(*command("sen12ms", REAL, tmp_path / "sen12ms"))
    assert "ROIs1868_summer_201_p1 has no s1" in done.stdout
    for name in ("ROIs1970_fall_s2_cloudy.tar.gz", "ROIs2017_winter_s2_cloudy.tar.gz"):
        assert name in done.stdout
    samples = {key: rasters for key, rasters, _ in read_with_public_libraries(tmp_path / "sen12ms")}
    assert sum(rasters.keys() == {"s1", "s2"} for rasters in samples.values()) == 14
    assert [key for key, rasters in samples.items() if len(rasters) == 1] == ["ROIs1868_summer_201_p1"]

    run_command(*command("mdas", REAL, tmp_path / "mdas"))
    with zipfile.ZipFile(REAL / "Augsburg_data_4_publication.zip") as archive:
        names = {("rgb" if "RGB" in name else "dsm"): name for name in archive.namelist()}
        whole = {sensor: tifffile.imread(io.BytesIO(archive.read(name))) for sensor, name in names.items()}
    rebuilt = {sensor: np.full_like(image, 0) for sensor, image in whole.items()}
    tiles = 0
    for _, rasters, meta in read_with_public_libraries(tmp_path / "mdas"):
        tiles += 1
        for sensor, raster in rasters.items():
            row, column, height, width = meta["sensors"][sensor]["window"]
            image = raster.transpose(1, 2, 0) if sensor == "rgb" else raster[0]
            rebuilt[sensor][row : row + height, column : column + width] = image
    assert tiles == 8
    for sensor, image in whole.items():
        np.testing.assert_array_equal(rebuilt[sensor], image)
    assert json.loads((tmp_path / "mdas" / "manifest.json").read_text())["num_samples"] == 8


def refused(words: list[str], code: int, message: str) -> None:
    done = run_command(*words, check=False)
    assert done.returncode == code, done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert message in errors[0]
    assert "Traceback" not in done.stderr


def wait_for_orphans(out: Path) -> None:
    """Wait until no process mentions the folder: workers end with their parent."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if not any(str(out) in text for text in _open_files()):
            return
        time.sleep(0.05)
    raise AssertionError(f"a process still has files open in {out}")


def _open_files() -> list[str]:
    names = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                names += [os.readlink(link) for link in (entry / "fd").iterdir()]
            except OSError:
                continue
    return names


@pytest.mark.parametrize("limit", [300, 3_000, 30_000])
def test_a_full_disk_commits_nothing_half(limit: int, tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    sen12ms(tmp_path / "raw")
    code = (
        f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n"  # no file may grow further
        "from shard_builder.cli import main; main()"
    )
    words = command("sen12ms", tmp_path / "raw", tmp_path / "out", "workers=1")[1:]
    done = run_command(sys.executable, "-c", code, *words, check=False)
    assert done.returncode == 1, done.stderr
    assert "error: cannot write" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("out/shards/*"))
    run_command("shard-builder", *words)
    run_command(*command("sen12ms", tmp_path / "raw", tmp_path / "whole", "workers=1"))
    assert digests(tmp_path / "out") == digests(tmp_path / "whole")


@pytest.mark.parametrize("out", ["/proc/nobody/may", "{raw}/ROIs1158_spring_s1.tar.gz/in"])
def test_an_output_that_cannot_be_is_one_line(out: str, tmp_path: Path) -> None:
    sen12ms(tmp_path)
    refused(command("sen12ms", tmp_path, Path(out.format(raw=tmp_path))), 1, "cannot write to")
