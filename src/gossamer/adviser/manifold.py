"""What ReLU destroys of a curve that is embedded in few channels: MobileNetV2 (1801.04381), section 3.2 and figure 1."""

from __future__ import annotations

import functools
import statistics

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]
POINTS = 800
SEEDS = 10  # of the mean that a review quotes
WIDEST = 256  # channels above which less than half a per cent is lost


def spiral(points: int = POINTS) -> Points:
    """(2, points), two turns and a half around the origin, of mean 0."""
    angle = np.linspace(0.5, 5 * np.pi, points)
    curve = np.stack((angle * np.cos(angle), angle * np.sin(angle))) / (5 * np.pi)
    return np.asarray(curve - curve.mean(1, keepdims=True))


def through_relu(curve: Points, n: int, seed: int) -> Points:
    """T^-1 ReLU(T x), with T of n rows drawn from a normal distribution."""
    matrix = np.random.default_rng(seed).standard_normal((n, 2))
    return np.asarray(np.linalg.pinv(matrix) @ np.maximum(matrix @ curve, 0))


def error(curve: Points, back: Points) -> float:
    """The fraction of the curve's variance that the best affine map of what came back cannot explain.

    ReLU of a sum over many directions halves every point, which no layer behind it would mind: only what cannot be
    undone linearly is lost.
    """
    known = np.vstack((back, np.ones(back.shape[1])))
    solution, *_ = np.linalg.lstsq(known.T, curve.T, rcond=None)
    return float(((known.T @ solution - curve.T) ** 2).sum() / (curve**2).sum())


@functools.cache
def lost(n: int) -> float:
    """The fraction of the spiral's variance that ReLU behind n channels destroys, the mean over `SEEDS`."""
    curve, width = spiral(200), min(n, WIDEST)
    return statistics.mean(error(curve, through_relu(curve, width, seed)) for seed in range(SEEDS))
