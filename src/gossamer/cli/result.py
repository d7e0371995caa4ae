"""What a command returns where the library's result is not printed as it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Result:
    """Lines for a person, plain values for a program, and the exit code."""

    lines: str
    values: Any
    exit_code: int = 0

    def text(self) -> str:
        """The lines."""
        return self.lines

    def to_json(self) -> Any:
        """The values."""
        return self.values
