"""What quantising gave: the file, what it scores, and what was measured of its layers."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from gossamer.host.progress import one_line
from gossamer.host.text import counted, metric_name
from gossamer.shrink.channel_ranges import ChannelRanges
from gossamer.shrink.qat import QatResult
from gossamer.shrink.sensitivity import LayerNoise, table, verdict


@dataclass(frozen=True)
class QuantisedModel:
    """A file that was written.

    decibels: the signal-to-noise ratio of the outputs on images that were not calibrated with. agreement: how many of those
    have the same likeliest class, None where the outputs are no classes. scores: metric -> (float, int8) on the run's
    validation images, empty for a file without a run. layers: each layer alone; ranges: of channels, before and
    after equalisation; both where they were asked for. steps: what was done, in order.
    """

    file: str
    bytes: int
    float_bytes: int
    calibrated_on: int
    measured_on: int
    decibels: float
    agreement: float | None
    score: str
    scored_on: int
    scores: dict[str, tuple[float, float]]
    weight_bits: int
    float_layers: tuple[str, ...]
    layers: tuple[LayerNoise, ...]
    steps: tuple[str, ...]
    notes: tuple[str, ...] = ()
    ranges: tuple[ChannelRanges, ...] = ()
    exit_code: int = 0
    qat: QatResult | None = None

    def text(self) -> str:
        """A few lines for people."""
        lines = [
            f"{one_line(self.file)}: {self.bytes / 1e6:.2f} MB in int8, {self.bytes / max(1, self.float_bytes):.2f}x of "
            f"{self.float_bytes / 1e6:.2f} MB",
            f"outputs on {counted(self.measured_on, 'image that was', 'images that were')} not calibrated with: {self.decibels:.1f} dB"
            + ("" if self.agreement is None else f", the same class for {self.agreement:.1%}"),
        ]
        if self.scores:
            before, after = self.scores[self.score]
            lines.append(
                f"{metric_name(self.score)} on {counted(self.scored_on, 'validation image')}: float {before:.4f}, int8 {after:.4f}"
            )
        if self.layers:
            lines += [table(self.layers), f"noise: {verdict(self.layers)}"]
        return "\n".join([*lines, *self.steps, *self.notes])

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            **dataclasses.asdict(self),
            "scores": {name: {"float": a, "int8": b} for name, (a, b) in self.scores.items()},
        }
