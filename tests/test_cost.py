"""Cost by hand on small distinct sizes, against torch's own counter, and against the published tables."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from gossamer.analysis import cost as cost_module
from gossamer.analysis.cost import FOREIGN, FORMULAS, FREE, MOVING, POINTWISE, cost
from gossamer.analysis.graph import trace
from gossamer.networks import create_model, list_models
from tests.tiers import one_per_family

FLOAT = 4  # bytes


class MatMul(nn.Module):
    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(shape))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight


class Sample(nn.Module):
    """Reads 4 x 6 places of each image."""

    def __init__(self, mode: str) -> None:
        super().__init__()
        self.mode = mode

    def forward(self, x: Tensor) -> Tensor:
        return F.grid_sample(x, x.new_zeros(len(x), 4, 6, 2), mode=self.mode, align_corners=False)


class BiasedBatch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2, 5, 7))

    def forward(self, x: Tensor) -> Tensor:
        return torch.baddbmm(torch.zeros(2, 3, 7), x, self.weight)


# Each row: operation, module, input, MACs as a product of sizes that are all different where they can be.
BY_HAND = [
    # N * Cout * Hout * Wout * Cin * kh * kw
    ("convolution", nn.Conv2d(5, 7, (2, 3), bias=False), (3, 5, 8, 13), 3 * 7 * 7 * 11 * 5 * 2 * 3),
    # stride and padding: Hout = (9 + 2*2 - 3)//2 + 1 = 6, Wout = (14 + 2*1 - 5)//3 + 1 = 4
    ("convolution", nn.Conv2d(4, 6, (3, 5), (2, 3), (2, 1)), (2, 4, 9, 14), 2 * 6 * 6 * 4 * 4 * 3 * 5),
    # groups: each output channel sees Cin/g = 2
    ("convolution", nn.Conv2d(6, 9, 3, groups=3), (1, 6, 7, 10), 9 * 5 * 8 * 2 * 9),
    # depthwise, dilated: Hout = 11 - 4 = 7, Wout = 13 - 4 = 9
    ("convolution", nn.Conv2d(5, 5, 3, dilation=2, groups=5), (1, 5, 11, 13), 5 * 7 * 9 * 9),
    # transposed: every input position feeds Cout * kh * kw
    ("convolution", nn.ConvTranspose2d(5, 7, (2, 3), stride=2), (3, 5, 4, 11), 3 * 5 * 4 * 11 * 7 * 2 * 3),
    ("convolution", nn.ConvTranspose2d(6, 4, 3, groups=2), (1, 6, 5, 7), 6 * 5 * 7 * 2 * 9),
    ("convolution", nn.Conv1d(5, 7, 3), (2, 5, 13), 2 * 7 * 11 * 5 * 3),
    ("convolution", nn.Conv3d(2, 3, (2, 3, 5)), (1, 2, 5, 7, 11), 3 * 4 * 5 * 7 * 2 * 2 * 3 * 5),
    ("addmm", nn.Linear(11, 7), (3, 11), 3 * 11 * 7),
    ("addmm", nn.Linear(11, 7), (3, 5, 11), 3 * 5 * 11 * 7),
    ("mm", nn.Linear(11, 7, bias=False), (3, 11), 3 * 11 * 7),
    ("bmm", MatMul(2, 5, 7), (2, 3, 5), 2 * 3 * 5 * 7),
    ("baddbmm", BiasedBatch(), (2, 3, 5), 2 * 3 * 5 * 7),
    ("mv", MatMul(5), (3, 5), 3 * 5),
    ("dot", MatMul(5), (5,), 5),
    ("grid_sampler_2d", Sample("bilinear"), (2, 3, 5, 7), 2 * 3 * 4 * 6 * 4),
    ("grid_sampler_2d", Sample("nearest"), (2, 3, 5, 7), 0),
    ("grid_sampler_2d", Sample("bicubic"), (2, 3, 5, 7), 2 * 3 * 4 * 6 * 16),
]


@pytest.mark.parametrize(("op", "module", "shape", "expected"), BY_HAND)
def test_macs_are_those_derived_by_hand(op: str, module: nn.Module, shape: tuple[int, ...], expected: int) -> None:
    total = cost(module, shape)
    assert total.macs == expected
    assert total.unknown == {}
    assert [layer.macs for layer in total.layers if layer.op == op] == [expected]


class AddMV(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.addmv(x[:, 0], x, x[0])


def test_a_matrix_times_a_vector_plus_a_vector() -> None:
    assert cost(AddMV(), (5, 5)).macs == 5 * 5


def test_every_formula_is_tested_by_hand() -> None:
    assert {row[0] for row in BY_HAND} | {"addmv"} == set(FORMULAS)


def test_torchvisions_deformable_convolution_has_a_formula() -> None:
    shapes = [(2, 6, 9, 7), (4, 3, 3, 3), (2, 36, 5, 4), (2, 18, 5, 4), (4,)]
    expected = 2 * 5 * 4 * (4 * 3 * 9 + 4 * 6 * 9)  # the kernels of two groups, and the bilinear reads
    assert FOREIGN["torchvision::deform_conv2d"]({}, shapes, (2, 4, 5, 4)) == expected


def test_no_operation_is_in_two_tables() -> None:
    tables = [set(FORMULAS), POINTWISE, MOVING, FREE]
    assert sum(map(len, tables)) == len(set().union(*tables))


@pytest.mark.parametrize("op", sorted(POINTWISE | MOVING | FREE | set(FORMULAS)))
def test_tables_name_operations_of_torch(op: str) -> None:
    assert hasattr(torch.ops.aten, op) or hasattr(torch.ops.aten, f"{op}_")


class Attention(nn.Module):
    """Queries, keys and values from one linear layer; 2 heads."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(10, 30)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (part.unflatten(-1, (2, 5)).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
        return F.scaled_dot_product_attention(q, k, v)


