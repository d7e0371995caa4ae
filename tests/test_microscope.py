"""The microscope: rows that add up, receptive fields by hand, ONNX files, the page, and networks side by side."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from gossamer.analysis.cost import cost
from gossamer.analysis.graph import trace
from gossamer.analysis.layers import layers_of
from gossamer.analysis.names import node_name
from gossamer.cli.main import main
from gossamer.errors import InputError, SettingsError
from gossamer.host.text import grouped
from gossamer.microscope import timing
from gossamer.microscope.compare import Candidate, NetworkComparison, _marked, _score, _scored_on, compare
from gossamer.microscope.drawing import HEIGHT, WIDTH, layout
from gossamer.microscope.inspection import Inspection, _rows, inspect
from gossamer.microscope.onnxgraph import read_graph
from gossamer.microscope.page import inspection_html
from gossamer.microscope.receptive import receptive_fields
from gossamer.microscope.table import layer_table
from gossamer.networks import create_model, list_models
from gossamer.networks.registry import NETWORKS
from tests.tiers import one_per_family

onnx = pytest.importorskip("onnx")


@pytest.mark.parametrize("name", one_per_family(list_models()))
def test_the_layers_add_up_to_the_cost_of_the_network(name: str) -> None:
    """`cost` itself is compared with torch's counter in test_cost, for every network."""
    inspection = inspect(name)
    with torch.device("meta"):
        total = cost(create_model(name).eval(), (1, 3, *NETWORKS[name].input[1:]))
    assert inspection.cost.macs == sum(row.macs or 0 for row in inspection.rows) == total.macs > 0
    assert inspection.cost.params == sum(row.params for row in inspection.rows) == total.params > 0
    assert inspection.cost.unknown == {}


# MobileNetV2, table 2: t, c, n, s
TABLE_2 = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]


def test_mobilenet_v2_has_the_papers_17_bottlenecks_at_the_papers_cost() -> None:
    inspection = inspect("mobilenet_v2")
    costs: dict[str, int] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    for row in inspection.rows:
        if row.stage.startswith("stages."):
            block = ".".join(row.name.split(".")[:3])
            costs[block] = costs.get(block, 0) + (row.macs or 0)
            shapes[block] = row.output_shape
    expected: list[tuple[int, tuple[int, ...]]] = []
    side, d = 112, 32
    for t, c, n, s in TABLE_2:
        for index in range(n):
            out = side // (s if index == 0 else 1)
            # h * w * d * t * (d' + k * k + d''), with the stride between expansion and depthwise
            expand = side * side * d * d * t if t > 1 else 0
            expected.append((expand + out * out * d * t * (9 + c), (1, c, out, out)))
            side, d = out, c
    assert len(costs) == 17
    assert [(cost, shapes[block]) for block, cost in costs.items()] == expected


@pytest.mark.parametrize(
    ("name", "at", "field"),
    [
        # worked out by hand from the papers' tables; also in Araujo et al. 2019, table 1
        ("alexnet_paper", "stages.1.2", "163x163"),
        ("vgg16", "stages.3.2", "196x196"),
        ("vgg16", "stages.4.pool", "212x212"),
        ("resnet18", "stages.3.1", "435x435"),
        ("resnet50", "stages.3.2", "427x427"),
        ("mobilenet_v2", "conv_head", "491x491"),
        ("inception_v3", "stages.3.2", "1311x1311"),
    ],
)
def test_receptive_fields_are_those_worked_out_by_hand(name: str, at: str, field: str) -> None:
    rows = [row for row in inspect(name).rows if row.name == at or row.name.startswith(at + ".")]
    assert rows[-1].field == field


