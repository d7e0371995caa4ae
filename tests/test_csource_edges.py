"""C source of networks at the ends of what it takes: refused by name, or written as it computes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gossamer.compile.program import FeatureMap, LayerWeights, Operation, Program, ProgramOutput
from gossamer.csource.arithmetic import pair
from gossamer.csource.device import network_of, preprocess_of
from gossamer.csource.floats import float_network
from gossamer.csource.integers import byte_network
from gossamer.csource.limits import needs_of
from gossamer.csource.network import BYTES
from gossamer.errors import InputError
from gossamer.modelfile.metadata import read_model_file

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
from tests.onnxcases import CONV, node, save, weight

OLD = Path(__file__).parent / "compat" / "0.1"
NONE = (0.0, 0.0)


def single(kind: str, source: FeatureMap, out: FeatureMap, **more: Any) -> Program:
    """A program of one operation."""
    output = ProgramOutput("y", (out.h * out.w * out.c,), [(1, True)])
    return Program([source, out], [Operation(kind, 0, 1, name="layer", **more)], 0, [output])


@pytest.mark.parametrize("behind, stride, dilation, kind", [(7, 1, 2, "conv"), (3, 4, 1, "pointwise")])
def test_only_a_kernel_without_gaps_is_one_product_over_the_map(
    behind: int, stride: int, dilation: int, kind: str, tmp_path: Path
) -> None:
    """A kernel of the map's sides and one position of the output, with padding behind the map."""
    more = {"dilations": [dilation] * 2, "strides": [stride] * 2, "pads": [0, 0, behind, behind]}
    file = save(tmp_path / "m.onnx", [node("Conv", ["x", "v"], ["y"], **more)], {"v": weight(5, 3, 8, 8)})
    (step,) = network_of(read_model_file(file)).steps
    assert (step.kind, step.out.h, step.out.w) == (kind, 1, 1)


@pytest.mark.parametrize("slope", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("of", ["convolution", "depthwise"])
def test_slopes_that_are_not_finite(of: str, slope: float, tmp_path: Path) -> None:
    act = node("LeakyRelu", ["c"], ["y"], alpha=slope)
    layers = [node("Conv", ["a", "v"], ["c"], group=8 if of == "depthwise" else 1)]
    shape = (8, 1, 3, 3) if of == "depthwise" else (4, 8, 3, 3)
    file = save(tmp_path / "m.onnx", [*CONV, *layers, act], {"v": weight(*shape)})
    with pytest.raises(InputError, match=r"not finite|not a number"):
        network_of(read_model_file(file))


@pytest.mark.parametrize("kind", ["max_pool", "average_pool"])
@pytest.mark.parametrize("type", ["float32", "uint8"])
def test_a_pool_that_steps_over_the_map(kind: str, type: str) -> None:
    """Two taps 3 apart around a map of two rows, and of one that a tap meets."""
    build = byte_network if type == "uint8" else float_network
    more: dict[str, Any] = {"kernel": (2, 1), "pads": (1, 0, 1, 0), "dilation": 3}
    with pytest.raises(InputError, match="padding alone"):
        build(single(kind, FeatureMap(2, 4, 1, type=type), FeatureMap(1, 4, 1, type=type), **more))
    assert build(single(kind, FeatureMap(3, 4, 1, type=type), FeatureMap(2, 4, 1, type=type), **more)).steps


@pytest.mark.parametrize("zero, side, fits", [(0, 2901, True), (0, 2902, False), (128, 4096, False), (128, 4095, True)])
def test_means_whose_sums_int32_does_not_hold(zero: int, side: int, fits: bool) -> None:
    program = single(
        "global_average", FeatureMap(side, side, 1, type="uint8", zero=zero), FeatureMap(1, 1, 1, type="uint8")
    )
    if fits:
        assert byte_network(program).type == BYTES
        return
    with pytest.raises(InputError, match="int32 does not hold"):
        byte_network(program)


@pytest.mark.parametrize(
    "act, bound, zero", [("log", NONE, 3), ("leaky_relu", (np.inf, 0.0), 3), ("reciprocal", NONE, 3)]
)
def test_activations_of_bytes_that_are_no_numbers(act: str, bound: tuple[float, float], zero: int) -> None:
    """Infinite ones are bounded as all that leaves the range of bytes."""
    ends = [FeatureMap(2, 2, 3, type="uint8", scale=0.1, zero=zero) for _ in range(2)]
    program = single("activation", *ends, act=act, bound=bound)
    if act == "reciprocal":
        table = byte_network(program).steps[0].table
        assert table is not None and table[3] == 255
        return
    with pytest.raises(InputError, match="not a number"):
        byte_network(program)


@pytest.mark.parametrize("product", [True, False])
def test_pairs_stay_within_their_integers(product: bool) -> None:
    """The largest ratios that are taken; beyond them sums in int64, and their upper halves in int32, would wrap."""
    taken = 0
    for power in range(30):
        try:
            one = pair(product, (1.0, 1.0, 2.0**-power), (255, 255, 0), "none", NONE, "layer")
        except InputError:
            continue
        largest = 255 * 255 * one.a if product else 255 * (one.a + one.b)
        assert largest < 2**62 and largest >> 32 < 2**31
        taken += 1
    assert 12 <= taken < 30


@pytest.mark.parametrize("scale, fits", [(2.0**-15, True), (2.0**-40, False), (1e-29, False)])
@pytest.mark.parametrize("kind", ["global_average", "resize", "conv"])
def test_scales_far_above_that_of_the_output(kind: str, scale: float, fits: bool) -> None:
    places = np.zeros((1, 2), np.float32)
    layer = {
        "global_average": None,
        "resize": LayerWeights(places, places),
        "conv": LayerWeights(np.ones((1, 1, 1, 1), np.int8), np.zeros(1, np.float32), np.ones(1, np.float32)),
    }[kind]
    ends = FeatureMap(1, 1, 1, type="uint8"), FeatureMap(1, 1, 1, type="uint8", scale=scale)
    program = single(kind, *ends, weights=[layer])
    if fits:
        assert byte_network(program).steps[0].scale is not None
        return
    with pytest.raises(InputError, match="far above that of its output"):
        byte_network(program)


def test_the_table_of_pixels_counts_as_flash() -> None:
    file = read_model_file(OLD / "classify.onnx")
    network = network_of(file)
    assert preprocess_of(file, network) is not None
    for type, count in (("float32", 24), (BYTES, 768)):
        other = dataclasses.replace(network, type=type)
        plain, with_pixels = needs_of(other, 0), needs_of(other, 0, pixels=True)
        assert with_pixels.flash - plain.flash == count and with_pixels.ram == plain.ram
