"""The pick that a run belongs to, for its report: what else was trained for the same budget, and what became of it."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gossamer.charts.scatter import LabelledPoint, TargetBox, pareto_chart
from gossamer.charts.svg import Markup
from gossamer.errors import GossamerError
from gossamer.host.storage import read_regular
from gossamer.host.text import metric_name

RUNS, STATE, PARETO = "runs", "pick.json", "pareto.json"  # of the folder of a pick
MOST_BYTES = 16 << 20
HEADER = ("network", "precision", "ms", "MB", "rung", "schedule", "score", "what became of it")


@dataclass(frozen=True)
class PickSection:
    """rows: under HEADER, of this run first. chart: score over milliseconds, None where nothing was scored. why: what is
    missing, "" where all is there."""

    folder: str
    score: str
    budget: str
    rows: tuple[tuple[str, ...], ...] = ()
    chart: Markup | None = None
    why: str = ""


def pick_of(run: str | Path) -> PickSection | None:
    """The section of a run that lies in the folder of a `gossamer pick`; None for others."""
    path = Path(run).resolve()
    folder = path.parent.parent
    if path.parent.name != RUNS or not (folder / STATE).is_file():
        return None
    empty = PickSection(str(folder), "", "")
    if not (folder / PARETO).is_file():
        return PickSection(**{**vars(empty), "why": "the pick is not finished"})
    try:
        text = read_regular(folder / PARETO)
        if len(text) > MOST_BYTES:
            raise ValueError(f"more than {MOST_BYTES} bytes")
        return _section(folder, path, json.loads(text))
    except (GossamerError, ValueError, KeyError, TypeError, RecursionError, OverflowError):
        return PickSection(**{**vars(empty), "why": f"{PARETO} is damaged"})


def _section(folder: Path, run: Path, found: Any) -> PickSection:
    """Raises ValueError, KeyError or TypeError where the values are not those of a pick."""
    called, limit = _text(found["score"]), found["budget"]["ms"]
    networks = [(one, _row(one)) for one in found["trained"]]
    networks.sort(key=lambda one: Path(_text(one[0]["run"])).name != run.name)
    points = [
        LabelledPoint(_text(one["name"]), _number(one["use"]["ms"]), 100 * _number(one["score"]), bool(one["front"]))
        for one, _ in networks
        if one["score"] is not None
    ]
    box = None
    if limit is not None and points:
        box = TargetBox(_number(limit), min(point.y for point in points), "within the budget")
    up = f"{metric_name(called)}, %"
    chart = pareto_chart("Picked networks", points, "milliseconds of an image", up, box=box) if points else None
    limits = {"ms": ("{:g} ms", 1.0), "bytes": ("a file of {:g} MB", 1e6), "memory": ("{:g} MB of memory", 1e6)}
    budget = [
        form.format(_number(found["budget"][name]) / unit)
        for name, (form, unit) in limits.items()
        if found["budget"][name] is not None
    ]
    return PickSection(str(folder), metric_name(called), ", ".join(budget), tuple(row for _, row in networks), chart)


def _row(one: Any) -> tuple[str, ...]:
    use, score = one["use"], one["score"]
    return (
        _text(one["name"]),
        _text(one["precision"]),
        f"{_number(use['ms']):.3f}",
        f"{_number(use['bytes']) / 1e6:.3f}",
        str(int(_number(one["rung"]))),
        f"{100 * _number(one['fraction']):.3g} %",
        "–" if score is None else f"{_number(score):.4f}",
        f"dropped: {_text(one['reason'])}" if one["reason"] else "chosen",
    )


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("not a text")
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise TypeError("not a number")
    return float(value)
