"""Forms in which other exporters write what the engine has an operation for, each beside ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from gossamer.blocks.pool import AverageTo
from gossamer.cli.main import main
from gossamer.compile.fuse import fuse
from gossamer.compile.lower import lower
from gossamer.compile.program import Program
from gossamer.compile.write import compile_file
from gossamer.errors import InputError
from gossamer.export.convert import to_onnx
from gossamer.modelfile.metadata import parse_model_file
from gossamer.runtime import native
from gossamer.runtime.compilation import compile_model
from tests.test_native_heads import SIZE, agree, images, native_outputs, noise, onnx_outputs
from tests.tiers import quick_ones

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")
import onnx  # noqa: E402
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

if not native.LIBRARY.is_file():
    pytest.skip("the native engine is not built: make engine", allow_module_level=True)

MOST = 2**63 - 1


class File:
    """Nodes and constants as they are added, then an ONNX file of them."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.tensors: dict[str, Any] = {}
        self.rng = np.random.default_rng(0)

    def add(self, op: str, *inputs: Any, out: str = "", **attributes: Any) -> str:
        """A node that reads names and constants; the name of what it makes."""
        names = []
        for one in inputs:
            if not isinstance(one, str):
                self.tensors[f"t{len(self.tensors)}"] = np.asarray(one)
                one = f"t{len(self.tensors) - 1}"
            names.append(one)
        output = out or f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, names, [output], name=f"node {output}", **attributes))
        return output

    def conv(self, source: str, c: int, out: int, kernel: int = 3, scale: float = 1.0, **attributes: Any) -> str:
        """A convolution with a bias."""
        c //= attributes.get("group", 1)
        weight, bias = scale * noise((out, c, kernel, kernel), self.rng), scale * noise((out,), self.rng)
        return self.add("Conv", source, weight, bias, **attributes)

    def slice(self, source: str, *chosen: tuple[int, int, int, int]) -> str:
        """A Slice of (axis, start, end, step) each."""
        axes, starts, ends, steps = (np.array(one, np.int64) for one in zip(*chosen))
        return self.add("Slice", source, starts, ends, axes, steps)

    def save(
        self, path: Path, *outputs: str, size: tuple[Any, Any] = SIZE, opset: int = 18, batch: Any = "batch"
    ) -> Path:
        """The file, of outputs whose sides are left open."""
        input_info = helper.make_tensor_value_info("input", TensorProto.FLOAT, [batch, 3, *size])
        shape = ["batch", None, None, None]
        wanted = [helper.make_tensor_value_info(one, TensorProto.FLOAT, shape) for one in outputs]
        tensors = [numpy_helper.from_array(values, name) for name, values in self.tensors.items()]
        graph = helper.make_graph(self.nodes, "forms", [input_info], wanted, tensors)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
        path.write_bytes(model.SerializeToString())
        return path


def program(onnx: Path) -> Program:
    return fuse(lower(parse_model_file(onnx.read_bytes()).onnx))


def kinds(onnx: Path) -> list[str]:
    return [one.kind for one in program(onnx).operations]


def check(onnx: Path) -> None:
    """That the compiled file agrees with ONNX Runtime."""
    compile_file(onnx, onnx.with_suffix(".goss"))
    agree(native_outputs(native.Native(onnx.with_suffix(".goss"), 1), images(2)), onnx_outputs(onnx))


CHOICES: dict[str, tuple[tuple[int, int, int, int], ...]] = {
    "rows from the second": ((2, 1, MOST, 1),),
    "columns but the last two": ((3, 0, -2, 1),),
    "from the end on": ((2, -7, -1, 1), (3, -5, MOST, 1)),
    "every second row, every third column": ((2, 1, MOST, 2), (3, 2, MOST, 3)),
    "turned around": ((2, MOST, -MOST, -1), (-1, 20, 3, -4)),
    "channels, rows and all of the batch": ((0, 0, MOST, 1), (1, 2, 9, 1), (2, 3, 11, 1)),
    "all of it": ((2, 0, MOST, 1), (3, 0, 1000, 1)),
    "one row": ((2, 5, 6, 1),),
}


