"""Whole residual blocks that go: what is left computes what it did with the branch at zero, costs are as counted, runs replay it."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import gossamer
from gossamer.analysis.channels import channel_groups
from gossamer.analysis.cost import cost
from gossamer.analysis.graph import trace
from gossamer.errors import SettingsError, UnknownNameError
from gossamer.host.progress import SILENT
from gossamer.host.text import counted
from gossamer.networks import create_model
from gossamer.networks.changes import apply_changes, changes_to_json, drop_block, parse_changes, without_branch
from gossamer.networks.registry import traits
from gossamer.runtime import native
from gossamer.settings import Settings
from gossamer.shrink import blocks, times
from gossamer.shrink.blocks import add_blocks, block_importance, droppable, drops
from gossamer.shrink.edits import check_removal, removable, removal, without
from gossamer.shrink.solve import choose_widths
from gossamer.shrink.widths import CostModel, candidates, layers_of, mac_model, size_model
from gossamer.training.loop import train
from gossamer.training.network import changes_of
from gossamer.training.restore import load_run
from tests.counterparts import randomise_norms
from tests.interrupted import interrupted_after
from tests.runs import same, weights
from tests.shop import EVERY, write_shop
from tests.test_channels import SMALL
from tests.test_prune_times import by_macs
from tests.test_trainer import small

pytest.importorskip("scipy")

# a network of each kind of residual block, and how many of its blocks keep the shape
KINDS = {
    "resnet18": 5,  # four stages of two; the first of all but the first stage projects
    "mobilenetv2_035": 10,
    "mobilenetv3_small_050": 7,
    "preresnet20": 7,
    "ghostnet_050": 11,
}
OTHERS = {"resnet50": 12, "mobilenetv4_conv_small": 10}


def opened(name: str) -> tuple[nn.Module, Any, tuple[int, ...]]:
    """A network with norms of random numbers, its channel groups, and the shape of its input."""
    torch.manual_seed(0)
    channels, side, _ = traits(name).input
    arguments, side = SMALL.get(name, ({"width": 0.25} if name == "resnet50" else {}, 64))
    model = create_model(name, num_classes=5, in_chans=channels, **arguments).eval()
    randomise_norms(model)
    shape = (1, channels, side, side)
    return model, removable(model, channel_groups(trace(model, shape), strict=False)), shape


def check_kind(name: str, count: int) -> None:
    model, groups, shape = opened(name)
    found = droppable(model, shape, groups)
    assert len(found) == count, [one.name for one in found]
    graph = trace(model, shape)
    layers = layers_of(graph, groups)
    sizes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    shapes = {key: tuple(value.shape) for key, value in model.named_parameters()}
    options = candidates(groups, sizes, 4)
    costs = {"macs": mac_model(layers, options, cost(graph).macs), "size": size_model(layers, groups, options, shapes)}
    add_blocks(costs, layers, groups, options, found, shapes)
    draw = random.Random(0)
    images = torch.randn(2, *shape[1:])
    for gone in ([1] * count, [draw.randrange(2) for _ in found], [0] * count):
        inner = {number for one, out in zip(found, gone, strict=True) if out for number in one.inner}
        choice = [0 if g in inner else draw.randrange(len(one)) for g, one in enumerate(options)]
        removed = [list(range(one[0] - one[k])) for one, k in zip(options, choice, strict=True)]
        edits = drops(found, gone)
        names = [edit.layer for edit in edits]
        changes = (*edits, *removal(model, groups, removed, names))
        assert parse_changes(changes_to_json(changes)) == changes
        narrow = without(model, changes)
        check_removal(model, narrow, groups, removed, images, names)
        after = cost(narrow, shape)
        assert costs["macs"].of([*choice, *gone]) == pytest.approx(after.macs, rel=1e-6)
        assert costs["size"].of([*choice, *gone]) == pytest.approx(4 * after.params, rel=1e-6)
        outputs = narrow.train()(images)
        torch.autograd.backward(outputs.square().mean())


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv2_035"])
def test_what_is_left_computes_and_costs_what_it_should(name: str) -> None:
    check_kind(name, KINDS[name])


@pytest.mark.full
@pytest.mark.parametrize("name", [name for name in (*KINDS, *OTHERS) if name not in ("resnet18", "mobilenetv2_035")])
def test_so_does_every_other_kind_of_block(name: str) -> None:
    check_kind(name, {**KINDS, **OTHERS}[name])


def test_what_has_no_identity_shortcut_stays() -> None:
    model, _, _ = opened("mobilenetv2_035")
    blocks_of = [name for name, one in model.named_modules() if type(one).__name__ == "InvertedResidual"]
    kept = [name for name in blocks_of if without_branch(model.get_submodule(name)) is None]
    assert len(kept) == 7 and without_branch(model) is None and without_branch(nn.Conv2d(3, 3, 1)) is None
    for name, error, said in (
        (kept[0], SettingsError, "a residual block whose shortcut is the identity"),
        ("head.classifier", SettingsError, "drop_block of head.classifier, a Linear"),
        ("stages.9.9", UnknownNameError, "stages.9.9"),
    ):
        with pytest.raises(error, match=said):
            apply_changes(model, [drop_block(name)])
    gone = next(name for name in blocks_of if name not in kept)
    apply_changes(model, [drop_block(gone)])
    with pytest.raises(SettingsError, match="a Identity"):
        apply_changes(model, [drop_block(gone)])
    for name in (f"{gone}.expand.conv", f"{gone}.project"):
        with pytest.raises(UnknownNameError):
            apply_changes(model, [drop_block(name)])
    text = changes_to_json([drop_block(gone)])
    with pytest.raises(SettingsError, match="an empty object"):
        parse_changes(text.replace('"figures": {}', '"figures": {"axis": 0}'))


def test_a_block_that_is_read_from_outside_stays() -> None:
    class Reads(nn.Module):
        """Its head reads a layer of a block, as a detector's may."""

        def __init__(self, name: str) -> None:
            super().__init__()
            self.body, self.name = create_model("mobilenetv2_035", num_classes=5), name

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            scale = self.body.get_submodule(f"{self.name}.project.norm").weight.mean()
            out: torch.Tensor = self.body(x) * scale
            return out

    names = [one.name for one in droppable(*_with_groups(Reads("stages.2.1")))]
    assert len(names) == 9 and "body.stages.2.1" not in names and "body.stages.2.2" in names


