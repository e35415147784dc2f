"""How remote stores are reached: the `storage` section of a configuration.

There is no place here for a key or a token: those stay where each cloud's own tools look for them, so that no
configuration, manifest, checkpoint or log can carry one.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from pydantic import Field, field_validator

from gfm_pipeline.config import StrictModel


def check_endpoint(endpoint: str) -> str:
    """Return the URL of a server, without a slash at its end; raise ValueError, never with a secret in it."""
    parts = urlsplit(endpoint)
    if parts.username or parts.password or parts.query:
        # Not the input: it holds what must not be told.
        raise ValueError("an endpoint holds no credentials or query; give scheme://host:port")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{endpoint} is no endpoint; give http://host:port or https://host")
    return endpoint.rstrip("/")


class StoreOptions(StrictModel):
    """How to reach one store. What is not set is as the cloud's own environment variables and profiles say;
    what is set here comes before them."""

    endpoint: str | None = None
    """URL of the server behind s3://, gs:// or az:// URLs when it is not the cloud's own (MinIO, Ceph, Swift ...). With
    http:// nothing is encrypted on the way."""
    region: str | None = None
    """Region of an S3 bucket, which its server checks in every signature."""
    anonymous: bool | None = None
    """true: send no credentials, for public buckets. false: send them. When not given, as the environment says."""
    profile: str | None = None
    """Profile of ~/.aws/config or ~/.aws/credentials, single sign-on included. Needs boto3."""
    account: str | None = None
    """Name of the Azure storage account that holds the containers."""
    timeout_s: float = Field(default=30.0, gt=0)
    """A request that has not ended after so many seconds is broken off; the next one goes on at the byte it reached."""
    deadline_s: float = Field(default=120.0, gt=0)
    """A part of 8 MiB, or one other request, that has not come through after so many seconds of trying is an error."""
    in_flight: int = Field(default=16, gt=0)
    """Requests at a time for one read of several ranges."""

    @field_validator("endpoint")
    @classmethod
    def _endpoint_holds_no_secret(cls, endpoint: str | None) -> str | None:
        return None if endpoint is None else check_endpoint(endpoint)


class StorageConfig(StoreOptions):
    """How all remote stores of a configuration are reached, and where some of them differ."""

    urls: dict[str, StoreOptions] = {}
    """By the beginning of a URL, e.g. "s3://public-bucket/": what is different there. The longest that fits applies."""

    def for_url(self, url: str) -> StoreOptions:
        """Return the options that hold for `url`."""
        own = self.model_dump(exclude={"urls"})
        fitting = [prefix for prefix in self.urls if url.startswith(prefix)]
        if fitting:
            own |= self.urls[max(fitting, key=len)].model_dump(exclude_unset=True)
        return StoreOptions(**own)


class CacheConfig(StrictModel):
    """A local folder that keeps what was read of remote collections."""

    folder: str
    """Where; any number of processes, runs and hosts may share it. Everything is kept below FOLDER/gfm-cache-v1."""
    max_gb: float = Field(gt=0)
    """Most that is kept, in 10^9 bytes; what was not used for longest goes first."""

    @property
    def max_bytes(self) -> int:
        """The limit in bytes."""
        return int(self.max_gb * 1e9)
