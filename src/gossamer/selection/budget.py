"""What a network may cost: milliseconds, bytes of its file, memory; and what it is computed in."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

from gossamer.errors import SettingsError
from gossamer.shrink.limits import parse_amount

# precision -> bytes of a number; the first is the most exact
BYTES = {"float32": 4, "bf16": 2, "int8": 1}
PRECISIONS = tuple(BYTES)
SPELLINGS = {"fp32": "float32", "bfloat16": "bf16"}
SAFETY = 0.97  # of the milliseconds: times scatter, and the file is timed again at the end


@dataclass(frozen=True)
class Use:
    """What a network takes. memory: its weights and the peak of its activations, bytes, as counted."""

    ms: float
    bytes: int
    memory: int

    def text(self) -> str:
        """For people."""
        return f"{self.ms:.3f} ms, {self.bytes / 1e6:.3f} MB, {self.memory / 1e6:.3f} MB of memory"


@dataclass(frozen=True)
class Budget:
    """At most so many milliseconds of an image, bytes of a file, bytes of memory; None for no limit."""

    ms: float | None
    bytes: float | None
    memory: float | None

    def excess(self, use: Use) -> float:
        """The largest of what is taken over what is allowed; 1 and less keeps the budget. ms may be 0 for one not timed."""
        pairs = ((use.ms, self.ms), (use.bytes, self.bytes), (use.memory, self.memory))
        return max((taken / limit for taken, limit in pairs if limit is not None), default=0.0)

    def why_not(self, use: Use, safety: float = 1.0) -> str:
        """The limits that are not kept, "" where all are. safety: fraction of the milliseconds that has to be kept."""
        parts = []
        if self.ms is not None and use.ms > safety * self.ms:
            near = "" if use.ms > self.ms else f", within {100 * (1 - safety):.0f} %, which is how much times scatter,"
            parts.append(
                f"{use.ms:.3f} ms{near} of {self.ms:g} ms" if near else f"{use.ms:.3f} ms, over {self.ms:g} ms"
            )
        if self.bytes is not None and use.bytes > self.bytes:
            parts.append(f"{use.bytes / 1e6:.3f} MB, over {self.bytes / 1e6:g} MB")
        if self.memory is not None and use.memory > self.memory:
            parts.append(f"{use.memory / 1e6:.3f} MB of memory, over {self.memory / 1e6:g} MB")
        return "; ".join(parts)

    def text(self) -> str:
        """For people."""
        parts = [f"{self.ms:g} ms"] if self.ms is not None else []
        parts += [f"{self.bytes / 1e6:g} MB"] if self.bytes is not None else []
        parts += [f"{self.memory / 1e6:g} MB of memory"] if self.memory is not None else []
        return "at most " + ", ".join(parts)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"ms": self.ms, "bytes": self.bytes, "memory": self.memory}


def parse_budget(latency: str | None, size: str | None, memory: str | None) -> Budget:
    """A budget of texts with units: "2ms", "3MB", "8MB". Raises SettingsError."""
    given = {"latency": latency, "size": size, "memory": memory}
    values = [None if text is None else parse_amount(kind, text) for kind, text in given.items()]
    if all(value is None for value in values):
        raise SettingsError("no budget", "--latency 2ms, --size 3MB, --memory 8MB", "give one or more")
    return Budget(*values)


def is_finite(value: Any) -> bool:
    """Whether it is a number that can be compared."""
    # compared, as math.isfinite raises OverflowError for whole numbers beyond the floats
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
