"""How alike the channels of each value are, before and after equalisation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from gossamer.shrink.ranges import Values

Three = tuple[float, float, float]


@dataclass(frozen=True)
class ChannelRanges:
    """Of a value the smallest, the median and the largest of its channels' largest magnitudes on the calibration images.

    One scale serves all channels: what lies far below the largest keeps few of the 256 steps. Channels that are always 0
    are left out.
    """

    name: str
    channels: int
    before: Three
    after: Three


def channel_ranges(before: Mapping[str, Values], after: Mapping[str, Values]) -> tuple[ChannelRanges, ...]:
    """Of each map (C, H, W) of several channels that both have, in order."""
    result = []
    for name, values in after.items():
        if name in before and len(values.shape) == 3 and len(values.largest) > 1:
            pair = _three(before[name]), _three(values)
            if pair[0] and pair[1]:
                result.append(ChannelRanges(name, len(values.largest), pair[0], pair[1]))
    return tuple(result)


def _three(values: Values) -> Three | None:
    seen = values.largest[values.largest > 0].astype(np.float64)
    return (float(seen.min()), float(np.median(seen)), float(seen.max())) if len(seen) else None
