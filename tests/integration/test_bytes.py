"""What is fetched, counted at the server: a job fetches a collection once an epoch, and no sensor it does not use."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from gfm_pipeline.data.loader import Loader
from gfm_pipeline.data.mixture import open_mixture
from gfm_pipeline.shards.manifest import load_sidecar
from gfm_pipeline.storage import LocalStore
from tests.faulty_proxy import FaultyProxy
from tests.remote_collection import loader_config, write_pairs
from tests.servers import web_server

SAMPLES, STEPS_PER_EPOCH = 96, 12  # longer than the loader looks ahead
EPOCHS = 3


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("bytes")
    write_pairs(root, px=64, samples=SAMPLES)
    return root


@pytest.fixture
def counting(root: Path) -> Iterator[FaultyProxy]:
    with web_server(root) as url, FaultyProxy(url).running() as proxy:
        yield proxy


@pytest.mark.parametrize("world", [1, 2, 4])
def test_a_job_fetches_a_collection_once_an_epoch(world: int, root: Path, counting: FaultyProxy) -> None:
    config = loader_config(counting.url)  # lanes end where chunks do, so that all epochs ask for the same ranges
    loaders = [Loader(open_mixture(config), config, 0, rank, world) for rank in range(world)]
    try:
        for _ in range(EPOCHS * STEPS_PER_EPOCH):
            for loader in loaders:
                next(loader)
    finally:
        for loader in loaders:
            loader.close()
    fetched = Counter((one.path, one.range) for one in counting.passed if one.path.endswith(".tar"))
    assert set(fetched.values()) <= {EPOCHS, EPOCHS + 1}  # some of the next epoch's were fetched ahead
    an_epoch = sum(asked[1] for _, asked in fetched if asked)
    size = sum(path.stat().st_size for path in root.rglob("*.tar"))
    print(f"\n{world} ranks: {an_epoch} bytes an epoch of a collection of {size}")
    assert abs(an_epoch / size - 1) < 0.01
    assert counting.body_bytes(".tar") == sum(count * asked[1] for (_, asked), count in fetched.items() if asked)


def test_one_sensor_of_pairs_costs_no_bytes_of_the_other(root: Path, counting: FaultyProxy) -> None:
    config = loader_config(counting.url, sensors=("s1",), lanes=2)
    with Loader(open_mixture(config), config, 0, 0, 1) as loader:
        for _ in range(STEPS_PER_EPOCH):
            next(loader)
    store = LocalStore(root / "pairs")
    reads = 0
    for path in sorted((root / "pairs" / "shards").glob("*.tar")):
        unwanted = [sample.sensors["s2"] for sample in load_sidecar(store, path.stem).samples]
        for one in counting.passed:
            if one.path.endswith(path.name) and one.method == "GET":
                assert one.range is not None
                start, length = one.range
                assert not any(m.offset < start + length and start < m.offset + m.size for m in unwanted)
                reads += 1
    assert reads
    s1_bytes = sum(s.sensors["s1"].size for p in root.rglob("*.tar") for s in load_sidecar(store, p.stem).samples)
    fetched = {(one.path, one.range) for one in counting.passed if one.path.endswith(".tar")}
    assert sum(asked[1] for _, asked in fetched if asked) == s1_bytes
