"""Decomposed layers: at full ranks they are the layer, below they are near it, and their edits replay to the bit."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gossamer.errors import SettingsError, UnknownNameError
from gossamer.networks import create_model
from gossamer.networks.changes import (
    Change,
    apply_changes,
    changes_to_json,
    decompose_layer,
    keep_channels,
    parse_changes,
)
from gossamer.networks.factors import (
    METHODS,
    decomposed,
    full_ranks,
    kept_energy,
    methods_of,
    ranks_fit,
    skeleton,
    spectra,
    why_not,
)

LAYERS: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "1x1": ((1,), {}),
    "1x1 strided": ((1,), {"stride": 2}),
    "1x1 padded": ((1,), {"padding": 1}),
    "3x3": ((3,), {"padding": 1}),
    "3x3 strided": ((3,), {"stride": 2, "padding": 1}),
    "3x3 dilated": ((3,), {"dilation": 2, "padding": 2}),
    "3x3 strided, dilated, no padding": ((3,), {"dilation": 2, "stride": 2}),
    "3x3 same": ((3,), {"padding": "same", "dilation": 2}),
    "3x3 valid": ((3,), {"padding": "valid"}),
    "3x5 of two strides": (((3, 5),), {"stride": (1, 2), "padding": (1, 2)}),
    "1x7": (((1, 7),), {"padding": (0, 3)}),
    "5x5": ((5,), {"padding": 2}),
    "5x5 strided": ((5,), {"padding": 2, "stride": 2}),
    "5x5 dilated": ((5,), {"padding": 4, "dilation": 2}),
    "7x7": ((7,), {"padding": 3}),
    "7x7 strided": ((7,), {"padding": 3, "stride": 2}),
    "7x7 without padding": ((7,), {}),
}


def far(a: Tensor, b: Tensor) -> float:
    assert a.shape == b.shape
    return float((a - b).abs().max() / a.abs().max())


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("channels", [(2, 3), (3, 2)])
@pytest.mark.parametrize("kind", LAYERS)
def test_at_full_ranks_each_decomposition_is_the_layer(kind: str, channels: tuple[int, int], bias: bool) -> None:
    torch.manual_seed(1)
    arguments, options = LAYERS[kind]
    layer = nn.Conv2d(*channels, *arguments, bias=bias, **options)
    methods = methods_of(layer)
    assert methods
    for method in methods:
        ranks = full_ranks(layer, method)
        parts = decomposed(layer, method, ranks)
        for height, width in ((17, 16), (16, 19)):
            x = torch.randn(2, channels[0], height, width)
            with torch.no_grad():
                assert far(layer(x), parts(x)) < 1e-5, (method, ranks)
        assert kept_energy(layer, method, ranks) == pytest.approx(1, abs=1e-9)
        assert not ranks_fit(layer, method, (ranks[0] + 1, *ranks[1:]))
        assert sum(part.bias is not None for part in parts) == bias  # the last layer alone has it


@pytest.mark.parametrize("bias", [True, False])
def test_a_fully_connected_layer_of_any_leading_shape(bias: bool) -> None:
    for into, out in ((5, 9), (9, 5)):
        layer = nn.Linear(into, out, bias=bias)
        parts = decomposed(layer, "svd", full_ranks(layer, "svd"))
        for shape in ((3, into), (2, 4, into)):
            x = torch.randn(shape)
            with torch.no_grad():
                assert far(layer(x), parts(x)) < 1e-5


def test_methods_fit_the_kernel() -> None:
    assert methods_of(nn.Linear(4, 4)) == ("svd",)
    assert methods_of(nn.Conv2d(4, 4, 1)) == ("svd",)
    assert methods_of(nn.Conv2d(4, 4, (1, 3))) == ("tucker", "cp")
    assert methods_of(nn.Conv2d(4, 4, 3)) == ("tucker", "cp", "spatial")
    assert methods_of(nn.Conv2d(4, 4, 5)) == ("tucker", "cp", "spatial", "stack")
    assert "stack" not in methods_of(nn.Conv2d(4, 4, 5, stride=3))
    assert "stack" not in methods_of(nn.Conv2d(4, 4, 5, stride=2, dilation=2))


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (nn.Conv2d(4, 4, 3, groups=4), "depthwise"),
        (nn.Conv2d(4, 4, 1, groups=2), "grouped"),
        (nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"), "reflect"),
        (nn.Conv2d(4, 4, 2, padding="same"), "same"),
        (nn.BatchNorm2d(4), "BatchNorm2d"),
        (nn.ConvTranspose2d(4, 4, 3), "ConvTranspose2d"),
    ],
)
def test_layers_that_take_none_say_why(layer: nn.Module, reason: str) -> None:
    assert methods_of(layer) == ()
    assert reason in why_not(layer)
    with pytest.raises(SettingsError, match=reason):
        network = nn.Sequential(layer)
        apply_changes(network, [decompose_layer("0", "svd", [1])])


@pytest.mark.parametrize("method", METHODS)
def test_more_ranks_keep_more_energy_and_the_function_is_nearer(method: str) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(6, 8, 1 if method == "svd" else 5, padding=0 if method == "svd" else 2)
    full = full_ranks(layer, method)
    x = torch.randn(4, 6, 9, 9)
    energies, distances = [], []
    for part in (0.2, 0.5, 0.8, 1.0):
        ranks = tuple(max(1, round(part * rank)) for rank in full)
        energies.append(kept_energy(layer, method, ranks))
        with torch.no_grad():
            distances.append(float((layer(x) - decomposed(layer, method, ranks)(x)).square().mean()))
    assert energies == sorted(energies) and energies[-1] == pytest.approx(1, abs=1e-9)
    assert distances == sorted(distances, reverse=True)


def test_the_svd_keeps_the_energy_of_its_singular_values() -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(8, 12, 1)
    values = torch.linalg.svdvals(layer.weight.detach().double().reshape(12, 8)).square()
    assert torch.allclose(spectra(layer, "svd")[0], values)
    for rank in range(1, 9):
        assert kept_energy(layer, "svd", (rank,)) == pytest.approx(float(values[:rank].sum() / values.sum()))


def test_tucker_keeps_at_least_what_its_cuts_leave() -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(8, 10, 3)
    tables = spectra(layer, "tucker")
    for ranks in ((2, 3), (4, 4), (7, 9)):
        lost = sum(float(table[rank:].sum() / table.sum()) for table, rank in zip(tables, ranks, strict=True))
        assert kept_energy(layer, "tucker", ranks) >= 1 - lost - 1e-9


@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("method", METHODS)
def test_constant_weights_stay_finite(method: str, value: float) -> None:
    layer = nn.Conv2d(3, 4, 1 if method == "svd" else 7, padding=0 if method == "svd" else 3, stride=1)
    nn.init.constant_(layer.weight, value)
    for ranks in (full_ranks(layer, method), tuple(1 for _ in full_ranks(layer, method))):
        parts = decomposed(layer, method, ranks)
        assert all(bool(torch.isfinite(parameter).all()) for parameter in parts.parameters())


def edits(network: nn.Module) -> list[Change]:
    """A decomposition of each layer that takes one, each method in turn, at about half the ranks."""
    result = []
    for number, (name, module) in enumerate(network.named_modules()):
        if methods := methods_of(module):
            method = methods[number % len(methods)]
            ranks = full_ranks(module, method)
            half = tuple(max(1, rank // 2) for rank in ranks)
            if not ranks_fit(module, method, half):
                half = tuple(1 for _ in ranks)
            result.append(decompose_layer(name, method, half))
    return result


@pytest.mark.parametrize("name", ["squeezenet1_1", pytest.param("resnet18", marks=pytest.mark.full)])
def test_edits_replay_to_the_bit(name: str) -> None:
    def network() -> nn.Module:
        torch.manual_seed(0)
        return create_model(name, num_classes=4, width=0.125, small_input=True).eval()

    first, second, third = network(), network(), network()
    changes = edits(first)
    text = changes_to_json(changes)
    apply_changes(first, changes)
    apply_changes(second, parse_changes(text))
    state = first.state_dict()
    assert all(torch.equal(value, second.state_dict()[key]) for key, value in state.items())
    apply_changes(third, parse_changes(text), values=False)  # the shapes alone, as a saved state needs them
    assert {key: value.shape for key, value in third.state_dict().items()} == {
        key: value.shape for key, value in state.items()
    }
    third.load_state_dict(state)
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(first(x), third(x))


def test_edits_of_all_kinds_are_read_as_they_are_written() -> None:
    both = [keep_channels("a", 0, [1]), decompose_layer("a", "svd", [2])]
    assert parse_changes(changes_to_json(both)) == tuple(both)


def test_decomposed_layers_are_decomposed_and_narrowed_again() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(4, 8, 3, padding=1), nn.Conv2d(8, 6, 1))
    apply_changes(
        network,
        [
            keep_channels("0", 0, range(6)),
            keep_channels("1", 1, range(6)),
            decompose_layer("0", "tucker", [3, 4]),
            decompose_layer("0.1", "spatial", [5]),
            keep_channels("0.1.0", 0, range(4)),
            keep_channels("0.1.1", 1, range(4)),
        ],
    )
    assert network(torch.randn(2, 4, 8, 8)).shape == (2, 6, 8, 8)
    assert [tuple(part.weight.shape) for part in network[0][1]] == [(4, 3, 3, 1), (4, 4, 1, 3)]


@pytest.mark.parametrize(
    ("figures", "message"),
    [
        ({"method": "svd"}, "figures"),
        ({"method": "svdd", "ranks": [1]}, "did you mean svd"),
        ({"method": ["svd"], "ranks": [1]}, "no decomposition"),
        ({"method": "svd", "ranks": 3}, "ranks"),
        ({"method": "svd", "ranks": []}, "ranks"),
        ({"method": "svd", "ranks": [1, 2, 3]}, "ranks"),
        ({"method": "svd", "ranks": [1.5]}, "ranks"),
        ({"method": "svd", "ranks": [True]}, "ranks"),
        ({"method": "svd", "ranks": [0]}, "ranks"),
        ({"method": "svd", "ranks": [1 << 40]}, "ranks"),
    ],
)
def test_damaged_edits_are_refused(figures: Any, message: str) -> None:
    text = json.dumps({"format": 1, "changes": [{"operation": "decompose_layer", "layer": "0", "figures": figures}]})
    with pytest.raises((SettingsError, UnknownNameError), match=message):
        parse_changes(text)


def test_edits_that_do_not_fit_are_refused() -> None:
    def apply(*change: Any) -> None:
        apply_changes(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), [decompose_layer(*change)])

    with pytest.raises(SettingsError, match="tucker, cp, spatial for it"):
        apply("0", "svd", [1])
    with pytest.raises(SettingsError, match="at most 9"):
        apply("0", "spatial", [10])
    with pytest.raises(SettingsError, match="2 of them"):
        apply("0", "tucker", [1])
    with pytest.raises(SettingsError, match="a ReLU"):
        apply("1", "svd", [1])
    with pytest.raises(UnknownNameError, match="2"):
        apply("2", "svd", [1])


def test_a_layer_keeps_its_kind() -> None:
    layer = nn.Conv2d(3, 4, 3).double().requires_grad_(False).eval()
    parts = decomposed(layer, "spatial", (2,))
    assert all(p.dtype == torch.float64 and not p.requires_grad for p in parts.parameters())
    assert not parts.training
    shapes = [p.shape for p in skeleton(layer, "spatial", (2,)).parameters()]
    assert shapes == [p.shape for p in parts.parameters()]


@pytest.mark.full
def test_as_near_as_tensorly_where_it_is_installed() -> None:
    """A peer: the same ranks keep as much of the kernel, to a thousandth for HOOI, to a hundredth for CP's local minima."""
    tensorly = pytest.importorskip("tensorly")
    from tensorly.decomposition import parafac, partial_tucker

    torch.manual_seed(0)
    layer = nn.Conv2d(8, 10, 3)
    weight = layer.weight.detach().double().numpy()
    total = (weight**2).sum()
    (core, sides), _ = partial_tucker(weight, rank=[4, 3], modes=[0, 1], init="svd")
    rebuilt = tensorly.tenalg.multi_mode_dot(core, sides, modes=[0, 1])
    theirs = 1 - ((weight - rebuilt) ** 2).sum() / total
    assert kept_energy(layer, "tucker", (3, 4)) >= theirs - 1e-3
    cube = weight.reshape(10, 8, 9)
    rebuilt = tensorly.cp_to_tensor(parafac(cube, rank=12, init="random", n_iter_max=100, random_state=0))
    theirs = 1 - ((cube - rebuilt) ** 2).sum() / total
    assert kept_energy(layer, "cp", (12,)) >= theirs - 1e-2


def test_any_layer_at_any_ranks_runs_and_has_the_shape_of_the_layer() -> None:
    draw = random.Random(0)
    for _ in range(40):
        kernel = draw.choice([1, 3, 5, 7])
        layer = nn.Conv2d(
            draw.randint(1, 5),
            draw.randint(1, 5),
            kernel,
            stride=draw.choice([1, 2]),
            padding=draw.randint(0, kernel // 2),
        )
        x = torch.randn(1, layer.in_channels, draw.randint(9, 14), draw.randint(9, 14))
        for method in methods_of(layer):
            most = full_ranks(layer, method)
            first = draw.randint(1, most[0])
            rest = full_ranks(layer, method, (first, *most[1:]))[1:]
            ranks = (first, *(draw.randint(1, full) for full in rest))
            assert decomposed(layer, method, ranks)(x).shape == layer(x).shape
