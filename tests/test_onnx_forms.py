"""Forms in which other exporters write a network, each beside ONNX Runtime: layouts, axes, padding, shapes, operator sets."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gossamer
from gossamer.cli.main import main
from gossamer.compile.lower import lower
from gossamer.compile.write import compile_file
from gossamer.errors import ModelFileError
from gossamer.modelfile.metadata import read_model_file
from gossamer.runtime import native

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
if not native.LIBRARY.is_file():
    pytest.skip("the native engine is not built: make engine", allow_module_level=True)
from tests.onnxcases import CONV, INPUT, ROW, check, int64, node, noise, refused, save, weight

TO_LAST = node("Transpose", ["a"], ["t"], perm=[0, 2, 3, 1])
Nodes = list[Any]


# operator sets


@pytest.mark.parametrize(
    "domains",
    [
        [("", 17), ("", 17)],
        [("", 17), ("ai.onnx", 17)],
        [("ai.onnx", 17)],
        [("ai.onnx.ml", 3), ("", 17), ("com.microsoft", 1)],
    ],
)
def test_the_default_operator_set_may_be_named_twice(domains: list[tuple[str, int]], tmp_path: Path) -> None:
    check(save(tmp_path / "m.onnx", [*CONV, node("Relu", ["a"], ["y"])], domains=domains), noise(INPUT))


@pytest.mark.parametrize("domains", [[("", 13), ("", 17)], [("ai.onnx", 17), ("", 18)], [("ai.onnx.ml", 3)], [("", 0)]])
def test_two_versions_of_it_or_none_are_refused(domains: list[tuple[str, int]], tmp_path: Path) -> None:
    refused(save(tmp_path / "m.onnx", [*CONV, node("Relu", ["a"], ["y"])], domains=domains), "operator set")


def test_an_operator_set_of_the_future_is_refused(tmp_path: Path) -> None:
    refused(save(tmp_path / "m.onnx", [*CONV, node("Relu", ["a"], ["y"])], opset=99), "operator set 99")


def test_two_attributes_of_one_name_are_refused(tmp_path: Path) -> None:
    pool = node("MaxPool", ["a"], ["y"], kernel_shape=[2, 2])
    pool.attribute.append(node("MaxPool", ["a"], ["y"], kernel_shape=[3, 3]).attribute[0])
    refused(save(tmp_path / "m.onnx", [*CONV, pool]), "two attributes of one name")


def test_an_output_of_integers_is_refused(tmp_path: Path) -> None:
    import onnx

    path = save(tmp_path / "m.onnx", [*CONV, node("Relu", ["a"], ["y"]), node("ArgMax", ["a"], ["z"], axis=-1)])
    model = onnx.load(path)
    model.graph.output.append(onnx.helper.make_tensor_value_info("z", onnx.TensorProto.INT64, ["N", 8, 6, 1]))
    path.write_bytes(model.SerializeToString())
    refused(path, "ArgMax|type 7")


# axes counted from the last one on, parts of different sizes

AXES: dict[str, tuple[Nodes, dict[str, Any], int, int]] = {
    "Concat -3": ([*CONV, node("Conv", ["x", "v"], ["b"]), node("Concat", ["a", "b"], ["y"], axis=-3)], {}, 4, 17),
    "Concat -1 of rows": (
        [
            *ROW,
            node("GlobalMaxPool", ["a"], ["c"]),
            node("Flatten", ["c"], ["d"]),
            node("Concat", ["b", "d"], ["e"], axis=-1),
            node("MatMul", ["e", "g"], ["y"]),
        ],
        {"g": weight(16, 5)},
        2,
        17,
    ),
    "Concat -1 of one map": ([*CONV, node("Concat", ["a", "a"], ["y"], axis=-1)], {}, 4, 17),
    "Split -3": (
        [*CONV, node("Split", ["a"], ["b", "c"], axis=-3, num_outputs=2), node("Mul", ["b", "c"], ["y"])],
        {},
        4,
        18,
    ),
    "Split into unequal parts": (
        [
            *CONV,
            node("Split", ["a"], ["b", "c", "d"], axis=1, num_outputs=3),
            node("Add", ["b", "c"], ["e"]),
            node("Concat", ["e", "d"], ["y"], axis=1),
        ],
        {},
        4,
        18,
    ),
    "Split of sizes": (
        [*CONV, node("Split", ["a", "sizes"], ["b", "c"], axis=-3), node("Concat", ["c", "b"], ["y"], axis=1)],
        {"sizes": int64(3, 5)},
        4,
        13,
    ),
    "Split of rows": (
        [*CONV, node("Split", ["a"], ["b", "c"], axis=-2, num_outputs=2), node("Sub", ["b", "c"], ["y"])],
        {},
        4,
        18,
    ),
    "Softmax -3": ([*CONV, node("Softmax", ["a"], ["y"], axis=-3)], {}, 4, 17),
    "Softmax -1 of a row": ([*ROW, node("Softmax", ["b"], ["y"], axis=-1)], {}, 2, 17),
    "Squeeze": (
        [*CONV, node("GlobalAveragePool", ["a"], ["p"]), node("Squeeze", ["p", "axes"], ["y"])],
        {"axes": int64(-1, -2)},
        2,
        17,
    ),
    "Unsqueeze": (
        [*ROW, node("Unsqueeze", ["b", "axes"], ["u"]), node("Mul", ["a", "u"], ["y"])],
        {"axes": int64(-1, -2)},
        4,
        17,
    ),
    "Flatten -3": ([*CONV, node("Flatten", ["a"], ["b"], axis=-3), node("MatMul", ["b", "g"], ["y"])], {}, 2, 17),
    "Flatten of sides of one place": (
        [
            *CONV,
            node("GlobalAveragePool", ["a"], ["p"]),
            node("Reshape", ["p", "shape"], ["r"]),
            node("Flatten", ["r"], ["y"], axis=-1),
        ],
        {"shape": int64(0, 1, 8)},
        2,
        17,
    ),
    "ReduceMean -1 of a row": ([*ROW, node("ReduceMean", ["b"], ["y"], axes=[-1], keepdims=1)], {}, 2, 17),
}


@pytest.mark.parametrize("name", AXES)
def test_axes_from_the_last_agree_with_onnx_runtime(name: str, tmp_path: Path) -> None:
    nodes, constants, rank, opset = AXES[name]
    constants = {"v": weight(4, 3, 3, 3), "g": weight(288, 5), **constants}
    check(save(tmp_path / "m.onnx", nodes, constants, rank=rank, opset=opset), noise(INPUT))


@pytest.mark.parametrize(
    ("last", "message"),
    [
        (node("Split", ["a"], ["y", "z"], axis=1, num_outputs=3), "2 outputs"),
        (node("Split", ["a"], ["y", "z", "u"], axis=1), "3 equal parts of 8"),
        (node("Split", ["a"], ["y", "z"], axis=0, num_outputs=2), "the batch"),
        (node("Concat", ["a", "a"], ["y"], axis=-5), "axes"),
        (node("Softmax", ["a"], ["y"], axis=7), "axes"),
        (node("Flatten", ["a"], ["y"], axis=2), "mixes axes"),
    ],
)
def test_axes_that_are_not_there_are_refused(last: Any, message: str, tmp_path: Path) -> None:
    refused(save(tmp_path / "m.onnx", [*CONV, last], opset=18), message)


# channels last

LAST = [node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2])]
BEHIND = [
    node("Conv", ["t", "w"], ["a"], auto_pad="SAME_UPPER", strides=[2, 2]),
    node("Relu", ["a"], ["r"]),
    node("GlobalAveragePool", ["r"], ["y"]),
]
NORMALISED = [
    node("Sub", ["x", "mean"], ["s"]),
    node("Mul", ["s", "scale"], ["u"]),
    node("Transpose", ["u"], ["t"], perm=[0, 3, 1, 2]),
]
CHANNELS_LAST: dict[str, tuple[Nodes, dict[str, Any], tuple[Any, ...]]] = {
    "three channels": ([*LAST, *BEHIND], {}, ("N", 9, 14, 3)),
    "one channel": ([*LAST, *BEHIND], {"w": weight(8, 1, 3, 3)}, ("N", 14, 9, 1)),
    "one channel, reshaped": (
        [node("Reshape", ["x", "shape"], ["t"]), *BEHIND],
        {"w": weight(8, 1, 3, 3), "shape": int64(-1, 1, 14, 9)},
        ("N", 14, 9, 1),
    ),
    "four channels of a fixed batch": ([*LAST, *BEHIND], {"w": weight(8, 4, 3, 3)}, (1, 7, 5, 4)),
    "normalised in the network": (
        [*NORMALISED, *BEHIND],
        {"mean": weight(3), "scale": weight(1, 1, 1, 3)},
        ("N", 9, 14, 3),
    ),
    "padded, from BGR": (
        [
            node("Pad", ["x", "pads"], ["p"]),
            node("Gather", ["p", "bgr"], ["q"], axis=3),
            node("Transpose", ["q"], ["t"], perm=[0, 3, 1, 2]),
            *BEHIND,
        ],
        {"pads": int64(0, 3, 3, 0, 0, 3, 3, 0), "bgr": int64(2, 1, 0)},
        ("N", 9, 14, 3),
    ),
    "read twice": (
        [*LAST, *BEHIND[:2], node("Conv", ["t", "w"], ["b"]), node("Relu", ["b"], ["y"])],
        {},
        ("N", 9, 14, 3),
    ),
    "a row of pixels": (
        [node("Reshape", ["x", "shape"], ["t"]), *BEHIND],
        {"shape": int64(-1, 3, 14, 9)},
        ("N", 378),
    ),
    "a row of grey pixels, channels last": (
        [node("Reshape", ["x", "shape"], ["u"]), node("Transpose", ["u"], ["t"], perm=[0, 3, 1, 2]), *BEHIND],
        {"shape": int64(-1, 14, 9, 1), "w": weight(8, 1, 3, 3)},
        ("N", 126),
    ),
    "a grey image without channels": (
        [node("Unsqueeze", ["x", "one"], ["t"]), *BEHIND],
        {"one": int64(1), "w": weight(8, 1, 3, 3)},
        ("N", 14, 9),
    ),
}


@pytest.mark.parametrize("name", CHANNELS_LAST)
def test_inputs_of_other_layouts_agree_with_onnx_runtime(name: str, tmp_path: Path) -> None:
    nodes, constants, shape = CHANNELS_LAST[name]
    path = save(tmp_path / "m.onnx", nodes, constants, shape)
    check(path, noise(shape))
    assert gossamer.load(path.with_suffix(".goss")).input_shape == (None, *shape[1:])


def test_the_command_takes_channels_last_and_their_size(tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx", [*LAST, *BEHIND], {}, ("N", None, None, 3))
    out = tmp_path / "m.goss"
    assert main(["compile", str(path), "--out", str(out), "--input", "9x14"]) == 0
    assert native.Native(out, 1).input_shape == (None, 9, 14, 3)


def test_rows_of_numbers_agree_with_onnx_runtime(tmp_path: Path) -> None:
    nodes = [node("Gemm", ["x", "g", "c"], ["a"]), node("Relu", ["a"], ["b"]), node("MatMul", ["b", "h"], ["y"])]
    constants = {"g": weight(30, 7), "c": weight(7), "h": weight(7, 3)}
    check(save(tmp_path / "m.onnx", nodes, constants, ("N", 30), rank=2), noise(("N", 30)))


def test_many_channels_last_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx", [*LAST, *BEHIND], {"w": weight(8, 17, 3, 3)}, ("N", 9, 14, 17))
    refused(path, "other axes than channels, height, width")


def test_a_stated_input_of_other_numbers_is_refused(tmp_path: Path) -> None:
    """The file's JSON names the shape; it must be of as many numbers as the map."""
    path = save(tmp_path / "m.onnx", [*LAST, *BEHIND], {}, ("N", 9, 14, 3))
    compile_file(path, tmp_path / "m.goss")
    data = (tmp_path / "m.goss").read_bytes()
    assert b'{"input": [9, 14, 3]}' in data
    other = data.replace(b'{"input": [9, 14, 3]}', b'{"input": [9, 15, 3]}')
    other = other[:12] + struct.pack("<I", zlib.crc32(other[16:])) + other[16:]
    (tmp_path / "m.goss").write_bytes(other)
    with pytest.raises(ModelFileError, match="its metadata"):
        native.Native(tmp_path / "m.goss", 1)