def test_the_receptive_field_is_what_a_gradient_reaches() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Conv2d(1, 1, (1, 5), padding=(0, 2))
            self.two = nn.Conv2d(1, 1, 3, stride=2, dilation=2, padding=2)
            self.three = nn.Conv2d(1, 1, 3, padding=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.three(self.two(self.one(x)) + nn.functional.max_pool2d(x, 3, 2, 1))

    module = Odd()
    for parameter in module.parameters():
        nn.init.ones_(parameter)
    x = torch.randn(1, 1, 64, 64, requires_grad=True)
    (seen,) = torch.autograd.grad(module(x)[0, 0, 16, 16], x)
    rows, columns = seen[0, 0].nonzero().unbind(1)
    graph = trace(module, (1, 1, 64, 64))
    field = receptive_fields(graph)[graph.outputs[0]]
    assert field.rows is not None and field.columns is not None
    assert field.rows[0] == int(rows.max() - rows.min()) + 1 == 9
    assert field.columns[0] == int(columns.max() - columns.min()) + 1 == 13
    assert field.rows[1] == field.columns[1] == 2


def test_a_row_takes_the_norm_and_the_activation_behind_it() -> None:
    inspection = inspect("resnet18")
    whats = {row.name: row.what for row in inspection.rows}
    assert whats["stem"] == "conv 7x7 /2 + norm + relu"
    assert whats["stages.0.pool"] == "max pool 3x3 /2"
    assert whats["head.classifier"] == "linear"
    assert whats["stages.0.0"] == "add + relu"
    (add,) = [row for row in inspection.rows if row.name == "stages.0.0"]
    assert len(add.inputs) == 2  # the shortcut and the branch
    assert {fractions["params"] for fractions in inspection.stages.values()} and abs(
        sum(fractions["macs"] or 0 for fractions in inspection.stages.values()) - 1
    ) < 1e-9


def test_an_operation_without_formula_is_listed_and_never_zero() -> None:
    class Foreign(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.fft.fft(x).real + torch.special.i0(x)

    inspection = inspect(Foreign(), (3, 8, 8))
    assert inspection.cost.unknown
    assert any(row.macs is None and row.intensity is None for row in inspection.rows)
    listed = layer_table(inspection).splitlines()[-1]
    assert listed.startswith("not counted") and "fft r2c (1)" in listed and "i0 (1)" in listed
    assert len(inspection.cost.unknown) == listed.count("(")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from gossamer.export.convert import to_onnx

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("onnx") / "net.onnx"
    model = create_model("mobilenet_v2", width=0.35, num_classes=10).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.bias)  # of zeros an exporter makes nothing
    nn.init.normal_(model.head.classifier.bias)
    path.write_bytes(to_onnx(model, (64, 96)))
    return path


@pytest.mark.full
def test_an_onnx_file_costs_what_its_module_costs(file: Path) -> None:
    ours, theirs = inspect("mobilenet_v2", (3, 64, 96), width=0.35, num_classes=10), inspect(file)
    assert theirs.cost.macs == ours.cost.macs and theirs.cost.unknown == {}
    assert theirs.cost.input_shape == (1, 3, 64, 96)
    norms = sum(
        m.num_features for m in create_model("mobilenet_v2", width=0.35).modules() if isinstance(m, nn.BatchNorm2d)
    )
    assert ours.cost.params - theirs.cost.params == norms  # a scale and a shift became one bias
    assert [row.field for row in theirs.rows if "conv" in row.what][-1] == "491x491"


@pytest.mark.full
def test_every_operator_of_a_quantised_file_is_counted(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime.quantization")
    from gossamer.export.convert import to_onnx

    path, small = tmp_path / "float.onnx", tmp_path / "int8.onnx"
    path.write_bytes(to_onnx(create_model("mobilenetv1_025", num_classes=4).eval(), (32, 32)))
    onnxruntime.quantize_dynamic(path, small, weight_type=onnxruntime.QuantType.QUInt8)
    assert inspect(small).cost.macs == inspect(path).cost.macs
    assert inspect(small).cost.weight_bytes < 0.4 * inspect(path).cost.weight_bytes


@pytest.mark.parametrize("name", ["mobilenetv1_025", "shufflenet_v2_x0_5"])
def test_measured_rows_have_times_that_add_up(name: str) -> None:
    inspection = inspect(name, (3, 64, 64), measure=True)
    assert inspection.timing is not None and inspection.timing.threads == 1
    timed = [row for row in inspection.rows if row.ms is not None]
    assert len(timed) == len(inspection.rows)
    assert all(row.ms_low <= row.ms <= row.ms_high for row in timed)  # type: ignore[operator]
    assert sum(row.ms or 0 for row in timed) + sum(inspection.timing.own.values()) == pytest.approx(
        inspection.timing.sum_ms
    )
    assert "one call" in layer_table(inspection)


def test_an_onnx_file_is_timed_by_its_nodes(file: Path) -> None:
    pytest.importorskip("onnxruntime")
    inspection = inspect(file, measure=True)
    assert inspection.timing is not None and inspection.timing.runtime.startswith("onnxruntime")
    convolutions = [row for row in inspection.rows if "conv" in row.what or "depthwise" in row.what]
    assert sum(row.ms is not None for row in convolutions) > 0.9 * len(convolutions)


@pytest.mark.parametrize("name", ["mobilenet_v2", "densenet121", "googlenet", "shufflenet_v2_x1_0"])
def test_the_page_draws_each_row_once_and_fetches_nothing(name: str) -> None:
    inspection = inspect(name)
    boxes = layout(inspection.rows)
    assert len({(box.x, box.y) for box in boxes}) == len(inspection.rows)
    for a, b in itertools.pairwise(boxes):
        assert abs(a.x - b.x) >= WIDTH or abs(a.y - b.y) >= HEIGHT
    for row, box in zip(inspection.rows, boxes):
        assert all(boxes[index].y < box.y for index in row.inputs if index >= 0)
    page = inspection_html(inspection)
    assert page.count("<g>") == len(inspection.rows)
    tables = [part.split("</table>")[0].count("<tr>") - 1 for part in page.split("<table")[1:]]
    assert len(inspection.rows) in tables
    assert not re.search(r"src=|href=\"(?!#)|@import|url\(", page)
    assert grouped(inspection.cost.macs) in page


def test_names_in_a_page_are_escaped() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.add_module("<b>&", nn.Conv2d(3, 4, 1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = getattr(self, "<b>&")(x)
            return out

    page = inspection_html(inspect(Odd(), (3, 4, 4)))
    assert "<b>" not in page and "&lt;b&gt;&amp;" in page


def test_the_commands_print_json_and_text(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    page = tmp_path / "net.html"
    assert main(["inspect", "mobilenetv1_025", "--input", "1x96x64", "--json", "--html", str(page)]) == 2  # RGB weights
    capsys.readouterr()
    assert main(["inspect", "mobilenetv1_025", "--input", "96x64", "--json", "--html", str(page)]) == 0
    values: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert values["input_shape"] == [1, 3, 96, 64] and values["flops"] == 2 * values["macs"]
    assert {"name", "what", "stage", "macs", "params", "intensity", "field", "live_bytes"} <= set(values["rows"][0])
    assert values["channel_groups"]["count"] == len(values["channel_groups"]["sizes"]) == 14
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert main(["compare", "mobilenetv1_025", "squeezenet1_1"]) == 0
    assert "peak memory" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["inspect", "mobilenet_v9"], "mobilenet_v2"),
        (["inspect", "nowhere.onnx"], "no such file"),
        (["inspect", "mobilenet_v2", "--input", "3x0x224"], "8 to 4096"),
        (["inspect", "mobilenet_v2", "--input", "abc"], "240x320"),
        (["compare", "mobilenet_v2"], "two or more"),
        (["compare", "mobilenet_v2", "resnet18", "--plot", "a.gif"], "allowed: .svg"),
    ],
)
def test_bad_targets_are_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert err.count("\n") == 1 and message in err and not out


def test_broken_and_misfit_onnx_files_are_one_line(file: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(InputError, match="valid ONNX"):
        inspect(broken)
    with pytest.raises(InputError, match="as the file fixes it"):
        inspect(file, (3, 224, 224))


def candidate(name: str, accuracy: float | None, ms: float | None, macs: int) -> Candidate:
    return Candidate(name, (1, 3, 8, 8), accuracy, "", ms, ms, ms, "", macs, 1, 4, 4)


def test_the_front_is_what_nothing_beats() -> None:
    inspection = _marked(
        [
            candidate("fast", 0.5, 1.0, 9),
            candidate("slow and worse", 0.4, 2.0, 1),
            candidate("good", 0.9, 3.0, 5),
            candidate("as good, slower", 0.9, 3.1, 4),
            candidate("unknown", None, 0.1, 1),
        ],
        "ms",
    )
    assert [one.front for one in inspection] == [True, False, True, False, None]


def test_scores_of_different_data_are_shown_and_not_ranked(tmp_path: Path) -> None:
    rows = [candidate("published", 0.7, 1.0, 9), candidate("run", 0.9, 3.0, 5), candidate("unknown", None, 1.0, 1)]
    rows = [dataclasses.replace(one, scored_on=one.name) for one in rows]
    result = NetworkComparison(tuple(_marked(rows, "ms")), "ms")
    assert [one.front for one in result.candidates] == [None, None, None]
    assert "the scores are of different images and classes, so no network is marked" in result.text()
    assert "70.00 %" in result.text() and "*" not in result.text()
    result.plot(tmp_path / "a.svg")
    assert "Pareto front" not in (tmp_path / "a.svg").read_text(encoding="utf-8")
    same = [dataclasses.replace(one, scored_on="one" if one.score else "", scored_at=(8, 8)) for one in rows]
    assert [one.front for one in _marked(same, "ms")] == [True, True, None]
    small = [dataclasses.replace(one, scored_at=(224, 224)) for one in same]
    assert [one.front for one in _marked(small, "ms")] == [None, None, None]
    text = NetworkComparison(tuple(dataclasses.replace(one, source="a paper") for one in small), "ms").text()
    assert "scores are of another input than the costs, so no" in text and "of run: a paper, at 224x224" in text


def test_a_published_score_is_of_other_data_than_that_of_a_run() -> None:
    known = _score("mobilenet_v2")
    assert (known.metric, known.on, known.size) == ("accuracy", "ImageNet-1K", (224, 224))
    assert known.value is not None and "published" in known.source
    assert _scored_on("classify", ("cat", "dog"), {}) == _scored_on("classify", ("cat", "dog"), {"fingerprint": "1"})
    assert len({_scored_on("classify", names, {}) for names in (("cat", "dog"), ("dog", "cat"), ("catdog",))}) == 3
    assert _scored_on("embed", ("cat",), {"fingerprint": "1"}) == "1" and _scored_on("embed", (), None) == ""


def test_a_comparison_is_drawn(tmp_path: Path) -> None:
    result = NetworkComparison(tuple(_marked([candidate("a", 0.5, 1.0, 9), candidate("b", 0.9, 3.0, 5)], "ms")), "ms")
    result.plot(tmp_path / "a.svg")
    chart = (tmp_path / "a.svg").read_text(encoding="utf-8")
    assert "Pareto front" in chart and "accuracy, %" in chart and "latency, ms (median)" in chart
    with pytest.raises(SettingsError):
        compare(["mobilenet_v2"])


def test_an_inspection_names_its_target() -> None:
    assert isinstance(inspect("lenet5"), Inspection) and "lenet5 at 1x3x32x32" in layer_table(inspect("lenet5"))


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_an_onnx_file_of_channels_last_is_counted_by_its_channels(tmp_path: Path, channels: int) -> None:
    """Height and width are open: the axis of 1, 3 or 4 after them is no side."""
    inspection = read_graph(small_file(tmp_path, ["N", "H", "W", channels], channels, layers=2))
    assert inspection.values[inspection.inputs[0]].shape == (1, 224, 224, channels)
    assert inspection.values[inspection.outputs[0]].shape == (1, 8, 220, 220)


@pytest.mark.parametrize(("side", "layers"), [(8, 5), (2, 1), (10, 6)])
def test_an_onnx_file_that_does_not_run_at_a_size_is_refused(tmp_path: Path, side: int, layers: int) -> None:
    path = small_file(tmp_path, ["N", 3, "H", "W"], 3, layers=layers)
    with pytest.raises(InputError, match=f"does not run at an input of 1x3x{side}x{side}"):
        read_graph(path, (3, side, side))
    assert min(read_graph(path, (3, 32, 32)).values[-1].shape) > 0


def small_file(folder: Path, shape: list[str | int], channels: int, layers: int) -> str:
    """3x3 convolutions without padding, of an input of `shape`."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    perm = [0, 3, 1, 2] if shape[-1] == channels else [0, 1, 2, 3]
    nodes = [helper.make_node("Transpose", ["x"], ["v0"], perm=perm)]
    weights = []
    for index in range(layers):
        weight = np.ones((8, channels if index == 0 else 8, 3, 3), np.float32)
        weights.append(numpy_helper.from_array(weight, f"w{index}"))
        nodes.append(helper.make_node("Conv", [f"v{index}", f"w{index}"], [f"v{index + 1}"]))
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(f"v{layers}", TensorProto.FLOAT, ["N", 8, "h", "w"])],
        weights,
    )
    path = folder / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    return str(path)


class Branches(nn.Module):
    """A convolution with norm and activation, then one that an activation and a norm read side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU6())
        self.shared, self.norm = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.shared(self.stem(x))
        return nn.functional.max_pool2d(torch.relu(x) + self.norm(x), 2)


def test_a_layer_takes_what_alone_reads_it() -> None:
    layers = layers_of(graph := trace(Branches().eval(), (1, 3, 8, 8)), cost(graph))
    assert [(layer.what, layer.inputs) for layer in layers] == [
        ("conv 3x3 /2 + norm + relu6", (-1,)),
        ("conv 1x1", (0,)),
        ("relu", (1,)),
        ("batch norm", (1,)),
        ("add", (2, 3)),
        ("max pool 2x2 /2", (4,)),
    ]


def test_constants_of_nodes_bound_an_activation_of_an_onnx_file(tmp_path: Path) -> None:
    def constant(name: str, value: float) -> Any:
        return onnx.helper.make_node("Constant", [], [name], value=onnx.helper.make_tensor(name, 1, [], [value]))

    x, y = (onnx.helper.make_tensor_value_info(name, 1, [1, 3, 4, 4]) for name in "xy")
    nodes = [constant("low", 0.0), constant("high", 6.0), onnx.helper.make_node("Clip", ["x", "low", "high"], ["y"])]
    graph = onnx.helper.make_graph(nodes, "clip", [x], [y])
    opsets = [onnx.helper.make_opsetid("", 17)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8), tmp_path / "clip.onnx")
    read = read_graph(str(tmp_path / "clip.onnx"))
    assert [node_name(read, node) for node in read.nodes if node.op.startswith("clamp")] == ["relu6"]


def test_calls_are_timed_in_milliseconds_and_the_first_rounds_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0]
    monkeypatch.setattr(timing.time, "perf_counter_ns", lambda: now[0])
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0] / 1e9)

    def call(nanoseconds: int) -> None:
        now[0] += nanoseconds * (1 if now[0] > 1_000_000 else 1000)

    first, second = timing._measured([lambda: call(250_000), lambda: call(1_000)])
    assert len(first) == len(second) == timing.ROUNDS and set(first) == {0.25} and set(second) == {0.001}
    now[0] = 0
    (slow,) = timing._measured([lambda: call(3_000_000_000)])
    assert slow == [3000.0] * 5  # enough after 20 seconds


