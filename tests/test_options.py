"""Deformable convolutions, self-attention and gates that one option puts into a network."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import gossamer
from gossamer.analysis.cost import cost
from gossamer.blocks.deform import DeformableConv2d, deform_conv2d
from gossamer.blocks.gates import (
    ChannelGate,
    PositionGate,
    counted,
    gate_cost,
    gates_of,
    open_fraction,
    skip_closed,
)
from gossamer.blocks.residual import InvertedResidual
from gossamer.errors import InputError, SettingsError, UnknownNameError
from gossamer.networks import Network, create_model, load_weights
from gossamer.settings import Settings
from gossamer.settings.parse import parse_stages
from gossamer.settings.rates import resolve_optimizer
from gossamer.training import optim
from tests.runs import same, weights

OPTIONS: dict[str, dict[str, Any]] = {
    "deformable 1": {"deformable": "v1"},
    "deformable 2": {"deformable": "v2", "deformable_stages": 2},
    "self-attention": {"self_attention": (1, 3)},
    "channels": {"gating": "channels"},
    "positions": {"gating": "positions"},
    "channels, topk": {"gating": "channels", "gate_draw": "topk"},
    "positions, topk": {"gating": "positions", "gate_draw": "topk"},
}
NETS = (("resnet18", 0.125), ("mobilenet_v2", 0.25), ("resnet50", 0.125))


def built(net: str, width: float, **options: Any) -> Network:
    """A small network whose new parts and norms have weights that do something."""
    torch.manual_seed(0)
    network = create_model(net, num_classes=5, small_input=True, width=width, **options)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if ".offset." in name or ".saliency." in name or name.endswith("attention.scale"):
                parameter.normal_(0, 0.3)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)  # type: ignore[union-attr]
                module.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
                module.bias.normal_(0, 0.2)
    return network


def layers(network: nn.Module, kind: type) -> list[str]:
    return [name for name, module in network.named_modules() if isinstance(module, kind)]


@pytest.mark.parametrize(("net", "width"), NETS)
@pytest.mark.parametrize("name", OPTIONS)
def test_every_parameter_of_an_option_learns(net: str, width: float, name: str) -> None:
    network, x = built(net, width, **OPTIONS[name]), torch.randn(4, 3, 32, 32)
    extra = gate_cost(network, 0.5)
    assert extra is None  # nothing was computed yet
    loss = network(x).square().sum()
    extra = gate_cost(network, 0.5)
    assert (extra is not None) == (name in ("channels", "positions"))
    (loss if extra is None else loss + extra).backward()
    idle = [name for name, each in network.named_parameters() if each.grad is None or not each.grad.abs().sum() > 0]
    assert not idle
    assert network.eval()(x).shape == (4, 5)


def test_the_layers_are_where_the_option_says() -> None:
    assert layers(built("resnet18", 0.125, deformable="v1"), DeformableConv2d) == [
        f"stages.3.{block}.conv{layer}.conv" for block in (0, 1) for layer in (1, 2)
    ]
    assert layers(built("resnet50", 0.125, deformable="v1"), DeformableConv2d) == [
        f"stages.3.{block}.conv2.conv" for block in range(3)
    ]
    assert layers(built("mobilenet_v2", 0.25, deformable="v2", deformable_stages=2), DeformableConv2d) == [
        f"stages.{stage}.depthwise.conv" for stage in ("5.0", "5.1", "5.2", "6.0")
    ]
    for net in ("mobilenetv3_small_100", "mobilenetv4_conv_small", "preresnet20", "efficientnet_b0"):
        with torch.device("meta"):
            deformable = layers(create_model(net, deformable="v1"), DeformableConv2d)
        assert deformable and not any("attention" in name for name in deformable), net
    assert len(gates_of(built("resnet18", 0.125, gating="channels"))) == 8
    assert len(gates_of(built("resnet18", 0.125, gating="positions"))) == 5  # the blocks without a projection
    assert len(gates_of(built("mobilenet_v2", 0.25, gating="channels"))) == 16  # the first block expands nothing


def test_a_fresh_gate_is_open_with_a_probability_of_88_percent() -> None:
    network = create_model("resnet18", num_classes=5, width=0.125, gating="positions")
    biases = [value for name, value in network.named_parameters() if name.endswith("saliency.bias")]
    assert biases and all(torch.sigmoid(bias).min().item() == pytest.approx(0.88, abs=0.005) for bias in biases)


def test_an_option_costs_what_its_formula_says() -> None:
    with torch.device("meta"):
        plain, offsets = create_model("resnet18"), create_model("resnet18", deformable="v1")
        attending = create_model("resnet18", self_attention=(3,))
        with_gates = create_model("resnet18", gating="channels")
        places = create_model("resnet18", gating="positions")
    base, positions, c = cost(plain), 7 * 7, 512
    more = cost(offsets)
    inputs = 256 + 3 * c  # channels that the four convolutions of the last stage read
    assert more.params - base.params == 9 * 18 * inputs + 4 * 18
    # the first reads its strided map at the places of its own result
    assert more.macs - base.macs == 9 * (18 + 4) * inputs * positions
    assert not more.unknown
    d = c // 8
    more = cost(attending)
    assert more.params - base.params == c * (2 * d + 2 * c) + 2 * d + 2 * c + 1
    assert more.macs - base.macs == c * (2 * d + 2 * c) * positions + positions**2 * (d + c)
    pairs = [(64, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 512), (512, 512)]
    more = cost(with_gates)
    assert more.macs - base.macs == sum(a * b for a, b in pairs)
    assert more.params - base.params == sum(a * b + b for a, b in pairs)
    sides = [(64, 56), (64, 56), (128, 28), (256, 14), (512, 7)]
    assert cost(places).macs - base.macs == sum(9 * channels * side**2 for channels, side in sides)


def test_fresh_options_leave_the_network_as_it_is() -> None:
    torch.manual_seed(0)
    x, plain = torch.randn(2, 3, 32, 32), create_model("resnet18", width=0.125, small_input=True).eval()
    for options in ({"deformable": "v1"}, {"self_attention": (0, 3)}, {"gating": "channels"}, {"gating": "positions"}):
        network = create_model("resnet18", width=0.125, small_input=True, **options).eval()  # type: ignore[arg-type]
        missing, unexpected = network.load_state_dict(plain.state_dict(), strict=False)
        assert missing and not unexpected
        torch.testing.assert_close(network(x), plain(x))


def test_weights_of_the_plain_network_fit_one_with_options(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    plain = create_model("resnet18", width=0.125)
    save_file(plain.state_dict(), tmp_path / "plain.safetensors")
    network = create_model("resnet18", width=0.125, deformable="v2", self_attention=(2,), gating="channels")
    difference = load_weights(network, tmp_path / "plain.safetensors")
    assert difference.fits and difference.fresh == 4 * 2 + 9 + 8 * 2 and "keep their initial values" in str(difference)
    assert torch.equal(
        network.state_dict()["stages.3.0.conv1.conv.weight"], plain.state_dict()["stages.3.0.conv1.conv.weight"]
    )
    save_file(network.state_dict(), tmp_path / "own.safetensors")
    again = create_model("resnet18", width=0.125, deformable="v2", self_attention=(2,), gating="channels")
    assert load_weights(again, tmp_path / "own.safetensors").fresh == 0


def test_torchvisions_names_reach_the_blocks_behind_an_attention() -> None:
    with torch.device("meta"):
        from gossamer.networks.weights import _block_paths

        paths = _block_paths(create_model("mobilenet_v2", self_attention=(1, 4)))
    assert len(paths) == 17 and paths[0] == "stages.0.0" and paths[-1] == "stages.6.0"


def test_places_keep_their_fractions_in_bfloat16() -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(1, 2, 3, 300), torch.randn(2, 2, 3, 3)
    offset = torch.full((1, 18, 3, 300), 0.25)
    exact = deform_conv2d(x.bfloat16().float(), offset, weight.bfloat16().float(), padding=1)
    with torch.autocast("cpu", torch.bfloat16):
        rough = deform_conv2d(x.bfloat16(), offset.bfloat16(), weight, padding=1)
    assert (rough.float() - exact).abs().max() < 0.02 * exact.abs().max()


def test_offsets_have_the_papers_learning_rates() -> None:
    settings = resolve_optimizer(Settings(net="resnet18"))
    for version, factor in (("v1", 1.0), ("v2", 0.1)):
        network = create_model("resnet18", width=0.125, deformable=version)
        groups = optim.parameter_groups(network, settings)
        scales = {id(parameter): group["lr_scale"] for group in groups for parameter in group["params"]}
        for name, parameter in network.named_parameters():
            assert scales[id(parameter)] == (factor if ".offset." in name else 1.0), name
    optimizer = optim.build_optimizer(network, settings)
    optim.set_rate(optimizer, 0.5)
    assert {group["lr"] for group in optimizer.param_groups} == {0.5, 0.05}


# gates


@pytest.mark.parametrize(("net", "width"), NETS)
@pytest.mark.parametrize("draw", ["gumbel", "topk"])
def test_closed_channels_are_skipped_with_the_same_result(net: str, width: float, draw: str) -> None:
    network = built(net, width, gating="channels", gate_draw=draw).eval()
    # images whose best channels are no near ties, which another order of sums would decide in another way
    x = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), counted(network) as masked:
        expected = network(x)
    assert skip_closed(network) == len(gates_of(network))
    with torch.no_grad(), counted(network) as skipped:
        got = torch.cat([network(each[None]) for each in x])
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    assert 0.05 < masked.fraction < 0.95 and skipped.fraction == pytest.approx(masked.fraction, rel=1e-5)
    assert masked.images == pytest.approx(4) and masked.per_image == pytest.approx(skipped.per_image)


@pytest.mark.parametrize(("net", "width"), NETS)
def test_a_branch_with_all_channels_closed_can_be_skipped(net: str, width: float) -> None:
    network, x = built(net, width, gating="channels").eval(), torch.randn(1, 3, 32, 32)
    for gate in gates_of(network):
        nn.init.constant_(gate.get_submodule("saliency").bias, -1000.0)  # type: ignore[arg-type]
    with torch.no_grad():
        expected = network(x)
        skip_closed(network)
        torch.testing.assert_close(network(x), expected, rtol=1e-4, atol=1e-5)


def test_skipping_computes_less() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    network, x = built("mobilenet_v2", 0.25, gating="channels").eval(), torch.randn(1, 3, 32, 32)
    counts = []
    for _ in range(2):
        with torch.no_grad(), FlopCounterMode(display=False) as counter, counted(network) as tally:
            network(x)
        counts.append(counter.get_total_flops() // 2)
        skip_closed(network)
    # torch counts no group but the first of a depthwise layer's right, so the sum is compared, not each layer
    assert counts[1] < counts[0] and counts[0] - counts[1] == pytest.approx(tally.total - tally.computed, rel=0.2)


def test_a_closed_channel_and_a_closed_position_add_nothing() -> None:
    network, x = built("resnet18", 0.125, gating="positions").eval(), torch.randn(1, 3, 32, 32)
    block = network.get_submodule("stages.0.0")
    assert isinstance(block.gate, PositionGate)
    y = torch.randn(1, 8, 6, 6)
    with torch.no_grad():
        opened, out = block.gate(y), block(y)
    assert set(opened.unique().tolist()) == {0.0, 1.0}
    closed = (opened == 0).expand_as(y)
    assert torch.equal(out[closed], y.relu()[closed]) and not torch.equal(out[~closed], y.relu()[~closed])
    with torch.no_grad(), counted(network) as tally:
        network(x)
    # what a 3x3 reads around an open position is computed too
    with torch.no_grad(), counted(block) as one:
        block(y)
    plain = 9 * 8 * 8 * 36
    reached = nn.functional.max_pool2d(opened, 3, 1, 1).mean()
    assert one.computed == pytest.approx(plain * float(opened.mean() + reached)) and one.total == 2 * plain
    assert 0 < tally.fraction < 1


def test_gates_are_drawn_by_their_odds_in_training_and_by_their_sign_after() -> None:
    torch.manual_seed(0)
    gate, x = ChannelGate(2, 3000), torch.randn(8, 2, 4, 4)
    with torch.no_grad():
        gate.saliency.weight.zero_()
        gate.saliency.bias.fill_(0.5)  # type: ignore[union-attr]
    drawn = gate(x)
    assert set(drawn.unique().tolist()) <= {0.0, 1.0}
    assert float(drawn.detach().mean()) == pytest.approx(torch.sigmoid(torch.tensor(0.5)).item(), abs=0.02)
    drawn.sum().backward()
    assert gate.saliency.bias.grad is not None and gate.saliency.bias.grad.abs().min() > 0  # straight through
    assert gate.eval()(x).min() == 1
    with torch.no_grad():
        gate.saliency.bias.fill_(-1e-30)  # type: ignore[union-attr]
    assert gate(x).max() == 0


def test_topk_opens_as_many_as_it_should() -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 6, 5, 7)
    channels = ChannelGate(6, 20, draw="topk", target=0.3)
    nn.init.normal_(channels.saliency.weight)
    assert (open_fraction(channels(x)) - 0.3).abs().max() < 1e-6
    positions = PositionGate(6, draw="topk", target=0.4)
    nn.init.normal_(positions.saliency.weight)
    assert (open_fraction(positions(x)) - 14 / 35).abs().max() < 1e-6


def test_the_cost_leads_the_gates_to_the_target() -> None:
    torch.manual_seed(0)
    block = InvertedResidual(8, 8, c_mid=48, stride=1, shortcut=True)
    block.gate, x = ChannelGate(8, 48), torch.randn(8, 8, 6, 6)
    optimizer = torch.optim.Adam(block.gate.parameters(), 0.1)
    for _ in range(60):
        block(x)
        extra = gate_cost(block, 0.3)
        assert extra is not None
        optimizer.zero_grad()
        extra.backward()
        optimizer.step()
    with counted(block) as tally:
        block(x)
    assert tally.fraction == pytest.approx(0.3, abs=0.06)


def test_detectors_and_segmenters_take_the_options() -> None:
    from gossamer.tasks.detection.heads import build_detector
    from gossamer.tasks.segmentation.heads import Segmenter

    options: dict[str, Any] = {"gating": "channels", "deformable": "v1", "self_attention": (6,)}
    torch.manual_seed(0)
    detector = build_detector("mobilenet_v2", 3, (64, 64), width=0.25, **options)
    outputs = detector.train()(torch.randn(2, 3, 64, 64))
    assert outputs["deltas"].shape[-1] == 4 and gate_cost(detector, 0.5) is not None
    segmenter = Segmenter("mobilenet_v2", 3, width=0.25, **options)
    assert segmenter.eval()(torch.randn(1, 3, 64, 64))["logits"].shape == (1, 3, 8, 8)
    for model in (detector, segmenter):
        assert len(gates_of(model)) == 16 and layers(model, DeformableConv2d)


# what is refused


@pytest.mark.parametrize(
    ("net", "options", "words"),
    [
        ("resnet18", {"deformable": "v3"}, "did you mean v2"),
        ("resnet18", {"deformable": "v1", "deformable_stages": 5}, "1 to 4"),
        ("resnet18", {"deformable": "v1", "deformable_stages": 0}, "1 to 4"),
        ("densenet121", {"deformable": "v1"}, "residual"),
        ("vgg11", {"gating": "channels"}, "residual"),
        ("skresnext50_32x4d", {"gating": "channels"}, "residual"),
        ("resnet18", {"self_attention": (4,)}, "0 to 3"),
        ("resnet18", {"self_attention": 3}, r"\(2, 3\)"),
        ("resnet18", {"self_attention": ("3",)}, "0 to 3"),
        ("resnet18", {"gating": "pixels"}, "positions"),
        ("resnet18", {"gating": "channels", "gate_draw": "top"}, "topk"),
        ("resnet18", {"gating": "channels", "gate_target": 0}, "above 0"),
        ("timm:resnet18", {"deformable": "v1"}, "deformable"),
    ],
)
def test_an_option_that_does_not_fit_says_what_does(net: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words), torch.device("meta"):
        create_model(net, **options)


@pytest.mark.parametrize("text", ["x", "3,", "-1", "1,1", "3.5", "1 2", "1000"])
def test_stages_are_numbers(text: str) -> None:
    with pytest.raises(SettingsError, match=r"--self-attention '.*as 3 or 2,3"):
        Settings(self_attention=text)


def test_stages_are_read_in_any_order() -> None:
    assert parse_stages(" 3, 1 ") == (1, 3) and parse_stages("") == ()
    assert Settings(self_attention=3).self_attention == "3"  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError, match="v2"):
        Settings(deformable="v3")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"deformable_stages": 2}, "--deformable"),
        ({"gate_draw": "topk"}, "--gating"),
        ({"gate_target": 0.3}, "--gating"),
        ({"gate_weight": 2.0}, "--gating"),
        ({"gating": "channels", "gate_draw": "topk", "gate_weight": 2.0}, "gumbel"),
    ],
)
def test_a_setting_that_would_do_nothing_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        Settings(**options)


# a complete run


@pytest.mark.full
def test_a_run_with_options_resumes_to_the_same_bits_and_tells_its_macs(image_folder: Path, tmp_path: Path) -> None:
    from gossamer.host.progress import Progress
    from gossamer.training.evaluate_target import evaluate_target
    from gossamer.training.loop import train

    class Stop(Progress):
        """Ends the process's run after four steps, as a kill would."""

        def track(self, items: Any, total: int, what: str) -> Any:
            for count, item in enumerate(items):
                if what.startswith("epoch 2") and count == 2:
                    raise KeyboardInterrupt
                yield item

    settings = Settings(
        data=str(image_folder), out=str(tmp_path / "one"), net="resnet18", width=0.125, input="32", epochs=2, batch=8,
        threads=1, workers=0, precision="float32", memory_format="channels_last", save_steps=1, deformable="v2",
        self_attention="3", gating="channels", net_options="repeats=1,1,1,1",
    )  # fmt: skip
    train(settings)
    with pytest.raises(KeyboardInterrupt):
        train(settings.replace(out=str(tmp_path / "two")), progress=Stop())
    gossamer.resume(tmp_path / "two")
    assert same(weights(tmp_path / "one"), weights(tmp_path / "two"))
    names = weights(tmp_path / "one")
    assert any(name.endswith("conv.offset.weight") for name in names) and any(".gate." in name for name in names)
    scores = evaluate_target(tmp_path / "one")
    assert "MACs per image are computed" in scores.text() and 0 < scores.to_json()["gates"]["share"] <= 1
    assert scores.to_json()["gates"]["computed"] <= scores.to_json()["gates"]["macs"]
    from gossamer.export import convert
    from gossamer.export.formats import export

    exported = export(tmp_path / "one", tmp_path / "one.onnx")
    assert exported.opset == (19 if convert.runs_deform_conv() else 18) and exported.comparison.changed == 0
    assert "one.onnx" in exported.text() and exported.verifications
    (prediction,) = gossamer.load(tmp_path / "one.onnx").predict([next((image_folder / "val").rglob("*.png"))])
    assert not prediction.error


