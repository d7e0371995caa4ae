"""Deformable convolution, versions 1 and 2, from torch's own operations: nothing to compile."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gossamer.errors import SettingsError


def deform_conv2d(
    x: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    mask: Tensor | None = None,
) -> Tensor:
    """A convolution whose kernel reads at moved places: (N, c_in, H, W) -> (N, c_out, h, w).

    weight: (c_out, c_in / groups, k_h, k_w). offset: (N, 2 * G * k_h * k_w, h, w), for each of G groups of input
    channels and each place of the kernel how far down and how far right it reads, in pixels; between pixels
    bilinearly, outside the image zeros. mask: (N, G * k_h * k_w, h, w), a factor for each place (version 2).
    MACs: k_h * k_w * c_in / groups * c_out * h * w, and 4 * k_h * k_w * c_in * h * w of the interpolation.
    Source: Dai et al. 2017 (1703.06211), equations 2 to 4; Zhu et al. 2018 (1811.11168), equation 1.
    Raises SettingsError where the shapes do not fit.
    """
    n, c_in, height, width = x.shape
    c_out, c_group, k_h, k_w = weight.shape
    places = k_h * k_w
    h, w = ((size + 2 * padding - dilation * (k - 1) - 1) // stride + 1 for size, k in ((height, k_h), (width, k_w)))
    offset_groups, rest = divmod(offset.shape[1], 2 * places)
    if rest or not offset_groups or c_in % offset_groups or offset.shape[2:] != (h, w):
        raise SettingsError(
            f"offset of shape {tuple(offset.shape)}", f"(N, {2 * places} * groups, {h}, {w})", "give two for each place"
        )
    if mask is not None and mask.shape != (n, offset_groups * places, h, w):
        raise SettingsError(
            f"mask of shape {tuple(mask.shape)}", f"{(n, offset_groups * places, h, w)}", "give one for each place"
        )
    # places in float32 at least: bfloat16 has no fractions of a pixel above 128
    moved = offset.to(torch.promote_types(offset.dtype, torch.float32)).reshape(n * offset_groups, places, 2, h, w)

    def count(end: int) -> Tensor:
        return torch.arange(end, device=x.device, dtype=moved.dtype)

    y0 = (count(h) * stride - padding)[:, None]
    x0 = count(w) * stride - padding
    k_y = count(k_h).repeat_interleave(k_w)[:, None, None] * dilation
    k_x = count(k_w).repeat(k_h)[:, None, None] * dilation
    # grid_sample wants places between -1 and 1, from the outer edge of the first pixel to that of the last
    grid_y = (2 * (moved[:, :, 0] + y0 + k_y) + 1) / height - 1
    grid_x = (2 * (moved[:, :, 1] + x0 + k_x) + 1) / width - 1
    grid = torch.stack((grid_x, grid_y), dim=-1).reshape(n * offset_groups, places * h, w, 2)
    image = x.to(moved.dtype).reshape(n * offset_groups, c_in // offset_groups, height, width)
    read = F.grid_sample(image, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    read = read.reshape(n, offset_groups, c_in // offset_groups, places, h * w)
    if mask is not None:
        read = read * mask.reshape(n, offset_groups, 1, places, h * w)
    groups = c_in // c_group
    columns = read.reshape(n, groups, c_group * places, h * w)
    kernels = weight.reshape(groups, c_out // groups, c_group * places)
    out = torch.matmul(kernels, columns).reshape(n, c_out, h, w)
    return out if bias is None else out + bias[:, None, None]


class DeformableConv2d(nn.Module):
    """A convolution that learns where to read: (N, c_in, H, W) -> (N, c_out, h, w), h = ceil(H / stride).

    The offsets, and with `modulated` the mask (version 2), are a convolution of the same input that starts at zero:
    at first it reads as a plain convolution does, in version 2 at half the size. Its learning rate is that of the
    network in version 1 and a tenth of it in version 2 (`lr_scale`), as in the papers.
    MACs: k * k * c_in * (c_out / groups + m + 4) * h * w, where m = k * k * offset_groups * (3 if modulated else 2), and
    4 are the products of the interpolation.
    Source: Dai et al. 2017 (1703.06211), figure 2 and section 3; Zhu et al. 2018 (1811.11168), section 3.2.
    """

    as_onnx = False  # the exporter sets it: one DeformConv in the place of the arithmetic

    def __init__(
        self,
        c_in: int,
        c_out: int,
        kernel: int = 3,
        *,
        stride: int = 1,
        padding: int | None = None,
        dilation: int = 1,
        groups: int = 1,
        offset_groups: int = 1,
        bias: bool = True,
        modulated: bool = True,
    ) -> None:
        super().__init__()
        self.stride, self.dilation, self.modulated = stride, dilation, modulated
        self.padding = dilation * (kernel - 1) // 2 if padding is None else padding
        plain = nn.Conv2d(c_in, c_out, kernel, groups=groups, bias=bias)
        self.weight, self.bias = plain.weight, plain.bias
        self.places = kernel * kernel * offset_groups
        self.offset = nn.Conv2d(
            c_in,
            self.places * (3 if modulated else 2),
            kernel,
            stride=stride,
            padding=self.padding,
            dilation=dilation,
        )
        self.offset.added = True  # type: ignore[assignment]  # no file of the plain network has its weights
        self.offset.lr_scale = 0.1 if modulated else 1.0  # type: ignore[assignment]
        self.in_channels, self.out_channels, self.kernel_size, self.groups = c_in, c_out, (kernel, kernel), groups
        self.begin()

    @classmethod
    def in_place_of(cls, conv: nn.Conv2d, *, modulated: bool = True) -> DeformableConv2d:
        """The deformable convolution with the weights and the geometry of a plain one. Raises SettingsError."""
        square = all(len(set(pair)) == 1 for pair in (conv.kernel_size, conv.stride, conv.padding, conv.dilation))
        if not square or conv.padding_mode != "zeros":
            raise SettingsError(
                f"deformable in the place of {conv}", "convolutions with equal sides, padded by zeros", "leave it out"
            )
        layer = cls(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size[0],
            stride=conv.stride[0],
            padding=int(conv.padding[0]),
            dilation=conv.dilation[0],
            groups=conv.groups,
            bias=conv.bias is not None,
            modulated=modulated,
        )
        layer.weight, layer.bias = conv.weight, conv.bias
        return layer

    def begin(self) -> None:
        """No offsets, and a mask of one half."""
        nn.init.zeros_(self.offset.weight)
        assert self.offset.bias is not None
        nn.init.zeros_(self.offset.bias)

    def forward(self, x: Tensor) -> Tensor:
        described = self.offset(x)
        offset, mask = described[:, : 2 * self.places], None
        if self.modulated:
            mask = torch.sigmoid(described[:, 2 * self.places :])
        if self.as_onnx:
            return self._symbolic(x, offset, mask)
        return deform_conv2d(
            x,
            offset,
            self.weight,
            self.bias,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            mask=mask,
        )

    def _symbolic(self, x: Tensor, offset: Tensor, mask: Tensor | None) -> Tensor:
        """The ONNX operator, for the exporter alone: shapes without values."""
        bias = self.weight.new_zeros(len(self.weight)) if self.bias is None else self.bias
        result: Tensor = torch.onnx.ops.symbolic(
            "DeformConv",
            (x, self.weight, offset, bias, *(() if mask is None else (mask,))),
            attrs={
                "dilations": [self.dilation] * 2,
                "group": self.groups,
                "kernel_shape": list(self.kernel_size),
                "offset_group": offset.shape[1] // (2 * self.kernel_size[0] * self.kernel_size[1]),
                "pads": [self.padding] * 4,
                "strides": [self.stride] * 2,
            },
            dtype=x.dtype,
            shape=(x.shape[0], len(self.weight), *offset.shape[2:]),
            version=19,
        )
        return result
