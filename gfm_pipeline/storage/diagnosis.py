"""What an error of the object-store client means: in one line without secrets, and whether to try again."""

from __future__ import annotations

import os
import re
from typing import NamedTuple

from gfm_pipeline.errors import StorageError

_SECRETS = ("SECRET", "TOKEN", "ACCESS_KEY", "ACCOUNT_KEY", "MASTER_KEY", "SAS", "PASSWORD", "CREDENTIAL")
_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>([A-Za-z]{1,60})</Code>")
_TOLD_BELOW = re.compile(r'(?:message|error): "([^"]{1,150})"')
_BUSY = (429, 503)
_TRANSIENT = (408, 425, 429)
"""The only refusals below 500 that another try may get round."""
_TLS = re.compile(r"certificate|UnknownIssuer|CertNotValid", re.IGNORECASE)
_INSTANCE = re.compile(r"169\.254\.169\.254|metadata\.google\.internal|fd00:ec2::254|token request", re.IGNORECASE)
_NOISE = re.compile(r"^Generic \w+ error: |Error performing [A-Z]+ \S+ in \S+ - |Server returned non-2xx status code: ")
_AUTHORITY = re.compile(r"(//[^/\s@]*)@")
_QUERY = re.compile(r"(https?://[^\s?]+)\?\S*")


class Diagnosis(NamedTuple):
    """What is to be told of an error, and what it means for the next try."""

    reason: str
    hopeless: bool
    """Trying again cannot help."""
    busy: bool = False
    """The server asks for fewer requests."""


def diagnose(error: Exception) -> Diagnosis:
    """Return what went wrong with a request."""
    from obstore import exceptions

    text = str(error)
    if isinstance(error, StorageError):
        return Diagnosis(text.rstrip("."), hopeless=True)
    if isinstance(error, FileNotFoundError):
        return Diagnosis("there is no such object, or no such bucket", hopeless=True)
    if isinstance(error, exceptions.PreconditionError):
        return Diagnosis("it was replaced while it was read; start again", hopeless=True)
    if isinstance(error, exceptions.UnauthenticatedError | exceptions.PermissionDeniedError):
        where = "in the environment, profile or instance, and set storage.anonymous only for a public bucket"
        code = _CODE.search(text)
        said = f" ({code[1]})" if code else ""
        return Diagnosis(f"access is denied{said}; check the credentials {where}", hopeless=True)
    if _INSTANCE.search(text):
        advice = "set them in the environment or a profile, or storage.anonymous for a public bucket"
        return Diagnosis(f"found no credentials, and this machine's metadata service gave none; {advice}", True)
    if "redirect without LOCATION" in text or "AuthorizationHeaderMalformed" in text:
        return Diagnosis("the bucket is in another region; set storage.region", hopeless=True)
    if _TLS.search(text):
        return Diagnosis(
            f"the server's certificate is not trusted ({one_line(error)}); name your authority's PEM file in the "
            "environment variable SSL_CERT_FILE",
            hopeless=True,
        )
    if "non-partial response" in text or "Range request not supported" in text:
        return Diagnosis("the server answers no range requests; use another one", hopeless=True)
    if isinstance(error, exceptions.NotSupportedError | exceptions.InvalidPathError):
        return Diagnosis(one_line(error), hopeless=True)
    found = _STATUS.search(text)
    if found is None:
        return Diagnosis(_below(text) or one_line(error), hopeless=False)
    status = int(found[1])
    refused = 400 <= status < 500 and status not in _TRANSIENT
    return Diagnosis(one_line(error), refused, status in _BUSY)


def _below(text: str) -> str | None:
    """Return what happened to a connection, which the client's own message leaves out."""
    if "kind: Timeout" in text or "TimedOut" in text:
        return "the answer did not come in full within the time of a request, timeout_s"
    if "IncompleteMessage" in text or "IncompleteBody" in text:
        return "the connection ended before the answer did"
    told = _TOLD_BELOW.search(text.partition("Debug source:")[2])
    return told[1] if told else None


def one_line(error: Exception) -> str:
    """Return the text of an error on one line, with every secret that the environment knows taken out."""
    text = " ".join(str(error).partition("Debug source:")[0].split())  # the rest is the library's own structures
    text = _NOISE.sub("", _NOISE.sub("", text))
    text = _QUERY.sub(r"\1", _AUTHORITY.sub("//***@", text))  # a signature may be in either
    for name, value in os.environ.items():
        if len(value) >= 4 and any(word in name.upper() for word in _SECRETS):
            text = text.replace(value, "***")
    return text[:300].rstrip(".: ") or type(error).__name__
