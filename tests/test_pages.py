"""What all pages share: names, failures first, curves that outliers do not flatten, one latency, and nothing cut off."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from gossamer.analysis import cost as cost_tables
from gossamer.analysis.graph import trace
from gossamer.analysis.layers import layers_of
from gossamer.analysis.names import layer_path, node_name, operator_name, stage_of
from gossamer.charts.intervals import Interval, interval_chart
from gossamer.charts.lines import Series, line_chart, robust_range
from gossamer.charts.scatter import LabelledPoint, pareto_chart
from gossamer.cli.main import main
from gossamer.errors import InputError
from gossamer.microscope.compare import Candidate, NetworkComparison, comparison_html
from gossamer.microscope.drawing import LEVELS, network_charts
from gossamer.microscope.inspection import BenchLatency, Inspection, inspect
from gossamer.microscope.page import inspection_html
from gossamer.microscope.table import layer_table
from gossamer.microscope.timing import Timing
from gossamer.report import page
from gossamer.report.contents import Latency, latencies, latency_note, quoted_latency, read_bench
from gossamer.report.detection_examples import DetectionDetails
from gossamer.report.highlights import highlights
from gossamer.report.photos import Photo, missed_last
from gossamer.report.segmentation_examples import SegmentationDetails, SegmentationExample
from gossamer.report.view import Highlight
from gossamer.run import GIVEN, SETTINGS, Run
from gossamer.settings import Settings, differing
from gossamer.settings.file import load_settings
from gossamer.tasks.scores_heads import MultiLabelEvaluation, RegressionEvaluation
from gossamer.tasks.segmentation.scores import SegmentationEvaluation
from tests.recipecases import recipe_page
from tests.reportcases import HOSTILE, Page, check_alone, data, evaluation

# the field's names

RAW = re.compile(r"_|::|\daten|[a-z]\dd$|legit|native")


def test_no_operator_keeps_its_raw_name() -> None:
    known = {*cost_tables.FORMULAS, *cost_tables.POINTWISE, *cost_tables.MOVING, *cost_tables.FREE}
    assert len(known) > 150
    assert {name: operator_name(name) for name in known if RAW.search(operator_name(name))} == {}
    assert operator_name("aten::max_pool2d_with_indices") == operator_name("max_pool2d_with_indices") == "max pool"
    assert operator_name("onnx::GridSample") == "GridSample" and operator_name("custom::my_op") == "my op"
    assert layer_path("stem.conv convolution") == "stem.conv (conv)" and layer_path("") == ""


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (nn.Conv2d(4, 8, 3), "conv 3x3"),
        (nn.Conv2d(4, 4, 3, groups=4, stride=2), "conv 3x3 depthwise /2"),
        (nn.Conv2d(4, 4, (1, 3), groups=2, dilation=2), "conv 1x3 groups 2 dilated 2"),
        (nn.ConvTranspose2d(4, 8, 2, 2), "transposed conv 2x2 /2"),
        (nn.MaxPool2d(3, 2), "max pool 3x3 /2"),
        (nn.AvgPool2d(2, 1), "average pool 2x2"),
        (nn.AdaptiveAvgPool2d(1), "global average pool"),
        (nn.ReLU6(), "relu6"),
        (nn.Hardtanh(-1, 1), "hardtanh"),
        (nn.Hardswish(), "hardswish"),
        (nn.BatchNorm2d(4), "batch norm"),
        (nn.Upsample(scale_factor=2, mode="bilinear"), "bilinear resize"),
    ],
)
def test_a_layer_has_its_usual_name_with_window_stride_and_groups(module: nn.Module, name: str) -> None:
    graph = trace(module, (1, 4, 16, 16))
    (node,) = [node for node in graph.nodes if node.op not in cost_tables.FREE]
    assert node_name(graph, node) == name


def test_an_onnx_clip_is_the_activation_that_it_computes(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    bounds = {"zero": 0.0, "six": 6.0, "one": 1.0}
    nodes = [
        helper.make_node("Clip", ["x", "zero", "six"], ["a"], "first"),
        helper.make_node("Clip", ["a", "zero"], ["b"], "second"),
        helper.make_node("Clip", ["b", "zero", "one"], ["y"], "third"),
    ]
    values = [helper.make_tensor_value_info(name, kind, [1, 3, 8, 8]) for name in "xy"]
    constants = [helper.make_tensor(name, kind, [], [value]) for name, value in bounds.items()]
    graph = helper.make_graph(nodes, "g", [values[0]], [values[1]], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), tmp_path / "clip.onnx")
    assert " + ".join(row.what for row in inspect(tmp_path / "clip.onnx").rows) == "relu6 + relu + clamp"


def test_layers_hold_every_operation_once_and_stages_sum_to_the_network() -> None:
    inspection = inspect("mobilenet_v2", (3, 64, 64))
    assert inspection.graph is not None
    layers = layers_of(inspection.graph, inspection.cost)
    nodes = [node.index for layer in layers for node in layer.nodes]
    assert len(nodes) == len(set(nodes)) == len(inspection.cost.layers)
    stages = inspection.stage_rows()
    assert sum(stage.macs for stage in stages) == inspection.cost.macs
    assert sum(stage.params for stage in stages) == inspection.cost.params
    assert sum(stage.layers for stage in stages) == len(inspection.rows)
    assert stage_of("maps.stages.2.0.expand.conv") == stage_of("stages.2.1") == "stages.2"
    assert stage_of("backbone.stem") == "stem" and stage_of("head.fc") == "head"


# charts


def test_one_value_far_from_the_others_does_not_flatten_the_curve() -> None:
    values = [2.0, 1.9, 850.0, 1.7, 1.6, 1.5]
    assert robust_range(values) == (1.5, 2.0)
    chart = line_chart("Loss", [Series("training", range(1, 7), values, "a")], axis="loss")
    assert "outside the axis: 850 at 3" in chart and "<title>850</title>" in chart
    odd = line_chart("Images", [Series("a", [1, 2, 3, 4, 5], [100.0, 101.0, 99.0, 100.5, 14.7664], "a")])
    assert "outside the axis: 14.8 at 5" in odd and "14.7664" not in odd
    assert "from 1.50 to 850" in chart, "the description keeps the value"
    ys = [
        float(y) for _, y in re.findall(r"[ML]([\d.]+) ([\d.]+)", re.findall(r'd="([^"]+)" class="line a"', chart)[0])
    ]
    assert max(ys) - min(ys[:1] + ys[3:]) > 80, "the others use the height of the chart"


@given(st.integers(4, 300), st.floats(0.02, 0.5))
def test_a_smooth_curve_is_shown_whole(count: int, rate: float) -> None:
    values = [2.3 * math.exp(-rate * min(step, 8)) + 0.5 for step in range(count)]
    assert robust_range(values) == (min(values), max(values))


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=60))
def test_few_values_are_left_outside(values: list[float]) -> None:
    low, high = robust_range(values)
    outside = [value for value in values if not low <= value <= high]
    assert len(outside) <= max(1, len(values) // 20) and min(values) <= low <= high <= max(values)


def test_axes_are_labelled() -> None:
    html = page.report_html(data())
    for unit in ("loss", "images/s", "seconds", "learning rate", "score, %" if "score, %" in html else "Accuracy, %"):
        assert re.search(rf"<text [^>]*>{re.escape(unit)}</text>", html), unit
    assert html.count(">epoch</text>") == 5


def test_latencies_that_differ_much_stand_on_a_logarithmic_axis_and_a_wild_spread_is_cut_off() -> None:
    rows = [Interval("fast", 0.4, 0.5, 0.6), Interval("slow", 60, 130, 5000)]
    chart = interval_chart("Latency", rows, axis="milliseconds")
    assert "milliseconds, logarithmic, 1 spread ends outside" in chart and "to 5000" in chart
    centres = [float(x) for x in re.findall(r'<circle cx="([\d.]+)"', chart)]
    assert 20 < centres[0] < centres[1] < 348
    plain = interval_chart("Latency", [Interval("a", 1, 2, 4), Interval("b", 2, 3, 5)], axis="ms")
    assert "logarithmic" not in plain and "outside" not in plain


def test_compared_networks_show_their_spread() -> None:
    points = [LabelledPoint("a", 2.0, 70, True, 1.5, 3.0), LabelledPoint("b", 4.0, 60, False, 3.9, 400.0)]
    chart = pareto_chart("Networks", points, "ms", "%", "from p10 to p90")
    spreads = re.findall(r'<line x1="([\d.]+)" x2="([\d.]+)" [^>]*class="line thick', chart)
    assert len(spreads) == 3 and "from p10 to p90" in chart, "two points and the key"
    assert all(float(left) < float(right) <= 348 for left, right in spreads)
    assert "a: 2.00 (from 1.50 to 3.00)" in chart
    without = pareto_chart("Networks", [LabelledPoint("a", 1, 2), LabelledPoint("b", 2, 3)], "ms", "%", "spread")
    assert "line thick" not in without and "spread" not in without


# failures


def sentences(report: object) -> list[Highlight]:
    return highlights(report, page.view_of(report).highlights)  # type: ignore[arg-type]


def test_a_class_of_which_nothing_is_right_comes_first() -> None:
    scored = evaluation(("cat", "dog", "owl"))
    logits = scored.logits.copy()
    logits[scored.targets == 0] = [0, 9, 0]
    report = data(
        ("cat", "dog", "owl"), evaluation=dataclasses.replace(scored, logits=logits), counts={"train": (9, 90, 9)}
    )
    first, *others = sentences(report)
    assert first.failure and "cat" in first.sentence and "20 of 20 images missed" in first.sentence
    assert not any(one.failure for one in others)
    assert "cat" not in next(one.sentence for one in others if one.what == "Weakest class")
    words = check_alone(page.report_html(report)).words
    assert words.index("20 of 20 images missed") < words.index("Imbalance")


def test_an_answer_no_better_than_the_largest_class_is_said() -> None:
    scored = evaluation(("cat", "dog"))
    logits = np.zeros_like(scored.logits)
    logits[:, 1] = 5
    report = data(evaluation=dataclasses.replace(scored, logits=logits))
    assert "No better than chance" in {one.what for one in sentences(report) if one.failure}
    assert not any(one.failure for one in sentences(data()))


def test_labels_and_quantities_of_which_nothing_is_known_are_failures() -> None:
    targets = np.array([[1.0, 0], [1, 1], [0, 1], [1, 0]])
    labels = MultiLabelEvaluation(
        list("abcd"), np.array([[-1, -1], [-1, 1], [-1, 1], [-1, -1]], np.float32), targets, [], ("red", "round")
    )
    report = dataclasses.replace(data(), evaluation=labels, task="multilabel", score="map", mistakes=(), counts={})
    (first, *_) = sentences(report)
    assert first.failure and "red" in first.sentence and "3 of 3 images missed" in first.sentence
    numbers = RegressionEvaluation(
        list("abcd"), np.array([[9], [1], [7], [0]], np.float32), np.array([[1.0], [2], [3], [4]]), [], ("price",)
    )
    report = dataclasses.replace(data(), evaluation=numbers, task="regress", score="r2", mistakes=(), counts={})
    assert [one.what for one in sentences(report) if one.failure] == ["No better than the mean"]


def test_what_found_nothing_is_never_among_the_best() -> None:
    assert missed_last([0], [3, 2, 1], [False, False, True, False]) == ([0, 1, 3], [2])
    assert missed_last([0], [1], [False, False]) == ([0, 1], [])


def test_a_detector_that_finds_nothing_says_how_many_it_missed_and_shows_no_best() -> None:
    from gossamer.data.boxes.annotation import BoxTarget
    from gossamer.predictions.boxes import ScoredBoxes
    from gossamer.tasks.detection.scores import DetectionScores

    truth = [BoxTarget.plain([[1, 1, 9, 9]] * 22, [0] * 22, (20, 20)) for _ in range(2)]
    nothing = ScoredBoxes(
        boxes=np.zeros((0, 4), np.float32), labels=np.zeros(0, np.int64), scores=np.zeros(0, np.float32)
    )
    scores = DetectionScores(("cell",), ["a", "b"], truth, [nothing, nothing], [])
    report = dataclasses.replace(
        data(),
        evaluation=scores,
        details=DetectionDetails((), (), np.zeros(0)),
        task="detect",
        score="map50",
        mistakes=(),
    )
    (first, *_) = sentences(report)
    assert first.failure and first.what == "Nothing found" and "44 of 44 objects missed" in first.sentence
    words = check_alone(page.report_html(report)).words
    assert words.index("44 of 44 objects missed") < words.index("Training curves")


def test_a_model_file_that_fails_is_a_failure() -> None:
    from gossamer.report.contents import ExportedFile

    report = data(exported=ExportedFile("p.onnx", 10, None, "digest (rule 3)"))
    (first, *_) = sentences(report)
    assert first.failure and "digest (rule 3)" in first.sentence


def test_a_segmenter_shows_the_truth_beside_its_prediction() -> None:
    confusion = np.array([[5, 1], [2, 4]], np.int64)
    scores = SegmentationEvaluation(("road", HOSTILE[0]), ["a"], confusion, np.array([0.5]), [])
    uris = [f"data:image/png;base64,{letter}" for letter in ("TRUE", "PRED", "ERRS")]
    truth, predicted, errors = (Photo(uri, 4, 4, True) for uri in uris)
    example = SegmentationExample(HOSTILE[1], predicted, errors, 0.5, 0.3, (0, 1), truth)
    for best, none_left in (((example,), False), ((), True)):
        details = SegmentationDetails((example,), best)
        report = dataclasses.replace(
            data(), evaluation=scores, details=details, task="segment", score="miou", mistakes=(), images={"val": 1}
        )
        parsed = check_alone(page.report_html(report))
        assert [image["src"] for image in parsed.all("img")][:3] == uris
        assert "ground truth predicted wrong pixels" in parsed.words
        assert ("None: in no other image" in parsed.words) is none_left


# one latency


def bench_of(name: str) -> dict[str, object]:
    row = {"target": f"runs/{name}", "runtime": "native", "version": "1", "threads": 1, "batch": 1}
    times = {"median_ms": 0.5, "p10_ms": 0.4, "p90_ms": 0.9, "images_per_second": 2000.0, "load_ms": 3, "peak_bytes": 9}
    slow = {**row, **times, "runtime": "torch", "median_ms": 7.0}
    return {
        "machine": {"cpu": "a processor"},
        "rows": [slow, {**row, **times}, {**row, **times, "batch": 8, "median_ms": 0.1}],
    }


def test_report_and_inspect_quote_the_latency_of_the_benchmark_with_what_it_is() -> None:
    rows = latencies(bench_of("pets"), {"pets"}, {"pets": "float32"})
    row = quoted_latency(rows)
    assert row is not None and row.median == 0.5 and row.runtime == "native 1"
    note = latency_note(row, bench_of("pets"))
    assert all(part in note for part in ("median of one image", "native 1", "1 thread", "float32", "a processor"))
    report = data(latencies=rows, bench={"cpu": "a processor"})
    figure = {key.name: key for key in page.key_figures(report)}["Latency"]
    assert figure.note == note
    inspection = dataclasses.replace(inspect("lenet5"), latency=BenchLatency(row.median, note))
    shown = "".join(check_alone(inspection_html(inspection)).text)
    assert figure.value in shown and note in shown
    assert "latency       0.500 ms; median of one image" in layer_table(inspection), "digits as of the report"
    assert quoted_latency([dataclasses_latency(median=math.inf), dataclasses_latency(median=math.nan)]) is None


def dataclasses_latency(**changes: float) -> Latency:
    values = {"median": 1.0, "p10": 1.0, "p90": 1.0, "images_per_second": 1.0, "load": 1.0, "memory": 1.0, **changes}
    return Latency("native", 1, 1, **values)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["[]", "{", '{"rows": 5}', '{"rows": [1]}', "[" * 100_000, "\udcff"])
def test_a_damaged_benchmark_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "bench.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError, match="bench"):
        read_bench(tmp_path / "bench.json")


def test_odd_values_of_a_benchmark_are_not_measured(tmp_path: Path) -> None:
    (tmp_path / "b.json").write_text(
        json.dumps({"machine": 3, "rows": [{"target": "a", "threads": "x", "median_ms": "fast"}]})
    )
    bench = read_bench(tmp_path / "b.json")
    (row,) = latencies(bench, {"a"})
    assert row.threads == 0 and math.isnan(row.median) and latency_note(row, bench)


# settings


def test_a_run_keeps_which_settings_were_given_and_the_report_folds_the_others(tmp_path: Path) -> None:
    settings = Settings(data="pets", width=0.5, lr=0.3, out=str(tmp_path / "run"))
    run = Run.create(settings)
    run.save_settings(settings.replace(small_input=True, crop_pct=0.9), differing(settings))
    assert (
        run.user_settings()
        == ("data", "out", "width", "lr")
        == tuple(sorted(run.user_settings() or (), key=differing(settings).index))
    )
    assert load_settings(tmp_path / "run" / SETTINGS) == run.settings
    report = data(settings=run.settings)
    html = page.report_html(dataclasses.replace(report, user_settings=run.user_settings()))
    section = html[html.index('id="settings"') : html.index('id="provenance"')]
    before, folded = section.split("<details>")
    assert set(re.findall(r"<dt>(\w+)</dt>", before)) == {"data", "out", "width", "lr"}
    assert {field.name for field in dataclasses.fields(Settings)} <= set(re.findall(r"<dt>(\w+)</dt>", folded))
    run.unlock()


@pytest.mark.parametrize("line", ["", "# other\n", f"{GIVEN}lr, <b>, nothing\n"])
def test_a_run_that_does_not_say_what_was_given_is_read(tmp_path: Path, line: str) -> None:
    settings = Settings(data="pets", out=str(tmp_path / "run"))
    run = Run.create(settings)
    run.save_settings(settings)
    path = tmp_path / "run" / SETTINGS
    path.write_text(line + path.read_text(encoding="utf-8"), encoding="utf-8")
    assert Run.open(tmp_path / "run").user_settings() == (("lr",) if line.startswith(GIVEN) else None)
    run.unlock()


# the page of an inspection


def timed(inspection: Inspection) -> Inspection:
    """The inspection with made-up times, so that nothing is measured."""
    rows = tuple(
        dataclasses.replace(row, ms=1.0 + index, ms_low=0.5, ms_high=2.0) for index, row in enumerate(inspection.rows)
    )
    return dataclasses.replace(
        inspection,
        rows=rows,
        timing=Timing("torch", 1, 30, (9.0, 8.0, 10.0), {0: (50.0, 1, 1)}, {"views": 0.1}, "a processor"),
    )


def test_the_page_of_an_inspection_has_stages_a_legend_and_every_layer() -> None:
    untimed = inspect("mobilenet_v2", (3, 64, 64))
    for inspection, series in ((untimed, "parameters"), (timed(untimed), "time")):
        parsed = check_alone(inspection_html(inspection))
        ids = {section["id"] for section in parsed.all("section")}
        assert {"stages", "network", "table"} <= ids
        assert {(link["href"] or "")[1:] for link in parsed.all("a")} <= ids
        assert all(stage.name in parsed.words for stage in inspection.stage_rows())
        assert f"multiply-adds {series}" in parsed.words and "most expensive layer" in parsed.words
        assert all(row.name in parsed.words and row.what in parsed.words for row in inspection.rows)
        assert not RAW.search(" ".join(row.what for row in inspection.rows))
    assert "torch, 1 thread, float32, 30 rounds, a processor" in parsed.words
    assert "not the latency in deployment" in parsed.words and "bottleneck" in parsed.words


def test_the_pieces_of_a_network_hold_every_box_once() -> None:
    inspection = inspect("googlenet", (3, 64, 64))
    pieces = network_charts(inspection)
    frames = [len(re.findall(r'class="layer(?: bottleneck)?"', piece)) for piece in pieces]
    assert sum(frames) == len(inspection.rows) and len(pieces) > 2
    first, second = (re.search(r'viewBox="0 0 (\d+) (\d+)"', piece) for piece in pieces[:2])
    assert first and second and first.groups() == second.groups() and int(first[2]) == LEVELS * (46 + 20)


def test_a_mark_above_the_first_box_of_a_piece_is_whole() -> None:
    """Pieces cut off what lies outside them; a figure of the small text is 8 units high."""
    inspection = inspect("lenet5")
    piece = network_charts(inspection, {0: ("3", "3: a finding")})[0]
    moved = re.search(r"translate\(0 (-?\d+)\)", piece)
    mark = re.search(r'y="(\d+)" class="small mark"[^>]*>3<', piece)
    assert moved and mark and int(mark[1]) + int(moved[1]) >= 8


def test_hostile_names_are_only_text_in_inspections_and_comparisons() -> None:
    inspection = timed(inspect("lenet5"))
    for name in HOSTILE:
        rows = tuple(dataclasses.replace(row, name=name, what=name, stage=name) for row in inspection.rows)
        cost = dataclasses.replace(inspection.cost, peak_layer=f"{name} {name}", unknown={name: 2})
        latency = BenchLatency(1.0, name)
        html = inspection_html(dataclasses.replace(inspection, target=name, rows=rows, cost=cost, latency=latency))
        check_alone(html)
        assert html.encode() and not re.search(r"[\x00-\x08\x0e-\x1f\x7f-\x9f]", html)
        candidates = (compared(name, name), compared("plain", name))
        check_alone(comparison_html(NetworkComparison(candidates, "ms")))


def compared(name: str, source: str = "its run", ms: float | None = 2.0) -> Candidate:
    spread = (None, None, None) if ms is None else (ms, ms / 2, ms * 2)
    return Candidate(name, (1, 3, 8, 8), 0.7, source, *spread, "native, 1 thread", 5, 6, 7, 8, front=True)


# the page of a comparison


def test_a_comparison_is_a_page_like_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "lenet5", "squeezenet1_1", "--html", str(tmp_path / "c.html")]) == 0
    html = (tmp_path / "c.html").read_text(encoding="utf-8")
    parsed = check_alone(html)
    assert "lenet5" in parsed.words and "MACs" in parsed.words and "Where the numbers come from" in parsed.words
    measured = check_alone(comparison_html(NetworkComparison((compared("a"), compared("b")), "ms"))).words
    assert "1.00 to 4.00" in measured and "from p10 to p90" in measured and "native, 1 thread" in measured
    styles = [re.findall(r"<style>(.*?)</style>", text, re.S)[0] for text in (html, page.report_html(data()))]
    shared = (Path(page.page.__file__).parent / "page.css").read_text(encoding="utf-8")
    assert all(shared in style for style in styles), "one look"


@pytest.mark.parametrize(
    "macs, unit, places", [(9_500_000, "millions", [9.5, 7]), (3_000_000_000, "billions", [3, 0.007])]
)
def test_the_chart_of_a_comparison_is_in_the_unit_that_it_names(
    macs: int, unit: str, places: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    from gossamer.microscope import compare

    drawn: list[Any] = []
    monkeypatch.setattr(compare, "pareto_chart", lambda *given, **_: drawn.append(given) or "")
    both = tuple(
        dataclasses.replace(compared(name, ms=None), macs=count) for name, count in (("a", macs), ("b", 7_000_000))
    )
    comparison_html(NetworkComparison(both, "macs"))
    ((_, points, across, *_),) = drawn
    assert [point.x for point in points] == pytest.approx(places) and across == f"MACs, {unit}"


# structure


class Tables(Page):
    """Reads a page and notes each table's columns, and the boxes around it that scroll."""

    def __init__(self, html: str) -> None:
        self.regions: list[int] = []
        self.tables: list[tuple[bool, str]] = []
        self.depth = 0
        super().__init__(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "div" and values.get("role") == "region":
            assert values.get("tabindex") == "0" and values.get("aria-label"), (
                "a box that scrolls is reached by keyboard"
            )
            self.regions.append(len(self.open))
        if tag == "table":
            self.tables.append((bool(self.regions), values.get("class") or ""))
        super().handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        super().handle_endtag(tag)
        if self.regions and tag == "div" and len(self.open) == self.regions[-1]:
            self.regions.pop()


def pages() -> dict[str, str]:
    rows = latencies(bench_of("pets"), {"pets"})
    inspection = timed(inspect("mobilenet_v2", (3, 64, 64)))
    return {
        "report": page.report_html(data(latencies=rows, bench={"cpu": "x"})),
        "inspect": inspection_html(inspection),
        "compare": comparison_html(NetworkComparison((compared("a"), compared("b")), "ms")),
        "recipe": recipe_page(),
    }


@pytest.mark.parametrize("name", ["report", "inspect", "compare", "recipe"])
def test_every_wide_table_scrolls_in_a_box_of_its_own(name: str) -> None:
    html = pages()[name]
    parsed = Tables(html)
    assert parsed.tables
    assert all(boxed or "plain" in kind for boxed, kind in parsed.tables)
    (style,) = re.findall(r"<style>(.*?)</style>", html, re.S)
    assert ".box tr > :first-child { position: sticky; left: 0;" in style and ":focus-visible" in style
    assert "details:not([open]) { display: none; }" in style, "what is folded leaves no empty space on paper"
    assert all(
        (heading["scope"] or "") in ("col", "row") for heading in parsed.all("th") if "aria-hidden" not in heading
    )


@pytest.mark.parametrize("name", ["report", "inspect", "compare", "recipe"])
def test_every_page_begins_with_links_to_its_sections(name: str) -> None:
    html = pages()[name]
    ((bar,),) = [re.findall(r'<nav aria-label="Sections">(.*?)</nav>', html, re.S)]
    linked, sections = re.findall(r'href="#([^"]+)"', bar), re.findall(r'<section id="([^"]+)"', html)
    assert len(linked) >= 3 and set(linked) <= set(sections)
    assert name == "report" or linked == sections


def test_random_networks_never_show_a_raw_operator() -> None:
    class Odd(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = nn.functional.max_pool2d(nn.functional.leaky_relu(x), 2)
            x = torch.cat([x, x.clone()], 1).mean((2, 3), keepdim=True)
            return torch.where(x > 0, x.softmax(1), -x)

    inspection = inspect(Odd(), (3, 8, 8))
    assert not RAW.search(" ".join(row.what for row in inspection.rows)), [row.what for row in inspection.rows]