@pytest.mark.parametrize("choice", CHOICES)
def test_slices_of_rows_and_columns_agree_with_onnx_runtime(choice: str, tmp_path: Path) -> None:
    """Between convolutions, of the input, and as an output of its own that something reads."""
    file = File()
    x = file.conv("input", 3, 12, pads=[1, 1, 1, 1])
    part = file.slice(x, *CHOICES[choice])
    of_input = file.slice("input", *[one for one in CHOICES[choice] if one[0] != 1])
    activated = file.add("Relu", file.slice(part, (3, 0, 2, 1)))
    left = file.add("Add", activated, 1 + noise((1, 1, 1, 1), file.rng), out="left")
    onnx = file.save(tmp_path / "m.onnx", part, of_input, activated, left, x)
    check(onnx)


def test_a_slice_of_a_slice_is_one_operation(tmp_path: Path) -> None:
    file = File()
    x = file.conv("input", 3, 12)
    x = file.slice(file.slice(file.slice(x, (2, 1, MOST, 2)), (3, 3, -1, 2)), (2, 1, -1, 1))
    onnx = file.save(tmp_path / "m.onnx", file.conv(x, 12, 5))
    check(onnx)
    assert kinds(onnx) == ["conv", "resize", "conv"]


@pytest.mark.parametrize("what", ["nothing", "batch"])
def test_slices_that_the_engine_lacks_are_refused_by_name(what: str, tmp_path: Path) -> None:
    file = File()
    chosen, why = {
        "nothing": ((2, 5, 5, 1), "nothing of axis 2"),
        "batch": ((0, 0, 1, 1), "part of the batch"),
    }[what]
    onnx = file.save(tmp_path / "m.onnx", file.slice("input", chosen))
    with pytest.raises(InputError, match=why):
        compile_file(onnx, tmp_path / "m.goss")


FOCUS: dict[str, tuple[int, list[tuple[int, int]], dict[str, Any]]] = {
    # step; first row and column of each part; the convolution behind
    "of YOLOX": (2, [(0, 0), (1, 0), (0, 1), (1, 1)], {"kernel": 3, "pads": [1, 1, 1, 1]}),
    "padded unevenly, strided": (
        2,
        [(1, 1), (0, 1), (0, 0), (1, 0)],
        {"kernel": 3, "pads": [0, 1, 2, 0], "strides": [2, 1]},
    ),
    "of two parts": (2, [(0, 0), (1, 1)], {"kernel": 2}),
}


@pytest.mark.parametrize("form", FOCUS)
def test_a_convolution_over_neighbours_as_channels_is_one(form: str, tmp_path: Path) -> None:
    """As YOLOX's first layer is written: by rows, then by columns."""
    file = File()
    step, firsts, conv = FOCUS[form]
    parts = [file.slice(file.slice("input", (2, y, MOST, step)), (3, x, MOST, step)) for y, x in firsts]
    x = file.conv(file.add("Concat", *parts, axis=1), 3 * len(parts), 8, **conv)
    onnx = file.save(tmp_path / "m.onnx", file.add("Relu", x))
    check(onnx)
    assert kinds(onnx) == ["conv"]


@pytest.mark.parametrize("other", ["reader", "step", "size", "first"])
def test_what_is_like_a_focus_but_is_none_agrees_with_onnx_runtime(other: str, tmp_path: Path) -> None:
    file = File()
    source = file.slice("input", (2, 0, 19, 1)) if other == "size" else "input"
    firsts = [(0, 0), (0, 2), (0, 1)] if other == "first" else [(0, 0), (0, 1)]
    ends = (13, 7) if other == "step" else (MOST, MOST)
    parts = [
        file.slice(source, (2, y, ends[0], 2), (3, x, 24 if other == "first" and x < 2 else MOST, 2)) for y, x in firsts
    ]
    x = file.add("Concat", *parts, axis=1)
    outputs = [file.conv(x, 3 * len(parts), 8)] + ([file.add("Relu", x)] if other == "reader" else [])
    onnx = file.save(tmp_path / "m.onnx", *outputs)
    check(onnx)
    assert "resize" in kinds(onnx)