# flattened maps

FLAT: dict[str, Nodes] = {
    "channels last": [TO_LAST, node("Reshape", ["t", "shape"], ["f"]), node("MatMul", ["f", "g"], ["y"])],
    "columns first": [
        node("Transpose", ["a"], ["t"], perm=[0, 3, 1, 2]),
        node("Flatten", ["t"], ["f"]),
        node("Gemm", ["f", "g"], ["y"]),
    ],
    "size by ReduceProd": [
        node("Shape", ["a"], ["s"]),
        node("Slice", ["s", "one", "four", "zero"], ["sides"]),
        node("ReduceProd", ["sides"], ["product"], axes=[0], keepdims=1),
        node("Concat", ["minus", "product"], ["target"], axis=0),
        node("Reshape", ["a", "target"], ["f"]),
        node("MatMul", ["f", "g"], ["y"]),
    ],
    "batch from Shape": [
        node("Shape", ["a"], ["s"]),
        node("Gather", ["s", "none"], ["n"], axis=0),
        node("Unsqueeze", ["n", "zero"], ["u"]),
        node("Concat", ["u", "minus"], ["target"], axis=0),
        node("Reshape", ["a", "target"], ["f"]),
        node("MatMul", ["f", "g"], ["y"]),
    ],
}


@pytest.mark.parametrize("name", FLAT)
def test_flattened_maps_agree_with_onnx_runtime(name: str, tmp_path: Path) -> None:
    constants = {"g": weight(288, 5), "shape": int64(-1, 288), "one": int64(1), "four": int64(4), "zero": int64(0)}
    constants |= {"minus": int64(-1), "none": np.array(0, np.int64)}
    check(save(tmp_path / "m.onnx", [*CONV, *FLAT[name]], constants, rank=2), noise(INPUT))


