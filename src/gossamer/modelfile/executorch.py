"""How an ExecuTorch file (.pte) is recognised; FORMAT.md describes the .json file that gossamer writes beside it."""

from __future__ import annotations

import os
from pathlib import Path

from gossamer.host.storage import open_regular

IDENTIFIER, IDENTIFIER_AT = b"ET12", 4
SUFFIX, METADATA = ".pte", ".json"


def is_executorch(path: str | os.PathLike[str]) -> bool:
    """Whether a file begins as an ExecuTorch program does, or is called one; False where it cannot be read."""
    try:
        with open_regular(path) as file:
            return file.read(IDENTIFIER_AT + 4)[IDENTIFIER_AT:] == IDENTIFIER or Path(path).suffix.lower() == SUFFIX
    except (OSError, ValueError):
        return False  # whoever reads it next says why