def test_means_over_rows_or_columns_agree_with_onnx_runtime(tmp_path: Path) -> None:
    """Of a map, of some of its rows, with the axis and without; concatenated, repeated or alone."""
    file = File()
    x = file.conv("input", 3, 12, pads=[1, 1, 1, 1])
    rows = file.add("ReduceMean", x, np.array([2]))
    of_slice = file.add("ReduceMean", file.slice(x, (2, 3, 9, 1)), np.array([2]))
    columns = file.add("ReduceMean", x, np.array([-1]))
    across = file.add("ReduceMean", file.slice(x, (2, 3, 9, 1)), np.array([3]))
    scaled = file.add("Mul", x, file.add("Sigmoid", file.conv(file.add("ReduceMean", x, np.array([2, 3])), 12, 12, 1)))
    thrice = file.add("Concat", rows, rows, rows, axis=2)
    again = file.add("Concat", of_slice, of_slice, axis=-2)
    onnx = file.save(tmp_path / "m.onnx", rows, of_slice, columns, across, scaled, thrice, again)
    check(onnx)
    assert "global_average" in kinds(onnx)


def test_a_mean_of_rows_may_lose_its_axis(tmp_path: Path) -> None:
    file = File()
    x = file.conv("input", 3, 12)
    a, b = file.add("ReduceMean", x, np.array([2]), keepdims=0), file.add("ReduceMean", x, np.array([3]), keepdims=0)
    onnx = file.save(tmp_path / "m.onnx", a, b)
    graph = parse_model_file(onnx.read_bytes()).onnx
    assert [one.shape for one in lower(graph).outputs] == [(12, SIZE[1] - 2), (12, SIZE[0] - 2)]


@pytest.mark.parametrize("side", [90, 100])
def test_a_mean_of_many_rows_is_several_pools(side: int, tmp_path: Path) -> None:
    file = File()
    onnx = file.save(tmp_path / "m.onnx", file.add("ReduceMean", "input", np.array([2])), size=(side, 5))
    compile_file(onnx, tmp_path / "m.goss")
    x = np.random.default_rng(0).standard_normal((2, 3, side, 5)).astype(np.float32)
    outputs = np.asarray(native.Native(tmp_path / "m.goss", 1)(x))
    assert np.abs(outputs - x.mean(2, keepdims=True)).max() < 1e-6


def test_a_mean_of_a_large_prime_of_rows_is_refused_by_name(tmp_path: Path) -> None:
    file = File()
    onnx = file.save(tmp_path / "m.onnx", file.add("ReduceMean", "input", np.array([2])), size=(67, 5))
    with pytest.raises(InputError, match="prime factor over 16"):
        compile_file(onnx, tmp_path / "m.goss")


class Adaptive(nn.Sequential):
    """What stands before the classifiers of AlexNet and VGG."""

    def __init__(self, side: int) -> None:
        super().__init__(nn.Conv2d(3, 8, 1), nn.ReLU(), AverageTo(side), nn.Conv2d(8, 4, 3))


@pytest.mark.parametrize(("side", "size"), [(6, (1, 1)), (7, (2, 1)), (7, (3, 2))])
def test_adaptive_pools_of_small_maps_agree_with_onnx_runtime(side: int, size: tuple[int, int], tmp_path: Path) -> None:
    onnx, out = tmp_path / "m.onnx", tmp_path / "m.goss"
    onnx.write_bytes(to_onnx(Adaptive(side).eval(), size))
    compile_file(onnx, out)
    x = np.random.default_rng(1).standard_normal((2, 3, *size)).astype(np.float32)
    session = onnxruntime.InferenceSession(str(onnx), providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {"input": x})
    assert np.abs(np.asarray(native.Native(out, 1)(x)) - expected).max() < 1e-5 * np.abs(expected).max()