def test_attention_is_counted_in_full() -> None:
    # qkv 3*7*10*30; scores and the weighted sum: 3 images * 2 heads * 7 * 7 * 5 each
    total = cost(Attention(), (3, 7, 10))
    assert total.macs == 3 * 7 * 10 * 30 + 2 * (3 * 2 * 7 * 7 * 5)
    assert total.unknown == {}


class Unknown(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.special.i0e(torch.special.i0e(x)) + torch.fft.fft(x).real


def test_operations_without_a_formula_are_listed_not_counted_as_zero() -> None:
    total = cost(nn.Sequential(nn.Conv2d(3, 4, 1), Unknown()), (1, 3, 5, 6))
    assert total.unknown["special_i0e"] == 2
    assert any("fft" in op for op in total.unknown)
    assert [layer.macs for layer in total.layers if layer.op == "special_i0e"] == [None, None]
    assert total.macs == 3 * 4 * 5 * 6


class Shared(nn.Module):
    """One convolution used twice, another never."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.unused = nn.Conv2d(3, 3, (3, 5), padding=(1, 2)), nn.Conv2d(3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.conv(x))


def test_shared_parameters_count_once_and_unused_ones_are_told() -> None:
    total = cost(Shared(), (1, 3, 4, 6))
    once = 3 * 3 * 3 * 5 + 3
    assert [layer.params for layer in total.layers] == [once, 0]
    assert [layer.weight_bytes for layer in total.layers] == [once * FLOAT] * 2
    assert (total.params, total.unused_params) == (once + 3 * 2 + 2, 3 * 2 + 2)
    assert total.macs == 2 * (3 * 4 * 6 * 3 * 3 * 5)


def test_bytes_read_and_written() -> None:
    module = nn.Sequential(nn.Conv2d(3, 5, 1, stride=2), nn.BatchNorm2d(5), nn.Flatten(), nn.Linear(5 * 2 * 3, 7))
    conv, norm, linear = cost(module, (1, 3, 4, 6)).layers
    assert (conv.read_bytes, conv.write_bytes, conv.weight_bytes) == (72 * FLOAT, 30 * FLOAT, (15 + 5) * FLOAT)
    assert (norm.read_bytes, norm.write_bytes, norm.weight_bytes) == (30 * FLOAT, 30 * FLOAT, 4 * 5 * FLOAT)
    assert (linear.read_bytes, linear.write_bytes, linear.weight_bytes) == (30 * FLOAT, 7 * FLOAT, 217 * FLOAT)
    assert (norm.params, linear.params, linear.name, linear.output_shape) == (10, 217, "3", (1, 7))


class Widens(nn.Module):
    """16 -> 96 -> 16 with a shortcut: the input stays alive across the block."""

    def __init__(self) -> None:
        super().__init__()
        self.expand, self.norm, self.project = nn.Conv2d(16, 96, 1), nn.BatchNorm2d(96), nn.Conv2d(96, 16, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(x)
        return x + self.project(F.relu6(self.norm(self.expand(x))))


def test_peak_memory_is_by_liveness_and_names_its_layer() -> None:
    total = cost(Widens(), (1, 16, 5, 7))
    plane = 5 * 7 * FLOAT
    # relu: input and its copy, since the input is the caller's; expand 16+96; norm, relu6 in place of the 96 with
    # the shortcut; project 16+96+16; add in place of one of its two
    assert [layer.live_bytes // plane for layer in total.layers] == [32, 112, 112, 112, 128, 32]
    assert (total.peak_bytes, total.peak_layer) == (128 * plane, "project convolution")


def test_a_module_without_layers_costs_its_input() -> None:
    total = cost(nn.Flatten(), (2, 3, 4, 5))
    assert (total.layers, total.macs, total.peak_bytes, total.peak_layer) == ((), 0, 120 * FLOAT, "")


def test_cost_is_plain_json_and_takes_a_graph() -> None:
    module = nn.Sequential(nn.Conv2d(3, 5, 1), nn.ReLU())
    total = cost(trace(module, (1, 3, 4, 6)))
    assert total == cost(module, (1, 3, 4, 6))
    plain = json.loads(json.dumps(total.to_json()))
    assert plain["input_shape"] == [1, 3, 4, 6]
    assert plain["layers"][0]["output_shape"] == [1, 5, 4, 6]
    assert plain["layers"][1]["macs"] == 0


@pytest.mark.parametrize("name", one_per_family(list_models()))
def test_every_network_agrees_with_torchs_counter(name: str) -> None:
    with torch.device("meta"):
        model = create_model(name, num_classes=17).eval()
        counter = FlopCounterMode(display=False)
        with counter:
            model(torch.empty(1, 3, 160, 192))
    total = cost(model, (1, 3, 160, 192))
    assert total.macs * 2 == counter.get_total_flops()
    assert total.unknown == {}
    assert (total.params, total.unused_params) == (sum(p.numel() for p in model.parameters()), 0)


@pytest.mark.full
def test_no_network_needs_torchs_slow_kernels() -> None:
    code = """
import sys
from gossamer.analysis.cost import cost
from gossamer.networks import create_model
for name in ("mobilenet_v1", "mobilenet_v2", "shufflenet_v2", "squeezenet1_1", "resnet18"):
    assert cost(create_model(name)).macs > 1e8
slow = {"sympy", "torch._dynamo"} & set(sys.modules)
assert not slow, slow
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_convention_is_written_down() -> None:
    assert "1 MAC is 1 multiply-add" in (cost_module.__doc__ or "")
