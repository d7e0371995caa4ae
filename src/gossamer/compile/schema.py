"""Which attributes and how many inputs each operator may have, by operator set: what is not here is refused, never ignored.

Source: onnx.ai/onnx/operators, versions 1 to 28 of the default domain.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from gossamer.host.text import counted

LATEST_OPSET = 28
WINDOW = "auto_pad kernel_shape pads strides"
CONV = f"{WINDOW} dilations group"
REDUCE = "axes<18 keepdims noop_with_empty_axes>=18"
FEW = 2**31 - 1  # inputs without a limit

# operator: (least and most inputs, attributes); "name<18", "name>=13": of those operator sets only
TABLE: dict[str, tuple[tuple[int, int], str]] = {
    **dict.fromkeys("Abs Exp Log Neg Reciprocal Sqrt Relu Sigmoid Tanh Softplus Mish HardSwish".split(), ((1, 1), "")),
    **dict.fromkeys("Identity GlobalAveragePool GlobalMaxPool Ceil Floor Not Size Softsign Erf".split(), ((1, 1), "")),
    **dict.fromkeys(
        "Add Div Equal Greater GreaterOrEqual Less LessOrEqual And Or MatMul Mul Pow".split(), ((2, 2), "")
    ),
    **dict.fromkeys("PRelu Sub Expand Tile".split(), ((2, 2), "")),
    **dict.fromkeys("Max Mean Min Sum".split(), ((1, FEW), "")),
    **dict.fromkeys(
        "ReduceL1 ReduceL2 ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSumSquare".split(),
        ((1, 2), REDUCE),
    ),
    "ReduceSum": ((1, 2), "axes<13 keepdims noop_with_empty_axes>=13"),
    "AveragePool": ((1, 1), f"{WINDOW} ceil_mode>=10 count_include_pad>=7 dilations>=19"),
    "BatchNormalization": ((5, 5), "epsilon momentum spatial<9 is_test<7 training_mode>=14"),
    "Cast": ((1, 1), "to saturate>=19 round_mode>=24"),
    "CastLike": ((2, 2), "saturate>=19 round_mode>=24"),
    "Celu": ((1, 1), "alpha"),
    "Swish": ((1, 1), "alpha"),
    "Clip": ((1, 3), "max<11 min<11"),
    "Concat": ((1, FEW), "axis"),
    "Constant": ((0, 0), "value value_float>=12 value_floats>=12 value_int>=12 value_ints>=12"),
    "ConstantOfShape": ((1, 1), "value"),
    "Conv": ((2, 3), CONV),
    "ConvTranspose": ((2, 3), f"{CONV} output_padding output_shape"),
    "DepthToSpace": ((1, 1), "blocksize mode>=11"),
    "DequantizeLinear": ((2, 3), "axis>=13 block_size>=21 output_dtype>=23"),
    "Dropout": ((1, 3), "ratio<12 seed>=12 is_test<7"),
    "Elu": ((1, 1), "alpha"),
    "Flatten": ((1, 1), "axis"),
    "Gather": ((2, 2), "axis"),
    "Gelu": ((1, 1), "approximate"),
    "Gemm": ((2, 3), "alpha beta transA transB broadcast<7"),
    "GroupNormalization": ((3, 3), "epsilon num_groups stash_type>=21"),
    "HardSigmoid": ((1, 1), "alpha beta"),
    "InstanceNormalization": ((3, 3), "epsilon"),
    "LRN": ((1, 1), "alpha beta bias size"),
    "LayerNormalization": ((2, 3), "axis epsilon stash_type"),
    "LeakyRelu": ((1, 1), "alpha"),
    "LogSoftmax": ((1, 1), "axis"),
    "LpNormalization": ((1, 1), "axis p"),
    "MaxPool": ((1, 1), f"{WINDOW} ceil_mode>=10 dilations>=10 storage_order>=8"),
    "Mod": ((2, 2), "fmod"),
    "Pad": ((1, 4), "mode pads<11 value<11"),
    "QuantizeLinear": ((2, 3), "axis>=13 saturate>=19 block_size>=21 output_dtype>=21 precision>=23"),
    "Range": ((3, 3), ""),
    "Reshape": ((2, 2), "allowzero>=14"),
    "Resize": (
        (1, 4),
        "antialias>=18 axes>=18 coordinate_transformation_mode>=11 cubic_coeff_a>=11 exclude_outside>=11 "
        "extrapolation_value>=11 keep_aspect_ratio_policy>=18 mode nearest_mode>=11",
    ),
    "Selu": ((1, 1), "alpha gamma"),
    "Shape": ((1, 1), "start>=15 end>=15"),
    "Slice": ((1, 5), "axes<10 starts<10 ends<10"),
    "Softmax": ((1, 1), "axis"),
    "SpaceToDepth": ((1, 1), "blocksize"),
    "Split": ((1, 2), "axis split<13 num_outputs>=18"),
    "Squeeze": ((1, 2), "axes<13"),
    "ThresholdedRelu": ((1, 1), "alpha"),
    "Transpose": ((1, 1), "perm"),
    "Unsqueeze": ((1, 2), "axes<13"),
    "Upsample": ((1, 2), "mode scales<9"),
    "Where": ((3, 3), ""),
}
# attributes of which only one value is computed here: the others are refused
ONLY = {
    ("BatchNormalization", "spatial"): 1,
    ("BatchNormalization", "is_test"): 1,
    ("Cast", "saturate"): 1,
    ("Dropout", "is_test"): 1,
    ("GroupNormalization", "stash_type"): 1,
    ("LayerNormalization", "stash_type"): 1,
    ("QuantizeLinear", "block_size"): 0,
    ("Resize", "antialias"): 0,
}
TRAINS = ("BatchNormalization", "Dropout")  # before operator set 7, where is_test is left out


@dataclass(frozen=True)
class _Attribute:
    name: str
    first: int
    behind: int


def _attributes(text: str) -> dict[str, _Attribute]:
    parsed = {}
    for one in text.split():
        name, relation, number = re.fullmatch(r"(\w+?)(?:(<|>=)(\d+))?", one).groups()  # type: ignore[union-attr]
        first, behind = (int(number), FEW) if relation == ">=" else (1, int(number) if relation else FEW)
        parsed[name] = _Attribute(name, first, behind)
    return parsed


SCHEMA = {op: (inputs, _attributes(text)) for op, (inputs, text) in TABLE.items()}


def problem(op: str, opset: int, inputs: int, attributes: dict[str, object]) -> str:
    """What a node has that its operator does not, or not in this operator set; "" where there is nothing, or no such operator."""
    if op not in SCHEMA:
        return ""
    (least, most), known = SCHEMA[op]
    if not least <= inputs <= most:
        return counted(inputs, "input")
    if op in TRAINS and opset < 7 and "is_test" not in attributes:
        return "no is_test 1: it trains"
    for name, value in attributes.items():
        one = known.get(name)
        if one is None and (name == "consumed_inputs" and opset < 6):  # a hint on memory
            continue
        if one is None or not one.first <= opset < one.behind:
            return f"an attribute {name[:60]!r}, which it does not have in operator set {opset}"
        if (op, name) in ONLY and value != ONLY[op, name]:
            return f"its {name} is not {ONLY[op, name]}"
    return ""
