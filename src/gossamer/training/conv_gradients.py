"""Gradients of dilated and of strided depthwise convolutions on a CPU, where torch's own are wrong or slow in bf16.

Measured with torch 2.13 on a processor with bfloat16 units, channels_last (tests/test_backward.py repeats the first):

* the weight gradient of a dilated convolution in bf16 is wrong, by 100 % up to not-a-number, on maps of 30x40 and above
  (right at 15x20). A segmenter with an output stride trains on noise;
* for a depthwise convolution of stride 2 in bf16 the input gradient takes ten times what the forward pass takes, and for
  a dilated one in either precision both gradients take five to forty times as long;
* the backward pass of a 1x1 convolution of stride 2 or 4 on 1 to 7 channels writes past its memory, and the process ends by
  a signal soon after (float32, AVX2, maps of 32x32; right at 8 and more). A pruned network may have such a shortcut.

Both gradients are convolutions themselves. They are computed as such here: stride by zeros between the rows, dilation by
splitting the pixels into phases of every d-th row and column, on which the convolution is not dilated. A 1x1 convolution
with a stride is one without on every s-th row and column.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

Pair = tuple[int, int]
FEW = 8  # channels


class SoundConv2d(nn.Conv2d):
    """`nn.Conv2d` whose gradients on a CPU are those of this module; the same outputs, fields and names."""

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, c_out, h, w), as `nn.Conv2d`."""
        if not torch.is_grad_enabled() or input.device.type != "cpu":
            return super().forward(input)
        weight, bias = self.weight, self.bias
        if torch.is_autocast_enabled("cpu"):
            kind = torch.get_autocast_dtype("cpu")
            input, weight, bias = input.to(kind), weight.to(kind), None if bias is None else bias.to(kind)
        output = _Convolution.apply(  # type: ignore[no-untyped-call]
            input, weight, bias, self.stride, self.padding, self.dilation, self.groups
        )
        assert isinstance(output, Tensor)
        return output


def use_own_gradients(model: nn.Module) -> int:
    """Give the convolutions of `model` that need it sound gradients on a CPU; how many they are. Names and weights stay."""
    layers = [layer for layer in model.modules() if type(layer) is nn.Conv2d and _needs_it(layer)]
    for layer in layers:
        layer.__class__ = SoundConv2d  # same fields, another forward: no copy, no renaming
    return len(layers)


def conv2d(
    input: Tensor, weight: Tensor, bias: Tensor | None, stride: Pair, padding: Pair, dilation: Pair, groups: int
) -> Tensor:
    """`torch.nn.functional.conv2d` in float32, with sound gradients on a CPU where torch's own are slow or wrong."""
    if (
        not torch.is_grad_enabled()
        or input.device.type != "cpu"
        or not _unsound(weight.shape[2:], stride, padding, dilation, groups, input.shape[1])
    ):
        return functional.conv2d(input, weight, bias, stride, padding, dilation, groups)
    output = _Convolution.apply(input, weight, bias, stride, padding, dilation, groups)  # type: ignore[no-untyped-call]
    assert isinstance(output, Tensor)
    return output


def _needs_it(layer: nn.Conv2d) -> bool:
    # `padding` may be the word "same"; other paddings than zeros are done before the convolution
    if layer.padding_mode != "zeros" or isinstance(layer.padding, str):
        return False
    return _unsound(layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.groups, layer.in_channels)


def _unsound(
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    channels: int,
) -> bool:
    """Whether torch's own gradients are wrong or slow."""
    few = channels < FEW and _only_samples(kernel, stride, padding)
    return max(dilation) > 1 or few or (groups == channels and max(stride) > 1)


def _only_samples(kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int]) -> bool:
    """Whether a convolution looks at every s-th pixel alone."""
    return max(kernel) == 1 and max(stride) > 1 and max(padding) == 0


class _Convolution(torch.autograd.Function):
    """A convolution with the gradients of this module."""

    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stride: Pair,
        padding: Pair,
        dilation: Pair,
        groups: int,
    ) -> Tensor:
        ctx.save_for_backward(input, weight)
        ctx.geometry = stride, padding, dilation, groups
        return functional.conv2d(input, weight, bias, stride, padding, dilation, groups)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        input, weight = ctx.saved_tensors
        stride, padding, _, groups = ctx.geometry
        if input.shape[1] < FEW and _only_samples(weight.shape[2:], stride, padding):
            return *_gradients_of_samples(gradient, input, weight, stride, groups, ctx.needs_input_grad), *[None] * 4
        by_input = input_gradient(gradient, input, weight, *ctx.geometry) if ctx.needs_input_grad[0] else None
        by_weight = weight_gradient(gradient, input, weight, *ctx.geometry) if ctx.needs_input_grad[1] else None
        by_bias = gradient.sum((0, 2, 3)) if ctx.needs_input_grad[2] else None
        return by_input, by_weight, by_bias, None, None, None, None


