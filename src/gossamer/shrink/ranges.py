"""What the values of a network are on images: their extremes per channel, and the range that quantises them best."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from gossamer.errors import InputError
from gossamer.shrink.graph import Array, OnnxGraph, OnnxSession

SAMPLED = 4096  # values of a tensor that are kept per batch
MOST_SAMPLED = (
    1 << 17
)  # values of a tensor that are kept of all batches: beyond it every second one goes, here and later
BATCH = 8
STEPS = 40  # ranges that are tried, as fractions of the extremes
NARROWEST = 0.3  # the smallest of these fractions


@dataclass
class Values:
    """A float value of the graph on the calibration images.

    shape: of one image, without the batch. largest: the largest magnitude per channel (axis 1). low, high: over all.
    sample: values drawn at random, the same number of each batch, at most MOST_SAMPLED.
    """

    shape: tuple[int, ...]
    largest: NDArray[np.float32]
    low: float
    high: float
    sample: NDArray[np.float32] = field(repr=False)


def measure_ranges(graph: OnnxGraph, batches: Iterable[NDArray[np.float32]], seed: int = 0) -> dict[str, Values]:
    """The float values of rank 2 and more of a graph, run on batches (N, ...); the memory does not grow with their number.

    Raises InputError where one is NaN or infinite.
    """
    names = graph.activations()
    session: OnnxSession | None = None
    parts: dict[str, list[NDArray[np.float32]]] = {}
    result: dict[str, Values] = {}
    sizes: dict[str, int] = {}
    halvings: dict[str, int] = {}
    draw = np.random.default_rng(seed)
    for batch in batches:
        if session is None:
            session = OnnxSession(graph.model(names[1:]), exact=True)
            typed = {value.name for value in session.session.get_outputs() if value.type == "tensor(float)"}
            names = [name for name in names[1:] if name in typed]
        for name, value in zip([graph.input, *names], [batch, *session.run(batch, names)], strict=True):
            if value.ndim < 2 or not value.size:
                continue
            magnitude = np.abs(value).max(axis=tuple(axis for axis in range(value.ndim) if axis != 1))
            flat = value.reshape(-1)
            low, high = float(value.min()), float(value.max())
            if not (math.isfinite(low) and math.isfinite(high)):
                _refuse_infinite(graph, name)
            thinned = 1 << halvings.get(name, 0)
            wanted = SAMPLED // thinned
            chosen = flat[::thinned] if flat.size <= SAMPLED else flat[draw.integers(0, flat.size, wanted)]
            parts.setdefault(name, []).append(chosen.astype(np.float32))
            sizes[name] = sizes.get(name, 0) + chosen.size
            if sizes[name] > MOST_SAMPLED and thinned < SAMPLED:
                parts[name] = [np.concatenate(parts[name])[::2]]
                sizes[name], halvings[name] = parts[name][0].size, halvings.get(name, 0) + 1
            if name in result:
                known = result[name]
                np.maximum(known.largest, magnitude, out=known.largest)
                known.low, known.high = min(known.low, low), max(known.high, high)
            else:
                result[name] = Values(value.shape[1:], magnitude.astype(np.float32), low, high, flat[:0])
    for name, kept in parts.items():
        result[name].sample = np.concatenate(kept)
    return result


def _refuse_infinite(graph: OnnxGraph, name: str) -> None:
    """Raises InputError for a value that is NaN or infinite on the calibration images."""
    node = graph.makers().get(name)
    where = f"{node.op_type} {node.name}" if node is not None else "its input"
    raise InputError(
        f"{graph.name}: {where} gives NaN or infinity", "a network whose values are finite", "train or export it again"
    )


def best_range(values: Values, levels: int = 256) -> tuple[float, float]:
    """The range around 0 whose uniform quantisation to `levels` has the least mean squared error on the sample."""
    low, high = min(0.0, values.low), max(0.0, values.high)
    sample = values.sample
    if high <= low:
        return 0.0, 1.0
    # the extremes need not be in the sample; they count once, as the sample stands for many more values
    x = np.concatenate([sample, np.array([low, high], np.float32)]).astype(np.float64)
    best, least = (low, high), np.inf
    fractions = np.linspace(NARROWEST, 1.0, STEPS)
    candidates = [(low * fraction, high * fraction) for fraction in fractions]
    if low < 0 < high:
        candidates += [(low, high * fraction) for fraction in fractions[:-1]] + [
            (low * fraction, high) for fraction in fractions[:-1]
        ]
    buffer = np.empty_like(x)
    for a, b in candidates:
        error = _squared_error(x, a, b, levels, buffer)
        if error < least:
            best, least = (a, b), error
    return best


def _squared_error(x: Array, low: float, high: float, levels: int, buffer: Array) -> float:
    """The mean of `(fake_quantise(x, low, high, levels) - x) ** 2`, to the bit, without a new array for each step."""
    scale, zero = scale_and_zero(low, high, levels)
    np.divide(x, float(scale), out=buffer)
    np.rint(buffer, out=buffer)
    buffer += zero
    np.maximum(buffer, 0, out=buffer)
    np.minimum(buffer, levels - 1, out=buffer)
    buffer -= zero
    buffer *= float(scale)
    buffer -= x
    np.square(buffer, out=buffer)
    return float(buffer.mean())


class BestRanges(Mapping[str, tuple[float, float]]):
    """The best range of each value, found when it is first asked for: half of a network's values are never stored in bytes.

    known: ranges that were found before, of any graph, by what they are of; new ones are added.
    """

    def __init__(self, values: Mapping[str, Values], known: dict[bytes, tuple[float, float]]) -> None:
        self._values, self._known = values, known
        self._found: dict[str, tuple[float, float]] = {}

    def __getitem__(self, name: str) -> tuple[float, float]:
        if name not in self._found:
            value = self._values[name]
            key = hashlib.sha256(value.sample.tobytes())
            key.update(repr((value.low, value.high)).encode())
            if key.digest() not in self._known:
                self._known[key.digest()] = best_range(value)
            self._found[name] = self._known[key.digest()]
        return self._found[name]

    def __contains__(self, name: object) -> bool:
        return name in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


def scale_and_zero(low: float, high: float, levels: int = 256) -> tuple[np.float32, int]:
    """Scale, and the level of 0, of a range that holds 0."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = np.float32(max((high - low) / (levels - 1), 1e-12))
    return scale, int(np.clip(round(-low / float(scale)), 0, levels - 1))


def fake_quantise(x: Array, low: float, high: float, levels: int = 256) -> Array:
    """Values after quantisation to a range and back."""
    scale, zero = scale_and_zero(low, high, levels)
    return np.asarray((np.clip(np.rint(x / float(scale)) + zero, 0, levels - 1) - zero) * float(scale))


def in_batches(images: NDArray[np.float32] | Sequence[NDArray[np.float32]], size: int = BATCH) -> Iterable[Array]:
    """Images (N, ...) in parts of at most `size`."""
    for start in range(0, len(images), size):
        yield np.asarray(images[start : start + size])