@pytest.mark.parametrize("size", [(12, 12), (3, 70), (70, 3), (2, 128)])
@pytest.mark.parametrize("last", [False, True])
def test_layers_of_large_maps_agree_with_onnx_runtime(size: tuple[int, int], last: bool, tmp_path: Path) -> None:
    """Of more positions than a kernel may cover, or of more rows or columns."""
    h, w = size
    nodes = [node("Relu", ["x"], ["r"])]
    nodes += [node("Transpose", ["r"], ["t"], perm=[0, 2, 3, 1])] if last else []
    nodes += [node("Flatten", ["t" if last else "r"], ["f"]), node("Gemm", ["f", "g", "c"], ["b"])]
    nodes += [node("Relu", ["b"], ["y"])]
    shape = ("N", 3, h, w)
    path = save(tmp_path / "m.onnx", nodes, {"g": weight(3 * h * w, 6), "c": weight(6)}, shape, rank=2)
    check(path, noise(shape), 1e-4)


def test_a_layer_of_a_cropped_large_map_agrees_with_onnx_runtime(tmp_path: Path) -> None:
    """Its parts are crops of a crop."""
    nodes = [node("Slice", ["x", "from", "to", "axes"], ["s"]), node("Flatten", ["s"], ["f"])]
    nodes += [node("MatMul", ["f", "g"], ["y"])]
    constants = {"from": int64(1, 2), "to": int64(13, 14), "axes": int64(2, 3), "g": weight(432, 5)}
    shape = ("N", 3, 16, 16)
    check(save(tmp_path / "m.onnx", nodes, constants, shape, rank=2), noise(shape), 1e-4)


