"""What every study shares: its options, its table, its figure, and the machine that it ran on."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from gossamer.host import machine

Row = dict[str, Any]
COLOURS = ("#1f6f8b", "#d9480f", "#6a8f3c", "#8a4f9e", "#b08900", "#555555")


@dataclass(frozen=True)
class Findings:
    """What a study measured, one dictionary a row of its table, and what follows from it."""

    rows: list[Row]
    conclusion: str
    arrays: dict[Any, Any] = field(default_factory=dict)  # for the figure only


def main(
    name: str,
    study: Callable[..., Findings],
    draw: Callable[[Findings], Figure],
    *,
    takes_data: bool = False,
    arguments: Sequence[str] | None = None,
) -> Findings:
    """Run a study from the command line: print its table and conclusion, write its figure."""
    parser = argparse.ArgumentParser(prog=f"python -m studies.{name}")
    parser.add_argument("--out", default="", help="folder for the figure; default studies/figures")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--quick", action="store_true", help="a few points only, to see that it runs")
    if takes_data:
        parser.add_argument("--data", default="", help="folder of images, one folder per class; default digits")
    options = parser.parse_args(arguments)
    arguments = {"data": options.data} if takes_data else {}
    findings = study(quick=options.quick, **arguments)
    folder = Path(options.out) if options.out else Path(__file__).parent / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.png"
    draw(findings).savefig(path, dpi=100)
    about = machine.describe_machine()
    if options.json:
        print(
            json.dumps(
                {"study": name, "machine": about, "rows": findings.rows, "conclusion": findings.conclusion}, indent=1
            )
        )
    else:
        print(table(findings.rows))
        print(f"\n{findings.conclusion}\n{about['cpu']}; figure: {folder / f'{name}.png'}")
    return findings


def table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table."""
    names = list(rows[0])
    cells = [names, ["---"] * len(names)] + [[shown(row[name]) for name in names] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in cells)


def shown(value: Any) -> str:
    """A number with four digits that matter."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def figure(columns: int = 1, *, height: float = 4.0) -> tuple[Figure, list[Any]]:
    """A figure with axes side by side."""
    drawing = Figure(figsize=(5.2 * columns, height), layout="constrained")
    FigureCanvasAgg(drawing)
    axes = [drawing.add_subplot(1, columns, index + 1) for index in range(columns)]
    for each in axes:
        each.spines[["top", "right"]].set_visible(False)
    return drawing, axes
