"""Each attribute of each operator that the compiler reads, set to values other than its default: read, or refused by its name.

The attributes are those of the ONNX specification, one operator set after the other, so that none is passed over.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gossamer.compile import schema
from gossamer.compile.lower import HANDLERS, lower
from gossamer.compile.write import compile_file
from gossamer.errors import InputError
from gossamer.modelfile.onnx import parse_onnx
from gossamer.runtime import native

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
if not native.LIBRARY.is_file():
    pytest.skip("the native engine is not built: make engine", allow_module_level=True)
from onnx import defs  # noqa: E402

from tests.onnxcases import check, expected, int64, node, noise, save, weight  # noqa: E402
from tests.tiers import quick_ones  # noqa: E402

FIRST, LAST = 11, 21
SHAPE = ("N", 4, 6, 8)
Attributes = dict[str, Any]
F = np.float32
ROW = {"scale": weight(4), "shift": weight(4)}
BYTES = {"step": F(0.05), "zero": np.array(3, np.uint8)}
# operator: inputs (map; p is its mean, v that as a row, q its bytes), constants, attributes that it needs
CASES: dict[str, tuple[str, Attributes, Attributes]] = {
    "AveragePool": ("map", {}, {"kernel_shape": [3, 2]}),
    "BatchNormalization": (
        "map scale shift mean variance",
        {**ROW, "mean": weight(4), "variance": weight(4) ** 2 + F(0.5)},
        {},
    ),
    "Cast": ("map", {}, {"to": 1}),
    "Celu": ("map", {}, {}),
    "Concat": ("map map", {}, {"axis": 1}),
    "Conv": ("map k", {"k": weight(4, 4, 3, 2)}, {}),
    "ConvTranspose": ("map k", {"k": weight(4, 4, 3, 2)}, {}),
    "DepthToSpace": ("map", {}, {"blocksize": 2}),
    "DequantizeLinear": ("q step zero", BYTES, {}),
    "Dropout": ("map", {}, {}),
    "Elu": ("map", {}, {}),
    "Flatten": ("map", {}, {}),
    "Gather": ("map places", {"places": int64(2, 0)}, {"axis": 1}),
    "Gelu": ("map", {}, {}),
    "Gemm": ("v g c", {"g": weight(4, 4), "c": weight(4)}, {}),
    "GroupNormalization": ("map scale shift", ROW, {"num_groups": 2}),
    "HardSigmoid": ("map", {}, {}),
    "InstanceNormalization": ("map scale shift", ROW, {}),
    "LRN": ("map", {}, {"size": 3}),
    "LayerNormalization": ("v scale shift", ROW, {}),
    "LeakyRelu": ("map", {}, {}),
    "LogSoftmax": ("map", {}, {"axis": 1}),
    "LpNormalization": ("map", {}, {"axis": 1}),
    "MaxPool": ("map", {}, {"kernel_shape": [3, 2]}),
    "Pad": ("map pads", {"pads": int64(0, 0, 1, 2, 0, 0, 2, 1)}, {}),
    "QuantizeLinear": ("map step zero", BYTES, {}),
    "Reshape": ("map sides", {"sides": int64(0, -1)}, {}),
    "Resize": ("map crop ratios", {"crop": np.zeros(0, F), "ratios": np.array([1, 1, 2.5, 1.5], F)}, {}),
    "Selu": ("map", {}, {}),
    "Shape": ("map", {}, {}),
    "Softmax": ("map", {}, {"axis": 1}),
    "SpaceToDepth": ("map", {}, {"blocksize": 4}),
    "Split": ("map", {}, {"axis": 1}),
    "Squeeze": ("p", {}, {"axes": [2, 3]}),
    "ThresholdedRelu": ("map", {}, {}),
    "Transpose": ("map", {}, {}),
    "Unsqueeze": ("v", {}, {"axes": [2, 3]}),
    **{
        f"Reduce{kind}": ("map", {}, {"axes": [2, 3]})
        for kind in ("L1", "L2", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum")
    },
    "ReduceLogSumExp": ("map", {}, {"axes": [1]}),
    "ReduceSumSquare": ("map", {}, {"axes": [2, 3]}),
}
WITHOUT = {
    "Constant",
    "ConstantOfShape",
    "Range",
    "CastLike",
    "Mod",
    "Upsample",
}  # no handler: computed before any map is
Values = list[tuple[Any, Attributes]]
# values of an attribute, each with what must be set beside it
COMMON: dict[str, Values] = {
    "auto_pad": [(kind, {}) for kind in ("SAME_UPPER", "SAME_LOWER", "VALID")] + [("SAME_UPPER", {"strides": [2, 2]})],
    "dilations": [([2, 2], {}), ([1, 2], {}), ([2, 1], {"pads": [1, 1, 1, 0]})],
    "kernel_shape": [([2, 3], {}), ([3, 2], {})],
    "pads": [([1, 1, 1, 1], {}), ([2, 0, 0, 1], {})],
    "strides": [([2, 2], {}), ([1, 3], {})],
    "group": [(2, {}), (4, {})],
    "ceil_mode": [(1, {"strides": [2, 3]}), (1, {"strides": [2, 2], "pads": [1, 1, 0, 0]})],
    "count_include_pad": [(1, {"pads": [1, 1, 1, 1]}), (1, {"pads": [0, 1, 1, 0], "strides": [2, 2]})],
    "storage_order": [(1, {})],
    "output_padding": [([1, 0], {"strides": [2, 1]}), ([1, 2], {"strides": [3, 3]})],
    "output_shape": [
        ([12, 16], {"strides": [2, 2]}),
        ([11, 15], {"strides": [2, 2]}),
        ([7, 8], {"auto_pad": "SAME_UPPER"}),
    ],
    "alpha": [(0.3, {}), (2.0, {})],
    "beta": [(0.3, {}), (2.0, {})],
    "gamma": [(0.7, {})],
    "bias": [(2.0, {})],
    "epsilon": [(0.1, {})],
    "ratio": [(0.3, {})],
    "momentum": [(0.1, {})],
    "training_mode": [(1, {})],
    "axis": [(1, {}), (0, {}), (-1, {}), (2, {})],
    "axes": [([1], {}), ([3], {}), ([-2, -1], {}), ([1, 2, 3], {})],
    "keepdims": [(0, {})],
    "noop_with_empty_axes": [(1, {"axes": None})],
    "approximate": [("tanh", {})],
    "to": [(1, {}), (10, {}), (6, {})],
    "saturate": [(0, {})],
    "round_mode": [("up", {})],
    "blocksize": [(1, {}), (2, {})],
    "seed": [(3, {})],
    "transA": [(1, {})],
    "transB": [(1, {})],
    "num_groups": [(1, {}), (4, {})],
    "stash_type": [(10, {})],
    "size": [(1, {}), (5, {})],
    "p": [(1, {})],
    "allowzero": [(1, {})],
    "perm": [([0, 2, 3, 1], {}), ([1, 0, 2, 3], {})],
    "start": [(1, {})],
    "end": [(2, {})],
    "split": [([1, 3], {})],
    "num_outputs": [(2, {}), (3, {})],
    "block_size": [(2, {})],
    "output_dtype": [(3, {}), (2, {}), (1, {})],
    "precision": [(10, {})],
}
MODE = {"coordinate_transformation_mode": "align_corners"}
TO_SIZES = {"sizes": int64(1, 4, 15, 9)}
OF: dict[tuple[str, str], Values] = {
    ("DepthToSpace", "mode"): [("CRD", {})],
    ("Squeeze", "axes"): [([2], {}), ([-1], {}), ([3, 2], {})],
    ("Unsqueeze", "axes"): [([2], {}), ([1, -1], {}), ([0], {})],
    ("Pad", "mode"): [("reflect", {}), ("edge", {}), ("wrap", {})],
    ("Resize", "mode"): [(kind, other) for kind in ("linear", "cubic") for other in ({}, MODE)],
    ("Resize", "coordinate_transformation_mode"): [
        (place, {"mode": mode})
        for mode in ("nearest", "linear", "cubic")
        for place in ("pytorch_half_pixel", "asymmetric", "align_corners", "half_pixel_symmetric", "tf_crop_and_resize")
    ],
    ("Resize", "nearest_mode"): [(kind, {}) for kind in ("floor", "ceil", "round_prefer_ceil")],
    ("Resize", "cubic_coeff_a"): [(-0.5, {"mode": "cubic"}), (-1.0, {"mode": "cubic"}), (0.25, {"mode": "cubic"})],
    ("Resize", "exclude_outside"): [(1, {"mode": "cubic"}), (1, {"mode": "cubic", **MODE}), (1, {"mode": "linear"})],
    ("Resize", "extrapolation_value"): [(3.0, {}), (3.0, {"mode": "linear"})],
    ("Resize", "antialias"): [(1, {"mode": "linear"}), (1, {"mode": "cubic"})],
    ("Resize", "axes"): [([2, 3], {}), ([3, 2], {}), ([1, 2, 3], {}), ([3], {})],
    ("Resize", "keep_aspect_ratio_policy"): [("not_larger", {}), ("not_smaller", {}), ("not_larger", {"axes": [2, 3]})],
}


def versions(op: str) -> list[int]:
    """The operator sets in which it changed, from the first to the last that are checked."""
    since = {defs.get_schema(op, opset, "").since_version for opset in range(FIRST, LAST + 1) if _exists(op, opset)}
    return sorted(max(FIRST, one) for one in since)


def _exists(op: str, opset: int) -> bool:
    try:
        return not defs.get_schema(op, opset, "").deprecated
    except defs.SchemaError:
        return False


def graph(op: str, opset: int, attributes: Attributes) -> tuple[list[Any], Attributes, tuple[str, ...]]:
    """Nodes around one with these attributes, constants, the names of outputs."""
    text, constants, needed = CASES[op]
    inputs, values, at = text.split(" "), {**constants}, {**needed, **attributes}
    known = defs.get_schema(op, opset, "").attributes
    if "axes" in at and "axes" not in known:  # an input
        axes = at.pop("axes")
        inputs, values["axes"] = [inputs[0], *(["axes"] if axes is not None else [])], int64(*(axes or []))
    at = {name: value for name, value in at.items() if value is not None}
    if op == "Resize":
        _resize(inputs, values, at)
    if op in ("Conv", "ConvTranspose") and (groups := at.get("group", 1)) > 1:
        values["k"] = weight(*((4, 4 // groups) if op == "Conv" else (4, 2)), 3, 2)
    if op == "Split" and "num_outputs" not in at and opset >= 18 and "split" not in at:
        at["num_outputs"] = 2
    if op == "QuantizeLinear":
        inputs = inputs if at.get("output_dtype", 2) == 2 else inputs[:2]  # it says the type where no zero point does
    outputs = (
        [f"o{place}" for place in range(at.get("num_outputs", len(at.get("split", "12"))))] if op == "Split" else ["y"]
    )
    nodes = [node("Mul", ["x", "two"], ["map"])]
    values["two"] = F(2)
    if "v" in inputs or "p" in inputs:
        nodes += [node("GlobalAveragePool", ["map"], ["p"]), node("Flatten", ["p"], ["v"])][: 1 + ("v" in inputs)]
    if "q" in inputs:
        nodes.append(node("QuantizeLinear", ["map", "step", "zero"], ["q"]))
    nodes.append(node(op, inputs, outputs, **at))
    if op == "QuantizeLinear":
        nodes.append(node("DequantizeLinear", ["y", "step", *inputs[2:]], ["z"]))
        outputs = ["z"]
    if op == "Shape":  # a side that is known
        nodes += [node("Gather", ["y", "last"], ["side"], axis=0), node("Cast", ["side"], ["number"], to=1)]
        nodes.append(node("Mul", ["map", "number"], ["z"]))
        values["last"], outputs = int64(-1), ["z"]
    if op == "Cast" and at["to"] != 1:
        nodes.append(node("Cast", ["y"], ["z"], to=1))
        outputs = ["z"]
    return nodes, values, tuple(outputs)


def _resize(inputs: list[str], values: Attributes, at: Attributes) -> None:
    axes = at.get("axes", range(4))
    values["ratios"] = values["ratios"][[*axes]]
    if "keep_aspect_ratio_policy" in at:
        inputs[:] = ["map", "crop", "none", "sizes"]
        values["none"] = np.zeros(0, F)
        values["sizes"] = int64(*(int64(1, 4, 15, 9)[[*axes]]))
    if at.get("coordinate_transformation_mode") == "tf_crop_and_resize":
        inputs[1] = "crop"
        values["crop"] = np.array([0, 0, 0.2, 0.1, 1, 1, 0.8, 1.2], F)


def outcome(op: str, opset: int, name: str, value: Any, beside: Attributes, path: Path) -> str:
    """What is wrong with a file that sets the attribute; "" where it is compiled to ONNX Runtime's outputs or refused by name."""
    nodes, values, outputs = graph(op, opset, {**beside, name: value})
    save(path, nodes, values, SHAPE, outputs, opset=opset, rank=0)
    try:
        compile_file(path, path.with_suffix(".goss"))
    except InputError as error:
        told = re.sub(r" \{.*?\}: ", ": ", str(error))  # the attributes that are shown beside the operator
        return "" if re.search(rf"\b{name}\b", told) else f"refused, but not by name: {told}"
    x = noise(SHAPE)[: 1 if "sizes" in values else 2]
    try:
        wanted = expected(path, x)
    except Exception as error:  # of whatever kind its binding raises
        return f"compiled, though ONNX Runtime does not run it: {error}"
    made: Any = native.Native(path.with_suffix(".goss"), 1)(x)
    made = made if isinstance(made, dict) else {outputs[0]: made}
    for one, numbers in wanted.items():
        if made[one].shape != numbers.shape:
            return f"sides {made[one].shape}, not {numbers.shape}"
        # bytes may round to the neighbour where a number lies between two
        allowed = (
            0.0501 if op in ("QuantizeLinear", "DequantizeLinear") else 1e-4 * max(1.0, float(np.abs(numbers).max()))
        )
        if not np.abs(made[one] - numbers).max() <= allowed:
            return f"off by {np.abs(made[one] - numbers).max():g}"
    return ""


