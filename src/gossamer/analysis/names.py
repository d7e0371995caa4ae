"""The field's names of operators and layers: "max pool 3x3 /2" in place of "max_pool2d_with_indices"."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gossamer.analysis.graph import Graph, Node

# operator of torch -> the layer's usual name; of the others the underscores become spaces
OPERATOR_NAMES = {
    "_adaptive_avg_pool2d": "average pool",
    "_adaptive_avg_pool3d": "average pool",
    "_native_batch_norm_legit_no_training": "batch norm",
    "_prelu_kernel": "prelu",
    "_safe_softmax": "softmax",
    "_to_copy": "cast",
    "_unsafe_view": "view",
    "_upsample_bicubic2d_aa": "bicubic resize",
    "_upsample_bilinear2d_aa": "bilinear resize",
    "adaptive_max_pool2d": "max pool",
    "addmm": "linear",
    "addmv": "matrix-vector product",
    "amax": "maximum",
    "amin": "minimum",
    "avg_pool2d": "average pool",
    "avg_pool3d": "average pool",
    "baddbmm": "matrix product",
    "bmm": "matrix product",
    "cat": "concat",
    "clamp_max": "clamp",
    "clamp_min": "clamp",
    "clone": "copy",
    "col2im": "fold",
    "constant_pad_nd": "pad",
    "convolution": "conv",
    "cumsum": "cumulative sum",
    "deform_conv2d": "deformable conv",
    "empty_like": "empty",
    "full_like": "full",
    "ge": "greater or equal",
    "grid_sampler_2d": "bilinear sampling",
    "gt": "greater",
    "hardtanh": "relu6",
    "im2col": "unfold",
    "index_select": "gather",
    "le": "less or equal",
    "linalg_vector_norm": "vector norm",
    "log_sigmoid_forward": "log sigmoid",
    "lt": "less",
    "max_pool2d": "max pool",
    "max_pool2d_with_indices": "max pool",
    "max_pool3d_with_indices": "max pool",
    "mm": "linear",
    "mv": "matrix-vector product",
    "native_batch_norm": "batch norm",
    "native_channel_shuffle": "channel shuffle",
    "native_dropout": "dropout",
    "native_group_norm": "group norm",
    "native_layer_norm": "layer norm",
    "ne": "not equal",
    "neg": "negate",
    "new_empty": "empty",
    "new_full": "full",
    "new_ones": "ones",
    "new_zeros": "zeros",
    "norm": "vector norm",
    "ones_like": "ones",
    "reflection_pad1d": "reflection pad",
    "reflection_pad2d": "reflection pad",
    "replication_pad2d": "replication pad",
    "rrelu_with_noise": "rrelu",
    "rsub": "sub",
    "split_with_sizes": "split",
    "std": "standard deviation",
    "t": "transpose",
    "unsafe_split": "split",
    "upsample_bicubic2d": "bicubic resize",
    "upsample_bilinear2d": "bilinear resize",
    "upsample_linear1d": "linear resize",
    "upsample_nearest1d": "nearest resize",
    "upsample_nearest2d": "nearest resize",
    "upsample_trilinear3d": "trilinear resize",
    "var": "variance",
    "var_mean": "variance and mean",
    "zeros_like": "zeros",
}
WRAPPERS = ("maps", "trunk", "backbone", "body")  # modules that hold a whole network beside a head
SPATIAL = {"mean": "global average pool", "amax": "global max pool"}  # over rows and columns


def operator_name(operator: str) -> str:
    """ "aten::native_batch_norm" -> "batch norm"; "onnx::GridSample" -> "GridSample"; "hardswish" as it is."""
    plain = operator.rsplit("::", 1)[-1]
    return OPERATOR_NAMES.get(plain) or plain.strip("_").replace("_", " ") or operator


def node_name(graph: Graph, node: Node) -> str:
    """An operation with its window, stride (/2) and dilation: "conv 3x3 depthwise /2", "max pool 3x3 /2", "relu6"."""
    at = node.attributes
    if node.op == "convolution":
        return _convolution(graph, node)
    if node.op.startswith("clamp") and at.get("min") == 0:
        return {6: "relu6", None: "relu"}.get(at.get("max"), "clamp")
    if node.op == "hardtanh" and (at.get("min_val", 0), at.get("max_val", 6)) != (0, 6):
        return "hardtanh"
    name = operator_name(node.op)
    if "kernel_size" in at:
        kernel = _sides(at["kernel_size"])
        stride = max(_sides(at.get("stride") or kernel))
        return f"{name} {'x'.join(map(str, kernel))}" + (f" /{stride}" if stride > 1 else "")
    shape = graph.values[node.outputs[0]].shape if node.outputs else ()
    rank = len(graph.values[node.inputs[0]].shape) if node.inputs else 0
    if node.op == "_adaptive_avg_pool2d" and shape[-2:] == (1, 1):
        return "global average pool"
    if node.op in SPATIAL and rank == 4 and {axis % rank for axis in _sides(at.get("dim") or ())} == {2, 3}:
        return SPATIAL[node.op]
    return name


def layer_name(graph: Graph, nodes: Sequence[Node]) -> str:
    """Operations that form a layer: "conv 3x3 + norm + relu6". Behind another operation every normalisation is "norm"."""
    names = [node_name(graph, node) for node in nodes]
    return " + ".join("norm" if name.endswith(" norm") and len(names) > 1 else name for name in names)


def layer_path(peak_layer: str) -> str:
    """`Cost.peak_layer` with the operator's usual name: "stem.conv convolution" -> "stem.conv (conv)"."""
    path, _, operator = peak_layer.rpartition(" ")
    return f"{path} ({operator_name(operator)})" if path else operator_name(operator) if operator else ""


def stage_of(layer: str) -> str:
    """The part of a network a layer belongs to: "stages.2" of "stages.2.0.expand.conv", "head" of "head.fc".

    Of a detector or segmenter, whose backbone is one module: "stages.2" of "maps.stages.2.0.expand.conv".
    """
    parts = layer.split(".")
    if parts[0] in WRAPPERS and len(parts) > 1:
        parts = parts[1:]
    numbered = len(parts) > 1 and parts[1].isdecimal()
    return ".".join(parts[: 1 + numbered]) or "(forward)"


def _convolution(graph: Graph, node: Node) -> str:
    weight, image = graph.values[node.inputs[1]].shape, graph.values[node.inputs[0]].shape
    at = node.attributes
    groups = int(at.get("groups", 1))
    name = f"{'transposed ' if at['transposed'] else ''}conv {'x'.join(map(str, weight[2:]))}"
    if groups > 1:
        name += " depthwise" if len(image) > 1 and groups == image[1] else f" groups {groups}"
    stride, dilation = max(at["stride"]), max(at["dilation"])
    return name + (f" /{stride}" if stride > 1 else "") + (f" dilated {dilation}" if dilation > 1 else "")


def _sides(value: Any) -> tuple[int, ...]:
    """A window's sides, or the axes of a reduction; one number of a window is both of its sides."""
    if isinstance(value, int):
        return value, value
    return tuple(value) if len(value) != 1 else (value[0], value[0])
