"""Collections on plain web servers and in Azure, read by the loader: the batches of a local copy."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from gfm_pipeline.errors import StorageError
from gfm_pipeline.storage import StorageConfig, open_store
from tests.remote_collection import epoch_batches, loader_config, upload, write_pairs
from tests.servers import AZURITE, NGINX, azure_server, real_web_server
from tests.serving import environment


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("served")
    write_pairs(root)
    return root


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A PEM file with key and certificate of 127.0.0.1, and one of the authority that signed it."""
    folder = tmp_path_factory.mktemp("authority")
    own = trustme.CA()
    own.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(folder / "server.pem")
    own.cert_pem.write_to_path(folder / "authority.pem")
    return folder / "server.pem", folder / "authority.pem"


@pytest.fixture(params=["aiohttp", "nginx"])
def kind(request: pytest.FixtureRequest) -> str:
    if request.param == "nginx" and not NGINX:
        pytest.skip("nginx is not installed")
    return str(request.param)


def test_http(kind: str, root: Path, tmp_path: Path) -> None:
    with real_web_server(kind, root, tmp_path) as url:
        assert epoch_batches(loader_config(url)) == epoch_batches(loader_config(root))
        with pytest.raises(StorageError, match="there is no such object"):
            open_store(url).get("nothing")


def test_https_with_an_authority_of_its_own(
    kind: str, root: Path, authority: tuple[Path, Path], tmp_path: Path
) -> None:
    pem, trusted = authority
    with real_web_server(kind, root, tmp_path, pem) as url:
        with pytest.raises(StorageError, match=r"certificate is not trusted.*SSL_CERT_FILE"):
            open_store(url).get("pairs/manifest.json")
        # In a process of its own, as a user sets it: before the first connection.
        code = (
            f"from gfm_pipeline.storage import open_store; print(len(open_store({url!r}).get('pairs/manifest.json')))"
        )
        with environment(SSL_CERT_FILE=str(trusted)):
            done = subprocess.run(
                [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120
            )
            assert done.returncode == 0, done.stderr
            assert int(done.stdout) == (root / "pairs" / "manifest.json").stat().st_size
            assert epoch_batches(loader_config(url)) == epoch_batches(loader_config(root))


@pytest.fixture(scope="module")
def azure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    if not AZURITE.exists():
        pytest.skip(f"Azurite is not installed: no {AZURITE} (it needs Node.js; launch/test.sh installs it)")
    with azure_server(tmp_path_factory.mktemp("azure")) as found:
        yield found


def test_azure(azure: dict[str, str], root: Path) -> None:
    with environment(**azure):
        upload(root / "pairs", "az://container/shards/pairs")
        store = open_store("az://container/shards")
        assert ("pairs/manifest.json", (root / "pairs" / "manifest.json").stat().st_size) in list(store.walk(""))
        assert epoch_batches(loader_config("az://container/shards")) == epoch_batches(loader_config(root))


def test_azure_by_configuration(azure: dict[str, str], root: Path) -> None:
    wanted = StorageConfig(endpoint=azure["AZURE_STORAGE_ENDPOINT"], account=azure["AZURE_STORAGE_ACCOUNT_NAME"])
    with environment(AZURE_STORAGE_ACCOUNT_KEY=azure["AZURE_STORAGE_ACCOUNT_KEY"]):
        open_store("az://container/by-configuration", wanted).put("x", b"x")
        assert open_store("az://container/by-configuration", wanted).get("x") == b"x"
        with pytest.raises(StorageError, match=r"Set storage\.account, or AZURE_STORAGE_ACCOUNT_NAME"):
            open_store("az://container/x").get("x")
    with (
        environment(AZURE_STORAGE_ACCOUNT_KEY="d3JvbmcA"),
        pytest.raises(StorageError, match="access is denied") as told,
    ):
        open_store("az://container/by-configuration", wanted).get("x")
    assert "d3JvbmcA" not in str(told.value)
