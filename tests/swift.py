"""OpenStack Swift on one node, on loopback: a proxy server with the S3 API in front of three storage servers.

It checks signatures (SigV4) as AWS does. Swift lives in an environment of its own, because its dependencies are not
this project's. Objects are kept with extended attributes, which the file system of the folder must have.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.serving import await_answer, free_port, processes

_ENVIRONMENT = Path(os.environ.get("GFM_SWIFT", Path(__file__).parents[1] / ".venv-swift"))
SWIFT_BIN = _ENVIRONMENT / "bin" if (_ENVIRONMENT / "bin" / "swift-proxy-server").is_file() else None
"""Where Swift's programs are; None when it is not installed."""

_STORAGE = """
[DEFAULT]
{common}
bind_port = {port}
devices = {root}/srv
mount_check = false
disable_fallocate = true
workers = {workers}
[pipeline:main]
pipeline = {kind}-server
[app:{kind}-server]
use = egg:swift#{kind}
{more}
"""
_PROXY = """
[DEFAULT]
{common}
bind_port = {port}
workers = 1
[pipeline:main]
pipeline = catch_errors cache s3api tempauth slo dlo proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:1
[filter:s3api]
use = egg:swift#s3api
location = us-east-1
s3_acl = false
dns_compliant_bucket_names = false
allow_multipart_uploads = true
[filter:tempauth]
use = egg:swift#tempauth
user_test_tester = {secret} .admin
[filter:slo]
use = egg:swift#slo
[filter:dlo]
use = egg:swift#dlo
"""

_RINGS = """
import sys
from swift.common.ring import RingBuilder
for named in sys.argv[2:]:
    kind, _, port = named.partition("=")
    builder = RingBuilder(4, 1, 0)
    builder.add_dev(dict(region=1, zone=1, ip="127.0.0.1", port=int(port), device="d1", weight=1,
                         replication_ip="127.0.0.1", replication_port=int(port)))
    builder.rebalance()
    builder.get_ring().save(f"{sys.argv[1]}/{kind}.ring.gz")
"""


@contextmanager
def swift_server(root: Path, secret: str) -> Iterator[str]:
    """Run Swift in the folder `root`, for the user test:tester with that secret; give the URL of its S3 API."""
    assert SWIFT_BIN is not None
    etc, log = root / "etc", root / "swift.log"
    etc.mkdir(parents=True)
    (root / "srv" / "d1").mkdir(parents=True)
    (etc / "swift.conf").write_text(
        "[swift-hash]\nswift_hash_path_suffix = tests\n[storage-policy:0]\nname = one\ndefault = yes\n"
    )
    user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
    common = f"bind_ip = 127.0.0.1\nuser = {user}\nswift_dir = {etc}\nlog_level = WARNING\nlog_address = {root}/none"
    commands: list[list[str | Path]] = []
    rings: list[str] = []
    for kind in ("object", "container", "account"):
        port = free_port()
        more = "mb_per_sync = 0" if kind == "object" else ""
        text = _STORAGE.format(common=common, port=port, root=root, kind=kind, more=more, workers=1)
        (etc / f"{kind}.conf").write_text(text)
        rings.append(f"{kind}={port}")
        commands.append([SWIFT_BIN / f"swift-{kind}-server", etc / f"{kind}.conf"])
    subprocess.run([SWIFT_BIN / "python", "-c", _RINGS, etc, *rings], check=True)
    port = free_port()
    (etc / "proxy.conf").write_text(_PROXY.format(common=common, port=port, secret=secret))
    commands.append([SWIFT_BIN / "swift-proxy-server", etc / "proxy.conf"])
    endpoint = f"http://127.0.0.1:{port}"
    with processes(commands, log):
        await_answer(endpoint, log)
        yield endpoint
