"""Edits of a network: what each does, a run that has them from training to a compiled file, and damaged lists of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import gossamer
from gossamer.blocks.norm import LayerNorm2d
from gossamer.cli import main as cli
from gossamer.errors import InputError, RunError, SettingsError, UnknownNameError
from gossamer.networks import create_model
from gossamer.networks.changes import (
    Change,
    apply_changes,
    changes_to_json,
    keep_channels,
    parse_changes,
    set_activation,
)
from gossamer.settings import Settings
from gossamer.tasks.registry import task_of
from gossamer.training.loop import train
from gossamer.training.network import build_network
from gossamer.training.rerun import retrain
from gossamer.training.restore import load_run
from tests.interrupted import interrupted_after
from tests.runs import same, weights
from tests.test_trainer import Messages
from tests.test_trainer import small as small_settings

BLOCK = "stages.1.0"
KEPT = [i for i in range(48) if i % 3]


def small(image_folder: Path, out: Path, **options: object) -> Settings:
    """Settings of a quick run of the network whose layers are edited here."""
    return small_settings(image_folder, out, **{"net": "mobilenet_v2", **options})


def hidden(block: str = BLOCK, kept: list[int] = KEPT) -> list[Change]:
    """The edits that keep some of the hidden channels of an inverted residual block."""
    edits = [(f"{block}.expand.conv", 0), (f"{block}.expand.norm", 0), (f"{block}.depthwise.conv", 0)]
    edits += [(f"{block}.depthwise.norm", 0), (f"{block}.project.conv", 1)]
    return [keep_channels(layer, axis, kept) for layer, axis in edits]


def mobilenet(**options: Any) -> nn.Module:
    return create_model("mobilenet_v2", width=0.25, num_classes=3, small_input=True, **options)


def test_channels_that_output_zero_are_removed_without_a_change_of_the_outputs() -> None:
    model = mobilenet().eval()
    for name, tensor in model.named_parameters():  # norms that are not the identity
        if "norm" in name:
            nn.init.uniform_(tensor, 0.5, 1.5)
    removed = [i for i in range(48) if i not in KEPT]
    for norm in ("expand.norm", "depthwise.norm"):
        layer = model.get_submodule(f"{BLOCK}.{norm}")
        with torch.no_grad():
            layer.weight[removed] = 0
            layer.bias[removed] = 0
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        before = model(images)
        apply_changes(model, hidden())
        after = model(images)
    assert model.get_submodule(f"{BLOCK}.depthwise.conv").groups == len(KEPT)
    assert model.get_submodule(f"{BLOCK}.expand.norm").num_features == len(KEPT)
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5)


def test_a_changed_state_loads_strictly_into_an_untrained_network_that_was_changed_alike() -> None:
    changes = [*hidden(), set_activation("conv_head.act", "silu"), keep_channels("head.classifier", 1, range(1280))]
    model = mobilenet()
    apply_changes(model, changes)
    other = mobilenet()
    apply_changes(other, parse_changes(changes_to_json(changes)))
    other.load_state_dict(model.state_dict(), strict=True)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(model.eval()(images), other.eval()(images))
    with pytest.raises(RuntimeError, match="size mismatch"):
        mobilenet().load_state_dict(model.state_dict())


def test_edits_keep_the_values_and_what_is_frozen() -> None:
    index = [0, 2, 5]
    conv, linear, norm = nn.Conv2d(6, 8, 3), nn.Linear(6, 8), nn.BatchNorm2d(8)
    layer_norm, prelu = LayerNorm2d(8), nn.PReLU(8)
    nn.init.uniform_(norm.running_mean)
    nn.init.uniform_(prelu.weight)
    conv.weight.requires_grad_(False)
    kept = {
        "conv": conv.weight.detach()[:, index].clone()[index],
        "conv_bias": conv.bias.detach()[index].clone(),
        "linear": linear.weight.detach()[:, index].clone(),
        "mean": norm.running_mean[index].clone(),
        "prelu": prelu.weight.detach()[index].clone(),
    }
    layers = {"conv": conv, "linear": linear, "norm": norm, "layer_norm": layer_norm, "prelu": prelu}
    model = nn.ModuleDict(layers)
    edits = [("conv", 1), ("conv", 0), ("linear", 1), ("norm", 0), ("layer_norm", 0), ("prelu", 0)]
    apply_changes(model, [keep_channels(layer, axis, index) for layer, axis in edits])
    assert torch.equal(conv.weight, kept["conv"])
    assert torch.equal(conv.bias, kept["conv_bias"])
    assert not conv.weight.requires_grad and conv.bias.requires_grad
    assert (conv.in_channels, conv.out_channels) == (3, 3)
    assert torch.equal(linear.weight, kept["linear"])
    assert (linear.in_features, linear.out_features, len(linear.bias)) == (3, 8, 8)
    assert torch.equal(norm.running_mean, kept["mean"])
    assert torch.equal(prelu.weight, kept["prelu"])
    assert layer_norm(torch.randn(1, 3, 2, 2)).shape == (1, 3, 2, 2)


def test_a_grouped_convolution_is_sliced_group_by_group() -> None:
    conv = nn.Conv2d(8, 6, 3, groups=2, bias=False)
    images = torch.randn(1, 8, 5, 5)
    removed = [1, 2, 4, 7]  # two of each group, at other places
    images[:, removed] = 0
    kept = [0, 3, 5, 6]
    before = conv(images)
    model = nn.ModuleDict({"conv": conv})
    apply_changes(model, [keep_channels("conv", 1, kept)])
    torch.testing.assert_close(conv(images[:, kept]), before)
    apply_changes(model, [keep_channels("conv", 0, [0, 2, 3, 4])])
    torch.testing.assert_close(conv(images[:, kept]), before[:, [0, 2, 3, 4]])
    with pytest.raises(SettingsError, match="1 to 2 channels kept in a group of 2"):
        apply_changes(model, [keep_channels("conv", 1, [0, 1, 2])])


def test_edits_that_a_layer_does_not_take_are_refused() -> None:
    model = mobilenet()
    with pytest.raises(UnknownNameError, match=r"edit 2.*stages\.1\.0\.expand\.conv"):
        apply_changes(model, [*hidden()[:1], keep_channels("stages.1.0.expnd.conv", 0, [0])])
    with pytest.raises(SettingsError, match=r"channel 48 of .*0 to 47"):
        apply_changes(mobilenet(), [keep_channels(f"{BLOCK}.expand.conv", 0, [0, 48])])
    with pytest.raises(SettingsError, match="a BatchNorm2d"):
        apply_changes(model, [keep_channels(f"{BLOCK}.project.norm", 1, [0])])
    with pytest.raises(SettingsError, match="a ConvNormAct"):
        apply_changes(model, [keep_channels(f"{BLOCK}.expand", 0, [0])])
    with pytest.raises(SettingsError, match="a BatchNorm2d"):
        apply_changes(model, [set_activation(f"{BLOCK}.project.norm", "relu")])
    with pytest.raises(UnknownNameError, match="relu6"):
        apply_changes(model, [set_activation(f"{BLOCK}.expand.act", "relu66")])
    with pytest.raises(UnknownNameError):
        apply_changes(model, [set_activation("", "relu")])


OPTIONS = {"epochs": 2, "deterministic": True, "drop_rate": 0.3, "ema": 0.9, "save_steps": 2}
CHANGES = [*hidden(), set_activation(f"{BLOCK}.expand.act", "silu")]


@pytest.fixture(scope="module")
def changed(image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with edits, from the weights of a run without; not to be changed."""
    root = tmp_path_factory.mktemp("changed")
    unedited = train(small(image_folder, root / "unedited", epochs=1))
    messages = Messages()
    start = str(unedited.path / "best.safetensors")
    run = train(small(image_folder, root / "run", weights=start, **OPTIONS), changes=CHANGES, progress=messages)
    assert "6 edits of the network (changes.json)" in messages.lines
    return run.path


