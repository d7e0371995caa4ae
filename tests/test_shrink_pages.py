"""The pages of a recipe and of a quantisation: what was measured, nothing else, and nothing that acts."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from gossamer.charts.rows import Amount, SpanPair, amount_bars, paired_spans, waterfall
from gossamer.charts.scatter import LabelledPoint, TargetBox, pareto_chart
from gossamer.errors import RunError
from gossamer.shrink.layer_page import changed_images, layers_chart, ranges_chart
from gossamer.shrink.recipe.candidates import Targets
from gossamer.shrink.recipe.page import recipe_html
from gossamer.shrink.recipe.saved import OUTCOME, check_step
from tests.recipecases import outcome, recipe, recipe_page
from tests.reportcases import HOSTILE, check_alone

pytest.importorskip("jinja2")
SECTIONS = ("score-and-cost", "steps", "layers", "ranges", "widths", "staircase", "changed", "record")


def test_the_page_shows_every_part() -> None:
    page = check_alone(recipe_page())
    assert [one["id"] for one in page.all("section")] == list(SECTIONS)
    words = page.words
    assert "0.270 ms" in words and "0.550 MB" in words and "87.00 %" in words
    assert "6 of 200 validation images have another class" in words and "cat → dog" in words and "became wrong" in words
    assert "failed : cat failed" in words and "a note" in words
    assert "misses: at most 2 points lost: 3.000 were reached" in words
    labels = " ".join(one["aria-label"] or "" for one in page.all("svg"))
    assert "narrow-1-int8: 0.270, 87.0, on the front" in labels
    assert "stages.0.0.conv: 31.5 dB, 0.210 -> 0.090 ms" in labels and "head.fc: exact" in labels
    assert "before 0.0100 to 8.00" in labels and "after 1.00 to 8.00" in labels
    assert "first 0.700, last 1.200" in labels, "the staircase"
    assert "float: 1.200; narrow-1: 0.500; narrow-1-int8: 0.270" in labels, "the waterfall"
    assert "allowed: at most 0.3 ms, 0.6 MB, 2 points lost" in words


def test_what_cannot_be_drawn_is_damage() -> None:
    path = Path("narrow-1-choose.json")
    for channels, ms in (([], []), ([8, 16], [1.0]), ([8], [1.0, 2.0])):
        stairs = {"layer": "a", "channels": channels, "ms": ms, "chosen": 8}
        values = {"what": "a", "seconds": 1.0, "changes": "", "widths": [], "staircase": [stairs]}
        with pytest.raises(RunError, match="staircase is missing or of another type"):
            check_step(values, path.stem, path)
        check_step({**values, "staircase": [{**stairs, "channels": [8], "ms": [1.0]}]}, path.stem, path)
    classes = OUTCOME["predicted"]
    assert classes([0, 3]) and not classes([-1]) and not classes([10**30]) and OUTCOME["targets"] is not None


def test_what_was_not_measured_is_not_shown() -> None:
    found, values, place = recipe()
    best = found.candidates[1]
    few = dataclasses.replace(
        found, best="int8", candidates=found.candidates[:2], test={}, test_drop=None, targets=Targets(None, 1.0, 5.0)
    )
    values = {name: values[name] for name in ("float", "int8")}
    page = check_alone(recipe_html(few, values, place))
    assert [one["id"] for one in page.all("section")] == ["score-and-cost", "steps", "changed", "record"]
    assert "On the test images" not in page.words and best.file in page.words
    untimed = tuple(dataclasses.replace(one, ms=None) for one in few.candidates)
    page = check_alone(recipe_html(dataclasses.replace(few, candidates=untimed), values, place))
    assert "accuracy and size" in page.words and "Latency" not in page.words


@pytest.mark.parametrize("name", HOSTILE)
def test_names_do_not_act_on_the_page(name: str) -> None:
    check_alone(recipe_page(name=name, layer=name))


def test_an_image_that_cannot_be_read_is_named_without_a_picture() -> None:
    place = recipe()[2]
    names = tuple(place.images.names)
    images, count = changed_images(outcome(0, names), outcome(3, names), place.images)
    assert count == 3 and [one.name for one in images] == ["cat/0.jpg", "cat/1.jpg", "cat/2.jpg"]
    assert [bool(one.uri) for one in images] == [False, True, True]


def test_a_layer_has_the_colour_of_its_precision() -> None:
    found, values, place = recipe()
    layers = values["narrow-1-int8"]["quantised"]["layers"]
    assert [one["precision"] for one in layers] == ["int8", "float32"]
    page = recipe_html(found, values, place)
    assert 'class="key p0">int8' in page and 'class="key p1">float32' in page and "bfloat16" not in page
    layers[1]["precision"] = "bfloat16"
    page = recipe_html(found, values, place)
    assert 'class="key p2">bfloat16' in page and 'class="key p1">float32' not in page and "fill p2" in page


def test_charts_of_nothing() -> None:
    assert layers_chart([]) == [] and ranges_chart([]) is None
    for chart in (amount_bars("a", []), waterfall("a", []), paired_spans("a", ("x", "y"), [])):
        assert "no numbers to draw" in chart


def bars(svg: str) -> list[tuple[float, float]]:
    return [(float(x), float(w)) for x, w in re.findall(r'<rect x="([\d.]+)" y="[\d.]+" width="([\d.]+)"', svg)]


def test_a_waterfall_falls_from_where_the_last_step_ended() -> None:
    (x0, w0), (x1, w1), (x2, w2) = bars(
        waterfall("ms", [Amount("a", 4, "4"), Amount("b", 1, "1"), Amount("c", 2, "2")])
    )
    assert x1 + w1 == pytest.approx(x0 + w0) and w1 == pytest.approx(0.75 * w0)
    assert x2 == pytest.approx(x1) and w2 == pytest.approx(w0 / 4)
    negative = bars(waterfall("points", [Amount("a", 0, "0"), Amount("b", -1, "-1"), Amount("c", 1, "1")]))
    assert all(x >= 0 and x + w <= 360 for x, w in negative) and negative[2][1] == pytest.approx(
        2 * negative[1][1], rel=0.01
    )


def test_an_exact_layer_fills_its_row() -> None:
    (_, some), (_, whole) = bars(amount_bars("dB", [Amount("a", 20, "20"), Amount("b", float("inf"), "exact")]))
    assert whole >= some


def test_spans_lie_on_one_logarithmic_axis() -> None:
    svg = paired_spans("ranges", ("before", "after"), [SpanPair("a", (0.01, 0.1, 1.0), (0.1, 0.5, 1.0))])
    lines = [
        (float(a), float(b))
        for a, b in re.findall(r'x1="([\d.]+)" x2="([\d.]+)" y1="[\d.]+" y2="[\d.]+" class="line thick', svg)
    ]
    assert len(lines) == 2 and lines[0][1] - lines[0][0] == pytest.approx(2 * (lines[1][1] - lines[1][0]), rel=0.02)
    assert lines[0][1] == pytest.approx(lines[1][1]) and "100x" in svg and "10x" in svg


def test_the_box_of_targets_reaches_from_the_edge_to_the_limits() -> None:
    points = [LabelledPoint("a", 1.0, 90.0, True), LabelledPoint("b", 2.0, 95.0)]
    plain = pareto_chart("x", points, "ms", "%")
    boxed = pareto_chart("x", points, "ms", "%", box=TargetBox(0.5, 99.0, "allowed"))
    assert "allowed" in boxed and "allowed" not in plain
    (x, width), *_ = bars(boxed)
    assert x == 50 and 0 < width < 100


def test_many_layers_stand_in_charts_side_by_side_on_one_scale() -> None:
    """53 bars below each other are three screens high, and paper cuts them."""
    layers = [
        {"name": f"Conv_{n}", "alone": 10.0 + n, "float_ms": None, "int8_ms": None, "precision": "int8"}
        for n in range(53)
    ]
    charts = layers_chart(layers)
    assert [chart.count("<rect") for chart in charts] == [18, 18, 17]
    lengths = [width for chart in charts for _, width in bars(chart)]
    assert lengths == sorted(lengths) and lengths[0] / lengths[-1] == pytest.approx(10 / 62, rel=0.02)
