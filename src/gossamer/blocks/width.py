"""Channel counts of scaled networks."""

from __future__ import annotations


def make_divisible(channels: float, divisor: int = 8) -> int:
    """The multiple of `divisor` nearest to `channels`, at least `divisor`, never more than 10 % below `channels`.

    Source: the rounding of the width multiplier in the authors' MobileNetV2 (tensorflow/models, slim).
    """
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded if rounded >= 0.9 * channels else rounded + divisor
