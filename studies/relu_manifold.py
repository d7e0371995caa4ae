"""What ReLU does to a manifold: MobileNetV2 (1801.04381), section 3.2 and figure 1.

A spiral in the plane is embedded in n dimensions by a random matrix T, passes ReLU, and comes back by the
pseudo-inverse of T. The paper shows that it collapses for n = 2 and 3 and keeps its shape for 15 and 30.
"""

from __future__ import annotations

import itertools
import statistics

import numpy as np
from matplotlib.figure import Figure

from gossamer.adviser.manifold import POINTS, Points, error, spiral, through_relu
from studies.frame import Findings, figure, main

DIMENSIONS = (2, 3, 5, 15, 30)
SEEDS = 50


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
