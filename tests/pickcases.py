"""Times of networks that tests make up."""

from __future__ import annotations

from typing import Any

from gossamer.selection.timing import NetworkTimes

PER_MAC = {"float32": 1e-7, "bf16": 0.6e-7, "int8": 0.3e-7}  # ms


class MadeUpTimes(NetworkTimes):
    """Times in proportion to the multiply-adds. refuse: precision -> why it cannot be timed."""

    def __init__(self, *_: Any) -> None:
        self.runtime, self.threads, self.notes, self.measured = "native", 1, [], 0
        self.asked: list[tuple[str, tuple[str, ...]]] = []
        self.refuse: dict[str, str] = {}

    def measure(self, builder: Any, choice: Any, counted: Any, precisions: Any) -> Any:
        self.asked.append((choice.name, tuple(precisions)))
        able = [name for name in precisions if name not in self.refuse]
        return {name: (PER_MAC[name] * counted.macs, counted.weight_bytes(name)) for name in able}, {
            name: self.refuse[name] for name in precisions if name in self.refuse
        }

    def most_macs(self, precision: str, ms: float) -> float:
        return 1.5 * ms / PER_MAC[precision]
