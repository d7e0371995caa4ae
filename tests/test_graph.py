"""The tracer, and the shape rules that keep it quick."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from gossamer.analysis import meta_kernels as shapes
from gossamer.analysis.graph import Graph, trace
from gossamer.errors import InputError


class Residual(nn.Module):
    """Convolution, batch norm, ReLU in place, twice the same one, and a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, (1, 5), stride=(1, 1), padding=(0, 2), bias=False)
        self.norm = nn.BatchNorm2d(3)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(x + self.act(self.norm(self.conv(x))))


def ops(graph: Graph) -> list[str]:
    return [node.op for node in graph.nodes]


def test_nodes_come_in_order_with_paths_shapes_and_attributes() -> None:
    graph = trace(nn.Sequential(Residual(), nn.Flatten(), nn.Linear(3 * 6 * 7, 4)), (2, 3, 6, 7))
    assert ops(graph) == ["convolution", "native_batch_norm", "relu", "add", "relu", "view", "t", "addmm"]
    assert [node.module for node in graph.nodes] == ["0.conv", "0.norm", "0.act", "0", "0.act", "1", "2", "2"]
    assert graph.nodes[0].attributes["padding"] == [0, 2]
    assert [graph.values[node.outputs[0]].shape for node in graph.nodes] == [(2, 3, 6, 7)] * 5 + [
        (2, 126),
        (126, 4),
        (2, 4),
    ]


def test_edges_join_the_maker_of_a_value_to_its_readers() -> None:
    graph = trace(Residual(), (1, 3, 5, 5))
    image = graph.values[graph.inputs[0]]
    assert graph.consumers[image.index] == (0, 3)  # the convolution and the shortcut
    shortcut = graph.nodes[3]
    first_relu = graph.nodes[2]
    assert shortcut.inputs == (image.index, first_relu.outputs[0])
    assert graph.values[graph.outputs[0]].node == 4
    assert graph.values[first_relu.outputs[0]].memory == graph.values[first_relu.inputs[0]].memory  # in place
    assert [value.name for value in graph.read(graph.nodes[1], "parameter")] == ["norm.weight", "norm.bias"]
    assert [value.name for value in graph.read(graph.nodes[1], "buffer")] == ["norm.running_mean", "norm.running_var"]


def test_unused_results_are_left_out_and_unused_parameters_kept() -> None:
    module = nn.Sequential(nn.MaxPool2d(2))
    module.register_parameter("spare", nn.Parameter(torch.zeros(5)))
    graph = trace(module, (1, 2, 4, 4))
    assert len(graph.nodes[0].outputs) == 1
    assert [value.name for value in graph.values if value.kind == "parameter"] == ["spare"]


