"""A layer as several smaller ones that compute nearly the same: the decompositions that `changes.json` replays.

    svd      1x1 convolution or fully connected layer -> two of them, by the singular value decomposition
             (Denton et al. 2014, arXiv 1404.0736). Ranks: (channels between the two,)
    tucker   k x k -> 1x1, k x k, 1x1, by Tucker-2 with a few rounds of HOOI (Kim et al. 2016, arXiv 1511.06530).
             Ranks: (input channels of the k x k, its output channels)
    cp       k x k -> 1x1, depthwise k x k, 1x1: a sum of rank-one terms over input, position and output, by alternating
             least squares (Lebedev et al. 2015, arXiv 1412.6553, with the two spatial axes as one). Ranks: (terms,)
    spatial  k x k -> k x 1, 1 x k (Jaderberg et al. 2014, arXiv 1405.3866, scheme 2). Ranks: (channels between,)
    stack    5x5 and 7x7 -> 3x3 layers, by alternating least squares on the kernel, which is the layer's function on white
             inputs (the stacks of Simonyan and Zisserman 2015, arXiv 1409.1556, without activations between). Two
             layers, for a 7x7 of stride 1 three. Ranks: (channels between, ...)

Each is linear, has the bias in its last layer and the padding where it changes nothing at the borders. At full ranks
(`full_ranks`) each equals the layer. The values follow from the layer's weights alone, so replaying gives the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from gossamer.networks.lowrank import Factors, cp, spatial, spectrum, svd, tucker
from gossamer.networks.stacks import full_two, stack

METHODS = ("svd", "tucker", "cp", "spatial", "stack")
Pair = tuple[int, int]
Ranks = tuple[int, ...]


def methods_of(layer: nn.Module) -> tuple[str, ...]:
    """The decompositions that a layer takes; () for grouped convolutions and other layers."""
    if type(layer) is nn.Linear:
        return ("svd",)
    if type(layer) is not nn.Conv2d or layer.groups != 1 or _padding(layer) is None:
        return ()
    kernel = layer.kernel_size
    if kernel == (1, 1):
        return ("svd",)
    methods = ["tucker", "cp"]
    if min(kernel) > 1:
        methods.append("spatial")
    if kernel in ((5, 5), (7, 7)) and (layer.stride == (1, 1) or (layer.stride == (2, 2) and layer.dilation == (1, 1))):
        methods.append("stack")
    return tuple(methods)


def why_not(layer: nn.Module) -> str:
    """Why a layer takes none, for people."""
    if isinstance(layer, nn.Conv2d) and layer.groups > 1:
        depthwise = layer.groups == layer.in_channels
        return f"a {'depthwise' if depthwise else 'grouped'} convolution"
    if isinstance(layer, nn.Conv2d) and type(layer) is nn.Conv2d:
        return f"a convolution with padding {layer.padding!r} of {layer.padding_mode}"
    return f"a {type(layer).__name__}"


def full_ranks(layer: nn.Module, method: str, ranks: Ranks = ()) -> Ranks:
    """The largest ranks, at which the layers together equal the layer; of a stack of three the second follows from `ranks`."""
    weight = _kernel(layer)
    out, into, rows, columns = weight.shape
    if method == "svd":
        return (min(out, into * rows * columns),)
    if method == "tucker":
        return (min(into, out * rows * columns), min(out, into * rows * columns))
    if method == "cp":
        return (min(rows * columns * min(out, into), out * into),)
    if method == "spatial":
        return (min(into * rows, out * columns),)
    step, three = _step(layer), stack_layers(layer) == 3
    first = full_two(out, into, step, 5 if three else 3)
    return (first, full_two(out, ranks[0] if ranks else first, 1, 3)) if three else (first,)


def ranks_fit(layer: nn.Module, method: str, ranks: Sequence[int]) -> bool:
    """Whether a layer takes this decomposition at these ranks."""
    if method not in methods_of(layer):
        return False
    most = full_ranks(layer, method, tuple(ranks))
    return len(ranks) == len(most) and all(1 <= rank <= full for rank, full in zip(ranks, most, strict=True))


def stack_layers(layer: nn.Module) -> int:
    """How many 3x3 layers a stack has: three for a 7x7 of stride 1, else two."""
    assert isinstance(layer, nn.Conv2d), "a stack is of a convolution"
    return 3 if layer.kernel_size == (7, 7) and layer.stride == (1, 1) else 2


def skeleton(layer: nn.Module, method: str, ranks: Ranks) -> nn.Sequential:
    """The layers in place of `layer`, in its dtype and on its device, with the random weights of new layers."""
    weight = layer.weight
    assert isinstance(weight, Tensor), "a convolution or a fully connected layer"
    bias = layer.bias is not None
    parts: list[nn.Module]
    if isinstance(layer, nn.Linear):
        parts = [
            nn.Linear(layer.in_features, ranks[0], bias=False),
            nn.Linear(ranks[0], layer.out_features, bias=bias),
        ]
        return nn.Sequential(*parts).to(weight.device, weight.dtype)
    assert isinstance(layer, nn.Conv2d), "ranks_fit was asked"
    into, out, kernel, stride, dilation = (
        layer.in_channels,
        layer.out_channels,
        (layer.kernel_size[0], layer.kernel_size[1]),
        (layer.stride[0], layer.stride[1]),
        (layer.dilation[0], layer.dilation[1]),
    )
    padding = _padding(layer)
    assert padding is not None, "ranks_fit was asked"
    if method == "svd":
        parts = [
            nn.Conv2d(into, ranks[0], 1, stride, padding, bias=False),
            nn.Conv2d(ranks[0], out, 1, bias=bias),
        ]
    elif method == "tucker":
        parts = [
            nn.Conv2d(into, ranks[0], 1, bias=False),
            nn.Conv2d(ranks[0], ranks[1], kernel, stride, padding, dilation, bias=False),
            nn.Conv2d(ranks[1], out, 1, bias=bias),
        ]
    elif method == "cp":
        parts = [
            nn.Conv2d(into, ranks[0], 1, bias=False),
            nn.Conv2d(ranks[0], ranks[0], kernel, stride, padding, dilation, groups=ranks[0], bias=False),
            nn.Conv2d(ranks[0], out, 1, bias=bias),
        ]
    elif method == "spatial":
        tall = ((kernel[0], 1), (stride[0], 1), (padding[0], 0), (dilation[0], 1))
        wide = ((1, kernel[1]), (1, stride[1]), (0, padding[1]), (1, dilation[1]))
        parts = [
            nn.Conv2d(into, ranks[0], *tall, bias=False),
            nn.Conv2d(ranks[0], out, *wide, bias=bias),
        ]
    else:  # all the padding is the first's, or the values beyond the border would be other ones
        around = tuple(side + _ring(layer) for side in padding)
        channels = [into, *ranks, out]
        parts = [
            nn.Conv2d(
                channels[number],
                channels[number + 1],
                3,
                stride if number == 0 else 1,
                (around[0], around[1]) if number == 0 else 0,
                dilation,
                bias=bias and number == len(ranks),
            )
            for number in range(len(ranks) + 1)
        ]
    return nn.Sequential(*parts).to(weight.device, weight.dtype)


@torch.no_grad()
def decomposed(layer: nn.Module, method: str, ranks: Ranks) -> nn.Sequential:
    """The layers in place of `layer` with the values that are nearest to it. ranks: as `ranks_fit` allows."""
    result = skeleton(layer, method, ranks)
    weights, _ = factors(layer, method, ranks)
    for part, weight in zip(result, weights, strict=True):
        assert isinstance(part.weight, Tensor), "a convolution or a fully connected layer"
        part.weight.copy_(weight.reshape(part.weight.shape))
    if layer.bias is not None:
        assert isinstance(result[-1].bias, Tensor) and isinstance(layer.bias, Tensor), "the skeleton has one"
        result[-1].bias.copy_(layer.bias)
    assert isinstance(layer.weight, Tensor), "a convolution or a fully connected layer"
    return result.requires_grad_(layer.weight.requires_grad).train(layer.training)


@torch.no_grad()
def kept_energy(layer: nn.Module, method: str, ranks: Ranks) -> float:
    """The part of the squares of a layer's weights that a decomposition keeps, at most 1."""
    weight = _kernel(layer)
    _, kernel = factors(layer, method, ranks)
    total = float(weight.square().sum())
    return 1 - float((weight - kernel).square().sum()) / total if total > 0 else 1.0


