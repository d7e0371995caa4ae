"""Strides traded for dilation: the same weights, a finer last map.

Where a network would shrink its maps below 1 / output_stride of the input, its layers keep their size, and the
kernels after them reach over as many pixels more. Sampled at every second (fourth, ...) place, the new map holds
the values of the old one. Source: Chen et al., DeepLab (1606.00915), section 3.1; Yu and Koltun (1511.07122).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from gossamer.blocks.pool import DilatedAvgPool2d
from gossamer.errors import SettingsError

PROBE = 2048  # pixels a side of the traced input: so many that no border hides what a layer's stride is
Windowed = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)


def dilate(network: nn.Module, output_stride: int, in_chans: int) -> None:
    """Let no map of `network` be smaller than 1 / `output_stride` of the input, but for those pooled globally.

    Every layer's place is read from the sizes that a trace on shapes alone sees, so that parallel branches need
    no rule of their own. Raises SettingsError unless output_stride is 1, 2, 4, 8, 16 or 32.
    """
    if output_stride not in (1, 2, 4, 8, 16, 32):
        raise SettingsError(f"output_stride: {output_stride!r}", "1, 2, 4, 8, 16 or 32", "choose one of them")
    for layer, reduction in _reductions(network, in_chans):
        rate = max(1, reduction // output_stride)
        stride = _pair(layer.stride)[0]
        kept = min(reduction * stride, output_stride) // min(reduction, output_stride)
        if rate > 1 or kept != stride:
            _set(network, layer, kept, rate)


def _reductions(network: nn.Module, in_chans: int) -> list[tuple[nn.Module, int]]:
    """The layers with a window, and how many input pixels lie between two of the positions that each reads."""
    seen: list[tuple[nn.Module, int]] = []

    def note(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        side = inputs[0].shape[-1]
        if side > 1 and (_pair(layer.kernel_size)[0] > 1 or _pair(layer.kernel_size)[1] > 1 or _strided(layer)):
            seen.append((layer, 2 ** round(math.log2(PROBE / side))))

    hooks = [layer.register_forward_pre_hook(note) for layer in network.modules() if isinstance(layer, Windowed)]
    training = network.training
    tensors = {name: torch.empty_like(t, device="meta") for name, t in network.state_dict().items()}
    try:
        with torch.no_grad():
            functional_call(network.eval(), tensors, (torch.empty(1, in_chans, PROBE, PROBE, device="meta"),))
    finally:
        network.train(training)
        for hook in hooks:
            hook.remove()
    return seen


def _set(network: nn.Module, layer: nn.Module, stride: int, rate: int) -> None:
    """Give `layer` its new stride, and `rate` times its dilation and padding.

    One that gave up its stride keeps the size of its map, whatever its padding, so that branches side by side still fit:
    the edge is repeated after the last row and column.
    """
    rows, columns = _pair(layer.padding)
    if isinstance(layer, nn.Conv2d):
        traded = stride == 1 and _strided(layer)
        d_rows, d_columns = layer.dilation[0] * rate, layer.dilation[1] * rate
        layer.stride = (stride, stride)
        layer.dilation = (d_rows, d_columns)
        layer.padding = (rows * rate, columns * rate)
        layer._reversed_padding_repeated_twice = [columns * rate] * 2 + [rows * rate] * 2
        below = d_rows * (layer.kernel_size[0] - 1) - 2 * rows * rate  # what it would take from the map's size
        right = d_columns * (layer.kernel_size[1] - 1) - 2 * columns * rate
        if traded and max(below, right) > 0:
            layer.padding_mode = "replicate"  # for which the convolution takes its sides from the list
            layer._reversed_padding_repeated_twice[1] += right
            layer._reversed_padding_repeated_twice[3] += below
        return
    kernel = _pair(layer.kernel_size)[0]
    if isinstance(layer, nn.MaxPool2d):
        wide = rows * rate > kernel // 2  # which torch refuses, though the dilated window is wider
        pool: nn.Module = nn.MaxPool2d(kernel, stride, padding=0 if wide else rows * rate, dilation=rate)
        if wide:
            pool = nn.Sequential(nn.ConstantPad2d(rows * rate, -math.inf), pool)
    else:
        pool = DilatedAvgPool2d(
            kernel, stride=stride, padding=rows * rate, dilation=rate, count_include_pad=bool(layer.count_include_pad)
        )
    short = rate * (kernel - 1) - 2 * rows * rate  # pixels that the pool would take from the map's size
    if stride == 1 and short > 0:
        pool = nn.Sequential(nn.ReplicationPad2d((0, short, 0, short)), pool)
    _replace(network, layer, pool)


def _replace(network: nn.Module, old: nn.Module, new: nn.Module) -> None:
    for parent in network.modules():
        for name, child in parent.named_children():
            if child is old:
                setattr(parent, name, new)


def _strided(layer: nn.Module) -> bool:
    return max(_pair(layer.stride)) > 1


def _pair(value: Any) -> tuple[int, int]:
    """(rows, columns) of what may be one number for both."""
    rows, columns = value if isinstance(value, tuple) else (value, value)
    return rows, columns