def _gradients_of_samples(
    gradient: Tensor, input: Tensor, weight: Tensor, stride: Pair, groups: int, needed: Sequence[bool]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Those by input, weights and bias of a 1x1 convolution of a stride: one of stride 1 on the pixels that it looks at."""
    rows, columns = slice(None, None, stride[0]), slice(None, None, stride[1])
    seen = input[:, :, rows, columns].contiguous(memory_format=torch.channels_last)
    one, by_input, by_weight = ((1, 1), (0, 0), (1, 1), groups), None, None
    if needed[0]:
        by_input = torch.zeros_like(input)
        by_input[:, :, rows, columns] = _torch(gradient, seen, weight, *one, 0)
    if needed[1]:
        by_weight = _torch(gradient, seen, weight, *one, 1)
    return by_input, by_weight, gradient.sum((0, 2, 3)) if needed[2] else None


def input_gradient(
    gradient: Tensor, input: Tensor, weight: Tensor, stride: Pair, padding: Pair, dilation: Pair, groups: int
) -> Tensor:
    """The gradient by the input (N, C, H, W), from that by the output (N, c_out, h, w); torch's own where it is as good."""
    reach = tuple(d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True))
    depthwise = groups == input.shape[1] == weight.shape[0]
    strided = max(stride) > 1
    # float32 with a stride is as quick in torch
    if (
        not depthwise
        or (strided and input.dtype == torch.float32)
        or any(p > r for p, r in zip(padding, reach, strict=True))
    ):
        return _torch(gradient, input, weight, stride, padding, dilation, groups, 0)
    if strided:
        rows, columns = (n + 2 * p - r for n, p, r in zip(input.shape[2:], padding, reach, strict=True))
        spread = gradient.new_zeros(gradient.shape[0], rows, columns, gradient.shape[1]).permute(0, 3, 1, 2)
        spread[:, :, :: stride[0], :: stride[1]] = gradient
        gradient = spread
    around = [r - p for r, p in zip(reach, padding, strict=True)]
    return functional.conv2d(gradient, weight.flip(2, 3), None, 1, around, dilation, groups)


def weight_gradient(
    gradient: Tensor, input: Tensor, weight: Tensor, stride: Pair, padding: Pair, dilation: Pair, groups: int
) -> Tensor:
    """The gradient by the weights (c_out, C / groups, k, k); torch's own where nothing is dilated."""
    if max(dilation) == 1:
        return _torch(gradient, input, weight, stride, padding, dilation, groups, 1)
    reach = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
    if max(stride) > 1 or any(2 * p != r or r % (2 * d) for p, r, d in zip(padding, reach, dilation, strict=True)):
        # an output's pixels are not of the phase of the pixels they come from: slow and right
        wide = _torch(gradient.float(), input.float(), weight.float(), stride, padding, dilation, groups, 1)
        return wide.to(weight.dtype)
    flat = [(k - 1) // 2 for k in weight.shape[2:]]
    return _torch(_phases(gradient, dilation), _phases(input, dilation), weight, (1, 1), flat, (1, 1), groups, 1)


def _phases(images: Tensor, dilation: Pair) -> Tensor:
    """(N, C, H, W) -> (N * d * e, C, H / d, W / e): every d-th row and e-th column, of each start; zeros fill up the last."""
    (d, e), (count, channels, height, width) = dilation, images.shape
    images = functional.pad(images, (0, -width % e, 0, -height % d))
    rows, columns = images.shape[2] // d, images.shape[3] // e
    phases = images.permute(0, 2, 3, 1).reshape(count, rows, d, columns, e, channels).permute(0, 2, 4, 1, 3, 5)
    return phases.reshape(count * d * e, rows, columns, channels).permute(0, 3, 1, 2)


def _torch(
    gradient: Tensor,
    input: Tensor,
    weight: Tensor,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
    which: int,
) -> Tensor:
    wanted = [which == 0, which == 1, False]
    gradient_part = torch.ops.aten.convolution_backward(
        gradient, input, weight, None, stride, padding, dilation, False, (0, 0), groups, wanted
    )[which]
    assert isinstance(gradient_part, Tensor)
    return gradient_part
