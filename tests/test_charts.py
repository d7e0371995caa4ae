"""Charts and the page base: files that stand alone, text that stays text, marks where the numbers are."""

from __future__ import annotations

import itertools
import math
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from gossamer.charts.bars import BarPair, HistogramBar, histogram, paired_bars
from gossamer.charts.chart_file import check_chart_path, svg_file, write_chart
from gossamer.charts.confusion import confusion_chart
from gossamer.charts.intervals import Interval, KeyEntry, interval_chart
from gossamer.charts.lines import Series, line_chart
from gossamer.charts.rates import RateAxis, RateCurve, rate_chart
from gossamer.charts.scatter import CHARACTER, LabelledPoint, curves_chart, pareto_chart, predicted_against_true
from gossamer.charts.stages import stage_chart, stage_series, stage_table
from gossamer.charts.svg import Markup
from gossamer.cli.main import main
from gossamer.errors import InputError
from tests.reportcases import HOSTILE

SVG = "{http://www.w3.org/2000/svg}"
CHARTS: dict[str, Callable[[str], Markup]] = {
    "lines": lambda name: line_chart(name, [Series(name, [1, 2, 3], [1.0, math.nan, 2.0], "a")], ring=(3, 2.0)),
    "no lines": lambda name: line_chart(name, [Series(name, [1], [math.nan], "a")]),
    "bars": lambda name: paired_bars(name, (name, name), [BarPair(name, 0.5, name, 0.2, name)]),
    "histogram": lambda name: histogram(name, [HistogramBar(8, 16, 3), HistogramBar(16, 32, 0)], name, (16.0,)),
    "intervals": lambda name: interval_chart(
        name, [Interval(name, 1, 2, 3, name, "p1", 2.5)], axis=name, title=name, key=[KeyEntry("dot", "a", name)]
    ),
    "rates": lambda name: rate_chart(name, [RateCurve([0, 1], [1, 0], "a")], RateAxis(name, 3), name, ring=(0.1, 0.5)),
    "scatter": lambda name: predicted_against_true(name, np.array([1.0, 2.0]), np.array([1.5, np.nan])),
    "curves": lambda name: curves_chart(name, {name: [(1, 2), (3, 4)], "b": [(2, 2)]}, name, name),
    "pareto": lambda name: pareto_chart(name, [LabelledPoint(name, 1, 2, True), LabelledPoint("b", 3, 4)], name, name),
    "confusion": lambda name: confusion_chart(np.array([[3, 1], [0, 2]]), [name, "b"]),
    "large confusion": lambda name: confusion_chart(np.eye(40, dtype=np.int64), [name] * 40, name),
}


@pytest.mark.parametrize("kind", CHARTS)
def test_a_chart_is_a_file_that_stands_alone(kind: str, tmp_path: Path) -> None:
    write_chart(tmp_path / "chart.svg", CHARTS[kind]("a chart of some networks"))
    content = (tmp_path / "chart.svg").read_text(encoding="utf-8")
    root = ElementTree.fromstring(content)
    assert root.tag == f"{SVG}svg" and len(root.get("aria-label") or "") > 20
    width, height = (float(root.get(side) or 0) for side in ("width", "height"))
    assert [0, 0, width / 2, height / 2] == [float(value) for value in (root.get("viewBox") or "").split()]
    (style,) = root.findall(f"{SVG}style")
    assert "var(" not in (style.text or "") and "@" not in (style.text or "")
    assert not re.search(r"(href|src)=\"(?!data:image/png)|url\((?!#)", content)
    classes = {name for element in root.iter() for name in (element.get("class") or "").split()}
    assert all(f".{name}" in (style.text or "") for name in classes), "every class has a rule"


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("kind", CHARTS)
def test_names_stay_text(kind: str, name: str) -> None:
    plain, hostile = (ElementTree.fromstring(svg_file(CHARTS[kind](text))) for text in ("a long plain name", name))
    assert [element.tag for element in plain.iter()] == [element.tag for element in hostile.iter()]
    assert {key for element in plain.iter() for key in element.attrib} == {
        key for element in hostile.iter() for key in element.attrib
    }