BACK = node("Transpose", ["u"], ["y"], perm=[0, 3, 1, 2])
LEFT_LAST: dict[str, Nodes] = {
    "a bias": [TO_LAST, node("Add", ["t", "row"], ["u"]), node("Transpose", ["u"], ["y"], perm=[0, 3, 1, 2])],
    "a product with four axes": [
        TO_LAST,
        node("Mul", ["t", "row4"], ["u"]),
        node("Transpose", ["u"], ["y"], perm=[0, 3, 1, 2]),
    ],
    "a sum of two maps": [
        TO_LAST,
        node("Relu", ["t"], ["r"]),
        node("Add", ["t", "r"], ["u"]),
        node("Mul", ["u", "t"], ["v"]),
        node("Transpose", ["v"], ["y"], perm=[0, 3, 1, 2]),
    ],
    "a mean": [
        TO_LAST,
        node("ReduceMean", ["t"], ["u"], axes=[1, 2]),
        node("Transpose", ["u"], ["y"], perm=[0, 3, 1, 2]),
    ],
    "Concat": [TO_LAST, node("Concat", ["t", "t"], ["u"], axis=-1), BACK],
    "Concat of two": [
        TO_LAST,
        node("Conv", ["x", "w4"], ["b"]),
        node("Transpose", ["b"], ["s"], perm=[0, 2, 3, 1]),
        node("Concat", ["s", "t"], ["u"], axis=3),
        BACK,
    ],
    "Split": [TO_LAST, node("Split", ["t"], ["p", "q"], axis=-1), node("Mul", ["q", "p"], ["u"]), BACK],
    "Slice of channels": [TO_LAST, node("Slice", ["t", "i1", "i5", "minus"], ["u"]), BACK],
    "Slice of rows": [TO_LAST, node("Slice", ["t", "i1", "i5", "i1"], ["u"]), BACK],
    "channels turned around": [TO_LAST, node("Slice", ["t", "minus", "least", "minus", "minus"], ["u"]), BACK],
    "Gather": [TO_LAST, node("Gather", ["t", "at"], ["u"], axis=-1), BACK],
    "Pad": [TO_LAST, node("Pad", ["t", "pads"], ["u"]), BACK],
    "Pad of channels": [TO_LAST, node("Pad", ["t", "pads_c"], ["u"]), BACK],
    "a reflection": [TO_LAST, node("Pad", ["t", "pads"], ["u"], mode="reflect"), BACK],
    "Resize": [TO_LAST, node("Resize", ["t", "", "scales"], ["u"], mode="nearest"), BACK],
    "Softmax": [TO_LAST, node("Softmax", ["t"], ["u"], axis=-1), BACK],
    "slopes below zero": [TO_LAST, node("PRelu", ["t", "row"], ["u"]), BACK],
    "slopes of three axes, as Keras has them": [TO_LAST, node("PRelu", ["t", "row4"], ["u"]), BACK],
    "a dense layer": [
        TO_LAST,
        node("MatMul", ["t", "m"], ["u"]),
        node("Add", ["u", "five"], ["v"]),
        node("Transpose", ["v"], ["y"], perm=[0, 3, 1, 2]),
    ],
}


