"""Real servers on loopback, started and stopped by the tests: S3, Azure Blob, and web servers with http and https.

S3 is OpenStack Swift with its s3api middleware, in an environment of its own that launch/test.sh makes in .venv-swift
(GFM_SWIFT names another); where there is none, moto takes its place. Azure is Azurite, from .azurite (GFM_AZURITE),
where Node.js is there. The web servers are aiohttp's, a test dependency, and nginx where the machine has it.
"""

from __future__ import annotations

import base64
import email.utils
import hmac
import http.server
import os
import shutil
import socket
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.serving import await_answer, environment, free_port, processes, serving
from tests.swift import SWIFT_BIN, swift_server

ROOT = Path(__file__).parents[1]
AZURITE = Path(os.environ.get("GFM_AZURITE", ROOT / ".azurite")) / "node_modules" / ".bin" / "azurite-blob"
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
SECRET = "not-to-be-told"


@contextmanager
def s3_server(folder: Path) -> Iterator[dict[str, str]]:
    """Run an S3 server; give the environment that reaches it, with a bucket named "bucket"."""
    with swift_server(folder, SECRET) if SWIFT_BIN else _moto(folder) as endpoint:
        reached = {
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ACCESS_KEY_ID": "test:tester",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
        }
        make_bucket(reached, "bucket")
        yield reached


def make_bucket(reached: dict[str, str], name: str, acl: str = "private") -> None:
    """Make a bucket on an S3 server."""
    import boto3

    session = boto3.Session(reached["AWS_ACCESS_KEY_ID"], reached["AWS_SECRET_ACCESS_KEY"])
    client = session.client("s3", endpoint_url=reached["AWS_ENDPOINT_URL"], region_name=reached["AWS_REGION"])
    client.create_bucket(Bucket=name, ACL=acl)


@contextmanager
def _moto(folder: Path) -> Iterator[str]:
    port, log = free_port(), folder / "moto.log"
    endpoint = f"http://127.0.0.1:{port}"
    with processes([[sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]], log):
        await_answer(endpoint, log)
        yield endpoint


@contextmanager
def azure_server(folder: Path) -> Iterator[dict[str, str]]:
    """Run Azurite; give the environment that reaches it, with a container named "container"."""
    port, log = free_port(), folder / "azurite.log"
    account, key = "tester", "bm90LXRvLWJlLXRvbGQ="
    words = [AZURITE, "--silent", "--skipApiVersionCheck", "--location", folder, "--blobPort", str(port)]
    endpoint = f"http://127.0.0.1:{port}/{account}"
    with environment(AZURITE_ACCOUNTS=f"{account}:{key}"), processes([words], log):
        await_answer(endpoint, log)
        _make_container(endpoint, account, key)
        yield {
            "AZURE_STORAGE_ENDPOINT": endpoint,
            "AZURE_STORAGE_ACCOUNT_NAME": account,
            "AZURE_STORAGE_ACCOUNT_KEY": key,
        }


def _make_container(endpoint: str, account: str, key: str) -> None:
    """Make the container by a request of our own, as obstore makes none: signed with the account's key."""
    date, version = email.utils.formatdate(usegmt=True), "2021-08-06"
    headers = f"x-ms-date:{date}\nx-ms-version:{version}"
    told = "PUT" + "\n" * 12 + f"{headers}\n/{account}/{account}/container\nrestype:container"
    signature = base64.b64encode(hmac.digest(base64.b64decode(key), told.encode(), "sha256")).decode()
    request = urllib.request.Request(f"{endpoint}/container?restype=container", method="PUT")
    request.add_header("Authorization", f"SharedKey {account}:{signature}")
    request.add_header("x-ms-date", date)
    request.add_header("x-ms-version", version)
    urllib.request.urlopen(request, timeout=30).close()


@contextmanager
def web_server(folder: Path) -> Iterator[str]:
    """Serve a folder over http with ranges, from this process; give its URL."""

    class Files(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def _answer(self, body: bool) -> None:
            path = folder / self.path.lstrip("/")
            if not path.is_file():
                self.send_error(404)
                return
            data = path.read_bytes()
            first, last, code = 0, len(data) - 1, 200
            if asked := self.headers.get("Range"):
                low, _, high = asked.removeprefix("bytes=").partition("-")
                first, last, code = int(low), min(int(high or last), last), 206
            if asked and first > last:  # an empty object has no range, but it can be had
                self.send_error(416)
                return
            self.send_response(code)
            if code == 206:
                self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
            self.send_header("Content-Length", str(last + 1 - first))
            self.send_header("Last-Modified", self.date_time_string(int(path.stat().st_mtime)))
            self.end_headers()
            if body:
                self.wfile.write(data[first : last + 1])

        def log_message(self, *_: object) -> None:
            pass

    with serving(Files) as port:
        yield f"http://127.0.0.1:{port}"


_AIOHTTP = """
import pathlib, ssl, sys
from aiohttp import web
folder, port, pem = pathlib.Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else None
context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH) if pem else None
if context:
    context.load_cert_chain(pem)
app = web.Application()
app.router.add_static("/", folder)
web.run_app(app, host="127.0.0.1", port=port, ssl_context=context, print=None)
"""
_NGINX = """
{user}daemon off; worker_processes 1; pid {work}/pid; error_log {work}/error.log;
events {{ worker_connections 256; }}
http {{
  access_log off; sendfile on;
  client_body_temp_path {work}/body; proxy_temp_path {work}/proxy; fastcgi_temp_path {work}/fastcgi;
  uwsgi_temp_path {work}/uwsgi; scgi_temp_path {work}/scgi;
  server {{ listen 127.0.0.1:{port}{ssl}; root {folder}; {keys} }}
}}
"""


@contextmanager
def real_web_server(kind: str, folder: Path, work: Path, pem: Path | None = None) -> Iterator[str]:
    """Serve a folder by "aiohttp" or "nginx", over https when `pem` holds a key and certificates; give its URL."""
    port, log = free_port(), work / f"{kind}.log"
    if kind == "nginx":
        keys = f"ssl_certificate {pem}; ssl_certificate_key {pem};" if pem else ""
        user = "user root; " if os.getuid() == 0 else ""  # else its worker may not read the test's folders
        text = _NGINX.format(user=user, work=work, port=port, folder=folder, ssl=" ssl" if pem else "", keys=keys)
        (work / "nginx.conf").write_text(text)
        command = [NGINX or "nginx", "-c", work / "nginx.conf", "-e", work / "error.log"]
    else:
        command = [sys.executable, "-c", _AIOHTTP, folder, str(port), *([pem] if pem else [])]
    with processes([command], log):
        _await_port(port, log)
        yield f"{'https' if pem else 'http'}://127.0.0.1:{port}"


def _await_port(port: int, log: Path) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
            return
        except OSError:
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