def test_levels_side_by_side_and_then_transposed_are_rows(tmp_path: Path) -> None:
    """As YOLOX's head joins them."""
    file = File()
    x = file.conv("input", 3, 12)
    levels = [file.conv(x, 12, 6, strides=[step, step]) for step in (1, 2)]
    flat = [file.add("Reshape", one, np.array([0, 6, -1])) for one in levels]
    rows = file.add("Transpose", file.add("Concat", *flat, axis=2), perm=[0, 2, 1])
    onnx = file.save(tmp_path / "m.onnx", rows)
    compile_file(onnx, tmp_path / "m.goss")
    agree(native_outputs(native.Native(tmp_path / "m.goss", 1), images(2)), onnx_outputs(onnx))


def spelt(file: File, x: str, form: str) -> str:
    """Hard swish, or without x hard sigmoid, as others write it."""
    three, six = np.float32(3), np.float32(6)
    a = file.add("Add", three, x) if "turned" in form else file.add("Add", x, three)
    if "late" in form:
        six = file.add("Constant", out=f"six-{x}", value=numpy_helper.from_array(np.float32(6)))
    c = file.add("Clip", a, np.float32(0), six)
    if "product first" in form:
        c = file.add("Mul", c, x) if "turned" in form else file.add("Mul", x, c)
    c = file.add("Mul", c, np.float32(1 / 6)) if "sixth" in form else file.add("Div", c, six)
    if "product last" in form:
        c = file.add("Mul", c, x) if "turned" in form else file.add("Mul", x, c)
    return c


GATES = [
    f"{product}, {by}{more}"
    for product in ("product first", "product last", "alone")
    for by in ("six", "sixth")
    for more in ("", ", turned", ", late")
]


@pytest.mark.parametrize("form", GATES)
def test_hard_swish_and_hard_sigmoid_spelt_out_cost_no_operation(form: str, tmp_path: Path) -> None:
    file = File()
    x = spelt(file, file.conv("input", 3, 12, scale=3), form)
    onnx = file.save(tmp_path / "m.onnx", file.conv(x, 12, 5))
    check(onnx)
    assert kinds(onnx) == ["conv", "conv"]
    assert program(onnx).operations[0].act == ("hard_sigmoid" if "alone" in form else "hard_swish")


@pytest.mark.parametrize("seen", range(5))
def test_what_is_seen_between_stays(seen: int, tmp_path: Path) -> None:
    """An output of the graph in the middle of a hard swish, or one whose numbers are others."""
    file = File()
    x = file.conv("input", 3, 12, scale=3)
    names = [x, file.add("Add", x, np.float32(2 if seen == 4 else 3))]
    names.append(file.add("Clip", names[1], np.float32(0), np.float32(6)))
    names.append(file.add("Mul", names[2], np.float32(1 / 6)))
    last = file.add("Mul", x, names[3])
    onnx = file.save(tmp_path / "m.onnx", file.conv(last, 12, 5), *([names[seen]] if seen < 4 else []))
    check(onnx)


@pytest.mark.parametrize("groups", [1, 12])
@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Div", "less"])
def test_constants_behind_convolutions_go_into_them(op: str, groups: int, tmp_path: Path) -> None:
    """One number, or one per channel; then a batch norm; of ordinary and of depthwise convolutions."""
    file = File()
    x = file.conv("input", 3, 12)
    x = file.conv(file.add("Relu", x), 12, 12, group=groups)
    for shape in ((), (1, 12, 1, 1), (12, 1, 1)):
        number = (2 + noise(shape, file.rng) / 9).astype(np.float32)
        x = file.add("Sub", number, x) if op == "less" else file.add(op, x, number)
    onnx = file.save(tmp_path / "m.onnx", file.add("Relu", x))
    check(onnx)
    assert kinds(onnx) == (["conv", "conv"] if groups == 1 else ["conv", "block"])