def test_boxes_of_a_branch_stand_side_by_side() -> None:
    rows = inspect(Branches().eval(), (3, 8, 8)).rows
    assert layout(rows) == [(12, 12), (12, 78), (12, 144), (313, 144), (12, 210), (12, 276)]


def test_the_times_of_a_layer_are_the_sums_of_its_operations() -> None:
    with torch.device("meta"):
        graph = trace(create_model("lenet5"), (1, 3, 32, 32))
    times = {node.index: (2.0 + node.index, 1.0, 9.0) for node in graph.nodes}
    timed = timing.Timing("torch", 1, 30, (9.0, 8.0, 10.0), times)
    for row, layer in zip(_rows(graph, cost(graph), timed), layers_of(graph, cost(graph)), strict=True):
        count = len(layer.nodes)
        wanted = (sum(2.0 + node.index for node in layer.nodes), 1.0 * count, 9.0 * count)
        assert (row.ms, row.ms_low, row.ms_high) == wanted


def test_the_score_of_a_model_file_is_that_of_its_metadata() -> None:
    metric, reached, source, *_ = _score(str(Path(__file__).parent / "compat" / "0.1" / "classify.onnx"))
    assert metric == "accuracy" and reached is not None and 0 <= reached <= 1 and source == "the file's metadata, val"