def test_a_run_with_edits_is_restored_with_them(changed: Path) -> None:
    network = load_run(changed)
    assert network.model.get_submodule(f"{BLOCK}.expand.conv").out_channels == len(KEPT)
    assert isinstance(network.model.get_submodule(f"{BLOCK}.expand.act"), nn.SiLU)
    state = weights(changed)
    assert state[f"model.{BLOCK}.project.conv.weight"].shape == (8, len(KEPT), 1, 1)
    assert parse_changes((changed / "changes.json").read_text()) == tuple(CHANGES)


def test_the_first_weights_are_sliced(image_folder: Path, changed: Path, tmp_path: Path) -> None:
    """At a rate of almost nothing the weights stay what they were loaded as."""
    start = changed.parent / "unedited"
    options = {"weights": str(start / "best.safetensors"), "lr": 1e-12, "weight_decay": 0, "epochs": 1, "ema": 0}
    run = train(small(image_folder, tmp_path / "run", **options), changes=CHANGES)
    name = f"model.{BLOCK}.project.conv.weight"
    sliced = weights(start, "best")[name][:, KEPT]
    assert weights(run.path)[name] == pytest.approx(sliced, abs=1e-6)


@pytest.mark.parametrize("stop", [1, 5])
def test_a_run_with_edits_resumes_to_the_same_bits(
    image_folder: Path, changed: Path, tmp_path: Path, stop: int
) -> None:
    settings = small(
        image_folder, tmp_path / "run", weights=str(changed.parent / "unedited/best.safetensors"), **OPTIONS
    )
    with interrupted_after(stop):
        train(settings, changes=CHANGES)
    resumed = gossamer.resume(tmp_path / "run")
    for which in ("last", "best"):
        assert same(weights(changed, which), weights(resumed.path, which))


