"""What processors dislike: ragged channels, expensive passes over memory, arithmetic without a cheap form."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from gossamer.adviser.rule import Candidate, Change, by_cost, one
from gossamer.adviser.subject import BATCH_NORMS, NORMS, LayerFacts, Subject
from gossamer.host.text import counted
from gossamer.networks.registry import NETWORKS

# activations that need an exponential; of the others a few comparisons and products are enough
EXPONENTIAL = frozenset("celu elu erf exp gelu log_sigmoid_forward mish selu sigmoid silu softplus tanh".split())
EXP_COST = 16  # instructions of a vectorised exponential and division, beside one multiply-add
# operations that neither the native engine nor ONNX Runtime computes in int8: they convert to float and back
FLOAT_ONLY = frozenset(
    """_prelu_kernel _softmax baddbmm bmm celu elu erf gelu grid_sampler_2d log_sigmoid_forward mish native_group_norm
    native_layer_norm selu softplus torchvision::deform_conv2d upsample_bicubic2d onnx::InstanceNormalization
    onnx::LayerNormalization onnx::GroupNormalization""".split()
)


def ragged(subject: Subject) -> Iterator[Candidate]:
    """Convolutions of maps: the lanes that stay empty in the last vector of output channels, over the channels.

    The cost is that of the multiply-adds that the empty lanes compute for nothing.
    """
    last = max((each.index for each in subject.layers if each.macs), default=-1)
    for each in subject.layers:
        if each.kind == "conv" and each.grid_out not in ((), (1, 1)) and each.index != last:
            waste = -(-each.c_out // subject.lanes) * subject.lanes / each.c_out - 1
            detail = f"{each.c_out} channels in vectors of {subject.lanes}"
            yield one(each, waste, waste * each.macs / subject.macs, detail)


def depthwise_bytes(subject: Subject) -> Iterator[Candidate]:
    """All depthwise convolutions: their fraction of the bytes over their fraction of the multiply-adds."""
    layers = [each for each in subject.layers if each.depthwise and each.grid_out not in ((), (1, 1))]
    moved, macs = sum(each.moved for each in layers) / subject.moved, sum(each.macs for each in layers) / subject.macs
    if layers and macs:
        yield Candidate(
            tuple(sorted((each.index for each in layers), key=lambda index: -subject.layers[index].moved)),
            moved / macs,
            moved,
            f"{100 * moved:.0f} % of the bytes for {100 * macs:.1f} % of the multiply-adds",
        )


def _gated(subject: Subject) -> Iterator[LayerFacts]:
    """Products of a map with one number per channel."""
    for each in subject.layers:
        if each.kind == "mul" and each.grid_out not in ((), (1, 1)):
            shapes = [subject.graph.values[index].shape for index in each.layer.nodes[0].inputs]
            if any(len(shape) == 4 and shape[2:] == (1, 1) and shape[1] > 1 for shape in shapes):
                yield each


def large_gates(subject: Subject) -> Iterator[Candidate]:
    """Squeeze-and-excitation: the rows of the map that it reads twice more."""
    for each in _gated(subject):
        maps = set(each.layer.inputs)
        pools = [one for one in subject.layers if one.kind == "global pool" and maps & set(one.layer.inputs)]
        moved = each.moved + sum(pool.moved for pool in pools)
        yield one(
            each,
            min(each.grid_out),
            moved / subject.moved,
            f"{each.c_out} channels at {each.grid_out[0]}x{each.grid_out[1]}",
        )


def exponentials(subject: Subject) -> Iterator[Candidate]:
    """Activations of maps with an exponential: how many there are for 1000 multiply-adds of the layer before."""
    places = [each for each in subject.layers if each.act in EXPONENTIAL and each.grid_out not in ((), (1, 1))]
    whole = subject.macs + EXP_COST * sum(each.size for each in places)
    for each in places:
        maker = each if each.macs else subject.source(each)
        while maker is not None and not maker.macs and maker.kind in ("norm", "activation"):
            maker = subject.source(maker)
        macs = maker.macs if maker is not None else 0
        figure = 1000 * each.size / macs if macs else 1000.0
        yield one(each, figure, EXP_COST * each.size / whole, f"{each.act} of {each.size:,} values")


def float_only(subject: Subject) -> Iterator[Candidate]:
    """Layers of maps with an operation that has no int8 kernel: the bytes that they move, of the whole."""
    layers = [
        each
        for each in subject.layers
        if each.grid_out not in ((), (1, 1)) and any(node.op in FLOAT_ONLY for node in each.layer.nodes)
    ]
    part = sum(each.moved for each in layers) / subject.moved
    if layers:
        ops = sorted({node.op for each in layers for node in each.layer.nodes if node.op in FLOAT_ONLY})
        yield Candidate(by_cost(layers), part, part, ", ".join(ops))


def useless_bias(subject: Subject) -> Iterator[Candidate]:
    """Convolutions and linear layers with a norm behind: the biases that the norm takes away again."""
    for each in subject.layers:
        if each.kind in ("conv", "linear"):
            behind = each.norm and any(node.op in BATCH_NORMS for node in each.layer.nodes[1:2])
            biases = each.c_out if each.bias and behind else 0
            yield one(each, biases, biases / subject.params, f"{biases} biases")


def unfused(subject: Subject) -> Iterator[Candidate]:
    """Norms that cannot be folded into a convolution before them: the bytes that they move, of the whole."""
    layers = []
    for each in subject.layers:
        norms = [node.op for node in each.layer.nodes if node.op in NORMS and len(each.grid_out) == 2]
        first = [node.op for node in each.layer.nodes[1:2]]
        folded = each.kind == "conv" and len(norms) == 1 and norms == first and first[0] in BATCH_NORMS
        if norms and not folded:
            layers.append(each)
    # a norm inside the layer of a convolution reads and writes the map once more
    moved = sum(each.moved if each.kind == "norm" else 8 * each.size for each in layers)
    part = min(1.0, moved / (subject.moved + sum(8 * each.size for each in layers if each.kind != "norm")))
    if layers:
        yield Candidate(
            by_cost(layers),
            part,
            part,
            counted(len(layers), "norm in a pass of its own", "norms in passes of their own"),
        )


def memory_peak(subject: Subject) -> Iterator[Candidate]:
    """The layer with most live activations: its bytes over those of the median layer."""
    live = [each.layer.live_bytes for each in subject.layers if each.macs]
    if len(live) > 2:
        peak = max(subject.layers, key=lambda each: each.layer.live_bytes)
        ratio = peak.layer.live_bytes / max(1.0, statistics.median(live))
        yield one(peak, ratio, peak.macs / subject.macs, f"{peak.layer.live_bytes:,} bytes live")


def round_channels(subject: Subject) -> Change:
    return Change(f"channels in multiples of {subject.lanes}: blocks.width.make_divisible(channels, {subject.lanes})")


def fewer_depthwise(subject: Subject) -> Change:
    return Change(
        "dense 3x3 in the place of expansion and depthwise convolution on the largest maps, or an earlier stride"
    )


def smaller_gates(subject: Subject) -> Change:
    plain = {"seresnet50": "resnet50", "cbam_resnet50": "resnet50", "semnasnet_100": "mnasnet_100"}
    if subject.network in plain:
        name = plain[subject.network]
        return Change(f"none: the network {name}", name, dict(subject.arguments))
    if subject.arguments.get("attention", "none") != "none":
        return Change("attention=none", subject.network, {**subject.arguments, "attention": "none"})
    return Change("squeeze-and-excitation only on maps of 28 rows and fewer")


def cheap_activation(subject: Subject) -> Change:
    if subject.network in NETWORKS:
        return Change("act=hard_swish", subject.network, {**subject.arguments, "act": "hard_swish"})
    return Change("hard_swish for silu, gelu and mish; hard_sigmoid for sigmoid; relu for elu (--act)")


def int8_forms(subject: Subject) -> Change:
    if subject.arguments.get("norm", "batch") != "batch":
        return Change("norm=batch", subject.network, {**subject.arguments, "norm": "batch"})
    return Change("batch norm for other norms, relu, relu6 or hard_swish for the activation, plain convolutions")


def drop_bias(subject: Subject) -> Change:
    if subject.arguments.get("bias") is True:
        return Change("bias=False", subject.network, {**subject.arguments, "bias": False})
    return Change("bias=False in the convolution; the export folds the norm, so a file does not pay for it")


def foldable_norm(subject: Subject) -> Change:
    if subject.arguments.get("norm", "batch") != "batch":
        return Change("norm=batch", subject.network, {**subject.arguments, "norm": "batch"})
    return Change("batch norm right behind the convolution: blocks.conv.ConvNormAct")


def lower_peak(subject: Subject) -> Change:
    return Change("an earlier stride, or fewer channels in this layer alone; a smaller input lowers all layers")