def _with_groups(model: nn.Module) -> tuple[nn.Module, tuple[int, ...], Any]:
    shape = (1, 3, 32, 32)
    return model.eval(), shape, removable(model, channel_groups(trace(model, shape), strict=False))


def test_a_block_weighs_at_least_as_much_as_its_inner_channels() -> None:
    one = blocks.Block("a", frozenset({"a.w"}), (0, 2))
    values = [np.asarray([1.0, 2.0]), np.asarray([50.0]), np.asarray([4.0])]
    assert [float(each[0]) for each in block_importance([one, one], values, [9.0, 0.5])] == [9.0, 4.0]


def test_the_programme_takes_the_block_that_matters_least_for_its_cost() -> None:
    groups = [np.asarray([10.0, 4.0])]
    model = CostModel(100.0, [np.asarray([0.0, -30.0])])
    blocks.add_block(model, 40.0, [np.asarray([0.0, -25.0])])  # of the 30, 25 are in the block
    blocks.add_block(model, 40.0, [np.zeros(2)])

    def chosen(first: float, second: float, limit: float) -> list[int] | None:
        return choose_widths([*groups, np.asarray([first, 0.0]), np.asarray([second, 0.0])], [(model, limit)])

    assert model.of([0, 1, 0]) == 60 and model.of([1, 1, 0]) == 55 and model.of([1, 0, 1]) == 30
    assert chosen(3.0, 5.0, 60.0) == [0, 1, 0] and chosen(5.0, 3.0, 60.0) == [0, 0, 1]
    assert chosen(50.0, 50.0, 70.0) == [1, 0, 0], "narrower channels are worth less"
    assert chosen(1.0, 1.0, 15.0) == [1, 1, 1] and chosen(1.0, 1.0, 14.0) is None


