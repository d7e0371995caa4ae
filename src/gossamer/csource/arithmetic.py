"""The arithmetic of QDQ networks on bytes, as float32 gives it: what the C source must compute to the last bit.

A layer: the exact sum of products, as float32, times one float32 (input scale * weight scale / output scale), rounded to the
nearest integer, ties to even, the zero added, bounded. That is ONNX Runtime's QLinearConv. All else: DequantizeLinear, the
operator in float32, QuantizeLinear, as ONNX defines them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from gossamer.compile.program import Rounding
from gossamer.csource.network import Pair, refuse

Floats = NDArray[np.float32]
MOST_RATIO = 2.0**20
MOST_ODD = 65535
NOTHING = Rounding()


def quantised(x: Floats, scale: float, zero: int) -> NDArray[np.uint8]:
    """QuantizeLinear: ties to even before the zero is added."""
    with np.errstate(over="ignore"):
        levels = np.rint(np.asarray(x, np.float32) / np.float32(scale)).astype(np.float64) + zero
    bounded: NDArray[np.uint8] = np.clip(levels, 0, 255).astype(np.uint8)
    return bounded


def dequantised(x: NDArray[np.uint8], scale: float, zero: int) -> Floats:
    """DequantizeLinear."""
    return (x.astype(np.int32) - zero).astype(np.float32) * np.float32(scale)


def ratios(source: float, rows: Floats, out: float) -> Floats:
    """What the sums of a layer are multiplied with."""
    with np.errstate(over="ignore"):
        return (np.float32(source) * rows.astype(np.float32) / np.float32(out)).astype(np.float32)


def layer_bytes(sums: NDArray[np.int64], scales: Floats, zero: int) -> NDArray[np.int64]:
    """The bytes of sums, not bounded yet."""
    made: NDArray[np.int64] = np.rint(sums.astype(np.float32) * scales).astype(np.int64) + zero
    return made


def activated(x: Floats, act: str, bound: tuple[float, float], rounding: Rounding = NOTHING) -> Floats:
    """An activation in float32; what is rounded within it as its file says. Raises InputError."""
    x = np.asarray(x, np.float32)
    wide = x.astype(np.float64)
    with np.errstate(all="ignore"):
        sigmoid = (1 / (1 + np.exp(-wide))).astype(np.float32)
        hard = np.clip(x * np.float32(1 / 6) + np.float32(0.5), np.float32(0), np.float32(1))
        if act in ("silu", "hard_swish"):
            gate = sigmoid if act == "silu" else hard
            scale, zero = rounding.gate
            return x * (dequantised(quantised(gate, scale, zero), scale, zero) if scale else gate)
        functions: dict[str, Callable[[], Floats]] = {
            "none": lambda: x,
            "relu": lambda: np.maximum(x, np.float32(0)),
            "relu6": lambda: np.clip(x, np.float32(0), np.float32(6)),
            "hard_sigmoid": lambda: hard,
            "sigmoid": lambda: sigmoid,
            "tanh": lambda: np.tanh(wide).astype(np.float32),
            "clip": lambda: np.clip(x, np.float32(bound[0]), np.float32(bound[1])),
            "leaky_relu": lambda: np.where(x > 0, x, x * np.float32(bound[0])),
            "exp": lambda: np.exp(wide).astype(np.float32),
            "log": lambda: np.log(wide).astype(np.float32),
            "reciprocal": lambda: (np.float32(1) / x).astype(np.float32),
        }
        if act not in functions:
            raise refuse(f"an activation {act} in bytes", "")
        return functions[act]()


def bounds(act: str, bound: tuple[float, float], scale: float, zero: int) -> tuple[int, int] | None:
    """The bytes that an activation bounds to; None where it does more than that."""
    if act not in ("none", "relu", "relu6", "clip"):
        return None
    low, high = {"none": (-np.inf, np.inf), "relu": (0.0, np.inf), "relu6": (0.0, 6.0)}.get(act, bound)
    ends = [quantised(np.array(end, np.float32), scale, zero) if np.isfinite(end) else None for end in (low, high)]
    return (0 if ends[0] is None else int(ends[0])), (255 if ends[1] is None else int(ends[1]))


def pair_bytes(
    a: NDArray[np.uint8],
    b: NDArray[np.uint8],
    product: bool,
    scales: tuple[float, float, float],
    zeros: tuple[int, int, int],
    act: str,
    bound: tuple[float, float],
) -> NDArray[np.uint8]:
    """The bytes of sums or products of two maps, in float32."""
    x, y = dequantised(a, scales[0], zeros[0]), dequantised(b, scales[1], zeros[1])
    with np.errstate(over="ignore"):
        return quantised(activated(x * y if product else x + y, act, bound), scales[2], zeros[2])


def pair(
    product: bool,
    scales: tuple[float, float, float],
    zeros: tuple[int, int, int],
    act: str,
    bound: tuple[float, float],
    name: str,
) -> Pair:
    """Numbers by which integers give these bytes, with the pairs of bytes that float32 rounds otherwise. Raises InputError."""
    out = np.float64(np.float32(scales[2]))
    factors = [np.float64(np.float32(one)) / out for one in scales[:2]]
    if product:
        factors = [factors[0] * np.float64(np.float32(scales[1])), np.float64(0)]
    if max(factors) * (255 if product else 1) > MOST_RATIO:
        raise refuse("a sum or product whose scale is far below those of its maps", name)
    limits = bounds(act, bound, scales[2], zeros[2])
    if limits is None:
        raise refuse(f"an activation {act} of a sum or product that is not rounded before", name)
    # |a * u + b * v| stays below 2**62, and what is cut off behind 32 + shift binary places is far below half a step
    most = 255.0**2 * factors[0] if product else 255 * sum(factors)
    shift = int(max(0, min(20, np.floor(29 - np.log2(max(most, 1e-30))))))
    a, b = (int(np.rint(one * 2.0 ** (32 + shift))) for one in factors)
    first, second = (side.reshape(-1) for side in np.meshgrid(*[np.arange(256, dtype=np.uint8)] * 2, indexing="ij"))
    wanted = pair_bytes(first, second, product, scales, zeros, act, bound)
    u, v = first.astype(np.int64) - zeros[0], second.astype(np.int64) - zeros[1]
    exact = u * v * a if product else u * a + v * b
    given = half_even(exact, 32 + shift) + zeros[2]
    given = np.clip(given, *limits)
    odd = np.flatnonzero(given != wanted)
    if len(odd) > MOST_ODD:
        raise refuse("a sum or product whose bytes integers do not give", name)
    rows = np.stack([first[odd], second[odd], wanted[odd]], 1)
    return Pair(product, zeros[0], zeros[1], a, b, shift, zeros[2], *limits, rows)


def half_even(values: NDArray[np.int64], shift: int) -> NDArray[np.int64]:
    """values / 2**shift, to the nearest integer, ties to even."""
    whole = values >> shift
    cut, half = values - (whole << shift), np.int64(1) << (shift - 1)
    made: NDArray[np.int64] = whole + ((cut > half) | ((cut == half) & (whole & 1 == 1)))
    return made