@pytest.mark.parametrize("name", LEFT_LAST)
def test_what_is_left_with_channels_last_agrees_with_onnx_runtime(name: str, tmp_path: Path) -> None:
    constants = {"row": weight(8), "row4": weight(1, 1, 1, 8), "m": weight(8, 5), "five": weight(5)}
    constants |= {"w4": weight(4, 3, 3, 3), "i1": int64(1), "i5": int64(5), "minus": int64(-1), "least": int64(-99)}
    constants |= {
        "at": int64(2, 1, 0, 7),
        "pads": int64(0, 1, 2, 0, 0, 0, 1, 0),
        "pads_c": int64(0, 1, 2, 3, 0, 0, 1, 2),
    }
    constants |= {"scales": np.array([1, 2, 3, 1], np.float32)}
    check(save(tmp_path / "m.onnx", [*CONV, *LEFT_LAST[name]], constants), noise(INPUT))


def test_axes_of_a_resize_with_channels_last_that_are_not_there_are_refused(tmp_path: Path) -> None:
    nodes = [*CONV, TO_LAST, node("Resize", ["t", "", "scales"], ["u"], mode="nearest", axes=[1, 7]), BACK]
    refused(save(tmp_path / "m.onnx", nodes, {"scales": np.array([2, 3], np.float32)}, opset=18), "axes")


def test_a_resize_to_another_batch_is_refused(tmp_path: Path) -> None:
    nodes = [*CONV, node("Resize", ["a", "", "", "sizes"], ["y"], mode="nearest")]
    for count, fits in ((1, True), (2, False)):
        path = save(tmp_path / f"{count}.onnx", nodes, {"sizes": int64(count, 8, 9, 7)}, (1, 3, 8, 8))
        if fits:
            check(path, noise((1, 3, 8, 8)))
        else:
            refused(path, "or of the batch or the channels")


# padding

PADS = int64(0, 0, 1, 2, 0, 0, 1, 0)
POOL = node("MaxPool", ["b"], ["y"], kernel_shape=[3, 3], strides=[2, 2])


@pytest.mark.parametrize("before", ["Relu", "Sigmoid", "Exp", "Neg"])
@pytest.mark.parametrize("mode", ["constant", "edge", "reflect"])
def test_padding_before_a_pool_agrees_with_onnx_runtime_or_is_refused(before: str, mode: str, tmp_path: Path) -> None:
    nodes = [*CONV, node(before, ["a"], ["r"]), node("Pad", ["r", "p"], ["b"], mode=mode), POOL]
    path = save(tmp_path / "m.onnx", nodes, {"p": PADS})
    if mode == "constant" and before in (
        "Exp",
        "Neg",
    ):  # of which it is not known that they are from 0 up, or which are not
        refused(path, "0 around a map that may be below it")
    else:
        check(path, noise(INPUT))


