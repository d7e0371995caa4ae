"""How the files of an ncnn network are recognised and called; FORMAT.md describes what gossamer puts into them."""

from __future__ import annotations

import os
from pathlib import Path

from gossamer.host.storage import open_regular

MAGIC = b"7767517"  # the first line
SUFFIX, WEIGHTS, METADATA = ".param", ".bin", ".json"


def is_ncnn(path: str | os.PathLike[str]) -> bool:
    """Whether a file begins as the .param file of an ncnn network does, or is called one; False where it cannot be read."""
    try:
        with open_regular(path) as file:
            return file.read(len(MAGIC)) == MAGIC or Path(path).suffix.lower() == SUFFIX
    except (OSError, ValueError):
        return False  # whoever reads it next says why
