"""A graph in torch that computes as its QDQ file does: every value that the file rounds is rounded here, with gradients.

Gradients pass a rounding as if it were not there, and stop where a value is clipped (straight-through estimator: Bengio et
al. 2013, arXiv 1308.3432; Jacob et al. 2018, arXiv 1712.05877, section 3). The range of activations is learnt by its scale, whose
gradient is that of LSQ (Esser et al. 2020, arXiv 1902.08153, equation 3); the level of 0 stays. The scale of each output
channel of a weight follows its largest weight, as in the file.
"""

from __future__ import annotations

import copy
from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gossamer.errors import InputError
from gossamer.modelfile.onnx import OnnxNode
from gossamer.operators.table import OPERATORS as NUMPY
from gossamer.shrink.graph import OnnxGraph
from gossamer.shrink.qdq import BIAS_LIMIT, QuantisationChoice, one_scale, quantised_values, same_scale, weight_axis
from gossamer.shrink.ranges import scale_and_zero
from gossamer.shrink.torch_operators import OPERATORS

LEVELS = 256  # of an activation
Outputs = dict[str, Tensor]


class TorchGraph:
    """The function of an ONNX graph in torch: images (N, C, H, W) -> its outputs by name, on one device.

    Raises InputError for an operator or a form of one that has no gradient here.
    """

    def __init__(self, graph: OnnxGraph, device: torch.device) -> None:
        self.graph, self.device = graph, device
        self.nodes: list[OnnxNode] = [graph.plain(node) for node in graph.nodes]
        # shapes and indices stay arrays
        self.constants: dict[str, Any] = {
            name: torch.from_numpy(value.copy()).to(device) if value.dtype == np.float32 and value.ndim else value
            for name, value in graph.constants.items()
        }
        last = {name: place for place, node in enumerate(self.nodes) for name in node.inputs}
        self.done: list[list[str]] = [[] for _ in self.nodes]  # values that no later node reads
        for name, place in last.items():
            if name not in self.constants and name not in graph.outputs:
                self.done[place].append(name)
        for node in self.nodes:
            if node.op not in OPERATORS and node.op not in NUMPY:
                self._refuse(node, "training has no such operator")

    def run(
        self,
        images: Tensor,
        weights: Mapping[str, Tensor] | None = None,
        rounded: Callable[[str, Tensor], Tensor] | None = None,
    ) -> Outputs:
        """The outputs. weights: in place of constants. rounded: what every reader of a value sees of it."""
        values: dict[str, Any] = {**self.constants, **(weights or {}), "": None, self.graph.input: images}
        if rounded is not None:
            values[self.graph.input] = rounded(self.graph.input, images)
        for node, done in zip(self.nodes, self.done, strict=True):
            inputs = [values[name] for name in node.inputs]
            computed = any(
                isinstance(one, Tensor) and name not in self.constants for name, one in zip(node.inputs, inputs)
            )
            try:
                result = OPERATORS[node.op](node, *inputs) if computed else self._constant(node, inputs)
            except (
                ArithmeticError,
                LookupError,
                RuntimeError,
                TypeError,
                ValueError,
            ) as error:  # torch's own among them
                if "memory" in str(error):  # too little of it is not the node's fault
                    raise
                self._refuse(node, " ".join(str(error).split())[:200])
            for name, value in zip(node.outputs, result if isinstance(result, tuple) else (result,)):
                if name:
                    values[name] = rounded(name, value) if rounded is not None and isinstance(value, Tensor) else value
            for name in done:
                del values[name]
        return {name: values[name] for name in self.graph.outputs}

    def _constant(self, node: OnnxNode, inputs: list[Any]) -> Any:
        """What a node makes of constants and shapes."""
        return NUMPY[node.op](node, *(one.detach().cpu().numpy() if isinstance(one, Tensor) else one for one in inputs))

    def _refuse(self, node: OnnxNode, why: str) -> Any:
        raise InputError(
            f"{self.graph.name}: node {node.name}, operator {node.op}: {why}",
            "operators that can be trained",
            "quantise it without --qat-minutes",
        )


