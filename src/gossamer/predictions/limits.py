"""Thresholds that a user asks for in place of those of a model: of scores, of overlaps, of the number of boxes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from gossamer.errors import SettingsError
from gossamer.predictions.boxes import Decoding
from gossamer.predictions.head import OutputHead

# field -> the kinds of heads that it acts on
ACTS_ON = {"threshold": ("detect", "multilabel"), "iou": ("detect",), "max_boxes": ("detect",)}
MOST_BOXES = 100_000


@dataclass(frozen=True)
class DecodingLimits:
    """What replaces the decoding options of a model's heads; None keeps the model's own.

    threshold: minimum score of a box or label, 0..1. iou: of two boxes of a class that overlap by more, the likelier
    stays, 0..1. max_boxes: boxes per image. Raises SettingsError on other values.
    """

    threshold: float | None = None
    iou: float | None = None
    max_boxes: int | None = None

    def __post_init__(self) -> None:
        for name in ("threshold", "iou"):
            value = getattr(self, name)
            if value is not None and not (
                isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1
            ):
                raise SettingsError(f"{name} {str(value)[:40]}", "a number from 0 to 1", "give such a number")
        boxes: Any = self.max_boxes
        if boxes is not None and not (type(boxes) is int and 1 <= boxes <= MOST_BOXES):
            raise SettingsError(
                f"max_boxes {str(boxes)[:40]}", f"a whole number from 1 to {MOST_BOXES}", "give such a number"
            )

    def check(self, heads: tuple[OutputHead, ...], top: int = 1) -> None:
        """Raises SettingsError where a limit, or a number of classes to name, would act on none of the heads."""
        kinds = {head.kind for head in heads}
        for name, able in {**ACTS_ON, "top": ("classify",)}.items():
            given = top != 1 if name == "top" else getattr(self, name) is not None
            if given and not kinds & set(able):
                raise SettingsError(
                    f"{name} for a model of kind {', '.join(sorted(kinds))}",
                    f"models of kind {' or '.join(able)}",
                    "leave it out",
                )

    def applied_to(self, head: OutputHead) -> Decoding:
        """How the outputs of a detect head become boxes."""
        own = Decoding.from_json(head.options["decoding"])
        return replace(
            own,
            threshold=own.threshold if self.threshold is None else float(self.threshold),
            iou=own.iou if self.iou is None else float(self.iou),
            limit=own.limit if self.max_boxes is None else self.max_boxes,
        )

    def label_threshold(self, head: OutputHead) -> float:
        """The minimum score of a label of a multilabel head."""
        return float(head.options["threshold"]) if self.threshold is None else float(self.threshold)

    def in_effect(self, heads: tuple[OutputHead, ...], shown: float) -> dict[str, Any]:
        """The values that act on the heads, for a program: by the names of the heads where these have names.

        shown: the minimum score of the boxes that are printed and drawn where no threshold is set.
        """
        values: dict[str, dict[str, Any]] = {}
        for head in heads:
            if head.kind == "detect":
                how = self.applied_to(head)
                drawn = shown if self.threshold is None else how.threshold
                values[head.name] = {
                    "threshold": how.threshold,
                    "drawn_threshold": drawn,
                    "iou": how.iou,
                    "max_boxes": how.limit,
                }
            elif head.kind == "multilabel":
                values[head.name] = {"threshold": self.label_threshold(head)}
        return values.get("", values)


OWN = DecodingLimits()
"""Those of the model."""