def test_every_operator_is_looked_at() -> None:
    with_attributes = {op for op in schema.SCHEMA if any(defs.get_schema(op, v, "").attributes for v in versions(op))}
    assert with_attributes - WITHOUT <= set(CASES)
    assert set(CASES) <= set(HANDLERS) | {"SpaceToDepth"}


@pytest.mark.parametrize("op", quick_ones(CASES, ("AveragePool", "Conv", "ConvTranspose", "MaxPool", "Resize")))
def test_each_attribute_is_read_or_refused_by_name(op: str, tmp_path: Path) -> None:
    wrong, ours = {}, set(schema.SCHEMA[op][1])
    for opset in versions(op):
        for name in defs.get_schema(op, opset, "").attributes:
            values = OF.get((op, name)) or COMMON.get(name)
            assert values, f"{op} has an attribute {name}, of which no value is known here"
            assert name in ours or name == "mode"
            for value, beside in values:
                known = {
                    key: one
                    for key, one in beside.items()
                    if key in defs.get_schema(op, opset, "").attributes or key == "axes"
                }
                if text := outcome(op, opset, name, value, known, tmp_path / "m.onnx"):
                    wrong[opset, name, str(value), str(known)] = text
    assert not wrong


@pytest.mark.parametrize("group", [1, 4])
@pytest.mark.parametrize("dilations", [[1, 2], [3, 1], [2, 4]])
def test_a_layer_of_bytes_with_two_dilations_computes_in_bytes(
    dilations: list[int], group: int, tmp_path: Path
) -> None:
    values = {
        "bytes": np.random.default_rng(0).integers(-127, 128, (4, 4 // group, 3, 2), np.int8),
        "scales": np.array([0.01, 0.02, 0.005, 0.03], F),
        "zeros": np.zeros(4, np.int8),
        "out": F(0.1),
        **BYTES,
    }
    nodes = [
        node("QuantizeLinear", ["x", "step", "zero"], ["q"]),
        node("DequantizeLinear", ["q", "step", "zero"], ["a"]),
        node("DequantizeLinear", ["bytes", "scales", "zeros"], ["k"], axis=0),
        node("Conv", ["a", "k"], ["b"], dilations=dilations, group=group, pads=[1, 1, 1, 1]),
        node("QuantizeLinear", ["b", "out", "zero"], ["c"]),
        node("DequantizeLinear", ["c", "out", "zero"], ["y"]),
    ]
    path = save(tmp_path / "m.onnx", nodes, values, ("N", 4, 12, 13))
    program = lower(parse_onnx(path.read_bytes()))
    (layer,) = (one for step in program.operations for one in step.weights if one is not None)
    assert layer.type == "uint8" and layer.weight.dtype == np.int8
    x = noise(("N", 4, 12, 13))
    compile_file(path, tmp_path / "m.goss")
    difference = np.abs(np.asarray(native.Native(tmp_path / "m.goss", 1)(x)) - expected(path, x)["y"])
    assert difference.max() <= 0.101 and (difference > 0.05).mean() < 0.01


@pytest.mark.parametrize("op", ["AveragePool", "MaxPool"])
@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"kernel_shape": [3, 1], "dilations": [2, 1]}, "its auto_pad is SAME_LOWER and its dilations"),
        ({"kernel_shape": [1, 1], "strides": [1, 3]}, "its auto_pad is SAME_LOWER and its strides"),
        ({"kernel_shape": [1, 1], "dilations": [2, 3]}, ""),
        ({"kernel_shape": [2, 3], "strides": [2, 3]}, ""),
    ],
)
def test_pools_that_runtimes_pad_differently_are_refused_by_name(
    attributes: Attributes, message: str, op: str, tmp_path: Path
) -> None:
    nodes = [node(op, ["x"], ["y"], auto_pad="SAME_LOWER", **attributes)]
    path = save(tmp_path / "m.onnx", nodes, {}, ("N", 4, 12, 9), opset=19)
    if message:
        with pytest.raises(InputError, match=message):
            compile_file(path, tmp_path / "m.goss")
    else:
        check(path, noise(("N", 4, 12, 9)))


