"""Files with gaps: `@{name}` is filled in, `@@` is one `@`; everything else, `$` of the shell included, stays."""

from __future__ import annotations

import re
from importlib.resources import files


def fill_template(file: str, **values: str) -> str:
    """Return the template launch/templates/`file` with every gap filled; a gap without a value is a KeyError."""
    text = (files("launch") / "templates" / file).read_text(encoding="utf-8")
    return re.sub(r"@(?:@|\{(\w+)\})", lambda match: values[match[1]] if match[1] else "@", text)