@pytest.mark.full
@pytest.mark.skipif(not native.LIBRARY.is_file(), reason="the engine is not built")
@pytest.mark.parametrize("name", ["mobilenetv2_035", "resnet18"])
def test_the_table_of_times_has_blocks_too(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(times, "_profile", by_macs)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    model, groups, shape = opened(name)
    found = droppable(model, shape, groups)
    graph = trace(model, shape)
    layers = layers_of(graph, groups)
    options = candidates(groups, {key: tuple(value.shape) for key, value in model.state_dict().items()}, 2)
    table, _ = times.time_model(model, shape[2:], 3, ("logits",), layers, options, 1, SILENT, found)
    draw = random.Random(2)
    for gone in ([1] * len(found), [draw.randrange(2) for _ in found]):
        inner = {number for one, out in zip(found, gone, strict=True) if out for number in one.inner}
        choice = [0 if g in inner else draw.randrange(len(one)) for g, one in enumerate(options)]
        removed = [list(range(one[0] - one[k])) for one, k in zip(options, choice, strict=True)]
        edits = drops(found, gone)
        narrow = without(model, (*edits, *removal(model, groups, removed, [edit.layer for edit in edits])))
        assert table.of([*choice, *gone]) == pytest.approx(cost(narrow, shape).macs / 1e6, rel=0.05)


# runs: one residual, one inverted residual, one with several heads


def check_run(parent: Path, out: Path, **limits: Any) -> Any:
    """Prune so that blocks go; the result is replayed, exported, verified, compiled, and pruned again."""
    from gossamer.export.formats import export

    result = gossamer.prune(parent, out, minutes=0.01, importance="norm", **limits)
    assert result.dropped and f"without {counted(len(result.dropped), 'block')}" in result.text()
    assert json.loads(json.dumps(result.to_json()))["dropped"] == list(result.dropped)
    made = [edit.layer for edit in changes_of(result.run) if edit.operation == "drop_block"]
    assert made == list(result.dropped) and not {
        layer for layer, _, _ in result.widths if layer.startswith(tuple(f"{one}." for one in made))
    }
    loaded = load_run(out)
    images = torch.zeros(1, loaded.settings.in_chans, *loaded.preprocess.size)
    assert cost(loaded.model, tuple(images.shape)).macs == result.macs[1]
    pytest.importorskip("onnx")
    export(out, out.parent / "m.onnx")
    gossamer.verify(out.parent / "m.onnx").raise_if_failed()
    if native.LIBRARY.is_file():
        from gossamer.compile.write import compile_file

        gossamer.verify(compile_file(out.parent / "m.onnx", out.parent / "m.goss")).raise_if_failed()
    return result


@pytest.fixture
def light(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks that weigh nothing, so that they go first."""
    from gossamer.shrink import importance

    monkeypatch.setattr(importance, "block_importance", lambda blocks, *_: [np.zeros(1) for _ in blocks])


@pytest.mark.full
def test_a_residual_run_without_blocks_is_a_run(image_folder: Path, tmp_path: Path, light: None) -> None:
    parent = train(small(image_folder, tmp_path / "run", net="preresnet20", width=0.5, epochs=1)).path
    check_run(parent, tmp_path / "out", macs=0.25)


@pytest.mark.full
def test_an_inverted_residual_run_resumes_to_the_same_bits(
    image_folder: Path, tmp_path: Path, light: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gossamer.shrink import prune as module

    parent = train(small(image_folder, tmp_path / "run", net="mobilenet_v2", width=0.35, epochs=1)).path
    settings = module.training_settings

    def counted(*arguments: Any) -> Any:
        chosen, notes = settings(*arguments)
        return chosen.replace(minutes=None, epochs=1, deterministic=True, save_steps=1), notes

    monkeypatch.setattr(module, "training_settings", counted)
    check_run(parent, tmp_path / "whole", size=0.6, macs=0.6)
    with interrupted_after(2):
        gossamer.prune(parent, tmp_path / "killed", size=0.6, macs=0.6, importance="norm")
    assert same(weights(gossamer.resume(tmp_path / "killed").path), weights(tmp_path / "whole"))


@pytest.mark.full
def test_a_run_of_several_heads_loses_blocks(tmp_path: Path, light: None) -> None:
    write_shop(tmp_path / "data")
    values: dict[str, Any] = {
        "net": "mobilenet_v2", "width": 0.5, "input": "32", "epochs": 1, "batch": 8, "threads": 1, "workers": 0,
        "precision": "float32", "task": "multi", "heads": EVERY, "out": str(tmp_path / "run"), "data": str(tmp_path / "data"),
    }  # fmt: skip
    parent = train(Settings(**values)).path
    result = gossamer.prune(parent, tmp_path / "out", macs=0.6, minutes=0.02, importance="taylor")
    assert result.dropped and result.macs[1] <= 0.6 * result.macs[0]


@pytest.mark.full
def test_the_loss_says_what_a_block_matters(image_folder: Path, tmp_path: Path) -> None:
    """A branch that is zero changes no loss; one that is not does."""
    from gossamer.shrink.importance import channel_importance
    from gossamer.training.restore import same_data

    parent = train(small(image_folder, tmp_path / "run", net="mobilenet_v2", width=0.35, epochs=1)).path
    loaded = load_run(parent)
    data = same_data(loaded.run)
    loaded.task.prepare(data)
    shape = (1, 3, *loaded.preprocess.size)
    groups = removable(loaded.model, channel_groups(trace(loaded.model, shape), strict=False))
    found = droppable(loaded.model, shape, groups)
    with torch.no_grad():
        loaded.model.get_submodule(found[0].name).project.norm.weight.zero_()
        loaded.model.get_submodule(found[0].name).project.norm.bias.zero_()
    values = channel_importance("taylor", loaded.model, groups, loaded.task, data, loaded.preprocess, SILENT, found)
    assert len(values) == len(groups) + len(found)
    of_blocks = [float(one[0]) for one in values[len(groups) :]]
    assert of_blocks[0] == 0.0 and all(one > 0 for one in of_blocks[1:])