@pytest.mark.parametrize("between", ["output", "reader", "act", "sum", "infinite"])
def test_constants_behind_what_is_seen_stay_an_operation_of_one(between: str, tmp_path: Path) -> None:
    file = File()
    first = file.conv("input", 3, 12, 1)
    x = value = file.conv(first, 12, 12, 1)
    if between == "act":
        x = file.add("Relu", x)
    if between == "sum":
        x = file.add("Add", x, first)
    row = noise((12, 1, 1), file.rng)
    if between == "infinite":
        file.tensors["t2"] *= np.float32(1e30)
        row *= np.float32(1e9)
    x = file.add("Add", file.add("Mul", x, row), np.float32(2))
    outputs = {"output": [value], "reader": [file.add("Relu", value)]}.get(between, [])
    onnx = file.save(tmp_path / "m.onnx", file.conv(file.add("Relu", x), 12, 5), *outputs)
    assert kinds(onnx).count("affine") == 1
    if between != "infinite":
        check(onnx)


def test_a_constant_over_a_map_agrees_with_onnx_runtime(tmp_path: Path) -> None:
    file = File()
    x = file.add("Exp", file.conv("input", 3, 12))
    onnx = file.save(
        tmp_path / "m.onnx", file.add("Div", np.float32(3), x), file.add("Div", noise((12, 1, 1), file.rng), x)
    )
    check(onnx)


@pytest.mark.parametrize("size", [("height", "width"), (None, 26), (20, -1)])
def test_a_dynamic_height_or_width_is_set_when_compiling(size: tuple[Any, Any], tmp_path: Path) -> None:
    file = File()
    x = file.add("Relu", file.conv("input", 3, 12, strides=[2, 2]))
    onnx = file.save(tmp_path / "m.onnx", x, size=size, batch=-1 if -1 in size else "batch")
    with pytest.raises(InputError, match="--input HxW"):
        compile_model(onnx, tmp_path / "m.goss")
    assert compile_model(onnx, tmp_path / "m.goss", input_size=SIZE).checks.largest < 1e-5
    agree(native_outputs(native.Native(tmp_path / "m.goss", 1), images(2)), onnx_outputs(onnx))


@pytest.mark.parametrize(
    ("size", "input_size", "message"),
    [
        (SIZE, SIZE, "free height or width"),
        (SIZE, (8, 8), "free height or width"),
        ((20, None), (21, 26), "fixed side as the file has it"),
        ((20, None), (20, 0), "height x width from 1 to"),
        ((None, None), (-1, 20), "height x width from 1 to"),
    ],
)
def test_a_size_that_does_not_fit_is_refused_by_name(
    size: tuple[Any, Any], input_size: tuple[int, int], message: str, tmp_path: Path
) -> None:
    file = File()
    onnx = file.save(tmp_path / "m.onnx", file.conv("input", 3, 12), size=size)
    with pytest.raises(InputError, match=message):
        compile_model(onnx, tmp_path / "m.goss", input_size=input_size)


def test_the_command_takes_the_size(tmp_path: Path) -> None:
    file = File()
    onnx = file.save(tmp_path / "m.onnx", file.conv("input", 3, 12), size=("h", "w"))
    assert main(["compile", str(onnx), "--out", str(tmp_path / "m.goss"), "--input", "20x26"]) == 0
    assert native.Native(tmp_path / "m.goss", 1).input_shape[1:] == (3, 20, 26)


SLOPES: dict[str, tuple[tuple[int, ...], list[str]]] = {
    "one": ((1,), ["conv", "conv"]),
    "of rank 0": ((), ["conv", "conv"]),
    "alike": ((12, 1, 1), ["conv", "conv"]),
    "a channel": ((12, 1, 1), ["conv", "affine", "affine", "activation", "add", "conv"]),
    "a channel and a batch": ((1, 12, 1, 1), ["conv", "affine", "affine", "activation", "add", "conv"]),
}


