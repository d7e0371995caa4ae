"""What the pages of a quantisation and of a recipe show of layers and images."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from gossamer.charts.rows import Amount, SpanPair, amount_bars, paired_spans
from gossamer.charts.svg import Markup
from gossamer.data.source import Source
from gossamer.errors import GossamerError
from gossamer.report.photos import photo
from gossamer.shrink.recipe.paired import Outcome, changed

SHOWN_LAYERS, SHOWN_RANGES, SHOWN_IMAGES = 120, 24, 24
PANEL = 18  # layers of a chart: three stand side by side, and each fits on a sheet of paper
PHOTO = 240  # pixels
PRECISIONS = {"int8": "p0", "float32": "p1", "bfloat16": "p2"}


class ChangedImage(NamedTuple):
    """An image whose class is another one in int8 or after pruning; uri: "" where it cannot be read."""

    name: str
    uri: str
    pixelated: bool
    true: str
    before: str
    after: str
    kind: str


def layers_chart(layers: Sequence[Mapping[str, Any]]) -> list[Markup]:
    """Charts of PANEL layers each on one scale, to stand side by side: a bar a layer, dB of the outputs with it alone in int8,
    coloured by the precision that it has in the file."""

    def written(one: Mapping[str, Any]) -> str:
        ratio = _number(one["alone"])
        times = (one["float_ms"], one["int8_ms"])
        ms = "" if None in times else f", {times[0]:.3f} -> {times[1]:.3f} ms"
        return ("exact" if math.isinf(ratio) else f"{ratio:.1f} dB") + ms

    shown = layers[:SHOWN_LAYERS]
    rows = [
        Amount(one["name"], _number(one["alone"]), written(one), PRECISIONS.get(one["precision"], "c")) for one in shown
    ]
    longest = max((row.value for row in rows if math.isfinite(row.value)), default=0.0)
    return [
        amount_bars("Signal-to-noise ratio by layer", rows[start : start + PANEL], "dB, longer is better", longest)
        for start in range(0, len(rows), PANEL)
    ]


def _number(value: float | None) -> float:
    return math.inf if value is None else float(value)  # JSON has no infinity: what is exact comes back as null


def ranges_chart(ranges: Sequence[Mapping[str, Any]]) -> Markup | None:
    """The values whose channels differ the most before equalisation: smallest to largest channel, before and after."""
    widest = sorted(ranges, key=lambda one: -one["before"][2] / one["before"][0])[:SHOWN_RANGES]
    if not widest:
        return None
    rows = [SpanPair(one["name"], tuple(one["before"]), tuple(one["after"])) for one in widest]
    return paired_spans("Ranges of channels", ("before", "after"), rows, "largest magnitude of a channel, logarithmic")


def changed_images(before: Outcome, after: Outcome, source: Source) -> tuple[list[ChangedImage], int]:
    """The first of the images whose class changed, and how many there are."""
    rows = changed(before, after)
    places = {name: index for index, name in enumerate(source.names)}
    result = []
    for name, true, old, new in rows[:SHOWN_IMAGES]:
        kind = "became wrong" if old == true else "became right" if new == true else "another wrong class"
        try:
            picture = photo(source.read(places[name]), PHOTO)
            uri, pixelated = picture.uri, picture.pixelated
        except (GossamerError, KeyError):
            uri, pixelated = "", False
        classes = source.classes
        result.append(ChangedImage(name, uri, pixelated, classes[true], classes[old], classes[new], kind))
    return result, len(rows)