@pytest.mark.full
def test_a_run_with_edits_is_evaluated_exported_and_compiled(changed: Path, tmp_path: Path) -> None:
    assert cli.main(["eval", str(changed)]) == 0
    file, compiled = tmp_path / "model.onnx", tmp_path / "model.goss"
    assert cli.main(["export", str(changed), "--out", str(file)]) == 0
    assert gossamer.load(file).metadata.provenance["changes"] == {"keep_channels": 5, "set_activation": 1}
    assert cli.main(["compile", str(file), "--out", str(compiled)]) == 0
    assert cli.main(["verify", str(compiled)]) == 0


def test_a_config_beside_edits_trains_the_edited_network(changed: Path, tmp_path: Path) -> None:
    config, fresh = str(changed / "settings.yaml"), ["--weights", "", "--epochs", "1"]
    assert cli.main(["train", "--config", config, "--out", str(tmp_path / "again"), *fresh]) == 0
    assert (tmp_path / "again/changes.json").read_bytes() == (changed / "changes.json").read_bytes()
    other = ["--net", "squeezenet1_1", *fresh]
    assert cli.main(["train", "--config", config, "--out", str(tmp_path / "other"), *other]) == 0
    assert not (tmp_path / "other/changes.json").exists()


def test_an_edited_network_names_its_new_channels(image_folder: Path, tmp_path: Path) -> None:
    kept = list(range(0, 8, 2))
    last = list(range(0, 1280, 5))
    edits = [keep_channels(f"stages.1.0.project.{part}", 0, kept) for part in ("conv", "norm")]
    edits += [keep_channels("stages.1.1.expand.conv", 1, kept)]
    edits += [keep_channels(f"stages.1.1.project.{part}", 0, kept) for part in ("conv", "norm")]
    edits += [keep_channels("stages.2.0.expand.conv", 1, kept)]
    edits += [keep_channels(f"conv_head.{part}", 0, last) for part in ("conv", "norm")]
    edits += [keep_channels("head.classifier", 1, last)]
    settings = small(image_folder, tmp_path / "run").replace(input="32", epochs=1)
    task = task_of("classify")(("a", "b", "c"), settings)
    plain, model = build_network(task), build_network(task, edits)
    assert (plain.num_features, model.num_features) == (1280, len(last))
    before, after = plain.feature_info, model.feature_info
    changed = [(old.channels, new.channels) for old, new in zip(before, after, strict=True) if old != new]
    assert changed == [(8, 4)]
    model.reset_classifier(7)
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 7)


