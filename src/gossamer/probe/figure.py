"""The picture of a probe."""

from __future__ import annotations

import io
from collections.abc import Sequence

from gossamer.errors import MissingPackageError

Bar = tuple[str, str, float, float, float]
"""Name, kind, mean over the folds, its spread, accuracy on the held-out images."""

# Okabe and Ito's colours, told apart by people who see colours differently
COLOURS = {"linear": "#0072B2", "non-linear": "#E69F00"}


def picture(bars: Sequence[Bar], floor: float, folds: int, title: str, kind: str) -> bytes:
    """Accuracies in percent, best first, above a line at the floor; bytes of a picture. Raises MissingPackageError."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingPackageError("matplotlib", "report", "the plot of a probe") from error
    figure = Figure(figsize=(8, 1.8 + 0.38 * len(bars)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    labelled = set[str]()
    for place, (_, group, mean, spread, held) in enumerate(bars):
        label = "" if group in labelled else f"{group}, {folds} folds"
        labelled.add(group)
        axes.errorbar(
            100 * mean, place, xerr=100 * spread, color=COLOURS[group], fmt="o", capsize=4, label=label or None
        )
        axes.plot(100 * held, place, "D", mfc="none", mec="black", label=None if place else "held-out images")
    axes.axvline(100 * floor, color="#999999", linestyle="--", label="always the largest class")
    axes.set_yticks(range(len(bars)), [name for name, *_ in bars])
    axes.invert_yaxis()
    axes.set_xlabel("accuracy, % (mean of the folds; whiskers: their standard deviation)")
    axes.set_title(title, fontsize="medium")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=2, fontsize="small", frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, dpi=150)
    return buffer.getvalue()
