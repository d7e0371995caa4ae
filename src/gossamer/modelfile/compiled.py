"""How the file of a compiled network (.goss) is recognised; FORMAT.md describes it."""

from __future__ import annotations

import os

from gossamer.host.storage import open_regular

MAGIC = b"GOSSAMER"


def is_compiled(path: str | os.PathLike[str]) -> bool:
    """Whether a file begins as a compiled network does; False where it cannot be read."""
    try:
        with open_regular(path) as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False  # whoever reads it next says why
