"""What a network costs: parameters, multiply-adds, bytes and memory, layer by layer.

Conventions:
* 1 MAC is 1 multiply-add, half of what `torch.utils.flop_counter` counts. Convolutions and matrix products are
  counted, over all output positions with the padding, and the four products of each value that is read between pixels
  at a place that was computed (deformable convolution); pointwise operations, normalisation, pooling and resizing by a
  fixed factor count 0.
* Views move no data: they are no layers. An operation that is in none of the tables below is listed in
  `Cost.unknown`, and the MACs of its layer are None.
* Bytes are those of the traced type; each distinct tensor that a layer reads counts once.
* Peak memory is that of activations, the input and the output among them, without weights, constants and the
  scratch of kernels: a tensor is live from the layer that produces it to the last one that reads it. A pointwise
  operation or a normalisation runs in place on an input of the same size that it is the last to read, as in every
  runtime.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import prod
from typing import Any

from torch import nn

from gossamer.analysis.graph import Graph, Node, Value, trace

# ATen operation -> its MACs, from the node's attributes, the shapes of its inputs and the shape of its output.
Formula = Callable[[dict[str, Any], list[tuple[int, ...]], tuple[int, ...]], int]


def _convolution(attributes: dict[str, Any], inputs: list[tuple[int, ...]], output: tuple[int, ...]) -> int:
    """Each output position takes Cin/g * prod(k) a channel; transposed: each input position gives Cout/g * prod(k).

    weight: (Cout, Cin/g, *k), transposed (Cin, Cout/g, *k).
    """
    image, weight = inputs[0], inputs[1]
    return prod(image if attributes["transposed"] else output) * prod(weight[1:])


def _product(first: int) -> Formula:
    """(..., m, k) @ (..., k, n), the first of the two being input number `first`."""
    return lambda attributes, inputs, output: prod(inputs[first]) * inputs[first + 1][-1]


def _vector(first: int) -> Formula:
    """(m, k) @ (k), or (k) @ (k)."""
    return lambda attributes, inputs, output: prod(inputs[first])


def _sampling(attributes: dict[str, Any], inputs: list[tuple[int, ...]], output: tuple[int, ...]) -> int:
    """Bilinear (0) reads 4 pixels a value, nearest (1) multiplies nothing, bicubic (2) reads 16."""
    return prod(output) * {0: 4, 1: 0, 2: 16}[attributes.get("interpolation_mode", 0)]


def _deformable(attributes: dict[str, Any], inputs: list[tuple[int, ...]], output: tuple[int, ...]) -> int:
    """The kernel and the bilinear reads: image (N, Cin, H, W), weight (Cout, Cin/g, kh, kw), output (N, Cout, h, w)."""
    image, weight = inputs[0], inputs[1]
    positions = output[0] * prod(output[2:])
    return prod(output) * prod(weight[1:]) + 4 * positions * image[1] * prod(weight[2:])


FORMULAS: dict[str, Formula] = {
    "convolution": _convolution,
    "mm": _product(0),
    "bmm": _product(0),
    "addmm": _product(1),
    "baddbmm": _product(1),
    "grid_sampler_2d": _sampling,
    "mv": _vector(0),
    "dot": _vector(0),
    "addmv": _vector(1),
}

# The same for operations of other libraries that torch may have loaded.
FOREIGN: dict[str, Formula] = {"torchvision::deform_conv2d": _deformable}

# No MACs by convention; one value in, one value out (with broadcasting): may run in place on an input that it is the
# last to read.
POINTWISE = frozenset(
    """
    _native_batch_norm_legit_no_training _prelu_kernel abs add addcdiv addcmul atan ceil celu clamp clamp_max clamp_min
    copy cos div elu eq erf exp fill floor floor_divide ge gelu gt hardsigmoid hardswish hardtanh le leaky_relu lerp log
    log1p log2 log_sigmoid_forward logical_and logical_not logical_or lt masked_fill maximum minimum mish mul
    native_batch_norm native_dropout ne neg pow reciprocal relu remainder round rrelu_with_noise rsqrt rsub selu sigmoid
    sign silu sin softplus sqrt square sub tanh threshold where
    """.split()
)

# No MACs by convention; reductions, pools, normalisation over several values, and what moves or makes data.
MOVING = frozenset(
    """
    _adaptive_avg_pool2d _adaptive_avg_pool3d _log_softmax _safe_softmax _softmax _to_copy _upsample_bicubic2d_aa
    _upsample_bilinear2d_aa adaptive_max_pool2d all amax amin any arange argmax argmin avg_pool2d avg_pool3d bitwise_and
    bitwise_not bitwise_or cat channel_shuffle clone col2im constant_pad_nd cumsum embedding empty empty_like flip full
    full_like gather im2col index index_put index_select linalg_vector_norm logsumexp max
    max_pool2d_with_indices max_pool3d_with_indices mean min native_channel_shuffle native_group_norm native_layer_norm
    new_empty new_full new_ones new_zeros norm ones ones_like pixel_shuffle pixel_unshuffle prod reflection_pad1d
    reflection_pad2d repeat replication_pad2d roll scalar_tensor scatter slice_scatter sort stack std sum topk tril triu
    upsample_bicubic2d upsample_bilinear2d upsample_linear1d upsample_nearest1d upsample_nearest2d upsample_trilinear3d
    var var_mean zero zeros zeros_like
    """.split()
)

# Another look at the same memory.
FREE = frozenset(
    """
    _reshape_alias _unsafe_view alias as_strided detach diagonal expand lift_fresh permute select slice split
    split_with_sizes squeeze t transpose unbind unfold unsafe_split unsqueeze view view_as_real
    """.split()
)


@dataclass(frozen=True)
class LayerCost:
    """One operation that computes or moves data.

    name: path of its module. op: ATen name. params: parameters that no earlier layer uses. macs: None if unknown.
    weight_bytes: parameters, buffers and constants read. read_bytes, write_bytes: activations. live_bytes:
    activations in memory while it runs.
    """

    name: str
    op: str
    output_shape: tuple[int, ...]
    params: int
    macs: int | None
    weight_bytes: int
    read_bytes: int
    write_bytes: int
    live_bytes: int


@dataclass(frozen=True)
class Cost:
    """The cost of one forward pass in eval mode; see the conventions above.

    params: all parameters of the module, `unused_params` of them read by no layer. macs: of the layers that have a
    formula. unknown: operation -> how often it occurs without one. peak_bytes: highest live_bytes, first reached at
    `peak_layer` (its path and operation).
    """

    input_shape: tuple[int, ...]
    layers: tuple[LayerCost, ...]
    params: int
    unused_params: int
    macs: int
    weight_bytes: int
    peak_bytes: int
    peak_layer: str
    unknown: dict[str, int]

    def to_json(self) -> dict[str, Any]:
        """Plain values; sizes in bytes, `macs` in multiply-adds, null where unknown."""
        plain = dataclasses.asdict(self)
        plain["input_shape"] = list(self.input_shape)
        plain["layers"] = [
            {**dataclasses.asdict(layer), "output_shape": list(layer.output_shape)} for layer in self.layers
        ]
        return plain


def cost(network: nn.Module | Graph, input_shape: Sequence[int] = (1, 3, 224, 224)) -> Cost:
    """The cost of a module on one input of `input_shape` (N, C, H, W), or of a graph at the shape it was traced with.

    Raises InputError where the module cannot be traced.
    """
    graph = network if isinstance(network, Graph) else trace(network, input_shape)
    parameters = [value for value in graph.values if value.kind == "parameter" and value.node < 0]
    buffers = [value for value in graph.values if value.kind == "buffer" and value.node < 0]
    live_bytes = _live_bytes(graph)
    size = {value.memory: value.numel for value in parameters}
    layers, seen = [], set[int]()
    for node in graph.nodes:
        if node.op in FREE:
            continue
        used = {value.memory for value in graph.read(node, "parameter")}
        layers.append(_layer(graph, node, sum(size[memory] for memory in used - seen), live_bytes[node.index]))
        seen |= used
    peak = max(layers, key=lambda layer: layer.live_bytes, default=None)
    params = sum(value.numel for value in parameters)
    return Cost(
        input_shape=graph.values[graph.inputs[0]].shape,
        layers=tuple(layers),
        params=params,
        unused_params=params - sum(layer.params for layer in layers),
        macs=sum(layer.macs or 0 for layer in layers),
        weight_bytes=sum(value.bytes for value in parameters + buffers),
        peak_bytes=peak.live_bytes if peak else graph.values[graph.inputs[0]].bytes,
        peak_layer=f"{peak.name} {peak.op}".strip() if peak else "",
        unknown=dict(Counter(layer.op for layer in layers if layer.macs is None)),
    )


def macs(graph: Graph, node: Node) -> int | None:
    """Multiply-adds of one node; None if its operation has no formula."""
    formula = FORMULAS.get(node.op) or FOREIGN.get(node.op)
    if formula is not None:
        shapes = [graph.values[i].shape for i in node.inputs]
        return formula(node.attributes, shapes, graph.values[node.outputs[0]].shape)
    return 0 if node.op in POINTWISE or node.op in MOVING or node.op in FREE else None


def _layer(graph: Graph, node: Node, params: int, live_bytes: int) -> LayerCost:
    written = graph.written(node)
    return LayerCost(
        name=node.module,
        op=node.op,
        output_shape=written[0].shape if written else (),
        params=params,
        macs=macs(graph, node),
        weight_bytes=_bytes(graph.read(node, "parameter", "buffer", "constant")),
        read_bytes=_bytes(graph.read(node, "input", "activation")),
        write_bytes=_bytes(tuple({value.memory: value for value in reversed(written)}.values())),
        live_bytes=live_bytes,
    )


def _bytes(values: Sequence[Value]) -> int:
    return sum(value.bytes for value in values)


def _live_bytes(graph: Graph) -> list[int]:
    """For each node the bytes of the activations that are in memory while it runs."""
    first_nodes: dict[int, int] = {}  # memory of an activation -> node that makes it; 0 for the input
    sizes: dict[int, int] = {}
    for value in graph.values:
        if value.kind in ("input", "activation") and value.memory not in first_nodes:
            first_nodes[value.memory], sizes[value.memory] = max(value.node, 0), value.bytes
    last_nodes = dict(first_nodes)
    for node in graph.nodes:
        if node.op not in FREE:
            last_nodes.update((graph.values[i].memory, node.index) for i in (*node.inputs, *node.outputs))
    last_nodes.update((graph.values[i].memory, len(graph.nodes)) for i in graph.outputs)

    change = [0] * (len(graph.nodes) + 2)
    for memory, first in first_nodes.items():
        change[first] += sizes[memory]
        change[last_nodes[memory] + 1] -= sizes[memory]
    for node in graph.nodes:
        if node.op in POINTWISE and first_nodes[output := graph.values[node.outputs[0]].memory] == node.index:
            read = {value.memory for value in graph.read(node, "activation") if value.memory != output}
            if any(last_nodes[memory] == node.index and sizes[memory] == sizes[output] for memory in read):
                change[node.index] -= sizes[output]
                change[node.index + 1] += sizes[output]
    return list(accumulate(change))