def test_inspect_tells_what_gates_can_leave_out() -> None:
    from gossamer.microscope.inspection import inspect
    from gossamer.microscope.table import layer_table

    inspection = inspect("resnet18", deformable="v1", gating="channels")
    text = layer_table(inspection)
    assert "bilinear sampling" in text and "stages.3.0.conv1.conv.offset" in text
    assert 0.8 < inspection.gated_macs / inspection.cost.macs < 1 and "gates  " in text
    assert inspect("resnet18").gated_macs == 0


# export


def onnx_of(network: nn.Module, side: int = 32) -> tuple[bytes, list[str]]:
    onnx = pytest.importorskip("onnx")
    from gossamer.export.convert import to_onnx

    data = to_onnx(network, (side, side))
    return data, [node.op_type for node in onnx.load_model(io.BytesIO(data)).graph.node]


def outputs_of(data: bytes, x: torch.Tensor) -> np.ndarray:
    session = pytest.importorskip("onnxruntime").InferenceSession(data)
    return np.asarray(session.run(None, {"input": x.numpy()})[0])


class Small(nn.Module):
    """Layers with options, few enough that the exporter takes a second."""

    def __init__(self) -> None:
        super().__init__()
        self.first = DeformableConv2d(3, 4, stride=2)
        self.second = DeformableConv2d(4, 4, groups=4, bias=False, modulated=False)
        self.gate = ChannelGate(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.second(self.first(x))
        return y * self.gate(y)


@pytest.mark.parametrize("has_operator", [True, pytest.param(False, marks=pytest.mark.full)])
def test_deformable_layers_are_exported(has_operator: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    from gossamer.export import convert

    if has_operator and not convert.runs_deform_conv():
        pytest.skip("the installed onnxruntime has no DeformConv")
    monkeypatch.setattr(convert, "runs_deform_conv", lambda: has_operator)
    torch.manual_seed(0)
    network, x = Small().eval(), torch.randn(3, 3, 12, 10)
    for parameter in network.parameters():
        nn.init.normal_(parameter)
    data = convert.to_onnx(network, (12, 10))
    onnx = pytest.importorskip("onnx")
    model = onnx.load_model(io.BytesIO(data))
    kinds = [node.op_type for node in model.graph.node]
    assert kinds.count("DeformConv" if has_operator else "GridSample") == 2
    assert model.opset_import[0].version == (19 if has_operator else 18)
    with torch.no_grad():
        expected = network(x)
    np.testing.assert_allclose(outputs_of(data, x), expected.numpy(), rtol=1e-3, atol=1e-3)
    assert not network.first.as_onnx  # the caller's module stays as it is


@pytest.mark.full
def test_inspect_counts_the_operators_of_the_file(tmp_path: Path) -> None:
    from gossamer.export import convert
    from gossamer.microscope.inspection import inspect

    network = DeformableConv2d(3, 4, modulated=False)
    for number, has_operator in enumerate({False, convert.runs_deform_conv()}):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(convert, "runs_deform_conv", lambda has_operator=has_operator: has_operator)
            (tmp_path / f"{number}.onnx").write_bytes(convert.to_onnx(network, (8, 8)))
        counted_file = inspect(str(tmp_path / f"{number}.onnx"))
        assert counted_file.cost.macs == cost(network, (1, 3, 8, 8)).macs == 9 * 3 * (4 + 18 + 4) * 64
        assert not counted_file.cost.unknown


@pytest.mark.full
@pytest.mark.parametrize("name", OPTIONS)
def test_networks_with_options_are_exported(name: str) -> None:
    network, x = built("mobilenet_v2", 0.25, **OPTIONS[name]).eval(), torch.randn(2, 3, 32, 32)
    data, _ = onnx_of(network)
    with torch.no_grad():
        np.testing.assert_allclose(outputs_of(data, x), network(x).numpy(), rtol=1e-3, atol=1e-4)


@pytest.mark.full
@pytest.mark.parametrize("name", ["channels", "positions", "deformable 2", "self-attention"])
def test_the_engine_runs_gates_and_refuses_the_others_in_one_line(name: str, tmp_path: Path) -> None:
    from gossamer.runtime import load
    from gossamer.runtime.compilation import compile_model
    from gossamer.runtime.native import LIBRARY

    if not LIBRARY.exists():
        pytest.skip("the native engine is not built")
    network, x = built("resnet18", 0.125, repeats=(1, 1, 1, 1), **OPTIONS[name]).eval(), torch.randn(2, 3, 32, 32)
    data, _ = onnx_of(network)
    (tmp_path / "net.onnx").write_bytes(data)
    if name in ("channels", "positions"):
        compile_model(tmp_path / "net.onnx", tmp_path / "net.goss")
        got = load(tmp_path / "net.goss").run(x.numpy())
        with torch.no_grad():
            expected = network(x).numpy()
        np.testing.assert_allclose(got["logits"] if isinstance(got, dict) else got, expected, rtol=1e-3, atol=1e-4)
        return
    with pytest.raises(InputError, match=r"operator (DeformConv|GridSample|MatMul)") as caught:
        compile_model(tmp_path / "net.onnx", tmp_path / "net.goss")
    assert "\n" not in str(caught.value) and not (tmp_path / "net.goss").exists()
