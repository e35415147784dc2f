"""Kubernetes manifests against the schemas that its API servers publish."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import kubernetes_validate

VERSIONS = ("1.31", kubernetes_validate.latest_version())


def follow_the_schema(documents: Iterable[dict[str, Any]]) -> None:
    """Fail for a document with an unknown key, a wrong type or something missing."""
    for document in documents:
        for version in VERSIONS:
            kubernetes_validate.validate(document, version, strict=True)
