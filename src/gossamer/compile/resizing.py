"""Resize and Upsample: each row and column of the output becomes a sum of rows and columns of the input, known here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gossamer.compile.attributes import normalized_axes, text_attribute
from gossamer.compile.lowering import Lowering
from gossamer.compile.program import MOST_SIDE, Array, FeatureMap, LayerWeights
from gossamer.compile.slices import cropped, resize_pairs
from gossamer.modelfile.onnx import OnnxNode

MODES = ("nearest", "linear", "cubic")
NEAREST: dict[str, Callable[[Array], Array]] = {
    "round_prefer_floor": lambda x: np.ceil(x - np.float32(0.5)),
    "round_prefer_ceil": lambda x: np.floor(x + np.float32(0.5)),
    "floor": np.floor,
    "ceil": np.ceil,
}
PLACES: dict[str, Callable[[Array, int, int, np.float32], Array]] = {
    # (places in the output, sides of input and output, ratio) -> places in the input, in float32 as in ONNX Runtime
    "half_pixel": lambda x, input_side, side, ratio: (x + np.float32(0.5)) / ratio - np.float32(0.5),
    "pytorch_half_pixel": lambda x, input_side, side, ratio: (
        (x + np.float32(0.5)) / ratio - np.float32(0.5) if side > 1 else np.zeros_like(x)
    ),
    # what a side loses by rounding down is left out at both ends
    "half_pixel_symmetric": lambda x, input_side, side, ratio: (
        (x + np.float32(0.5)) / ratio
        + (np.float32(input_side) - np.float32(side) / ratio) / np.float32(2)
        - np.float32(0.5)
    ),
    "asymmetric": lambda x, input_side, side, ratio: x / ratio,
    "align_corners": lambda x, input_side, side, ratio: x * np.float32((input_side - 1) / max(side - 1, 1)),
}
POLICIES: dict[str, Callable[[Sequence[float]], float]] = {"not_larger": min, "not_smaller": max}
FITS = 1e-5  # how far a weight between two rows may lie outside 0 and 1 by rounding


def resize(low: Lowering, node: OnnxNode) -> None:
    """Raises InputError for a form whose rows and columns are not such sums, naming the attribute."""
    source, at = low.value(node), node.attributes
    value = low.program.values[source]
    old = node.op == "Upsample" or low.onnx.opset < 11  # of one rule for where a place of the output is
    mode = text_attribute(node, "mode", "nearest")
    place = text_attribute(node, "coordinate_transformation_mode", "asymmetric" if old else "half_pixel")
    rounding = text_attribute(node, "nearest_mode", "floor" if old else "round_prefer_floor")
    for name, kind, known in (
        ("mode", mode, MODES[:2] if old else MODES),
        ("coordinate_transformation_mode", place, PLACES),
        ("nearest_mode", rounding, NEAREST),
    ):
        if kind not in known:
            low.refuse(node, f"its {name} is {kind[:60]}, not {', '.join(known)}")
    outside = bool(at.get("exclude_outside", 0))
    if outside and mode != "cubic":
        low.refuse(node, "its exclude_outside is 1, which only mode cubic has")
    sides, ratios = _sides(low, node, value, old)
    if mode == "cubic":
        slope = np.float32(at.get("cubic_coeff_a", -0.75))
        emitted = _cubic(low, node, source, sides, ratios, place, slope, outside)
        if emitted == source:  # of the same sides: what else reads the map still does
            low.alias(node, source)
        else:
            low.bind(node, emitted)
        return
    if old and mode == "nearest":  # these round up where they make a map smaller
        roundings = ["ceil" if ratio < 1 else "floor" for ratio in ratios]
    else:
        roundings = [rounding] * 2
    rows, columns = (
        _between(input_side, side, ratio, mode, place, rounding)
        for input_side, side, ratio, rounding in zip((value.h, value.w), sides, ratios, roundings)
    )
    out = FeatureMap(sides[0], sides[1], value.c)
    low.bind(node, low.emit("resize", source, out, weights=[LayerWeights(rows, columns)]))


def _sides(low: Lowering, node: OnnxNode, value: FeatureMap, old: bool) -> tuple[list[int], list[float]]:
    """Height and width of the output, and how many times those of the input they are. Raises InputError."""
    scales, sizes = (_scales(low, node), None) if old else (low.constant(node, 2), low.shape_of(node, 3))
    axes = normalized_axes(low, node, node.attributes.get("axes", range(4)), 4)
    policy = text_attribute(node, "keep_aspect_ratio_policy", "stretch")
    if axes not in ([2, 3], [1, 2, 3], [0, 1, 2, 3]):
        low.refuse(node, "its axes are others than height and width, or in another order")
    if policy not in ("stretch", *POLICIES):
        low.refuse(node, f"its keep_aspect_ratio_policy is {policy[:60]}")
    sides: list[int] = []
    if sizes is not None:
        sides = [side for side in sizes[-2:] if side is not None]
        batch = (low.onnx.input.shape or (None,))[0]  # another number would make more or fewer images of a fixed batch
        fits = len(sides) == 2 and len(sizes) == len(axes) and sizes[:-2][-1:] in ([], [value.c])
        fits = fits and not (len(sizes) == 4 and isinstance(batch, int) and sizes[0] not in (None, batch))
        ratios = [side / input_side for side, input_side in zip(sides, (value.h, value.w))]
        if fits and policy in POLICIES:
            if axes != [2, 3]:
                low.refuse(node, "its keep_aspect_ratio_policy is for axes other than height and width alone")
            ratios = [POLICIES[policy](ratios)] * 2
            sides = [int(np.floor(ratio * input_side + 0.5)) for ratio, input_side in zip(ratios, (value.h, value.w))]
    elif scales is not None and scales.dtype == np.float32 and scales.size == len(axes):
        ratios = [float(scale) for scale in scales.reshape(-1)[-2:]]
        fits = all(0 < ratio <= MOST_SIDE for ratio in ratios) and set(scales.reshape(-1)[:-2].tolist()) <= {1.0}
        if fits:
            sides = [int(np.float32(a) * np.float32(ratio)) for a, ratio in zip((value.h, value.w), ratios)]
    else:
        low.refuse(node, "neither constant scales nor sizes")
    if not fits or not all(1 <= side <= MOST_SIDE for side in sides):
        low.refuse(node, f"a size that is not constant, not from 1 to {MOST_SIDE}, or of the batch or the channels")
    return sides, ratios


def _scales(low: Lowering, node: OnnxNode) -> Any:
    """Of an Upsample an attribute before operator set 9."""
    scales = node.attributes.get("scales")
    return low.constant(node, 1) if scales is None else np.array(scales, np.float32)


def _between(input_side: int, side: int, ratio: float, mode: str, place: str, rounding: str) -> Array:
    """(side, 2): of each row or column the first of the two it is between, and its fraction of the way to the second."""
    x = PLACES[place](np.arange(side, dtype=np.float32), input_side, side, np.float32(ratio))
    if mode == "nearest":
        first = np.clip(NEAREST[rounding](x), 0, input_side - 1)
        return np.stack([first, np.zeros_like(first)], 1).astype(np.float32)
    x = np.clip(x, 0, input_side - 1)
    fraction = x - np.floor(x)
    fraction[
        fraction == 0
    ] = -0.0  # the engine then reads the second all the same: 0 times NaN is NaN, as in ONNX Runtime
    return np.stack([np.floor(x), fraction], 1).astype(np.float32)


def _cubic(
    low: Lowering,
    node: OnnxNode,
    source: int,
    sides: Sequence[int],
    ratios: Sequence[float],
    place: str,
    slope: np.float32,
    outside: bool,
) -> int:
    """The map with its rows and then its columns interpolated by cubics over four of them, repeated at the border."""
    for axis, (side, ratio) in enumerate(zip(sides, ratios, strict=True)):
        value = low.program.values[source]
        input_side = (value.h, value.w)[axis]
        if side == input_side and ratio == 1:
            continue
        x = PLACES[place](np.arange(side, dtype=np.float32), input_side, side, np.float32(ratio))
        weights = _cubic_weights(x - np.floor(x), slope)
        first = np.floor(x).astype(np.int64) - 1
        if outside:
            taps = first[:, None] + np.arange(4)
            weights = np.where((taps >= 0) & (taps < input_side), weights, 0)
            weights /= weights.sum(1, keepdims=True)
        source = _four(low, node, source, axis, first, weights)
    return source


def _cubic_weights(t: Array, slope: np.float32) -> NDArray[np.float64]:
    """(side, 4): Keys' cubic convolution at 1 + t, t, 1 - t and 2 - t, as ONNX defines it; their sum is 1."""
    near = np.stack([t, 1 - t], 1).astype(np.float64)
    far, a = near + 1, float(slope)
    inner = ((a + 2) * near - (a + 3)) * near**2 + 1
    outer = ((a * far - 5 * a) * far + 8 * a) * far - 4 * a
    return np.stack([outer[:, 0], inner[:, 0], inner[:, 1], outer[:, 1]], 1)