@pytest.mark.parametrize("form", SLOPES)
def test_slopes_of_numbers_below_zero_agree_with_onnx_runtime(form: str, tmp_path: Path) -> None:
    file = File()
    shape, expected_kinds = SLOPES[form]
    slopes = np.full(shape, 0.3, np.float32) if form == "alike" else noise(shape, file.rng)
    x = file.add("PRelu", file.conv("input", 3, 12), slopes)
    onnx = file.save(tmp_path / "m.onnx", file.conv(x, 12, 5))
    check(onnx)
    assert kinds(onnx) == expected_kinds


def test_slopes_of_a_row_a_steep_one_and_several_readers_agree_with_onnx_runtime(tmp_path: Path) -> None:
    file = File()
    x = file.conv("input", 3, 12)
    steep, below = file.add("PRelu", x, np.float32(1.5)), file.add("PRelu", x, np.float32(-0.5))
    row = file.add("Flatten", file.add("GlobalAveragePool", x))
    turned = file.add("PRelu", row, noise((12,), file.rng))
    wide = file.add("Reshape", turned, np.array([0, 12, 1, 1]))
    onnx = file.save(tmp_path / "m.onnx", steep, below, wide, x)
    check(onnx)


@pytest.mark.parametrize("shape", [(24,), (1, 18, 24), (2, 12, 18, 24)])
def test_slopes_of_positions_are_refused_by_name(shape: tuple[int, ...], tmp_path: Path) -> None:
    file = File()
    onnx = file.save(tmp_path / "m.onnx", file.add("PRelu", file.conv("input", 3, 12), noise(shape, file.rng)))
    with pytest.raises(InputError, match=r"operator PRelu: .*neither one number nor one per channel"):
        compile_file(onnx, tmp_path / "m.goss")


# of the classic files that come with the onnx package, those of operators that the engine has
CLASSIC = ("densenet121", "inception_v2", "resnet50", "shufflenet", "squeezenet")


@pytest.mark.parametrize("name", quick_ones(CLASSIC, ["shufflenet", "squeezenet"]))
def test_classic_files_agree_with_onnx_runtime(name: str, tmp_path: Path) -> None:
    """As Caffe2 wrote them: sums by Sum, rows of constants with new sides, operator sets below 10. Their weights are drawn here."""
    light = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light" / f"light_{name}.onnx"
    if not light.is_file():
        pytest.skip("this release of onnx comes without it")
    rng, model = np.random.default_rng(0), onnx.load(light)
    known = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    for node in [one for one in model.graph.node if one.op_type == "ConstantOfShape"]:
        shape = known[node.input[0]].tolist()
        spread = np.sqrt(2 / np.prod(shape[1:])) if len(shape) > 1 else 0.2
        values = rng.standard_normal(shape) * spread if len(shape) > 1 else 1 + rng.uniform(-spread, spread, shape)
        model.graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), node.output[0]))
        model.graph.node.remove(node)
    for node in model.graph.node:  # softmax would hide all but one class
        if node.op_type == "Softmax":
            node.op_type = "Identity"
            del node.attribute[:]
    path, out = tmp_path / "classic.onnx", tmp_path / "classic.goss"
    path.write_bytes(model.SerializeToString())
    compile_file(path, out)
    engine = native.Native(out, 2)
    batch = rng.standard_normal((1, *engine.input_shape[1:])).astype(np.float32)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    expected, outputs = session.run(None, {session.get_inputs()[0].name: batch})[0], np.asarray(engine(batch))
    assert np.abs(expected).max() > 0 and np.ptp(expected) > 0
    assert np.abs(outputs - expected.reshape(outputs.shape)).max() < 1e-4 * np.ptp(expected)
