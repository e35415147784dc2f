"""What a configuration says comes before the environment, for every store; the environment's values are checked too."""

from __future__ import annotations

import http.server
import os
from collections.abc import Iterator

import pytest

from gfm_pipeline.errors import StorageError
from gfm_pipeline.storage import StorageConfig, open_store
from tests.serving import environment, serving

KEYS = {
    "AWS_ACCESS_KEY_ID": "user",
    "AWS_SECRET_ACCESS_KEY": "word",
    "AZURE_STORAGE_ACCOUNT_NAME": "elsewhere",
    "AZURE_STORAGE_ACCOUNT_KEY": "d29yZA==",
    "GOOGLE_BEARER_TOKEN": "token",
}


class Listening(http.server.BaseHTTPRequestHandler):
    """Has nothing, and remembers what it was asked for."""

    seen: list[tuple[int, str, str]] = []

    def do_GET(self) -> None:
        port = self.server.server_address[1]  # type: ignore[index]
        self.seen.append((int(port), self.path, self.headers.get("Authorization", "")))
        self.send_response(404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def two_servers() -> Iterator[tuple[int, int]]:
    with serving(Listening) as ours, serving(Listening) as other:
        yield ours, other


@pytest.fixture
def servers(two_servers: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> tuple[int, int]:
    """Ports of the configured server and of another one; an environment without settings."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "AZURE_", "AZURITE_", "GOOGLE_")):
            monkeypatch.delenv(name)
    Listening.seen = []
    return two_servers


@pytest.mark.parametrize(
    ("url", "settings", "path", "signed"),
    [
        ("s3://buck/p", {"AWS_ENDPOINT_URL_S3": "URL"}, "/buck/p/x", "user"),
        ("s3://buck/p", {"AWS_ENDPOINT_URL": "URL"}, "/buck/p/x", "user"),
        ("s3://buck", {"AWS_ENDPOINT": "URL", "AWS_ENDPOINT_URL_S3": "URL"}, "/buck/x", "user"),
        ("s3a://buck/a%20b", {"AWS_ENDPOINT_URL_S3": "no url at all"}, "/buck/a%20b/x", "user"),
        ("s3://buck/p", {"AWS_BUCKET": "theirs", "AWS_BUCKET_NAME": "theirs"}, "/buck/p/x", "user"),
        ("s3://buck/p", {"AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "true"}, "/buck/p/x", "user"),
        ("s3://buck/p", {"AWS_S3_EXPRESS": "true"}, "/buck/p/x", "user"),
        ("s3://buck/p", {"AWS_REGION": "theirs", "AWS_DEFAULT_REGION": "theirs"}, "/buck/p/x", "/ours/s3"),
        ("s3://buck/p", {"AWS_PROXY_URL": "URL"}, "/buck/p/x", "user"),
        ("gs://buck/p", {"GOOGLE_BASE_URL": "URL"}, "/buck/p%2Fx", "Bearer token"),
        ("gs://buck/p", {"GOOGLE_BUCKET": "theirs", "GOOGLE_BUCKET_NAME": "theirs"}, "/buck/p%2Fx", "Bearer token"),
        ("az://buck/p", {"AZURE_STORAGE_ENDPOINT": "URL"}, "/buck/p/x", "SharedKey ours:"),
        ("az://buck/p", {"AZURE_ENDPOINT": "URL", "AZURE_CONTAINER_NAME": "theirs"}, "/buck/p/x", "SharedKey ours:"),
        (
            "az://buck/p",
            {"AZURE_STORAGE_USE_EMULATOR": "true", "AZURITE_BLOB_STORAGE_URL": "URL"},
            "/buck/p/x",
            "SharedKey ours:",
        ),
    ],
)
@pytest.mark.parametrize("anonymous", [False, True])
def test_the_configured_server_is_asked(
    url: str, settings: dict[str, str], path: str, signed: str, anonymous: bool, servers: tuple[int, int]
) -> None:
    ours, other = servers
    values = {name: f"http://127.0.0.1:{other}" if value == "URL" else value for name, value in settings.items()}
    values |= {name: str(not anonymous).lower() for name in ("AWS_SKIP_SIGNATURE", "AZURE_SKIP_SIGNATURE")}
    values |= {"GOOGLE_SKIP_SIGNATURE": str(not anonymous).lower()}
    config = StorageConfig(
        endpoint=f"http://127.0.0.1:{ours}/", region="ours", account="ours", anonymous=anonymous, deadline_s=5
    )
    if anonymous and url.startswith("gs"):
        values["GOOGLE_BEARER_TOKEN"] = ""  # a token is no signature: obstore sends it all the same
    with environment(**{**KEYS, **values}), pytest.raises(StorageError, match="no such object"):
        open_store(url, config).get("x")
    ((port, asked, authorization),) = Listening.seen
    assert (port, asked) == (ours, path)
    assert (signed in authorization) is not anonymous


@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "GOOGLE_BASE_URL", "AZURE_ENDPOINT"])
@pytest.mark.parametrize("value", ["https://user:canary@host", "https://host?sig=canary", "ftp://host", "host:9000"])
def test_an_endpoint_of_the_environment_is_checked(name: str, value: str, servers: tuple[int, int]) -> None:
    url = {"AWS": "s3", "GOO": "gs", "AZU": "az"}[name[:3]] + "://bucket/p"
    with environment(**{**KEYS, name: value}), pytest.raises(StorageError, match=name) as caught:
        open_store(url).get("x")
    assert "canary" not in str(caught.value)


def test_the_environment_says_what_nobody_configured(servers: tuple[int, int]) -> None:
    ours, other = servers
    here, there = f"http://127.0.0.1:{ours}/", f"http://127.0.0.1:{other}"
    named = {"AWS_ENDPOINT_URL_S3": here, "AWS_ENDPOINT_URL": there, "AWS_SKIP_SIGNATURE": "true"}
    with environment(**KEYS, **named), pytest.raises(StorageError, match="no such object"):
        open_store("s3://bucket/p").get("x")
    assert Listening.seen == [(ours, "/bucket/p/x", "")]