def test_another_network_drops_the_edits(changed: Path, tmp_path: Path) -> None:
    run, dropped = retrain(changed, "squeezenet1_1", tmp_path / "other")
    assert dropped["changes"] == "6 edits"
    assert not (run.path / "changes.json").exists()


def test_edits_after_which_the_layers_do_not_fit_together_write_nothing(image_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="does not run"):
        train(small(image_folder, tmp_path / "run"), changes=CHANGES[:3])
    assert not (tmp_path / "run").exists()


def edited(**entries: Any) -> str:
    """A list with one edit, of which some entries are replaced."""
    edit = {"operation": "keep_channels", "layer": "conv_head.conv", "figures": {"axis": 0, "kept": [0, 1]}}
    return json.dumps({"format": 1, "changes": [{**edit, **entries}]})


DAMAGED = {
    "": "not JSON",
    '{"format": 1, "chan': "not JSON",
    "[" * 200_000: "not JSON",
    "[]": "not an object",
    '{"format": 1}': "not an object",
    '{"format": 2, "changes": []}': "format 2",
    '{"format": true, "changes": []}': "format True",
    '{"format": 1, "changes": {}}': "no list",
    '{"format": 1, "changes": [' + ",".join("0" for _ in range(100_001)) + "]}": "too long",
    '{"format": 1, "changes": [1]}': "edit 1: not an object",
    edited(operation="keep_chanels"): "did you mean keep_channels",
    edited(operation=["keep_channels"]): "no operation",
    edited(layer=""): "layer ''",
    edited(layer=7): "layer '7'",
    edited(layer="conv_head.cnv"): "did you mean conv_head.conv",
    edited(layer="x" * 2000): "1 to 1000 characters",
    edited(figures=[]): "figures of keep_channels",
    edited(figures={"axis": 0}): "figures of keep_channels",
    edited(figures={"axis": 2, "kept": [0]}): "axis 2",
    edited(figures={"axis": True, "kept": [0]}): "axis True",
    edited(figures={"axis": 0, "kept": []}): "kept",
    edited(figures={"axis": 0, "kept": [-1, 2]}): "ascending",
    edited(figures={"axis": 0, "kept": [1, 1]}): "ascending",
    edited(figures={"axis": 0, "kept": [0, 1.5]}): "whole numbers",
    edited(figures={"axis": 0, "kept": [0, 10**30]}): "channel 1000000000000000000000000000000",
    edited(operation="set_activation", figures={"act": 3}): "act 3",
    edited(operation="set_activation", figures={"act": "relu"}): "set_activation on conv_head.conv",
    edited(): "does not run",
    '{"format": 1, "changes": []}': "does not fit",
}


@pytest.mark.parametrize("text", DAMAGED, ids=[f"{number}" for number in range(len(DAMAGED))])
def test_a_damaged_list_of_edits_is_one_line(
    changed: Path, tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(changed, run)
    (run / "changes.json").write_text(text)
    assert cli.main(["export", str(run), "--out", str(tmp_path / "model.onnx")]) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1
    assert DAMAGED[text] in error[0]
    if "does not" not in DAMAGED[text] and DAMAGED[text] != "act 3":
        assert "changes.json" in error[0]


def test_a_list_of_edits_that_is_no_text_or_too_large_is_refused(
    changed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(changed, tmp_path / "run")
    (tmp_path / "run" / "changes.json").write_bytes(b"\xff\xfe")
    with pytest.raises(RunError, match=r"changes\.json"):
        load_run(tmp_path / "run")
    monkeypatch.setattr("gossamer.run.CHANGES_LIMIT", 100)
    (tmp_path / "run" / "changes.json").write_text(" " * 101)
    with pytest.raises(RunError, match="101 bytes"):
        load_run(tmp_path / "run")
    monkeypatch.setattr("gossamer.networks.changes.MAX_BYTES", 100)
    with pytest.raises(InputError, match="101 characters"):
        parse_changes(" " * 101)


def test_a_run_without_its_edits_says_what_does_not_fit(changed: Path, tmp_path: Path) -> None:
    shutil.copytree(changed, tmp_path / "run")
    (tmp_path / "run" / "changes.json").unlink()
    with pytest.raises(RunError, match=r"changes\.json: Error"):
        load_run(tmp_path / "run")
