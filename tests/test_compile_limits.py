"""Limits of the compile step at which one number more or less makes another network: each side of the limit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gossamer.compile.bfloat16 import to_bfloat16
from gossamer.compile.lower import lower
from gossamer.compile.program import Operation
from gossamer.errors import InputError
from gossamer.export.convert import to_onnx
from gossamer.modelfile.metadata import parse_model_file
from gossamer.runtime.compilation import difference
from tests.test_native_forms import File

pytest.importorskip("onnx")


def operations(module: nn.Module, size: tuple[int, int], channels: int = 3) -> list[Operation]:
    """The lowered operations of a module for images of that size."""
    return lower(parse_model_file(to_onnx(module.eval(), size, channels)).onnx).operations


class Largest(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.amax((2, 3), keepdim=True)


def focus(path: Path, **conv: list[int]) -> Operation:
    """The convolution behind every second row and column of 4 first ones, laid into channels."""
    file, most = File(), 2**63 - 1
    parts = [file.slice(file.slice("input", (2, y, most, 2)), (3, x, most, 2)) for y in (0, 1) for x in (0, 1)]
    file.save(path, file.conv(file.add("Concat", *parts, axis=1), 12, 4, kernel=3, **conv))
    lowered = lower(parse_model_file(path.read_bytes()).onnx).operations
    return next(one for one in lowered if one.kind == "conv")


def test_a_second_activation_is_an_operation_of_its_own() -> None:
    lowered = operations(nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Sigmoid()), (4, 4))
    assert [(one.kind, one.act) for one in lowered] == [("conv", "relu"), ("activation", "sigmoid")]


def test_a_second_activation_of_a_depthwise_layer_is_an_operation_of_its_own() -> None:
    lowered = operations(nn.Sequential(nn.Conv2d(3, 3, 3, groups=3), nn.ReLU(), nn.Sigmoid()), (4, 4))
    assert [(one.kind, one.acts[1], one.act) for one in lowered] == [
        ("block", "relu", "none"),
        ("activation", "none", "sigmoid"),
    ]


@pytest.mark.parametrize(
    ("bits", "expected"),
    [
        (0x3F808000, 0x3F80),  # halfway between an even and an odd one: down to the even
        (0x3F818000, 0x3F82),  # halfway between an odd and an even one: up to the even
        (0x3F807FFF, 0x3F80),
        (0x3F808001, 0x3F81),
        (0xBF818000, 0xBF82),
        (0x7F800000, 0x7F80),
        (0x7F7FFFFF, 0x7F80),  # beyond the largest: infinity
        (0x7F800001, 0x7FC0),  # not a number stays one
    ],
)
def test_bfloat16_is_the_nearest_ties_to_even(bits: int, expected: int) -> None:
    assert to_bfloat16(np.array([bits], np.uint32).view(np.float32)).tolist() == [expected]


def test_bfloat16_is_what_torch_rounds_to() -> None:
    bits = np.random.default_rng(0).integers(0, 2**32, 4096, np.uint64).astype(np.uint32)
    bits[::4] = bits[::4] & 0xFFFF0000 | 0x8000  # ties
    values = bits.view(np.float32)
    values = values[np.isfinite(values)]
    wanted = torch.from_numpy(values.copy()).to(torch.bfloat16).view(torch.int16).numpy().view(np.uint16)
    np.testing.assert_array_equal(to_bfloat16(values), wanted)


def test_the_difference_of_outputs_is_the_largest_and_the_mean_of_all_inputs() -> None:
    expected = [np.array([1.0, -8.0, 3.0], np.float32), np.array([0.5, 0.0, 2.0], np.float32)]
    outputs = [np.array([1.0, -7.0, 5.0], np.float32), np.array([0.5, 0.5, 0.0], np.float32)]
    loss = difference(zip(expected, outputs), True)
    assert (loss.inputs, loss.largest, loss.scale) == (2, 2.0, 8.0)
    assert loss.mean == pytest.approx((0 + 1 + 2 + 0 + 0.5 + 2) / 6)
    assert loss.same_class == 1  # the first one's stays, the second one's goes from 2 to 1
    assert difference(zip(expected[1:], outputs[1:]), False).same_class is None


@pytest.mark.parametrize(("stride", "merged"), [(1, True), (8, True), (9, False)])
def test_slices_laid_into_channels_join_a_convolution_up_to_a_stride_of_16(
    stride: int, merged: bool, tmp_path: Path
) -> None:
    convolution = focus(tmp_path / "m.onnx", strides=[stride, stride], pads=[1, 1, 1, 1])
    assert convolution.stride == ((2 * stride,) * 2 if merged else (stride,) * 2)
    assert convolution.kernel == ((6, 6) if merged else (3, 3))


@pytest.mark.parametrize(("pads", "merged"), [(32, True), (33, False)])
def test_slices_laid_into_channels_join_a_convolution_up_to_a_padding_of_64(
    pads: int, merged: bool, tmp_path: Path
) -> None:
    convolution = focus(tmp_path / "m.onnx", pads=[pads] * 4)
    assert convolution.pads == ((2 * pads if merged else pads),) * 4


@pytest.mark.parametrize("size", [(64, 5), (5, 64), (64, 64)])
def test_the_largest_of_a_map_of_up_to_64_rows_and_columns_is_one_pool(size: tuple[int, int]) -> None:
    (pool,) = operations(Largest(), size)
    assert (pool.kind, pool.kernel) == ("max_pool", size)


@pytest.mark.parametrize("size", [(65, 5), (5, 65)])
def test_the_largest_of_a_map_of_more_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(InputError, match="a map of more than 64 rows or columns"):
        operations(Largest(), size)