class FakeQuantised(TorchGraph):
    """The graph with the roundings of `choice`, and parameters that an optimiser can step.

    parameters: each is in steps of its own rounding (weights, biases) or the logarithm of a factor of a range's scale, so that
    one learning rate fits every channel, however it was rescaled.
    """

    def __init__(self, graph: OnnxGraph, choice: QuantisationChoice, device: torch.device) -> None:
        super().__init__(graph, device)
        self.choice = choice
        ranges = quantised_values(graph, choice)
        groups = same_scale(graph, ranges)
        self.group = {name: groups[name] for name in ranges}
        self.scales: dict[str, tuple[Tensor, int]] = {}
        self.factors: dict[str, nn.Parameter] = {}
        for name in dict.fromkeys(self.group.values()):
            scale, zero = scale_and_zero(*ranges[name], LEVELS)
            self.scales[name] = torch.tensor(float(scale), device=device), zero
            self.factors[name] = nn.Parameter(torch.zeros((), device=device))
        self.layers = [_Layer(graph, node, self, choice, ranges.get(node.input[0])) for node in graph.weighted()]

    def __call__(self, images: Tensor) -> Outputs:
        """The outputs as the QDQ file gives them: images (N, C, H, W), normalised."""
        scales = {name: self.scale(name) for name in self.scales}
        weights: dict[str, Tensor] = {}
        for layer in self.layers:
            source = self.group.get(layer.source, "") if layer.quantised else ""
            weights.update(layer.values(scales[source] if source else None))

        def rounded(name: str, value: Tensor) -> Tensor:
            if name not in self.group:
                return value
            group = self.group[name]
            zero = self.scales[group][1]
            return round_activation(value, scales[group], -zero, LEVELS - 1 - zero)

        return self.run(images, weights, rounded)

    def scale(self, group: str) -> Tensor:
        """The scale of the values of a group."""
        return self.scales[group][0] * self.factors[group].exp()

    def parameters(self) -> Iterator[nn.Parameter]:
        """Weights and biases."""
        for layer in self.layers:
            yield layer.weight
            if layer.bias is not None:
                yield layer.bias

    def state(self) -> list[Tensor]:
        """A copy of all that is learnt."""
        return [one.detach().clone() for one in (*self.parameters(), *self.factors.values())]

    def restore(self, state: list[Tensor]) -> None:
        """Bring back what `state` gave."""
        with torch.no_grad():
            for one, value in zip((*self.parameters(), *self.factors.values()), state, strict=True):
                one.copy_(value)

    @torch.no_grad()
    def written(self) -> tuple[OnnxGraph, QuantisationChoice]:
        """The graph and the choice whose QDQ file answers as this network does."""
        graph = copy.deepcopy(self.graph)
        for layer in self.layers:
            for name, value in layer.floats().items():
                kind = graph.constants[name]
                graph.constants[name] = value.cpu().numpy().reshape(kind.shape).astype(np.float32)
        ranges: ChainMap[str, tuple[float, float]] = ChainMap({}, self.choice.ranges)  # type: ignore[arg-type]  # read alone
        for name, group in self.group.items():
            scale, zero = float(self.scale(group)), self.scales[group][1]
            ranges[name] = (-zero * scale, (LEVELS - 1 - zero) * scale)
        return graph, replace(self.choice, ranges=ranges, rounded={})