def test_a_padding_that_no_operator_set_has_is_refused_by_name(tmp_path: Path) -> None:
    nodes = [node("ConvTranspose", ["x", "w"], ["y"], auto_pad="SOME")]
    path = save(tmp_path / "m.onnx", nodes, {"w": weight(4, 3, 3, 3)}, ("N", 4, 12, 9))
    with pytest.raises(InputError, match="its auto_pad is SOME"):
        compile_file(path, tmp_path / "m.goss")


def test_a_cubic_resize_to_its_own_sides_leaves_the_map_to_others(tmp_path: Path) -> None:
    nodes = [
        node("Relu", ["x"], ["a"]),
        node("Resize", ["a", "crop", "ratios"], ["b"], mode="cubic"),
        node("Neg", ["b"], ["c"]),
        node("Add", ["a", "c"], ["d"]),
        node("Add", ["b", "d"], ["y"]),
    ]
    values = {"crop": np.zeros(0, F), "ratios": np.ones(4, F)}
    check(save(tmp_path / "m.onnx", nodes, values, SHAPE), noise(SHAPE))


def test_dilations_that_make_too_large_a_kernel_are_refused_by_name(tmp_path: Path) -> None:
    nodes = [node("Conv", ["x", "k"], ["y"], dilations=[7, 40])]
    path = save(tmp_path / "m.onnx", nodes, {"k": weight(4, 4, 2, 3)}, ("N", 4, 90, 90))
    with pytest.raises(InputError, match=r"its dilations \[7, 40\] make a kernel of 8 x 81"):
        compile_file(path, tmp_path / "m.goss")
