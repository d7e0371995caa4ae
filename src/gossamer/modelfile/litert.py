"""How a LiteRT file (.tflite) is recognised; FORMAT.md describes what gossamer puts into it."""

from __future__ import annotations

import os
from pathlib import Path

from gossamer.host.storage import open_regular

IDENTIFIER, IDENTIFIER_AT = b"TFL3", 4
SUFFIX = ".tflite"


def is_litert(path: str | os.PathLike[str]) -> bool:
    """Whether a file begins as a LiteRT file does, or is called one; False where it cannot be read."""
    try:
        with open_regular(path) as file:
            return file.read(IDENTIFIER_AT + 4)[IDENTIFIER_AT:] == IDENTIFIER or Path(path).suffix.lower() == SUFFIX
    except (OSError, ValueError):
        return False  # whoever reads it next says why
