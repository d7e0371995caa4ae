"""A recipe as one HTML file: what was tried, what each step brought, and what became of layers and images."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import gossamer
from gossamer.charts import page
from gossamer.charts.lines import Series, line_chart
from gossamer.charts.rows import Amount, waterfall
from gossamer.charts.scatter import LabelledPoint, TargetBox, pareto_chart
from gossamer.charts.svg import Markup
from gossamer.host.storage import write_text
from gossamer.host.text import THIN, metric_name, metric_title, significant
from gossamer.modelfile.metadata import read_model_file
from gossamer.shrink.changed_answers import ChangedAnswer, changed_answers, shows_places
from gossamer.shrink.layer_page import changed_images, layers_chart, ranges_chart
from gossamer.shrink.recipe.candidates import HEADER, Candidate, rows
from gossamer.shrink.recipe.latency import opened
from gossamer.shrink.recipe.paired import outcome_of
from gossamer.shrink.recipe.result import Shrunk
from gossamer.shrink.recipe.steps import Workplace

FOLDER = Path(__file__).parent.parent
Answers = tuple[list[ChangedAnswer], int, int]  # those shown, how many changed, and of how many
STAIRS = 6  # groups of channels of which the table is drawn: those that the time depends on most


class Figure(NamedTuple):
    """A number of the headline."""

    name: str
    value: str
    note: str


class Panel(NamedTuple):
    """A chart with its name and a note."""

    name: str
    note: str
    svg: Markup


def write_page(
    path: str | os.PathLike[str], found: Shrunk, values: Mapping[str, Mapping[str, Any]], place: Workplace
) -> None:
    """Write the page; nothing in it is fetched from elsewhere. Raises StorageError, MissingPackageError."""
    files = Path(path).parent / "candidates"
    names = (found.candidates[0].file, next(one.file for one in found.candidates if one.name == found.best))
    answers = None
    if len(set(names)) == 2:
        models = [opened(read_model_file(files / name), place.runtime, place.settings.threads)[0] for name in names]
        if shows_places(models[0]):
            answers = changed_answers(models[0], models[1], place.images, place.progress)
    write_text(path, recipe_html(found, values, place, answers))


def recipe_html(
    found: Shrunk, values: Mapping[str, Mapping[str, Any]], place: Workplace, answers: Answers | None = None
) -> str:
    """The page as HTML text. values: what each finished step has left. answers: boxes and masks that changed, where there are any."""
    best = next(one for one in found.candidates if one.name == found.best)
    first = found.candidates[0]
    quantised = values.get(best.name, {}).get("quantised")
    choice = _choice(best, values)
    before, after = (outcome_of(values[_step_of(one, values)]["outcome"]) for one in (first, best))
    images, count = changed_images(before, after, place.images) if best is not first else ([], 0)
    timed = all(one.ms is not None for one in found.candidates)
    kept = "keeps every limit" if not found.misses else "misses: " + "; ".join(miss.text() for miss in found.misses)
    content = {
        "version": gossamer.__version__,
        "title": f"{Path(found.file).name} of {place.settings.run}",
        "lead": f"{best.file} ({best.step}, {best.precision}) {kept}. Limits: {found.targets.text()}.",
        "found": found,
        "best": best,
        "figures": _figures(found, first, best),
        "up": metric_title(found.score),
        "timed": timed,
        "chart": _chart(found, first, timed),
        "header": HEADER,
        "rows": _rows(found),
        "interval": "paired proportions (Bonett and Price 2012)"
        if before.names
        else "a jackknife over groups of images",
        "falls": _waterfalls(found, first, best),
        "layers": layers_chart(quantised["layers"]) if quantised else [],
        "ranges": ranges_chart(quantised["ranges"]) if quantised else None,
        "quantised": quantised,
        "widths": choice.get("widths", []),
        "dropped": choice.get("dropped", []),
        "tried": _tried(values.get(f"{'-'.join(best.name.split('-')[:2])}-decompose", {})),
        "stairs": _stairs(choice.get("staircase", [])),
        "compared": bool(before.names) and best is not first,
        "images": images,
        "changed": count,
        "answers": answers,
        "settings": [(name, "–" if value is None else value) for name, value in place.settings.to_json().items()],
    }
    return page.render_page(page.environment(FOLDER, "the page of a recipe"), "recipe.html", content)


def _rows(found: Shrunk) -> list[tuple[str, ...]]:
    """The rows under HEADER with the score in per cent, as everywhere on the page."""
    place = HEADER.index("score")
    return [
        (*row[:place], f"{100 * one.score:.2f}{THIN}%", *row[place + 1 :])
        for one, row in zip(found.candidates, rows(found.candidates, found.targets), strict=True)
    ]


def _step_of(one: Candidate, values: Mapping[str, Mapping[str, Any]]) -> str:
    """The step that has left a candidate."""
    return next(name for name, value in values.items() if value.get("candidate", {}).get("name") == one.name)


def _choice(best: Candidate, values: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    """What was chosen for the network of a candidate; {} where it was not narrowed."""
    base = "-".join(best.name.split("-")[:2])
    for kind in ("choose", "width"):
        choice = values.get(f"{base}-{kind}", {})
        if choice and "error" not in choice:
            return choice
    return {}


def _tried(step: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The decompositions that came into question on the way to the best file, a row of text each: those that were timed first."""
    rows: list[tuple[str, ...]] = []
    for one in sorted(step.get("tried", []), key=lambda one: one["ms"] is None):
        before, after = ("–", "–") if one["ms"] is None else (significant(ms) for ms in one["ms"])
        ranks = ", ".join(map(str, one["ranks"])) or "–"
        rows.append((one["layer"], one["method"], ranks, before, after, one["verdict"]))
    return rows


