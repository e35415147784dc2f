"""What is known of the terms of the raw archives; the facts are in licences.yaml."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

from gfm_pipeline.config import StrictModel, load_yaml


class Licence(StrictModel):
    """Terms of one raw archive family, as far as known."""

    title: str
    licence: str
    """Identifier as Hugging Face writes it; "other" where there is none."""
    terms: str
    link: str
    citation: str
    copernicus: bool = False
    """Whether pixels come from Sentinel satellites, whose data want a notice."""


@cache
def known_licences() -> dict[str, Licence]:
    """Return the known terms by source."""
    text = files("shard_builder.collection").joinpath("licences.yaml").read_text(encoding="utf-8")
    return {source: Licence.model_validate(entry) for source, entry in load_yaml(text).items()}


def find_licence(source: str) -> Licence | None:
    """Return the terms of a source, whatever its punctuation ("sen12ms_cr"); None when nothing is known."""
    plain = {_plain(name): licence for name, licence in known_licences().items()}
    return plain.get(_plain(source)) or plain.get(re.sub(r"(v?\d)$", "", _plain(source)))


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
