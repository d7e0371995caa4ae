"""A review as one HTML file: the findings, and the network drawn with them in place."""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import gossamer
from gossamer.adviser.review import Review
from gossamer.adviser.rule import Finding
from gossamer.adviser.text import figure_text, gain_text
from gossamer.charts import page
from gossamer.host.storage import write_text
from gossamer.host.text import binary_bytes, counted, dimensions, grouped, si_number
from gossamer.microscope.drawing import network_charts
from gossamer.microscope.inspection import inspection_of
from gossamer.microscope.page import FOLDER as MICROSCOPE

FOLDER = Path(__file__).parent
SHOWN = 12  # layers of a finding that are listed; all are marked in the drawing


class Figure(NamedTuple):
    """A number of the headline."""

    name: str
    value: str
    note: str


def write_review(review: Review, path: str | os.PathLike[str]) -> None:
    """Write the page; nothing in it is fetched from elsewhere. Raises StorageError, MissingPackageError."""
    write_text(path, review_html(review))


def review_html(review: Review) -> str:
    """The page as HTML text. Raises MissingPackageError."""
    inspection = inspection_of(review.target, review.subject.graph)
    marks: dict[int, list[int]] = defaultdict(list)
    for number, finding in enumerate(review.findings, 1):
        for place in finding.places:
            marks[place].append(number)
    texts = {
        place: (", ".join(map(str, numbers)), "\n".join(f"{n}: {review.findings[n - 1].rule}" for n in numbers))
        for place, numbers in marks.items()
    }
    values = {
        "version": gossamer.__version__,
        "title": f"{review.target} – review",
        "target": review.target,
        "input": dimensions(review.cost.input_shape),
        "figures": _figures(review),
        "rules": len(review.rules),
        "waiting": len(review.not_applied),
        "measured": review.measured,
        "findings": [(number, finding, _rows(finding)) for number, finding in enumerate(review.findings, 1)],
        "shown": SHOWN,
        "pieces": network_charts(inspection, texts),
        "checked": review.rules,
    }
    templates = page.environment(FOLDER, "the page of a review")
    return page.render_page(templates, "review.html", values, [MICROSCOPE / "inspection.css", FOLDER / "review.css"])


def _figures(review: Review) -> list[Figure]:
    cost = review.cost
    return [
        Figure(
            "Findings",
            str(len(review.findings)),
            f"{counted(len(review.warnings), 'warning')}, {counted(len(review.notes), 'note')}",
        ),
        Figure("Parameters", si_number(cost.params), f"{grouped(cost.params)} in all"),
        Figure("MACs", si_number(cost.macs), f"{grouped(cost.macs)} multiply-adds"),
        Figure("Peak activation memory", binary_bytes(cost.peak_bytes), "without weights and scratch"),
    ]


def _rows(finding: Finding) -> list[tuple[str, str]]:
    """Name and value of what a finding says."""
    rows = [
        ("figure", figure_text(finding)),
        ("concerns", finding.cost_text),
        (f"change, for {finding.claims}", finding.change.text),
    ]
    if finding.gain:
        rows.append(("measured here", gain_text(finding.gain)))
    elif finding.not_measured:
        rows.append(("not measured", finding.not_measured))
    return [*rows, ("source", finding.source)]