PADDED: dict[str, tuple[Any, dict[str, Any]]] = {
    "zeros": (node("Pad", ["a", "p"], ["b"]), {}),
    "a number": (node("Pad", ["a", "p", "fill"], ["b"]), {"fill": np.float32(1.5)}),
    "cut": (node("Pad", ["a", "p"], ["b"]), {"p": int64(0, 0, -1, 2, 0, 0, 1, -2)}),
    "channels": (node("Pad", ["a", "p"], ["b"]), {"p": int64(0, 2, 0, 0, 0, 3, 0, 0)}),
    "channels and rows with a number": (
        node("Pad", ["a", "p", "fill"], ["b"]),
        {"p": int64(0, 2, 1, 0, 0, 3, 0, 1), "fill": np.float32(-0.5)},
    ),
    "an edge": (node("Pad", ["a", "p"], ["b"], mode="edge"), {}),
    "a reflection": (node("Pad", ["a", "p"], ["b"], mode="reflect"), {}),
}


@pytest.mark.parametrize("name", PADDED)
def test_padding_that_something_else_reads_agrees_with_onnx_runtime(name: str, tmp_path: Path) -> None:
    pad, constants = PADDED[name]
    path = save(tmp_path / "m.onnx", [*CONV, pad, node("Neg", ["b"], ["y"])], {"p": PADS, **constants})
    check(path, noise(INPUT))


@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("fill", [-np.inf, -3.4028235e38])
def test_padding_with_the_least_number_is_that_of_a_pool(fill: float, dilation: int, tmp_path: Path) -> None:
    pool = node("MaxPool", ["b"], ["y"], kernel_shape=[3, 3], strides=[2, 2], dilations=[dilation, dilation])
    nodes = [*CONV, node("Pad", ["a", "p", "f"], ["b"]), pool]
    path = save(tmp_path / "m.onnx", nodes, {"p": PADS, "f": np.float32(fill)})
    check(path, noise(INPUT))
    assert [one.kind for one in lower(read_model_file(path).onnx).operations] == ["conv", "max_pool"]


@pytest.mark.parametrize(
    ("pads", "mode", "message"),
    [
        (int64(1, 0, 0, 0, 0, 0, 0, 0), "constant", "adds to the batch"),
        (int64(0, 0, 65, 0, 0, 0, 0, 0), "constant", "more than 64"),
        (int64(0, 0, -6, 0, 0, 0, 0, 0), "constant", "cuts all"),
        (int64(0, 0, 6, 0, 0, 0, 0, 0), "reflect", "more rows or columns"),
        (int64(0, 1, 0, 0, 0, 0, 0, 0), "edge", "mode edge of channels"),
        (int64(0, 0, 1, 0, 0, 0, 0, 0), "mirror", "mode mirror"),
    ],
)
def test_padding_that_the_engine_lacks_is_refused(pads: Any, mode: str, message: str, tmp_path: Path) -> None:
    nodes = [*CONV, node("Pad", ["a", "p"], ["b"], mode=mode), node("Neg", ["b"], ["y"])]
    refused(save(tmp_path / "m.onnx", nodes, {"p": pads}), message)


# sides computed from Shape