@pytest.mark.parametrize("name", ["a.png", "a.pdf", "a.svg.gz", "a"])
def test_only_svg_is_written(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"allowed: \.svg"):
        write_chart(tmp_path / name, CHARTS["bars"]("x"))
    assert list(tmp_path.iterdir()) == []
    check_chart_path("A.SVG")


@pytest.mark.parametrize(
    "command", [["bench", "nowhere.onnx"], ["probe", "nowhere"], ["compare", "lenet5", "nowhere.onnx"]]
)
def test_a_command_refuses_another_name_before_it_works(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, "--plot", "chart.png"]) == 2
    out, err = capsys.readouterr()
    assert err.count("\n") == 1 and "'.png'" in err and "allowed: .svg" in err and not out


def test_the_masks_of_two_matrices_differ() -> None:
    first = confusion_chart(np.eye(40, dtype=np.int64), ["x"] * 40)
    second = confusion_chart(np.ones((40, 40), np.int64), ["x"] * 40)
    ids = [set(re.findall(r' id="([^"]+)"', svg)) for svg in (first, second)]
    assert len(ids[0]) == len(ids[1]) == 2 and not ids[0] & ids[1]
    assert set(re.findall(r"url\(#([^)]+)\)", first)) == ids[0]


def test_intervals_lie_on_one_scale() -> None:
    chart = interval_chart("x", [Interval("a", 1, 2, 4), Interval("b", math.nan, 3, math.nan)], reference=1.0)
    centres = [float(x) for x in re.findall(r'<circle cx="([\d.]+)"', chart)]
    ((start, end),) = re.findall(r'<line x1="([\d.]+)" x2="([\d.]+)" [^>]*class="line thick a"', chart)
    ((reference,),) = [re.findall(r'<line x1="([\d.]+)"[^>]*class="rule dashed"', chart)]
    unit = centres[1] - centres[0]
    assert unit > 0 and float(reference) == pytest.approx(float(start), abs=0.02)
    assert centres[0] - float(start) == pytest.approx(unit, abs=0.02)
    assert float(end) - centres[0] == pytest.approx(2 * unit, abs=0.02)


def test_the_front_is_joined_from_left_to_right() -> None:
    points = [LabelledPoint("b", 3, 9, True), LabelledPoint("worse", 4, 5), LabelledPoint("a", 1, 5, True)]
    chart = pareto_chart("x", points, "ms", "%")
    ((line,),) = [re.findall(r'<path d="M([^"]+)" class="line b"', chart)]
    xs, ys = zip(*(map(float, place.split()) for place in line.split("L")))
    assert len(xs) == 2 and xs[0] < xs[1] and ys[0] > ys[1], "the better one lies higher"
    assert chart.count('class="fill b"') == 3 and chart.count('class="fill a"') == 1, "two of the front and the key"
    assert "Pareto front" in chart


def boxes_of_labels(chart: str, names: list[str]) -> list[tuple[float, float, float]]:
    """(left, right, baseline) of the labels of points."""
    boxes = []
    for name in names:
        ((x, y, anchor),) = re.findall(
            rf'<text x="([\d.]+)" y="([\d.]+)" class="halo"( text-anchor="end")?>{name}<', chart
        )
        left = float(x) - CHARACTER * len(name) * bool(anchor)
        boxes.append((left, left + CHARACTER * len(name), float(y)))
    return boxes


@pytest.mark.parametrize("apart", [0.0, 0.01, 1.0])
def test_labels_cover_neither_each_other_nor_the_axis(apart: float) -> None:
    names = ["first", "second_network", "third", "mobilenet_v3_small", "e", "shufflenet_v2_x1_0"]
    points = [LabelledPoint(name, 1 + apart * n, 1 + apart * (n % 3)) for n, name in enumerate(names)]
    boxes = boxes_of_labels(pareto_chart("x", points, "ms", "%"), names)
    for a, b in itertools.combinations(boxes, 2):
        assert abs(a[2] - b[2]) >= 14 or a[1] <= b[0] or b[1] <= a[0]
    assert all(left >= 0 and right <= 361 and 14 < line < 256 for left, right, line in boxes)