def factors(layer: nn.Module, method: str, ranks: Ranks) -> Factors:
    """The weights of the layers in float64, and the kernel (out, in, rows, columns) that they have together."""
    weight = _kernel(layer)
    if method == "svd":
        return svd(weight, ranks[0])
    if method == "tucker":
        return tucker(weight, ranks[0], ranks[1])
    if method == "cp":
        return cp(weight, ranks[0])
    if method == "spatial":
        return spatial(weight, ranks[0])
    return stack(functional.pad(weight, [_ring(layer)] * 4), ranks, _step(layer), _ring(layer))


@torch.no_grad()
def spectra(layer: nn.Module, method: str) -> list[Tensor]:
    """For each rank of svd, tucker and spatial the squared singular values, descending, that it cuts."""
    weight = _kernel(layer)
    out, into, rows, columns = weight.shape
    if method == "svd":
        return [spectrum(weight.reshape(out, -1))]
    if method == "tucker":
        return [spectrum(weight.transpose(0, 1).reshape(into, -1)), spectrum(weight.reshape(out, -1))]
    assert method == "spatial", "the others have no singular values"
    return [spectrum(weight.permute(1, 2, 0, 3).reshape(into * rows, out * columns))]


# the layer


def _kernel(layer: nn.Module) -> Tensor:
    """The weights (out, in, rows, columns) in float64."""
    weight = layer.weight
    assert isinstance(weight, Tensor), "a convolution or a fully connected layer"
    kernel = weight.detach().double()
    return kernel.reshape(*kernel.shape, 1, 1) if kernel.dim() == 2 else kernel


def _padding(layer: nn.Conv2d) -> Pair | None:
    """The zeros around the input, None where they are no zeros or not the same on both sides."""
    reach = [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
    if layer.padding == "valid":
        return (0, 0)
    if layer.padding == "same":
        zeros = (reach[0] // 2, reach[1] // 2) if not any(side % 2 for side in reach) else None
    else:
        assert not isinstance(layer.padding, str), "torch knows two words"
        zeros = (layer.padding[0], layer.padding[1])
    return zeros if layer.padding_mode == "zeros" or zeros == (0, 0) else None


def _step(layer: nn.Module) -> int:
    """By how many places of the kernel the second layer of a stack moves on."""
    assert isinstance(layer, nn.Conv2d), "a stack is of a convolution"
    return layer.stride[0]


def _ring(layer: nn.Module) -> int:
    """Zeros around a kernel: two 3x3 of which the first has stride 2 see 7x7, also where the layer sees 5x5."""
    assert isinstance(layer, nn.Conv2d), "a stack is of a convolution"
    return 1 if layer.kernel_size == (5, 5) and layer.stride == (2, 2) else 0
