"""ONNX nodes to operations of the engine: the table of handlers, one for each operator, and the run over all nodes."""

from __future__ import annotations

import numpy as np

from gossamer.compile import (
    arithmetic,
    concat,
    conv_pool,
    decompose,
    dense,
    distances,
    elementwise,
    gates,
    heads,
    layout_ops,
    norms,
    padding,
    quantised,
    reductions,
    resizing,
    schema,
    shapes,
    slices,
    stacks,
)
from gossamer.compile.attributes import check, from_the_first
from gossamer.compile.channels_last import lower_in_order
from gossamer.compile.constants import fold
from gossamer.compile.lowering import Handler, Lowering
from gossamer.compile.program import Program
from gossamer.errors import InputError
from gossamer.host.text import counted
from gossamer.modelfile.onnx import FLOAT, OnnxModel

RESHAPES = ("Flatten", "Squeeze")


HANDLERS: dict[str, Handler] = {
    "Abs": arithmetic.absolute,
    "Add": elementwise.add,
    "AveragePool": conv_pool.pool,
    "BatchNormalization": conv_pool.batch_norm,
    "Cast": arithmetic.cast,
    "CastLike": arithmetic.cast_like,
    "Clip": elementwise.clip,
    "Concat": concat.concat,
    "DequantizeLinear": quantised.dequantise,
    "Conv": conv_pool.convolution,
    "ConvTranspose": heads.conv_transpose,
    "DepthToSpace": heads.depth_to_space,
    "Div": elementwise.subtract_or_divide,
    "Expand": arithmetic.expand,
    "Gather": slices.lower_gather,
    "Gemm": dense.gemm,
    "GlobalAveragePool": conv_pool.global_average,
    "GlobalMaxPool": reductions.largest,
    "GroupNormalization": norms.group,
    "InstanceNormalization": norms.instance,
    "LRN": norms.local_response,
    "LayerNormalization": norms.layer,
    "LeakyRelu": elementwise.leaky_relu,
    "LogSoftmax": arithmetic.log_softmax,
    "LpNormalization": norms.length,
    "MatMul": dense.gemm,
    "Max": arithmetic.extreme,
    "MaxPool": conv_pool.pool,
    "Min": arithmetic.extreme,
    "Mul": elementwise.multiply,
    "PRelu": gates.sloped,
    "Pad": padding.pad,
    "Pow": arithmetic.power,
    "QuantizeLinear": quantised.quantise,
    "ReduceMean": conv_pool.reduce_mean,
    **{f"Reduce{kind}": reductions.reduce for kind in ("L1", "L2", "LogSumExp", "Max", "Min", "Prod", "SumSquare")},
    "ReduceSum": stacks.total,
    "Reshape": concat.reshape,
    "Resize": resizing.resize,
    "Shape": shapes.lower_shape,
    "Size": shapes.lower_shape,
    "Slice": concat.split_or_slice,
    "Softmax": heads.lower_softmax,
    "Split": concat.split_or_slice,
    "Sub": elementwise.subtract_or_divide,
    "Transpose": layout_ops.transpose,
    "Unsqueeze": distances.unsqueeze,
    "Upsample": resizing.resize,
    **dict.fromkeys(RESHAPES, layout_ops.lower_reshape),
    **dict.fromkeys(elementwise.UNARY, elementwise.unary_activation),
    **dict.fromkeys(arithmetic.UNARY, arithmetic.unary),
    "HardSigmoid": elementwise.hard_sigmoid,
    "Identity": Lowering.pass_on,
    "Dropout": elementwise.dropout,
}


def lower(onnx: OnnxModel) -> Program:
    """The program of an ONNX graph. Raises InputError where the engine lacks an operator."""
    with np.errstate(all="ignore"):  # infinities and NaN among weights flow on, as in every runtime
        return _run(Lowering(decompose.decomposed(onnx), HANDLERS, shapes.ARITHMETIC))


def _run(low: Lowering) -> Program:
    """All nodes in their order. Raises InputError, naming the node, where the engine has no operation for it."""
    if low.onnx.opset > schema.LATEST_OPSET:
        known = f"1 to {schema.LATEST_OPSET}"
        raise InputError(f"ONNX operator set {low.onnx.opset}", known, "export the network for one of these")
    for node in low.onnx.nodes:  # of all, as handlers look at what comes behind theirs
        check(low, node)
    values, operations = low.program.values, low.program.operations
    for node in low.onnx.nodes:
        quantised.follow_bytes(low, node)
        if id(node) in low.skip or fold(low, node) or shapes.follow(low, node):
            continue
        handler = low.handlers.get(node.op)
        if handler is None:
            low.refuse(node, "the engine has no such operator")
        before = len(values), len(operations)
        forward = from_the_first(low, node)
        if not lower_in_order(low, forward, handler):
            handler(low, forward)
        for value in values[before[0] :]:
            if not value.fits():
                low.refuse(node, f"a map of {counted(value.c, 'channel')} and {value.h} x {value.w}")
        for operation in operations[before[1] :]:
            operation.name = node.name
            if not operation.fits():
                low.refuse(
                    node,
                    f"a kernel_shape of {operation.kernel}, strides {operation.stride}, dilations {operation.dilation} or pads {operation.pads}",
                )
    for one in low.onnx.outputs:
        if one.type not in (0, FLOAT) or one.name in low.bytes:
            raise InputError(
                f"an output {one.name[:60]!r} of type {one.type}",
                "float32 (1)",
                "name the outputs, or leave that one out",
            )
    low.program.outputs = [low.output(one.name) for one in low.onnx.outputs]
    if not operations:
        raise InputError("a network that computes nothing", "one operation at least", "leave it out")
    return low.program