def test_a_cost_has_no_axis_below_zero() -> None:
    chart = pareto_chart("x", [LabelledPoint("a", 0.3, 50.0), LabelledPoint("b", 5.0, 60.0)], "ms", "%")
    numbers = {float(x): float(value) for x, value in re.findall(r'<text x="([\d.]+)" y="276"[^>]*>(-?[\d.]+)<', chart)}
    assert numbers and min(numbers) >= 50 and min(numbers.values()) >= 0
    (left, _), *_ = re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', chart)
    unit = (max(numbers) - min(numbers)) / (max(numbers.values()) - min(numbers.values()))
    assert (float(left) - 50) / unit == pytest.approx(0.3, abs=0.01), "the axis begins at 0"


def test_a_name_that_stands_away_from_its_point_has_a_line_to_it() -> None:
    same = [LabelledPoint(f"network{n}", 1, 1) for n in range(8)]
    assert pareto_chart("x", same, "ms", "%").count('class="line faint"') >= 2
    assert 'class="line faint"' not in pareto_chart(
        "x", [LabelledPoint("a", 1, 1), LabelledPoint("b", 9, 9)], "ms", "%"
    )


def test_one_large_network_does_not_push_the_others_into_a_corner() -> None:
    points = [LabelledPoint(f"n{n}", x, 3 * x) for n, x in enumerate((0.04, 0.3, 0.5, 15.5))]
    chart = pareto_chart("x", points, "MACs", "parameters", counted_up=True)
    assert "MACs, logarithmic<" in chart and "parameters, logarithmic<" in chart
    dots = [(float(x), float(y)) for x, y in re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', chart)]
    assert all(b[0] - a[0] >= 20 and a[1] - b[1] >= 14 for a, b in itertools.pairwise(dots))
    assert all(50 <= x <= 348 and 30 <= y <= 260 for x, y in dots)
    scores = pareto_chart("x", points, "MACs", "%")
    assert "%, logarithmic" not in scores, "a score is no count"
    near = pareto_chart("x", [LabelledPoint("a", 1, 1), LabelledPoint("b", 19, 19)], "ms", "n", counted_up=True)
    assert "logarithmic" not in near


class StageSums(NamedTuple):
    name: str
    layers: int
    output_shape: tuple[int, ...]
    params: int
    macs: int
    bytes: int
    ms: float


def stages(*times: float) -> list[StageSums]:
    return [
        StageSums(f"stages.{n}", 2, (1, 8, 4, 6), 100 * (n + 1), 3000 * (n + 1), 2048, ms) for n, ms in enumerate(times)
    ]


def test_a_stage_has_its_time_beside_its_multiply_adds_where_it_was_measured() -> None:
    """Each with its percentage of all stages; a stage without a time has none of it."""
    written = [
        [text.replace("\u202f", " ") for text in re.findall(r'class="small">([^<]+)<', stage_chart(rows) or "")]
        for rows in (stages(1.5, 4.5, math.nan), stages(math.nan, math.nan))
    ]
    assert written[0][::2] == ["16.7 % · 3.00 k", "33.3 % · 6.00 k", "50.0 % · 9.00 k"]
    assert written[0][1::2] == ["25.0 % · 1.50 ms", "75.0 % · 4.50 ms", "0.0 % · 0 ms"]
    assert written[1] == ["33.3 % · 3.00 k", "33.3 % · 100", "66.7 % · 6.00 k", "66.7 % · 200"]
    assert stage_series(stages(math.nan, 1.0)) == ("multiply-adds", "time")
    assert stage_series(stages(math.nan, math.nan)) == ("multiply-adds", "parameters")


def test_the_table_of_stages_has_milliseconds_where_they_were_measured() -> None:
    heads, rows = stage_table(stages(1.0, 3.0))
    assert heads == ("parameters", "MACs", "bytes moved", "ms")
    assert (rows[1].name, rows[1].layers, rows[1].output) == ("stages.1", 2, "8x4x6")
    assert rows[1].cells == (("200", "66.7"), ("6.00\u202fk", "66.7"), ("2.00 KiB", "50.0"), ("3.00", "75.0"))
    heads, rows = stage_table(stages(math.nan, math.nan))
    assert heads == ("parameters", "MACs", "bytes moved") and [len(row.cells) for row in rows] == [3, 3]


@pytest.mark.parametrize("count", [0, 1, 17])
def test_too_few_or_too_many_stages_have_no_chart(count: int) -> None:
    assert stage_chart(stages(*[1.0] * count)) is None
    assert stage_chart(stages(*[1.0] * 16)) and stage_chart(stages(1.0, 1.0))


def test_each_symbol_of_a_key_is_drawn() -> None:
    key = [KeyEntry("dot", "b", "one"), KeyEntry("diamond", "a", "two"), KeyEntry("dashed", "a", "three")]
    plain, keyed = (interval_chart("x", [Interval("a", 1, 2, 4)], key=entries) for entries in ((), key))
    counts = [
        [chart.count(part) for part in ("<circle", 'class="fill b"', 'class="ring"', 'class="rule dashed"')]
        for chart in (plain, keyed)
    ]
    assert counts == [[1, 0, 0, 0], [2, 1, 1, 1]]
    ((first, last, y, end),) = re.findall(
        r'<line x1="([\d.]+)" x2="([\d.]+)" y1="([\d.]+)" y2="([\d.]+)" class="rule dashed"', keyed
    )
    assert float(last) - float(first) == 12 and y == end


def test_a_line_chart_has_round_numbers_on_its_axes() -> None:
    chart = line_chart("x", [Series("a", [1, 2, 3, 4], [0.0, 10.0, 25.0, 40.0], "a")])
    assert re.findall(r'text-anchor="end">([\d.]+)<', chart) == ["0", "20", "40"]
    assert re.findall(r'text-anchor="middle">([\d.]+)<', chart) == ["1", "2", "3", "4"]
    assert chart.count('class="grid"') == 3
    close = line_chart("x", [Series("a", [1, 2], [30.0, 40.0], "a")])
    assert re.findall(r'text-anchor="end">([\d.]+)<', close) == ["30", "35", "40"]


def test_a_number_stands_beside_its_line_of_the_grid() -> None:
    chart = line_chart("x", [Series("a", [1, 2, 3, 4], [0.0, 10.0, 25.0, 40.0], "a")])
    lines = [float(y) for y in re.findall(r'y1="([\d.]+)"[^>]*class="grid"', chart)]
    numbers = [float(y) for y in re.findall(r'y="([\d.]+)" text-anchor="end"', chart)]
    assert len(lines) == 3 and [number - line for line, number in zip(lines, numbers, strict=True)] == [4, 4, 4]


def test_a_spread_of_one_end_is_not_put_into_words() -> None:
    chart = pareto_chart(
        "x", [LabelledPoint("a", 2, 5, low=1.0), LabelledPoint("b", 3, 6, low=2.0, high=4.0)], "ms", "%"
    )
    assert "a: 2.00, 5.00;" in chart and "b: 3.00 (from 2.00 to 4.00), 6.00" in chart and "a: 2.00 (from" not in chart


def test_the_parts_of_a_row_lie_on_one_height() -> None:
    chart = interval_chart("x", [Interval("a", 1, 2, 4), Interval("b", 1, 3, 4, second=2.0)])
    for height in re.findall(r'<circle cx="[\d.]+" cy="([\d.]+)"', chart):
        assert re.search(rf'y1="{height}" y2="{height}"[^>]*class="line thick', chart), height
