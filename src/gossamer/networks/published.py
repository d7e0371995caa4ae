"""The ImageNet-1K accuracy that was published for networks, with its source: of papers, and of weights that can be loaded.

None of it was measured here. `published.csv` holds what papers report of their own training.
"""

from __future__ import annotations

import csv
import functools
import io
from pathlib import Path
from typing import NamedTuple

from gossamer.networks.registry import resolve

TABLE = Path(__file__).with_name("published.csv")


class PublishedAccuracy(NamedTuple):
    """Top-1 in per cent, as `text` writes it, and where it stands."""

    top1: float
    text: str
    source: str


@functools.cache
def papers_top1() -> dict[str, PublishedAccuracy]:
    """Network -> what its paper reports."""
    rows = csv.DictReader(io.StringIO(TABLE.read_text(encoding="utf-8"), newline=""))
    return {row["network"]: PublishedAccuracy(float(row["top1"]), row["top1"], row["source"]) for row in rows}


def published_top1(name: str) -> PublishedAccuracy | None:
    """The accuracy published for a network of ours at its own input: of its paper, else of its listed weights; None if unknown.

    Raises UnknownNameError.
    """
    from gossamer.networks.load import weight_sets

    own = resolve(name)
    if own in papers_top1():
        return papers_top1()[own]
    for weights in weight_sets(own):
        if weights.top1 is not None:
            return PublishedAccuracy(weights.top1, f"{weights.top1:.2f}", f"{weights.name}: {weights.top1_from}")
    return None
