"""Weights to start from."""

from __future__ import annotations

import math

from torch import nn

from gossamer.blocks.deform import DeformableConv2d


def initialise(module: nn.Module) -> None:
    """Draw fresh weights for every layer of `module`, from torch's random state.

    Convolutions: normal with variance 2 / fan (He et al. 2015, 1502.01852, section 2.2). The fan is the
    outputs' (a channel's own group) where a norm follows, so that gradients keep their size; a convolution
    with a bias has no norm after it to correct the size of its output, so there it is the inputs'.
    Norms: scale 1, shift 0. Biases: 0. Linear layers: see `initialise_classifier`. Blocks that begin in a way of their
    own (`begin`: offsets, gates, attention that begins as the identity) do so.
    """
    if any(parameter.is_meta for parameter in module.parameters()):
        return  # there are no values to set, and torch imports its compiler, a second long, to do nothing
    for layer in module.modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d, DeformableConv2d)):
            area = math.prod(layer.kernel_size)
            channels = layer.out_channels if layer.bias is None else layer.in_channels
            nn.init.normal_(layer.weight, 0.0, math.sqrt(2.0 * layer.groups / (area * channels)))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d, nn.GroupNorm, nn.InstanceNorm2d, nn.LayerNorm)):
            nn.init.ones_(layer.weight)
            nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.Linear):
            initialise_classifier(layer)
    for layer in module.modules():
        begin = getattr(layer, "begin", None)
        if callable(begin):
            begin()


def initialise_classifier(layer: nn.Module) -> None:
    """Normal with standard deviation 0.01, bias 0: every class is nearly as likely at the start."""
    if isinstance(layer, (nn.Linear, nn.Conv2d)) and not layer.weight.is_meta:
        nn.init.normal_(layer.weight, 0.0, 0.01)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