def _figures(found: Shrunk, first: Candidate, best: Candidate) -> list[Figure]:
    before, after = found.scores[found.score]
    drop = best.interval()
    figures = [Figure(metric_title(found.score), f"{100 * after:.2f} %", f"{100 * before:.2f} % before; {drop.text()}")]
    if best.ms is not None and first.ms is not None:
        ratio = f", {best.ms / first.ms:.2f}x" if best.runtime == first.runtime else ""
        figures.append(Figure("Latency", f"{best.ms:.3f} ms", f"{first.ms:.3f} ms before{ratio}; {best.runtime}"))
    figures.append(
        Figure("File", f"{best.mb:.3f} MB", f"{first.mb:.3f} MB before, {best.bytes / max(1, first.bytes):.2f}x")
    )
    if found.score in found.test:
        old, new = found.test[found.score]
        note = f"{100 * old:.2f} % before"
        if found.test_drop and found.test_drop[1] is not None and found.test_drop[2] is not None:
            note += f"; 95 % interval of the points lost {found.test_drop[1]:+.2f} to {found.test_drop[2]:+.2f}"
        figures.append(Figure("On the test images", f"{100 * new:.2f} %", note))
    return figures


def _chart(found: Shrunk, first: Candidate, timed: bool) -> Markup:
    """Score against milliseconds, or against size where not all were timed, with the part that is allowed."""
    front = {one.name for one in found.pareto}
    points = [
        LabelledPoint(one.name, (one.ms or 0.0) if timed else one.mb, 100 * one.score, one.name in front)
        for one in found.candidates
    ]
    limit = found.targets.max_ms if timed else found.targets.max_mb
    least = 100 * first.score - found.targets.max_drop
    box = None if limit is None else TargetBox(limit, least, f"allowed: {found.targets.text()}")
    across = "ms of an image" if timed else "MB of the file"
    return pareto_chart("Score and cost", points, across, f"{metric_name(found.score)}, %", box=box)


def _waterfalls(found: Shrunk, first: Candidate, best: Candidate) -> list[Panel]:
    """Milliseconds, megabytes and points after each step on the way to the best file."""
    way = [first]
    # the networks that it was made of, whose names its own begins with
    way += [one for one in found.candidates if one.precision == "float32" and best.name.startswith(f"{one.name}-")]
    way += [best] if best is not first else []

    def panel(name: str, note: str, value: Any, form: str) -> Panel:
        amounts = [
            Amount(
                one.name,
                value(one),
                format(value(one), form),
                "c" if one is first else "a" if value(one) <= value(past) else "b",
            )
            for one, past in zip(way, [first, *way[:-1]], strict=True)
        ]
        return Panel(name, note, waterfall(name, amounts))

    panels = []
    if all(one.ms is not None for one in way):
        panels.append(panel("ms", "of an image", lambda one: one.ms, ".3f"))
    panels.append(panel("MB", "of the file", lambda one: one.mb, ".3f"))
    panels.append(panel("points lost", "on the validation images", lambda one: one.drop, "+.2f"))
    return panels


def _stairs(tables: Sequence[Mapping[str, Any]]) -> list[Panel]:
    """The measured tables of the groups that the time depends on most."""
    most = sorted(tables, key=lambda one: min(one["ms"]) - max(one["ms"]))[:STAIRS]
    panels = []
    for one in most:
        points = sorted(zip(one["channels"], one["ms"], strict=True))
        xs, ys = [float(x) for x, _ in points], [y for _, y in points]
        ring = next(((float(x), y) for x, y in points if x == one["chosen"]), (math.nan, math.nan))
        series = [Series(one["layer"], xs, ys, "a")]
        svg = line_chart(
            one["layer"], series, form=lambda ms: f"{ms:.3f}", ring=ring, axis="ms", across="channels kept"
        )
        panels.append(Panel(one["layer"], f"{one['chosen']} of {max(one['channels'])} kept", svg))
    return panels
