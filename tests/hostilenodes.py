"""Small ONNX models of every operator that the engine has, and changes of them at random."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import AttributeProto, ModelProto, TensorProto, helper, numpy_helper

SIZE = (12, 14)
NUMBERS = (-(2**63), -(2**31), -5, -2, -1, 0, 1, 2, 3, 4, 5, 7, 12, 17, 63, 65, 128, 65537, 2**31, 2**40, 2**63 - 1)
REALS = (0.0, -0.0, 1.0, -1.0, 0.5, 2.0, 6.0, 1e-30, 1e30, 3.4e38, -3.4e38, float("inf"), -float("inf"), float("nan"))
TEXTS = (
    b"",
    b"\xff\xfe",
    b"VALID",
    b"SAME_UPPER",
    b"edge",
    b"reflect",
    b"wrap",
    b"linear",
    b"cubic",
    b"CRD",
    b"a" * 300,
)
NAMES = (
    "allowzero alpha axes axis beta bias blocksize ceil_mode count_include_pad dilations end epsilon group keepdims kernel_shape "
    "max min mode num_groups num_outputs output_dtype output_padding p pads perm size split start strides to transA transB value auto_pad starts ends training_mode"
).split()
KINDS = (np.float32, np.float64, np.int64, np.int32, np.int8, np.uint8, np.bool_, np.float16)
Node = tuple[str, str, str, dict[str, Any]]  # operator, inputs and outputs, each with blanks between, attributes


def model(nodes: list[Node], tensors: dict[str, Any], outputs: str, opset: int = 18) -> ModelProto:
    """A model whose input is a map of 8 channels."""
    built = [
        helper.make_node(op, reads.split(",") if reads else [], gives.split(","), **more)
        for op, reads, gives, more in nodes
    ]
    input_info = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 8, *SIZE])
    output_infos = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", None]) for name in outputs.split(",")
    ]
    for output_info in output_infos:
        del output_info.type.tensor_type.shape.dim[:]
        output_info.type.tensor_type.shape.dim.add()
    kept = [numpy_helper.from_array(np.asarray(values), name) for name, values in tensors.items()]
    graph = helper.make_graph(built, "g", [input_info], output_infos, kept)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9 if opset > 12 else 4)


def noise(*shape: int) -> Any:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def int64(*numbers: int) -> Any:
    return np.array(numbers, np.int64)


WINDOW = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}
TURNED = {"perm": [0, 2, 3, 1]}
MODELS: dict[str, Callable[[], ModelProto]] = {
    "classifier": lambda: model(
        [
            ("Pad", "x,around", "wide", {}),
            ("Conv", "wide,w,b", "map", {"kernel_shape": [3, 3], "strides": [1, 1], "dilations": [1, 1], "group": 2}),
            ("BatchNormalization", "map,b,b2,b,var", "normal", {"epsilon": 1e-5}),
            ("Clip", "normal,zero,six", "clipped", {}),
            ("Conv", "clipped,deep", "depthwise", {**WINDOW, "group": 6}),
            ("LeakyRelu", "depthwise", "leaky", {"alpha": 0.1}),
            ("MaxPool", "leaky", "most", {**WINDOW, "ceil_mode": 1, "dilations": [1, 1]}),
            ("AveragePool", "most", "even", {"kernel_shape": [2, 2], "auto_pad": "SAME_UPPER", "count_include_pad": 1}),
            ("GlobalAveragePool", "even", "mean", {}),
            ("Flatten", "mean", "row", {"axis": 1}),
            ("Gemm", "row,fc,b", "logits", {"transB": 1, "alpha": 1.0, "beta": 1.0}),
            ("MatMul", "logits,square", "product", {}),
            ("Add", "product,b", "sum", {}),
            ("Softmax", "sum", "y", {"axis": -1}),
        ],
        {
            "around": int64(0, 0, 1, 1, 0, 0, 1, 1),
            "w": noise(6, 4, 3, 3),
            "b": noise(6),
            "b2": noise(6),
            "var": np.abs(noise(6)),
            "zero": np.float32(0),
            "six": np.float32(6),
            "deep": noise(6, 1, 3, 3),
            "fc": noise(6, 6),
            "square": noise(6, 6),
        },
        "y",
    ),
    "maps": lambda: model(
        [
            ("Split", "x,halves", "left,right", {"axis": 1}),
            ("Slice", "x,two,six,one,one", "part", {}),
            ("Concat", "left,right", "again", {"axis": 1}),
            ("Add", "again,x", "twice", {}),
            ("Pad", "part,around,", "mirrored", {"mode": "reflect"}),
            (
                "ConvTranspose",
                "part,w,b",
                "large",
                {"kernel_shape": [3, 3], "strides": [2, 2], "output_padding": [1, 1]},
            ),
            ("Resize", "twice,,scales", "double", {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}),
            ("Resize", "part,,,sizes", "sized", {"mode": "nearest", "nearest_mode": "floor"}),
            ("DepthToSpace", "x", "spread", {"blocksize": 2, "mode": "DCR"}),
            ("ReduceMax", "x,channels", "greatest", {"keepdims": 1}),
            ("ReduceMean", "x,sides", "mean", {"keepdims": 1}),
            ("HardSigmoid", "mean", "gate", {"alpha": 1 / 6, "beta": 0.5}),
            ("Mul", "x,gate", "times_gate", {}),
            ("Sigmoid", "times_gate", "s", {}),
            ("Mul", "times_gate,s", "silu", {}),
            ("Sub", "silu,half", "less", {}),
            ("Div", "less,half", "more", {}),
            ("Neg", "more", "negative", {}),
        ],
        {
            "halves": int64(3, 5),
            "one": int64(1),
            "two": int64(2),
            "six": int64(6),
            "around": int64(0, 0, 1, 1, 0, 0, 2, 3),
            "w": noise(4, 5, 3, 3),
            "b": noise(5),
            "scales": np.array([1, 1, 2, 1.5], np.float32),
            "sizes": int64(2, 4, 5, 19),
            "channels": int64(1),
            "sides": int64(2, 3),
            "half": np.float32(0.5),
        },
        "mirrored,large,double,sized,spread,greatest,negative",
    ),
    "sides": lambda: model(
        [
            ("Shape", "x", "shape", {}),
            ("Gather", "shape,at", "batch", {"axis": 0}),
            ("Unsqueeze", "batch,first", "one", {}),
            ("Concat", "one,split", "groups", {"axis": 0}),
            ("Reshape", "x,groups", "grouped", {}),
            ("Transpose", "grouped", "turned", {"perm": [0, 2, 1, 3, 4]}),
            ("Slice", "shape,first,two,first,onward", "front", {}),
            ("Slice", "shape,two,four,first", "back", {}),
            ("Concat", "front,back", "together", {"axis": 0}),
            ("Reshape", "turned,together", "shuffled", {"allowzero": 0}),
            ("Relu", "shuffled", "y", {}),
            ("Constant", "", "c", {"value": numpy_helper.from_array(int64(1, 3))}),
            ("Cast", "c", "d", {"to": 7}),
            ("Mul", "d,d", "e", {}),
            ("ReduceMean", "y,side", "z", {"keepdims": 0}),
        ],
        {
            "at": np.array(0),
            "first": int64(0),
            "two": int64(2),
            "four": int64(4),
            "onward": int64(1),
            "split": int64(2, 4, *SIZE),
            "side": int64(2, 3),
        },
        "y,z",
    ),
    "bytes": lambda: model(
        [
            ("QuantizeLinear", "x,s,z", "xq", {}),
            ("DequantizeLinear", "xq,s,z", "xd", {}),
            ("DequantizeLinear", "wq,ws,wz", "w", {"axis": 0}),
            ("DequantizeLinear", "bq,bs", "b", {"axis": 0}),
            ("Conv", "xd,w,b", "map", WINDOW),
            ("Relu", "map", "high", {}),
            ("QuantizeLinear", "high,s,z", "hq", {}),
            ("DequantizeLinear", "hq,s,z", "hd", {}),
            ("GlobalMaxPool", "hd", "most", {}),
            ("Squeeze", "most,sides", "row", {}),
            ("DequantizeLinear", "fq,s", "f", {}),
            ("MatMul", "row,f", "y", {}),
        ],
        {
            "s": np.float32(0.05),
            "z": np.uint8(128),
            "wq": (noise(4, 8, 3, 3) * 40).astype(np.int8),
            "ws": np.abs(noise(4)) + np.float32(0.01),
            "wz": np.zeros(4, np.int8),
            "bq": np.arange(4, dtype=np.int32),
            "bs": np.abs(noise(4)),
            "sides": int64(2, 3),
            "fq": (noise(4, 5) * 40).astype(np.int8),
        },
        "y",
    ),
    "rows": lambda: model(
        [
            ("Transpose", "x", "last", TURNED),
            ("Reshape", "last,rows", "a", {}),
            ("AveragePool", "x", "small", {"kernel_shape": [2, 2], "strides": [2, 2]}),
            ("Transpose", "small", "small_last", TURNED),
            ("Reshape", "small_last,rows", "b", {}),
            ("Concat", "a,b", "all", {"axis": 1}),
            ("Softmax", "all", "y", {"axis": 2}),
            ("Unsqueeze", "x,one", "p", {}),
            ("Unsqueeze", "x,one", "q", {}),
            ("Concat", "p,q", "stack", {"axis": 1}),
            ("ReduceSum", "stack,one", "total", {"keepdims": 0}),
            ("Slice", "x,zero,five,two", "top", {}),
            ("Slice", "x,five,ten,two", "bottom", {}),
            ("ReduceMean", "top,two", "t", {"keepdims": 1}),
            ("ReduceMean", "bottom,two", "u", {"keepdims": 1}),
            ("Concat", "t,u", "means", {"axis": 2}),
        ],
        {
            "rows": int64(0, -1, 4),
            "one": int64(1),
            "zero": int64(0),
            "two": int64(2),
            "five": int64(6),
            "ten": int64(12),
        },
        "y,total,means",
    ),
    "codes": lambda: model(
        [
            ("GlobalAveragePool", "x", "mean", {}),
            ("Flatten", "mean", "row", {}),
            ("Unsqueeze", "row,one", "wide", {}),
            ("Sub", "wide,codes", "difference", {}),
            ("Pow", "difference,power", "squared", {}),
            ("ReduceSum", "squared,last", "y", {"keepdims": 0}),
        ],
        {"one": int64(1), "codes": noise(5, 8), "power": np.float32(2), "last": int64(2)},
        "y",
    ),
    "old": lambda: model(
        [
            ("Pad", "x", "wide", {"pads": [0, 0, 0, 1, 0, 0, 2, 0], "value": 0.0}),
            ("Conv", "wide,w", "map", {"strides": [2, 2]}),
            ("Clip", "map", "clipped", {"min": 0.0, "max": 6.0}),
            ("Upsample", "clipped,twice", "large", {"mode": "nearest"}),
            ("Slice", "large", "part", {"starts": [1], "ends": [5], "axes": [1]}),
            ("Split", "part", "a,b", {"axis": 1, "split": [1, 3]}),
            ("ReduceMean", "b", "mean", {"axes": [2, 3], "keepdims": 1}),
            ("Squeeze", "mean", "row", {"axes": [2, 3]}),
            ("Softmax", "row", "y", {"axis": 1}),
        ],
        {"w": noise(6, 8, 3, 3), "twice": np.array([1, 1, 2, 2], np.float32)},
        "y",
        9,
    ),
    "numbers": lambda: model(
        [
            ("Max", "x,zero", "a", {}),
            ("Min", "a,x,row", "b", {}),
            ("Abs", "b", "c", {}),
            ("Elu", "c", "d", {"alpha": 0.5}),
            ("Softplus", "d", "e", {}),
            ("Pow", "e,power", "f", {}),
            ("Sqrt", "f", "g", {}),
            ("Div", "g,c", "h", {}),
            ("Mean", "h,x", "i", {}),
            ("Cast", "i", "j", {"to": 1}),
            ("Gather", "j,places", "k", {"axis": 1}),
            ("SpaceToDepth", "k", "l", {"blocksize": 2}),
            ("Pad", "l,around,fill", "m", {"mode": "constant"}),
            ("ReduceL2", "m,channels", "n", {"keepdims": 1}),
            ("Expand", "n,shape", "o", {}),
            ("Flatten", "o", "p", {"axis": -3}),
            ("Gemm", "p,fc", "y", {"alpha": 0.5, "beta": 2.0}),
            ("LogSoftmax", "y", "z", {"axis": -1}),
            ("Split", "x", "q,r", {"axis": -2, "num_outputs": 2}),
        ],
        {
            "zero": np.float32(0),
            "row": noise(8, 1, 1),
            "power": np.float32(2),
            "places": int64(2, 1, -1),
            "around": int64(0, 1, 1, 0, 0, 0, 0, -1),
            "fill": np.float32(0.5),
            "channels": int64(1),
            "shape": int64(1, 2, 7, 6),
            "fc": noise(84, 5),
        },
        "z,q",
    ),
    "arithmetic of sides": lambda: model(
        [
            ("Shape", "x", "s", {"start": 0}),
            ("Gather", "s,one", "c", {"axis": 0}),
            ("Div", "c,two", "half", {}),
            ("Mod", "c,three", "rest", {}),
            ("Add", "half,rest", "end", {}),
            ("Slice", "x,zero,end,one", "part", {}),
            ("Slice", "s,two,four,zero", "hw", {}),
            ("ReduceProd", "hw,zero", "product", {"keepdims": 1}),
            ("Cast", "product", "real", {"to": 1}),
            ("Floor", "real", "whole", {}),
            ("Cast", "whole", "size", {"to": 7}),
            ("Equal", "s,half", "same", {}),
            ("Where", "same,s,s", "chosen", {}),
            ("ConstantOfShape", "one", "many", {"value": numpy_helper.from_array(int64(3))}),
            ("Range", "start,stop,step", "range", {}),
            ("Tile", "two,one", "tiled", {}),
            ("Concat", "none,end,size", "target", {"axis": 0}),
            ("Reshape", "part,target", "flat", {}),
            ("Relu", "flat", "y", {}),
        ],
        {
            "zero": int64(0),
            "one": int64(1),
            "two": int64(2),
            "three": int64(3),
            "four": int64(4),
            "none": int64(-1),
            "start": np.array(0),
            "stop": np.array(4),
            "step": np.array(1),
        },
        "y",
    ),
    "norms": lambda: model(
        [
            ("InstanceNormalization", "x,g,b", "i", {"epsilon": 1e-5}),
            ("GroupNormalization", "i,half,half", "j", {"num_groups": 4, "epsilon": 1e-5}),
            ("LRN", "j", "k", {"size": 3, "alpha": 0.1, "beta": 0.75, "bias": 1.0}),
            ("Transpose", "k", "l", TURNED),
            ("LayerNormalization", "l,g,b", "m", {"axis": -1, "epsilon": 1e-5}),
            ("LpNormalization", "m", "n", {"axis": -1, "p": 2}),
            ("ReduceMax", "n,last", "o", {"keepdims": 1}),
            ("Sub", "n,o", "p", {}),
            ("Transpose", "p", "q", {"perm": [0, 3, 1, 2]}),
            ("Conv", "q,w,b", "r", {"pads": [1, 1, 1, 1], "strides": [1, 1]}),
            ("Conv", "q,w1", "s", {"dilations": [1, 1]}),
            ("Add", "r,s", "t", {}),
            ("Pow", "t,third", "u", {}),
            ("ReduceMean", "u,sides", "row", {"keepdims": 0}),
            ("Unsqueeze", "row,one", "sequence", {}),
            ("Conv", "sequence,eca", "gate", {"kernel_shape": [3], "pads": [1, 1], "strides": [1], "dilations": [1]}),
            ("Reshape", "gate,map", "v", {}),
            ("Mul", "u,v", "y", {}),
            ("ReduceProd", "y,one", "z", {"keepdims": 1}),
        ],
        {
            "g": noise(8),
            "b": noise(8),
            "half": noise(4),
            "last": int64(-1),
            "sides": int64(2, 3),
            "one": int64(1),
            "third": np.float32(1 / 3),
            "w": noise(8, 8, 3, 3),
            "w1": noise(8, 8, 1, 1),
            "eca": noise(1, 1, 3),
            "map": int64(0, 8, 1, 1),
        },
        "y,z",
    ),
    "channels last": lambda: model(
        [
            ("Sub", "x,mean", "centred", {}),
            ("Transpose", "centred", "first", {"perm": [0, 3, 1, 2]}),
            ("Conv", "first,w", "map", {"strides": [2, 2], "auto_pad": "SAME_UPPER"}),
            ("Transpose", "map", "last", {"perm": [0, 2, 3, 1]}),
            ("MatMul", "last,square", "each", {}),
            ("Add", "each,b", "sum", {}),
            ("ReduceMean", "sum,sides", "y", {"keepdims": 0}),
        ],
        {
            "mean": noise(14),
            "w": noise(6, 14, 3, 3),
            "square": noise(6, 6),
            "b": noise(6),
            "sides": int64(1, 2),
        },
        "y",
    ),
}


def change(file: ModelProto, rng: random.Random) -> None:
    """One change at random, in place."""
    nodes, tensors = file.graph.node, file.graph.initializer
    node = rng.choice(nodes)
    kind = rng.choice(
        ("attribute", "attribute", "attribute", "new", "tensor", "tensor", "tensor", "wires", "wires", "other")
    )
    if kind == "attribute" and node.attribute:
        place = rng.randrange(len(node.attribute))
        name = node.attribute[place].name
        if rng.random() < 0.5 and node.attribute[place].ints:
            ints = node.attribute[place].ints
            ints[rng.randrange(len(ints))] = rng.choice(NUMBERS)
            return
        del node.attribute[place]
        if rng.random() < 0.9:
            node.attribute.append(attribute(name, rng))
    elif kind == "new":
        name = rng.choice(NAMES)
        if all(one.name != name for one in node.attribute):
            node.attribute.append(attribute(name, rng))
    elif kind == "tensor" and tensors:
        tensor = rng.choice(tensors)
        tensor.CopyFrom(numpy_helper.from_array(values(numpy_helper.to_array(tensor), rng), tensor.name))
    elif kind == "wires":
        wires(file, node, rng)
    elif rng.random() < 0.3:
        file.opset_import[0].version = rng.choice((1, 7, 9, 10, 11, 12, 13, 18, 21))
    elif rng.random() < 0.3:
        sides = file.graph.input[0].type.tensor_type.shape.dim
        sides[rng.randrange(len(sides))].dim_value = rng.choice(NUMBERS)
    elif rng.random() < 0.5:
        node.op_type = rng.choice(nodes).op_type
    else:
        file.graph.output[0].name = rng.choice([name for one in nodes for name in one.output] or ["x"])


def attribute(name: str, rng: random.Random) -> AttributeProto:
    kind = rng.randrange(7)
    if kind < 3:
        ints = [rng.choice(NUMBERS) for _ in range(rng.randrange(6))]
        return helper.make_attribute(name, ints, attr_type=AttributeProto.INTS)
    if kind == 3:
        return helper.make_attribute(name, rng.choice(NUMBERS))
    if kind == 4:
        return helper.make_attribute(name, numpy_helper.from_array(int64(1, 2)))
    return helper.make_attribute(name, rng.choice(REALS) if kind == 5 else rng.choice(TEXTS))


def values(old: Any, rng: random.Random) -> Any:
    """A tensor with one number changed, or of another type or shape."""
    kind = rng.randrange(4)
    if kind == 0:
        with np.errstate(all="ignore"):
            return old.astype(rng.choice(KINDS))
    if kind == 1:
        return np.ones([rng.choice((0, 1, 1, 2, 3, 4, 6, 8)) for _ in range(rng.randrange(6))], old.dtype)
    if kind == 2 and old.ndim:
        return rng.choice((old[:-1], old[None], old.reshape(-1), old.reshape(-1)[:1].reshape(()) if old.size else old))
    changed = np.array(old)
    if changed.size:
        least, most = (
            (np.iinfo(changed.dtype).min, np.iinfo(changed.dtype).max) if changed.dtype.kind in "iu" else (0, 0)
        )
        new = rng.choice(REALS) if changed.dtype.kind == "f" else min(max(rng.choice(NUMBERS), int(least)), int(most))
        with np.errstate(all="ignore"):
            changed.reshape(-1)[rng.randrange(changed.size)] = new
    return changed


def wires(file: ModelProto, node: Any, rng: random.Random) -> None:
    """Another input, none, or one more; or an output less."""
    known = (
        [name for one in file.graph.node for name in one.output]
        + [one.name for one in file.graph.initializer]
        + ["x", ""]
    )
    kind = rng.randrange(6)
    if kind == 0 and node.input:
        del node.input[rng.randrange(len(node.input)) :]
    elif kind == 1:
        node.input.append(rng.choice(known))
    elif kind == 2:
        del node.output[rng.randrange(len(node.output) + 1) :]
    elif kind == 3 and node.output:
        node.output[rng.randrange(len(node.output))] = ""
    elif node.input:
        node.input[rng.randrange(len(node.input))] = rng.choice(known)
