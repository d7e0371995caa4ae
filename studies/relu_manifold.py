"""What ReLU does to a manifold: MobileNetV2 (1801.04381), section 3.2 and figure 1.

A spiral in the plane is embedded in n dimensions by a random matrix T, passes ReLU, and comes back by the
pseudo-inverse of T. The paper shows that it collapses for n = 2 and 3 and keeps its shape for 15 and 30.
"""

from __future__ import annotations

import itertools
import statistics

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from studies.frame import Findings, figure, main

Points = NDArray[np.float64]
DIMENSIONS = (2, 3, 5, 15, 30)
SEEDS = 50
POINTS = 800


def spiral(points: int = POINTS) -> Points:
    """(2, points), two turns and a half around the origin, of mean 0."""
    angle = np.linspace(0.5, 5 * np.pi, points)
    curve = np.stack((angle * np.cos(angle), angle * np.sin(angle))) / (5 * np.pi)
    return curve - curve.mean(1, keepdims=True)


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


def collapsed(back: Points) -> float:
    """The fraction of points that fell onto another, distant point of the curve: nothing can tell them apart again."""
    scale = np.abs(back).max() or 1.0
    keys = np.round(back / scale * 1e6).astype(np.int64).T
    _, inverse, counts = np.unique(keys, axis=0, return_inverse=True, return_counts=True)
    return float((counts[inverse.ravel()] > 1).mean())


def study(quick: bool = False) -> Findings:
    """The loss for each n, over seeds."""
    curve, rows = spiral(), []
    for n in DIMENSIONS:
        seeds = range(5 if quick else SEEDS)
        backs = [through_relu(curve, n, seed) for seed in seeds]
        errors = [error(curve, back) for back in backs]
        rows.append(
            {
                "n": n,
                "lost variance, mean": statistics.mean(errors),
                "standard deviation": statistics.stdev(errors),
                "points collapsed, mean": statistics.mean(map(collapsed, backs)),
            }
        )
    first, last = rows[0], rows[-1]
    falls = all(a["lost variance, mean"] > b["lost variance, mean"] for a, b in itertools.pairwise(rows))
    conclusion = (
        f"Of the spiral's variance {100 * first['lost variance, mean']:.0f} % is lost for good with n = 2 and "
        f"{100 * last['lost variance, mean']:.2f} % with n = 30; the loss {'falls' if falls else 'does not fall'} with "
        f"every step of n. The claim is {'seen' if falls else 'not seen'}."
    )
    return Findings(rows, conclusion, {n: through_relu(curve, n, 7) for n in DIMENSIONS} | {"input": curve})


def draw(findings: Findings) -> Figure:
    """The input, and what comes back for each n."""
    drawing, axes = figure(len(DIMENSIONS) + 1, height=2.6)
    drawing.set_size_inches(13, 2.6)
    colour = np.linspace(0, 1, POINTS)
    for each, key in zip(axes, ("input", *DIMENSIONS)):
        points = findings.arrays[key]
        each.scatter(points[0], points[1], c=colour, s=2, cmap="viridis")
        each.set_title(key if key == "input" else f"n = {key}")
        each.set_axis_off()
        each.set_aspect("equal")
    return drawing


if __name__ == "__main__":
    main("relu_manifold", study, draw)
