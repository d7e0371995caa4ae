"""Scores of a network with hard gates, with the multiply-adds that they left to compute on these images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from gossamer.analysis.cost import cost
from gossamer.blocks.gates import counted, gates_of
from gossamer.host.text import compact_count


@dataclass(frozen=True)
class GatedScores:
    """Scores, and the multiply-adds that the gates of the network left to compute.

    fraction: of those behind gates, over all images. macs, computed: of one image, with all open and on average.
    """

    scores: Any
    fraction: float
    macs: int
    computed: float

    def text(self) -> str:
        """The scores, and a line on the gates."""
        return (
            f"{self.scores.text()}\ngates: {compact_count(round(self.computed))} of {compact_count(self.macs)} MACs per "
            f"image are computed, {100 * self.fraction:.1f} % of those behind gates"
        )

    def to_json(self) -> dict[str, Any]:
        """The scores' values, and those of the gates under "gates"."""
        return {
            **self.scores.to_json(),
            "gates": {"share": self.fraction, "macs": self.macs, "computed": self.computed},
        }


def scored(model: nn.Module, shape: tuple[int, int, int], evaluate: Callable[[], Any]) -> Any:
    """What `evaluate` gives, which runs `model` on images of `shape` (C, H, W); `GatedScores` where it has gates."""
    if not gates_of(model):
        return evaluate()
    with counted(model) as tally:
        scores = evaluate()
    macs = cost(model, (1, *shape)).macs
    return GatedScores(scores, tally.fraction, macs, macs - tally.per_image * (1 - tally.fraction))