INT = {f"i{number}": int64(number) for number in range(5)} | {"minus": int64(-1), "half": np.float32(0.5)}
INT |= {"least": np.array(1), "most": np.array(4), "i23": int64(2, 3)}
SIDES: dict[str, Nodes] = {
    "half of the channels": [
        node("Shape", ["a"], ["s"]),
        node("Gather", ["s", "i1"], ["c"], axis=0),
        node("Add", ["c", "i1"], ["d"]),
        node("Div", ["d", "i2"], ["h"]),
        node("Slice", ["a", "i0", "h", "i1"], ["y"]),
    ],
    "expand as PyTorch writes it": [
        node("GlobalAveragePool", ["a"], ["p"]),
        node("Shape", ["a"], ["s"]),
        node("Shape", ["s"], ["r"]),
        node("ConstantOfShape", ["r"], ["ones"], value=None),
        node("Mul", ["ones", "minus"], ["m"]),
        node("Equal", ["s", "m"], ["e"]),
        node("Where", ["e", "ones", "s"], ["t"]),
        node("Expand", ["p", "t"], ["y"]),
    ],
    "a resize to twice the sides": [
        node("Shape", ["a"], ["s"]),
        node("Slice", ["s", "i2", "i4", "i0"], ["hw"]),
        node("Cast", ["hw"], ["f"], to=1),
        node("Div", ["f", "half"], ["g"]),
        node("Floor", ["g"], ["u"]),
        node("Cast", ["u"], ["v"], to=7),
        node("Slice", ["s", "i0", "i2", "i0"], ["nc"]),
        node("Concat", ["nc", "v"], ["sizes"], axis=0),
        node("Resize", ["a", "", "", "sizes"], ["y"], mode="nearest"),
    ],
    "all of the batch": [
        node("Shape", ["a"], ["s"]),
        node("Slice", ["s", "i0", "i1", "i0"], ["n"]),
        node("Slice", ["a", "i0", "n", "i0"], ["y"]),
    ],
    "a side within bounds, and as many rows as a constant is expanded to": [
        node("Shape", ["a"], ["s"], start=2),
        node("Clip", ["s", "least", "most"], ["hw"]),
        node("Expand", ["i0", "i2"], ["first"]),
        node("Slice", ["a", "first", "hw", "i23"], ["y"]),
    ],
    "Size and Mod": [
        node("GlobalAveragePool", ["a"], ["p"]),
        node("Shape", ["p"], ["s"], start=1),
        node("Size", ["s"], ["three"]),
        node("Mod", ["three", "i2"], ["one"]),
        node("Slice", ["a", "i0", "i3", "one"], ["y"]),
    ],
}


@pytest.mark.parametrize("shape", [INPUT, (1, 3, 8, 8)])
@pytest.mark.parametrize("name", SIDES)
def test_sides_from_shape_agree_with_onnx_runtime(name: str, shape: tuple[Any, ...], tmp_path: Path) -> None:
    import onnx

    nodes = [*CONV, *SIDES[name]]
    for one in nodes:
        if one.op_type == "ConstantOfShape" and not one.attribute:
            one.attribute.append(onnx.helper.make_attribute("value", onnx.numpy_helper.from_array(int64(1))))
    check(save(tmp_path / "m.onnx", nodes, INT, shape), noise(shape))


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([node("Gather", ["s", "i0"], ["n"]), node("Mul", ["n", "i2"], ["m"])], "neither fixed nor the batch"),
        ([node("Gather", ["s", "i0"], ["n"]), node("Min", ["n", "i4"], ["m"])], "neither fixed nor the batch"),
        ([node("Gather", ["s", "i4"], ["m"])], "cannot be computed"),
    ],
)
def test_sides_that_depend_on_the_batch_are_refused(nodes: Nodes, message: str, tmp_path: Path) -> None:
    target = [node("Concat", ["m", "minus"], ["t"], axis=0), node("Reshape", ["a", "t"], ["y"])]
    refused(save(tmp_path / "m.onnx", [*CONV, node("Shape", ["a"], ["s"]), *nodes, *target], INT, rank=2), message)


@pytest.mark.parametrize(
    "nodes",
    [
        [node("ConstantOfShape", ["large"], ["t"])],
        [node("Range", ["zero", "huge", "one"], ["t"])],
        [node("Tile", ["i1", "huge_row"], ["t"])],
        [node("Expand", ["i1", "large"], ["t"])],
        [node("ConstantOfShape", ["half_row"], ["u"]), node("Gather", ["u", "places"], ["t"])],
    ],
)
def test_sides_of_many_numbers_are_refused_before_they_are_computed(nodes: Nodes, tmp_path: Path) -> None:
    constants = {"large": int64(2**20, 2**20), "huge": np.array(2**40, np.int64), "huge_row": int64(2**40)}
    constants |= {"zero": np.array(0, np.int64), "one": np.array(1, np.int64), "half_row": int64(2**16)}
    constants |= {"places": np.zeros(2**15, np.int64), **INT}
    refused(
        save(tmp_path / "m.onnx", [*CONV, *nodes, node("Reshape", ["a", "t"], ["y"])], constants), "cannot be computed"
    )
