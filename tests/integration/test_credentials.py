"""Credentials come from where the cloud's own tools look, and go nowhere but into signatures."""

from __future__ import annotations

import http.server
import logging
import pickle
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from gfm_pipeline.config import parse_config
from gfm_pipeline.errors import ConfigError, StorageError
from gfm_pipeline.storage import StorageConfig, open_store, remote
from gfm_pipeline.train.config import TrainConfig
from tests.serving import environment, serving
from tests.swift import SWIFT_BIN

CANARY = "canary-9f3b1c7d5e"
UNSET = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_ENDPOINT_URL")


@pytest.fixture
def bare(s3: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, str]:
    """An environment that knows no credentials, and what would reach the server."""
    for name in (*UNSET, "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    return s3


class Recording(http.server.BaseHTTPRequestHandler):
    """Answers 400 to everything, and repeats in its answer what it was sent: the worst of servers."""

    protocol_version = "HTTP/1.1"
    seen: list[dict[str, str]] = []

    def do_GET(self) -> None:
        self.seen.append(dict(self.headers))
        said = f"<Error><Code>Odd</Code><Message>{CANARY} {dict(self.headers)}</Message></Error>".encode()
        self.send_response(400)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    do_HEAD = do_PUT = do_GET

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def telltale() -> Iterator[str]:
    Recording.seen = []
    with serving(Recording) as port:
        yield f"http://127.0.0.1:{port}"


def test_a_profile_is_read(bare: dict[str, str], tmp_path: Path) -> None:
    key, secret = bare["AWS_ACCESS_KEY_ID"], bare["AWS_SECRET_ACCESS_KEY"]
    (tmp_path / "credentials").write_text(
        f"[default]\naws_access_key_id = {key}\naws_secret_access_key = {CANARY}\n"
        f"[lab]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n"
    )
    (tmp_path / "config").write_text("[profile lab]\nregion = us-east-1\n")
    url, endpoint = f"s3://bucket/{uuid.uuid4().hex}", bare["AWS_ENDPOINT_URL"]
    open_store(url, StorageConfig(endpoint=endpoint, profile="lab")).put("x", b"x")
    with environment(AWS_PROFILE="lab"):
        assert open_store(url, StorageConfig(endpoint=endpoint)).get("x") == b"x"
    with environment(AWS_ACCESS_KEY_ID=key, AWS_SECRET_ACCESS_KEY=secret, AWS_PROFILE="nobody"):
        assert (
            open_store(url, StorageConfig(endpoint=endpoint)).get("x") == b"x"
        )  # as for AWS's tools: these come first
    with pytest.raises(StorageError, match=r"AWS profile nobody: The config profile \(nobody\) could not be found"):
        open_store(url, StorageConfig(endpoint=endpoint, profile="nobody")).get("x")


@pytest.mark.skipif(not SWIFT_BIN, reason="moto checks no signatures; launch/test.sh installs Swift, which does")
def test_a_wrong_secret_is_denied_and_not_told(s3: dict[str, str]) -> None:
    url = f"s3://bucket/{uuid.uuid4().hex}"
    open_store(url).put("x", b"x")
    with environment(AWS_SECRET_ACCESS_KEY=CANARY), pytest.raises(StorageError, match="access is denied") as told:
        open_store(url).get("x")
    assert CANARY not in str(told.value)


def test_anonymous_requests_are_not_signed(telltale: str) -> None:
    with environment(AWS_ACCESS_KEY_ID=CANARY, AWS_SECRET_ACCESS_KEY=CANARY, GOOGLE_BEARER_TOKEN=CANARY):
        for url in ("s3://bucket/x", "gs://bucket/x"):
            for anonymous in (True, False):
                with pytest.raises(StorageError):
                    open_store(url, StorageConfig(endpoint=telltale, anonymous=anonymous)).get("x")
    signed = ["authorization" in {name.lower() for name in headers} for headers in Recording.seen]
    assert signed == [False, True, False, True]


def test_nothing_tells_a_secret(
    telltale: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "FIRST_PAUSE_S", 0.01)
    caplog.set_level(logging.DEBUG)
    storage = StorageConfig(endpoint=telltale, deadline_s=0.2)
    told: list[str] = []
    secrets = {"AWS_ACCESS_KEY_ID": f"{CANARY}-key", "AWS_SECRET_ACCESS_KEY": CANARY, "AWS_SESSION_TOKEN": CANARY}
    with environment(**secrets):
        store = open_store("s3://bucket/x", storage)
        for ask in (lambda: store.get("x"), lambda: store.put("x", b""), lambda: store.stat("x")):
            with pytest.raises(StorageError) as error:
                ask()
            told.append(str(error.value))
        told += [repr(store), str(vars(store)), pickle.dumps(store).decode("latin1"), storage.model_dump_json()]
    assert Recording.seen
    assert CANARY not in "\n".join([*told, caplog.text])


@pytest.mark.parametrize(
    "where",
    ["https://me:{canary}@host/x", "https://host/x?X-Amz-Signature={canary}", "ftp://me:{canary}@host/x"],
)
def test_urls_with_secrets_are_refused_without_telling_them(where: str) -> None:
    with pytest.raises(StorageError) as told:
        open_store(where.format(canary=CANARY))
    assert CANARY not in str(told.value)


@pytest.mark.parametrize(
    "endpoint", ["https://me:{canary}@host", "https://host?sig={canary}", "host:9000", "ftp://host"]
)
def test_endpoints_are_checked_and_their_secrets_not_told(endpoint: str) -> None:
    tree = yaml.safe_load(Path("configs/pretrain/quickstart.yaml").read_text())
    tree["data"]["storage"] = {"endpoint": endpoint.format(canary=CANARY)}
    with pytest.raises(ConfigError, match=r"'data\.storage\.endpoint': .* endpoint") as told:
        parse_config(tree, TrainConfig, "x.yaml")
    assert CANARY not in str(told.value)


def test_a_key_has_no_place_in_a_configuration() -> None:
    tree = yaml.safe_load(Path("configs/pretrain/quickstart.yaml").read_text())
    tree["data"]["storage"] = {"secret_access_key": CANARY}
    with pytest.raises(ConfigError, match=r"unknown key 'data\.storage\.secret_access_key'") as told:
        parse_config(tree, TrainConfig, "x.yaml")
    assert CANARY not in str(told.value)


def test_the_configuration_comes_before_the_environment(s3: dict[str, str]) -> None:
    url = f"s3://bucket/{uuid.uuid4().hex}"
    with environment(AWS_ENDPOINT_URL="http://127.0.0.1:9"):
        store = open_store(url, StorageConfig(endpoint=s3["AWS_ENDPOINT_URL"], region="us-east-1"))
        store.put("x", b"x")
        assert store.get("x") == b"x"


def test_parts_of_a_mixture_may_be_reached_otherwise() -> None:
    storage = StorageConfig.model_validate(
        {"endpoint": "http://here:9000", "region": "r", "urls": {"s3://public": {"anonymous": True, "endpoint": None}}}
    )
    ours, theirs = storage.for_url("s3://mine/x"), storage.for_url("s3://public/x")
    assert (ours.endpoint, ours.anonymous, ours.region) == ("http://here:9000", None, "r")
    assert (theirs.endpoint, theirs.anonymous, theirs.region) == (None, True, "r")
