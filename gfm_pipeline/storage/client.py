"""Connections to object stores through the obstore library, opened by the process that uses them.

Its runtime does not survive a fork: a child of a process that has read something would wait for ever. So a client is
never inherited, and a child that was forked too late is told. Credentials come from the environment, profile files or
the instance, as each cloud's own tools find them. obstore reads no AWS profile files; boto3 does that where it is
installed.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from gfm_pipeline.errors import StorageError
from gfm_pipeline.storage.diagnosis import one_line
from gfm_pipeline.storage.options import StoreOptions, check_endpoint

CONNECT_SECONDS = 10

_log = logging.getLogger(__name__)
_runtime_owner: int | None = None
_told: set[str] = set()

_ENDPOINTS = {
    "s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"),
    "gs": ("GOOGLE_BASE_URL",),
    "az": ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"),
}
"""Environment variables that redirect requests, by cloud, the first one set counts."""
_ENDPOINT_SETTING = {"s3": "aws_endpoint_url_s3", "gs": "base_url", "az": "endpoint"}
_PLAIN_SERVER: dict[str, dict[str, Any]] = {
    "s3": {"virtual_hosted_style_request": False, "s3_express": False},
    "az": {"use_emulator": False},
}
"""Settings of the environment that would change what a configured endpoint means: a host of the bucket's, another
server."""
_FAMILIES = {"s3": "s3", "s3a": "s3", "gs": "gs", "az": "az", "abfs": "az", "abfss": "az"}
_OTHER_AWS_SOURCES = ("AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE")
"""Found before any profile, and read by obstore itself."""


class Client:
    """The connections of one process to the store at a URL."""

    def __init__(self, url: str, options: StoreOptions) -> None:
        self._url = url
        self._options = options
        self._reset()

    def __getstate__(self) -> dict[str, Any]:
        """Connections and secrets stay in their process."""
        return {"_url": self._url, "_options": self._options}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._opened: Any = None

    def open(self) -> Any:
        """Return obstore's store, opened now if need be; raise StorageError for a URL or settings that cannot work."""
        _refuse_forked_child()
        with self._lock:
            if self._opened is None:
                self._opened = _connect(self._url, self._options)
            return self._opened


def _refuse_forked_child() -> None:
    global _runtime_owner
    if _runtime_owner is None:
        _runtime_owner = os.getpid()
    elif _runtime_owner != os.getpid():
        raise StorageError(
            f"process {os.getpid()} was forked from {_runtime_owner}, which had read from an object store already; its "
            "connections do not work here. Start workers by spawn or forkserver."
        )


def _connect(url: str, options: StoreOptions) -> Any:
    from obstore.store import HTTPStore, S3Store, from_url

    family = _FAMILIES.get(urlsplit(url).scheme.lower())
    endpoint = _endpoint(family, options, url)
    client_options: Any = {
        "timeout": timedelta(seconds=options.timeout_s),
        "connect_timeout": timedelta(seconds=min(CONNECT_SECONDS, options.timeout_s)),
    }
    if (endpoint or url).startswith("http://"):
        client_options["allow_http"] = True
    if endpoint:
        _tell_once(f"{family}:// URLs are served by {endpoint}")
    # Requests are repeated by our own code, which knows how far it got.
    retries: Any = {"max_retries": 0, "retry_timeout": timedelta(seconds=1)}
    try:
        settings = _settings(family, options, endpoint, url)
        if family == "s3" and endpoint:
            # from_url knows no setting that comes before AWS_ENDPOINT_URL_S3 of the environment.
            parts = urlsplit(url)
            where, settings = parts.netloc, {"prefix": unquote(parts.path).strip("/") or None, **settings}
            return S3Store(where, client_options=client_options, retry_config=retries, **settings)
        # A web address is read as such, even where it is that of a cloud: nothing is signed.
        make: Any = from_url if family else HTTPStore.from_url
        return make(url, client_options=client_options, retry_config=retries, **settings)
    except StorageError:
        raise
    except Exception as error:  # a bad URL or an incomplete configuration
        hint = ""
        if family == "az" and "ccount must be specified" in str(error):
            hint = " Set storage.account, or AZURE_STORAGE_ACCOUNT_NAME in the environment."
        raise StorageError(f"cannot open {url}: {one_line(error)}.{hint}") from error


def _endpoint(family: str | None, options: StoreOptions, url: str) -> str | None:
    """Return the server in use when it is not the cloud's own; raise StorageError for one that cannot be used."""
    if family is None or options.endpoint:
        return options.endpoint if family else None
    name = next((name for name in _ENDPOINTS[family] if os.environ.get(name)), None)
    if name is None:
        return None
    try:
        return check_endpoint(os.environ[name])
    except ValueError as error:
        raise StorageError(f"cannot open {url}: {name} of the environment: {error}, or set storage.endpoint.") from None


def _settings(family: str | None, options: StoreOptions, endpoint: str | None, url: str) -> dict[str, Any]:
    """Return what obstore is told beyond what it finds in the environment; what it is told comes first."""
    settings: dict[str, Any] = {}
    if family is None:
        return settings
    if endpoint:
        settings[_ENDPOINT_SETTING[family]] = endpoint
    if options.endpoint:
        settings |= _PLAIN_SERVER.get(family, {})
    if options.anonymous is not None or options.profile:
        settings["skip_signature"] = bool(options.anonymous)
    if family == "az" and options.account:
        settings["account_name"] = options.account
    if family == "s3":
        if options.region:
            settings["region"] = options.region
        if not options.anonymous:
            settings |= _profile_credentials(options, url)
    return settings


def _profile_credentials(options: StoreOptions, url: str) -> dict[str, Any]:
    """Return a credential provider that reads AWS profile files, when those are what the user's own tools would use."""
    profile = options.profile or os.environ.get("AWS_PROFILE")
    if options.profile is None and any(os.environ.get(name) for name in _OTHER_AWS_SOURCES):
        return {}
    if profile is None and not any(path.is_file() for path in _profile_files()):
        return {}
    if importlib.util.find_spec("boto3") is None:
        if profile:
            raise StorageError(
                f"cannot open {url}: reading AWS profile {profile} needs boto3. Install it: pip install "
                "'gfm-pipeline[aws]', or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
            )
        _tell_once("~/.aws is not read, for that needs boto3: pip install 'gfm-pipeline[aws]'", logging.WARNING)
        return {}
    import boto3
    from botocore.exceptions import BotoCoreError
    from obstore.auth.boto3 import Boto3CredentialProvider

    try:
        session = boto3.Session(profile_name=profile)
        if session.get_credentials() is None:
            raise StorageError(
                f"cannot open {url}: found no AWS credentials in {'profile ' + profile if profile else '~/.aws'}. Add "
                "them there, set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or storage.anonymous for a public bucket."
            )
        provider = Boto3CredentialProvider(session)
    except BotoCoreError as error:
        raise StorageError(f"cannot open {url}: AWS profile {profile or 'default'}: {one_line(error)}.") from error
    if options.region:
        provider.config = {}  # it would set the profile's region
    return {"credential_provider": provider}


def _profile_files() -> list[Path]:
    return [
        Path(os.environ.get("AWS_SHARED_CREDENTIALS_FILE") or Path.home() / ".aws" / "credentials"),
        Path(os.environ.get("AWS_CONFIG_FILE") or Path.home() / ".aws" / "config"),
    ]


def _tell_once(text: str, level: int = logging.INFO) -> None:
    if text not in _told:
        _told.add(text)
        _log.log(level, text)
