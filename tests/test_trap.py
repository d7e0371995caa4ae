"""Networks whose residual streams come in another scale: their int8 files give the same answers as those of the plain ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from gossamer.host.progress import SILENT
from gossamer.shrink.channels import channel_sets
from gossamer.shrink.equalise import equalise, has_linear
from gossamer.shrink.graph import OnnxGraph, OnnxSession
from gossamer.shrink.qdq import QuantisationChoice, quantised_model
from gossamer.shrink.quantise import _equalised
from gossamer.shrink.ranges import best_range, in_batches, measure_ranges

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from benchmarks.shrink import trapped

from tests.test_quantise import GRAPHS, images, model, node, weights

NETWORKS = {"mobilenet_v2": {"width": 0.35}, "mobilenet_v3_small": {}, "mnasnet1_0": {"width": 0.5}}


def in_int8(data: bytes, outputs: tuple[str, ...], used: NDArray[Any], held: NDArray[Any]) -> tuple[bytes, list[str]]:
    """The int8 model of a float one, as `quantize` begins it, and what it says."""
    steps: list[str] = []
    graph, _ = _equalised(OnnxGraph(data, outputs, "a network"), used, held, steps, SILENT, {})
    values = measure_ranges(graph, in_batches(used))
    return quantised_model(
        graph, QuantisationChoice({name: best_range(value) for name, value in values.items()})
    ), steps


def initialisers(data: bytes) -> dict[str, bytes]:
    """The weights, scales and zero points of a model."""
    import onnx

    return {one.name: one.raw_data for one in onnx.load_from_string(data).graph.initializer}


def check(
    data: bytes, outputs: tuple[str, ...], used: NDArray[Any], held: NDArray[Any], seeds: tuple[int, ...] = (0, 1)
) -> None:
    plain, _ = in_int8(data, outputs, used, held)
    for seed in seeds:
        other, count = trapped(data, outputs, used, seed)
        assert count >= 4
        before = OnnxSession(OnnxGraph(data, outputs, "").model()).run(held)
        np.testing.assert_array_equal(OnnxSession(other).run(held)[0], before[0], err_msg="the trap changes no output")
        caught, _ = in_int8(other, outputs, used, held)
        assert initialisers(caught) == initialisers(plain)
        np.testing.assert_array_equal(OnnxSession(caught).run(held)[0], OnnxSession(plain).run(held)[0])


def test_a_residual_stream_in_another_scale_gives_the_same_file() -> None:
    check(GRAPHS["residual"](), ("y",), images(), images(seed=6))


@pytest.mark.full
@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_in_another_scale_gives_the_same_file(name: str) -> None:
    from gossamer.export.convert import to_onnx
    from gossamer.networks import create_model
    from tests.counterparts import randomise_norms

    torch.manual_seed(0)
    network = create_model(name, num_classes=5, small_input=True, **NETWORKS[name]).eval()
    randomise_norms(network)
    draw = np.random.default_rng(0)
    used, held = (draw.standard_normal((2, 3, 32, 32)).astype(np.float32) for _ in range(2))
    data = to_onnx(network, (32, 32), 3)
    check(data, tuple(one for one in OnnxGraph(data, ("logits",), name).outputs), used, held, (0,))


def test_what_an_activation_meets_is_not_of_a_stream() -> None:
    graph = OnnxGraph(GRAPHS["residual"](), ["y"], "residual")
    values = measure_ranges(graph, [images()])
    sets = channel_sets(graph, values)
    assert has_linear(graph, values) and sets.linear[sets.of["s0"]].all() and not sets.linear[sets.of["r1"]].any()
    assert not (sets.linear & sets.pinned).any()
    before = dict(graph.constants)
    count = equalise(graph, values, 0.5, linear=True)
    whole = OnnxGraph(GRAPHS["residual"](), ["y"], "residual")
    assert 0 < count < equalise(whole, values, 0.5)
    np.testing.assert_array_equal(
        OnnxSession(graph.model(), exact=True).run(images(seed=6))[0],
        OnnxSession(OnnxGraph(GRAPHS["residual"](), ["y"], "").model(), exact=True).run(images(seed=6))[0],
    )
    assert any(not np.array_equal(before[name], value) for name, value in graph.constants.items())


def test_a_network_without_streams_may_stay_as_it_came() -> None:
    nodes = [
        node("Conv", "x w0 b0", "a"), node("Sigmoid", "a", "r"), node("Conv", "r w1 b1", "s"), node("Flatten", "s", "y"),
    ]  # fmt: skip
    data = model(nodes, weights(w0=(8, 4, 1, 1), b0=(8,), w1=(4, 8, 1, 1), b1=(4,)), "y")
    graph = OnnxGraph(data, ["y"], "plain")
    assert not has_linear(graph, measure_ranges(graph, [images()]))
    steps: list[str] = []
    same, _ = _equalised(graph, images(), images(seed=6), steps, SILENT, {})
    assert same is graph and steps == ["equalisation: no channels to rescale"]


def test_dead_channels_follow_the_others_in_any_scale() -> None:
    """The weights of a channel that is always 0 are brought to the size of the others, in whatever scale those came."""
    nodes = [node("Conv", "x w0 b0", "a"), node("Conv", "a w1 b1", "s"), node("Flatten", "s", "y")]
    constants = weights(w0=(8, 4, 1, 1), b0=(8,), w1=(4, 8, 1, 1), b1=(4,))
    constants["w0"][0] = constants["b0"][0] = 0.0
    results = []
    for scale in (1.0, 8.0):
        own = {name: value.copy() for name, value in constants.items()}
        own["w0"][1:] *= scale
        own["b0"][1:] *= scale
        own["w1"][:, 1:] /= scale
        graph = OnnxGraph(model(nodes, own, "y"), ["y"], "dead")
        equalise(graph, measure_ranges(graph, [images()]))
        results.append(graph.constants)
    for name, value in results[0].items():
        np.testing.assert_array_equal(results[1][name], value, err_msg=name)
