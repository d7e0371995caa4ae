"""How an OpenVINO IR (.xml and .bin) is recognised; FORMAT.md describes what gossamer puts into it."""

from __future__ import annotations

import os
from pathlib import Path

from gossamer.host.storage import open_regular

SUFFIX, WEIGHTS = ".xml", ".bin"
ROOT = b"<net "  # an IR's first element
LOOKED_AT = 256  # bytes


def is_openvino(path: str | os.PathLike[str]) -> bool:
    """Whether a file begins as the .xml file of an IR does, or is called one; False where it cannot be read."""
    try:
        with open_regular(path) as file:
            start = file.read(LOOKED_AT).lstrip()
            return (start.startswith(b"<") and ROOT in start) or Path(path).suffix.lower() == SUFFIX
    except (OSError, ValueError):
        return False  # whoever reads it next says why
