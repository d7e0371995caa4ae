"""Networks in int8 on OpenVINO: whether this processor adds up their products exactly, and which layers run in int8."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np

from gossamer.openvino.core import core_of

WIDEST = 64  # of a weight: two products of such with bytes of up to 255, added up, stay below 2**15
EXACT = {"LP_TRANSFORMS_MODE": "NO"}  # int8 layers in float32, rounded where the file rounds
REMARK = (
    "its int8 in float32 arithmetic: this processor has no VNNI, without which OpenVINO adds up products in 16 bits"
)
LAYERS = ("Convolution", "Deconvolution", "FullyConnected", "MatMul")
BYTES = ("i8", "u8")


def exact_settings(openvino: ModuleType, model: Any) -> dict[str, str]:
    """What a network of this `openvino.Model` is compiled with so that its outputs are those of the file on this processor."""
    return EXACT if may_overflow(model) and saturates(openvino) else {}


def may_overflow(model: Any) -> bool:
    """Whether two products of bytes of a layer may together leave 16 bits.

    Of weights beyond `WIDEST`; of maps of int8, for which oneDNN moves the bytes up by 128 and halves the weights.
    """
    for node in model.get_ops():
        kind, of = node.get_type_name(), node.get_output_size() and node.output(0).get_element_type().get_type_name()
        if kind == "Constant" and of in BYTES:
            values = node.data
            # one number alone is the zero point of a map
            if values.size > 1 and np.abs(values.astype(np.int16)).max() > WIDEST:
                return True
        elif kind in ("Convert", "FakeQuantize") and of == "i8" and not _constant(node):
            return True
    return False


def _constant(node: Any) -> bool:
    """Whether the first input of a node is a constant."""
    return bool(node.input_value(0).get_node().get_type_name() == "Constant")


@functools.cache
def saturates(openvino: ModuleType) -> bool:
    """Whether OpenVINO's int8 convolutions are wrong for large bytes on this processor: one of them is tried."""
    import openvino.opset13 as ops

    channels, byte, weight = 16, 255, 127
    image = ops.parameter([1, channels, 4, 4], np.float32)
    low, high = (ops.constant(np.float32(value)) for value in (0, byte))
    rounded = ops.fake_quantize(image, low, high, low, high, 256)
    weights = ops.convert(ops.constant(np.full((channels, channels, 1, 1), weight, np.int8)), "f32")
    scaled = ops.multiply(weights, ops.constant(np.ones((channels, 1, 1, 1), np.float32)))
    layer = ops.convolution(rounded, scaled, [1, 1], [0, 0], [0, 0], [1, 1])
    compiled = core_of(openvino).compile_model(openvino.Model([layer], [image], "products"), "CPU", {})
    sums = compiled([np.full((1, channels, 4, 4), byte, np.float32)])[compiled.output(0)]
    return bool(np.abs(sums / (channels * byte * weight) - 1).max() > 1e-3)


def precision_notes(openvino: ModuleType, xml: bytes, weights: bytes) -> tuple[str, ...]:
    """Of an IR in int8, how it is computed on this processor: a line for people. None of one in float32."""
    if b'type="FakeQuantize"' not in xml:
        return ()
    core, numbers = core_of(openvino), np.frombuffer(weights, np.uint8).copy()
    model = core.read_model(xml, openvino.Tensor(numbers, shared_memory=True))
    if exact_settings(openvino, model):
        return (f"{REMARK}; `gossamer quantize --weight-bits 7` writes files for such processors",)
    inside, layers = layers_in_int8(core.compile_model(model, "CPU", {}))
    return (f"{inside} of {layers} layers with weights run in int8 on this processor",)


def layers_in_int8(compiled: Any) -> tuple[int, int]:
    """Of a compiled network: how many of its convolutions and fully connected layers run in int8, and how many it has."""
    precisions = list(_kernels(compiled.get_runtime_model()))
    return sum(one.endswith("i8") for one in precisions), len(precisions)


def _kernels(model: Any) -> Iterator[str]:
    """The kernel of each layer as OpenVINO calls it, whose end is the type of the numbers that it multiplies."""
    for node in model.get_ops():
        about = node.get_rt_info()
        if about["layerType"].astype(str) in LAYERS:
            yield about["primitiveType"].astype(str).lower()