class WritesIntoSlice(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        out = torch.zeros_like(x)
        out[:, :2] = x[:, 1:3]
        return out * 2


def test_a_write_through_a_view_reaches_the_readers_of_its_base() -> None:
    graph = trace(WritesIntoSlice(), (1, 3, 4, 4))
    write = next(node for node in graph.nodes if node.op == "copy")
    read = next(node for node in graph.nodes if node.op == "mul")
    assert graph.values[read.inputs[0]].node == write.index
    assert graph.values[read.inputs[0]].shape == (1, 3, 4, 4)


class Foreign(nn.Module):
    """What is written in the wild: a list of values, constants, .cpu(), an LSTM, attention, tied weights."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, 16, batch_first=True)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.up, self.down = nn.Linear(16, 16), nn.Linear(16, 16)
        self.down.weight = self.up.weight

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        y = self.lstm(x[:, 0])[0]
        y = self.attention(y, y, y)[0]
        y = self.down(self.up(y[:, torch.arange(3).tolist()]).cpu())
        return {"out": y[..., torch.tensor([1, 0])]}


def test_any_module_is_traced() -> None:
    graph = trace(Foreign(), (1, 1, 8, 8))
    assert graph.values[graph.outputs[0]].shape == (1, 3, 2)
    assert sum(value.name == "up.weight" and value.node < 0 for value in graph.values) == 1
    assert not any(value.name == "down.weight" for value in graph.values)


def test_the_module_is_left_as_it_was() -> None:
    module = nn.Sequential(Residual(), nn.Dropout())
    module[1].eval()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    trace(module, (1, 3, 4, 4))
    assert [m.training for m in module.modules()] == [True, True, True, True, True, False]
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in module.modules())


def test_no_weights_are_allocated() -> None:
    with torch.device("meta"):
        module = nn.Sequential(nn.Conv2d(3, 1 << 16, 3), nn.Conv2d(1 << 16, 1 << 16, 3))
    assert trace(module, (1, 3, 9, 9)).values[-1].shape == (1, 1 << 16, 5, 5)


def test_half_precision_modules_are_traced_in_their_type() -> None:
    graph = trace(Residual().to(torch.bfloat16), (1, 3, 4, 4))
    assert {graph.values[node.outputs[0]].dtype for node in graph.nodes} == {torch.bfloat16}


class ReadsValues(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * x.sum().item()


@pytest.mark.parametrize(
    ("module", "shape"),
    [(ReadsValues(), (1, 3, 8, 8)), (nn.Conv2d(3, 4, 5), (1, 3, 4, 4)), (nn.Conv2d(3, 4, 1), (1, 2, 4, 4))],
)
def test_what_cannot_be_traced_gets_one_clear_line(module: nn.Module, shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="cannot be traced with an input of 1x") as caught:
        trace(module, shape)
    assert "\n" not in str(caught.value)
    assert not any(m._forward_hooks for m in module.modules())


def test_a_network_is_traced_without_the_slow_imports() -> None:
    """0.03 s for MobileNetV2; with torch._dynamo or sympy it is 0.7 to 1.7 s."""
    code = """
import sys, time
from torch import nn
from gossamer.analysis.graph import trace
block = [nn.Conv2d(8, 8, 3, 1, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU6(True), nn.Hardswish(), nn.MaxPool2d(3, 1, 1)]
module = nn.Sequential(*block * 30, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
start = time.process_time()
trace(module, (1, 8, 64, 64))
assert time.process_time() - start < 0.5
assert not {"sympy", "torch._dynamo", "onnx"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def meta(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


ATEN = torch.ops.aten
EXAMPLES = {
    "addmm": [(ATEN.addmm.default, (meta(5), meta(2, 3), meta(3, 5)))],
    "avg_pool2d": [
        (ATEN.avg_pool2d.default, (meta(2, 3, 7, 9), [2, 3])),
        (ATEN.avg_pool2d.default, (meta(2, 3, 7, 9), [3], [2], [1], True)),
    ],
    "cat": [
        (ATEN.cat.default, ([meta(2, 3, 4), meta(2, 5, 4)], 1)),
        (ATEN.cat.default, ([meta(2, 3), meta(2, 1)], -1)),
    ],
    "convolution": [
        (ATEN.convolution.default, (meta(2, 4, 9, 11), meta(6, 2, 3, 5), None, [2, 1], [1, 0], [1, 2], False, [0], 2)),
        (ATEN.convolution.default, (meta(2, 4, 9, 11), meta(4, 3, 3, 5), None, [2], [1], [2], True, [1, 0], 2)),
        (ATEN.convolution.default, (meta(2, 4, 9), meta(6, 4, 3), meta(6), [2], [1], [1], False, [0], 1)),
    ],
    "max_pool2d_with_indices": [
        (ATEN.max_pool2d_with_indices.default, (meta(2, 3, 7, 9), [3, 3], [2, 2], [1, 1])),
        (ATEN.max_pool2d_with_indices.default, (meta(2, 3, 7, 9), [3], [2], [0], [1], True)),
    ],
    "mean": [
        (ATEN.mean.dim, (meta(2, 3, 4, 5), [-1, -2], True)),
        (ATEN.mean.dim, (meta(2, 3, 4, 5), [1])),
        (ATEN.mean.default, (meta(2, 3),)),
    ],
    "native_batch_norm": [
        (ATEN.native_batch_norm.default, (meta(2, 3, 4, 5), meta(3), meta(3), meta(3), meta(3), False, 0.1, 1e-5))
    ],
    "native_group_norm": [(ATEN.native_group_norm.default, (meta(2, 4, 3, 5), meta(4), meta(4), 2, 4, 15, 2, 1e-5))],
    "native_layer_norm": [(ATEN.native_layer_norm.default, (meta(2, 4, 5), [5], meta(5), meta(5), 1e-5))],
    "_adaptive_avg_pool2d": [(ATEN._adaptive_avg_pool2d.default, (meta(2, 3, 7, 9), [2, 3]))],
}


def test_every_shape_rule_has_an_example() -> None:
    assert set(EXAMPLES) == set(shapes.RULES)


@pytest.mark.parametrize("op", EXAMPLES)
def test_shape_rules_agree_with_torch(op: str) -> None:
    for func, args in EXAMPLES[op]:
        ours, torchs = shapes.RULES[op](*args), func(*args)
        assert shapes.meta_result(func, op, args, {}, ()) is not None
        for mine, its in zip(*((r if isinstance(r, tuple) else (r,))[:1] for r in (ours, torchs)), strict=True):
            assert (mine.shape, mine.dtype, mine.stride()) == (its.shape, its.dtype, its.stride())


@pytest.mark.parametrize("op", sorted(shapes.POINTWISE))
def test_pointwise_shapes_agree_with_torch(op: str) -> None:
    second = {"_prelu_kernel": (meta(3, 1, 1),), "add": (meta(3, 1, 5),), "sub": (2,), "mul": (meta(2, 3, 4, 5),)}
    second |= {"div": (meta(1),), "pow": (2,), "clamp": (0, 6), "clamp_min": (0,), "clamp_max": (6,)}
    overload = {"add": "Tensor", "mul": "Tensor", "div": "Tensor", "sub": "Tensor", "pow": "Tensor_Scalar"}
    func = getattr(getattr(ATEN, op), overload.get(op, "default"))
    args = (meta(2, 3, 4, 5), *second.get(op, ()))
    ours, torchs = shapes.meta_result(func, op, args, {}, ()), func(*args)
    assert (ours.shape, ours.dtype, ours.stride()) == (torchs.shape, torchs.dtype, torchs.stride())


def test_mixed_types_and_integers_are_left_to_torch() -> None:
    integers, real = meta(2, 3, dtype=torch.int64), meta(2, 3)
    assert shapes.meta_result(ATEN.add.Tensor, "add", (integers, real), {}, ()).dtype == torch.float32
    assert shapes.meta_result(ATEN.div.Tensor, "div", (integers, integers), {}, ()).dtype == torch.float32
    assert shapes.meta_result(ATEN.mul.Tensor, "mul", (real, 1j), {}, ()).dtype == torch.complex64


@settings(max_examples=60, deadline=None)
@given(
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    side=st.tuples(st.integers(9, 14), st.integers(9, 14)),
    transposed=st.booleans(),
    ceil_mode=st.booleans(),
)
def test_convolution_and_pool_shapes_are_those_of_real_tensors(
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    side: tuple[int, int],
    transposed: bool,
    ceil_mode: bool,
) -> None:
    image = torch.zeros(1, 2, *side)
    weight = torch.zeros(2, 2, *kernel)
    convolve = F.conv_transpose2d if transposed else F.conv2d
    real = convolve(image, weight, stride=stride, padding=padding, dilation=dilation)
    args = (image.to("meta"), weight.to("meta"), None, stride, padding, dilation, transposed, (0, 0), 1)
    assert shapes.RULES["convolution"](*args).shape == real.shape

    inside = (min(padding[0], kernel[0] // 2), min(padding[1], kernel[1] // 2))
    real = F.max_pool2d(image, kernel, stride, inside, dilation, ceil_mode)
    pooled, _ = shapes.RULES["max_pool2d_with_indices"](image.to("meta"), kernel, stride, inside, dilation, ceil_mode)
    assert pooled.shape == real.shape