class _Layer:
    """A layer with weights. source: the value that it reads."""

    def __init__(
        self,
        graph: OnnxGraph,
        node: Any,
        network: TorchGraph,
        choice: QuantisationChoice,
        range_: tuple[float, float] | None,
    ) -> None:
        self.source, self.weight_name = node.input[0], node.input[1]
        self.quantised = node.name not in choice.float_layers and range_ is not None
        self.most = 2 ** (choice.weight_bits - 1) - 1
        weight = network.constants[self.weight_name]
        self.axis = weight_axis(graph, node)
        self.one_scale = one_scale(graph, node)
        count = weight.shape[self.axis]
        name = node.input[2] if len(node.input) > 2 else ""
        bias = network.constants.get(name) if name else None
        fits = isinstance(bias, Tensor) and bias.numel() == count and not self.one_scale
        self.bias_name, self.start = name if isinstance(bias, Tensor) else "", bias
        self.rounds_bias = self.quantised and fits
        self.sides = tuple(-1 if axis == self.axis else 1 for axis in range(weight.dim()))
        with torch.no_grad():
            self.unit = self._scales(weight, None, None).reshape(self.sides)
            self.weight = nn.Parameter(weight / self.unit)
            self.bias: nn.Parameter | None = None
            if isinstance(bias, Tensor):
                # a bias is a weight whose input is always the same: a step of it moves the sum as one of a weight does
                reach = (range_[1] - range_[0]) / 4 if range_ is not None else 1.0
                steps = self.unit.reshape(-1) * reach if fits else (bias.abs().max() / self.most).clamp_min(1e-8)
                self.bias_unit = steps.reshape(bias.shape) if fits else steps
                self.bias = nn.Parameter(bias / self.bias_unit)

    def floats(self) -> dict[str, Tensor]:
        """Weight and bias, not rounded."""
        result = {self.weight_name: self.weight * self.unit}
        if self.bias is not None:
            result[self.bias_name] = self.bias * self.bias_unit
        return result

    def values(self, source_scale: Tensor | None) -> dict[str, Tensor]:
        """Weight and bias as the file has them. source_scale: of the layer's input where it is rounded."""
        result = self.floats()
        if not self.quantised or source_scale is None:
            return result
        weight, bias = result[self.weight_name], result.get(self.bias_name)
        with torch.no_grad():
            step = source_scale.detach()
            scales = self._scales(weight, bias if self.rounds_bias else None, step)
            wide = scales.reshape(self.sides)
            rounded = (weight / wide).round().clamp(-self.most, self.most) * wide
        result[self.weight_name] = _straight_through(weight, rounded)
        if bias is not None and self.rounds_bias:
            with torch.no_grad():
                bias_scales = (scales.double() * step.double()).float()
                integers = (bias.reshape(-1).double() / bias_scales.double()).round().clamp(-(2.0**31 - 1), 2.0**31 - 1)
                rounded = (integers.float() * bias_scales).reshape(bias.shape)
            result[self.bias_name] = _straight_through(bias, rounded)
        return result

    def _scales(self, weight: Tensor, bias: Tensor | None, step: Tensor | None) -> Tensor:
        """A scale per output channel, as `gossamer.shrink.qdq.weight_grid` computes it."""
        others = tuple(axis for axis in range(weight.dim()) if axis != self.axis)
        scales: Tensor = (weight.abs().amax(others) / self.most).clamp_min(1e-12)
        if self.one_scale:
            return scales.max().expand_as(scales).clone()
        if bias is not None and step is not None:
            least: Tensor = bias.reshape(-1).double().abs() / (step.double() * BIAS_LIMIT)
            scales = torch.maximum(scales, least.float())
        return scales


def round_activation(x: Tensor, scale: Tensor, low: int, high: int) -> Tensor:
    """Values rounded half to even to whole steps of `scale` from `low` to `high`: the gradient passes within, and teaches the scale."""
    result: Tensor = _Rounded.apply(x, scale, low, high)  # type: ignore[no-untyped-call]
    return result


def _straight_through(value: Tensor, rounded: Tensor) -> Tensor:
    """`rounded`, whose gradient is that of `value`."""
    result: Tensor = _StraightThrough.apply(value, rounded)  # type: ignore[no-untyped-call]
    return result


class _Rounded(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, low: int, high: int) -> Tensor:
        steps = x / scale
        ctx.save_for_backward(steps)
        ctx.limits = low, high
        return steps.round().clamp_(low, high).mul_(scale)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,), (steps,), (low, high) = gradients, ctx.saved_tensors, ctx.limits
        nearest = steps.round()
        clipped = nearest.clamp(low, high)
        inside = clipped == nearest
        by_scale = (gradient * (clipped - torch.where(inside, steps, 0.0))).sum()
        return gradient * inside, by_scale, None, None


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, rounded: Tensor) -> Tensor:
        return rounded.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return gradients[0], None


def arrays(outputs: Outputs) -> list[NDArray[np.float32]]:
    """Outputs as arrays, in order."""
    return [value.detach().cpu().numpy() for value in outputs.values()]