def _four(low: Lowering, node: OnnxNode, source: int, axis: int, first: NDArray[np.int64], weights: Any) -> int:
    """Rows (axis 0) or columns of four weighed neighbours each, by maps that lie between two.

    With a negative weight outside, of -k at most, the sum of four is (1 + 2k) times one map between the inner two, less k
    times one between the first two and one between the last two.
    """
    value, values = low.program.values[source], low.program.values
    least, most = int(first.min()), int(first.max()) + 3
    side = (value.h, value.w)[axis]
    if most - least >= MOST_SIDE:
        low.refuse(node, f"its sides reach over more than {MOST_SIDE} rows or columns")
    bordered = np.clip(np.arange(least, most + 1), 0, side - 1).tolist()
    if bordered != list(range(side)):
        rows, columns = (bordered, range(value.w)) if axis == 0 else (range(value.h), bordered)
        source = cropped(low, source, rows, columns)
    first = first - least
    if (weights[:, [0, 3]] > FITS).any():
        low.refuse(node, "its cubic_coeff_a is over 0")
    k = max(float(-weights[:, [0, 3]].min()), 0.0)
    middle = 1 + 2 * k
    onward = [
        (1 + weights[:, 0] / k if k else np.ones(len(first)), 0, -k),
        ((weights[:, 2] + weights[:, 3] + k) / middle, 1, middle),
        (-weights[:, 3] / k if k else np.zeros(len(first)), 2, -k),
    ]
    sums: list[int] = []
    for on, shift, factor in onward:
        if not ((on >= -FITS) & (on <= 1 + FITS)).all():
            low.refuse(node, "its cubic_coeff_a makes weights that no maps between two rows or columns add up to")
        if factor == 0:
            continue
        pairs = resize_pairs((first + shift).tolist(), np.clip(on, 0, 1).tolist())
        other = value.w if axis == 0 else value.h
        same = resize_pairs(list(range(other)), [0.0] * other)
        layer = LayerWeights(pairs, same) if axis == 0 else LayerWeights(same, pairs)
        out = FeatureMap(len(first), value.w, value.c) if axis == 0 else FeatureMap(value.h, len(first), value.c)
        part = low.emit("resize", source, out, weights=[layer])
        scale = LayerWeights(np.full(value.c, factor, np.float32), np.zeros(value.c, np.float32))
        sums.append(low.emit("affine", part, FeatureMap(out.h, out.w, out.c), weights=[scale]))
    total = sums[0]
    for one in sums[1:]:
        total = low.emit("add", total, FeatureMap(values[total].h, values[total].w, value.c), other=one)
    return total
