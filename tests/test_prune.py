"""Pruning: what is sliced computes what it did, costs are as counted, and a pruned run is a run."""

from __future__ import annotations

import errno
import json
import random
import re
import shutil
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import gossamer
from gossamer.analysis.channels import channel_groups
from gossamer.analysis.cost import cost
from gossamer.analysis.graph import trace
from gossamer.cli import main as cli
from gossamer.errors import InputError, MissingPackageError, RunError, SettingsError, UnknownNameError
from gossamer.networks import create_model
from gossamer.networks.changes import apply_changes, keep_channels, parse_changes
from gossamer.networks.registry import traits
from gossamer.run import Run
from gossamer.shrink import importance, outcome, solve
from gossamer.shrink.edits import check_removal, removable, removal, without
from gossamer.shrink.limits import parse_limit
from gossamer.shrink.solve import choose_widths, narrowest
from gossamer.shrink.widths import CostModel, candidates, layers_of, mac_model, size_model
from gossamer.training.loop import train
from gossamer.training.restore import load_run
from tests.counterparts import randomise_norms
from tests.exports import shortened
from tests.interrupted import interrupted_after
from tests.runs import same, weights
from tests.test_channels import FAMILIES, ONE_WIDTH, SMALL
from tests.test_trainer import Messages, small

pytest.importorskip("scipy")

QUARTER = ("mobilenetv2_035", "shufflenet_v2_x0_5", "shufflenet_v1_g3_x0_25", "squeezenet1_1", "resnet18", "rir18")
# fewer of the layers of which each is another than the one before it
REPEATS: dict[str, dict[str, Any]] = {"densenet121": {"repeats": (2, 2, 3, 2)}, "sqnxt23_w1": {"repeats": (2, 2, 2, 1)}}
OTHERS = [name for name in dict.fromkeys((*FAMILIES.values(), "densenet121")) if name not in QUARTER]


def pruned(name: str, part: float = 0.5) -> tuple[nn.Module, nn.Module, Tensor, Any, list[list[int]]]:
    """A network, it without a random part of each group's channels, and an input."""
    torch.manual_seed(0)
    channels, side, _ = traits(name).input
    arguments, side = SMALL.get(name, ({} if name in ONE_WIDTH else {"width": 0.25}, min(side, 128)))
    arguments = {**arguments, **REPEATS.get(name, {})}
    model = shortened(create_model(name, num_classes=5, in_chans=channels, **arguments)).eval()
    randomise_norms(model)
    groups = removable(model, channel_groups(trace(model, (1, channels, side, side)), strict=False))
    draw = random.Random(0)
    removed = [sorted(draw.sample(range(group.size), int(part * group.size))) for group in groups]
    narrow = without(model, removal(model, groups, removed))
    return model, narrow, torch.randn(2, channels, side, side), groups, removed


def check_network(name: str) -> tuple[nn.Module, Tensor]:
    """Sliced as zeroed; a training step. The narrower network and an input."""
    model, narrow, x, groups, removed = pruned(name)
    check_removal(model, narrow, groups, removed, x)
    assert sum(p.numel() for p in narrow.parameters()) < 0.6 * sum(p.numel() for p in model.parameters())
    outputs = narrow.train()(x)
    loss = outputs.square().mean() if isinstance(outputs, Tensor) else outputs["logits"].square().mean()
    torch.autograd.backward(loss)
    assert all(p.grad is None or p.grad.shape == p.shape for p in narrow.parameters())
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in narrow.parameters())
    return narrow, x


def check_export(narrow: nn.Module, x: Tensor) -> None:
    """The exported file computes what the network does."""
    pytest.importorskip("onnxruntime")
    from gossamer.export.convert import to_onnx
    from gossamer.modelfile.metadata import parse_model_file
    from gossamer.runtime.model import open_model

    file = to_onnx(narrow.eval(), (x.shape[2], x.shape[3]), x.shape[1])
    with torch.no_grad():
        expected = narrow(x).numpy()
    actual = open_model(parse_model_file(file, "pruned"), "onnxruntime").run(x.numpy())
    np.testing.assert_allclose(actual, expected, atol=1e-3 * np.abs(expected).max())


@pytest.mark.parametrize("name", QUARTER)
def test_a_network_without_channels_computes_what_it_does_with_them_at_zero(name: str) -> None:
    check_network(name)


@pytest.mark.full
@pytest.mark.parametrize("name", ["shufflenet_v1_g3_x0_25", "shufflenet_v2_x0_5", *OTHERS])
def test_every_other_family_computes_what_it_does_with_them_at_zero_and_in_the_exported_file(name: str) -> None:
    check_export(*check_network(name))


def test_a_network_that_splits_at_fixed_places_is_sliced_as_it_can_be() -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.inner, self.last = nn.Conv2d(3, 24, 1), nn.Conv2d(8, 16, 1), nn.Conv2d(16, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            first, _ = self.stem(x).split([8, 16], dim=1)
            return self.last(self.inner(first))

    model, x = Fixed().eval(), torch.randn(1, 3, 8, 8)
    groups = removable(model, channel_groups(trace(model, (1, 3, 8, 8)), strict=False))
    assert [group.size for group in groups] == [16]  # the stem is split at place 8: it stays
    removed = [[0, 5, 9]]
    check_removal(model, without(model, removal(model, groups, removed)), groups, removed, x)


@pytest.mark.parametrize("end", [-2, 14])
def test_channels_that_a_slice_leaves_out_stay_the_last_ones(end: int) -> None:
    class Surplus(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.last = nn.Conv2d(3, 16, 1), nn.Conv2d(14, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.stem(x)[:, :end])

    (group,) = channel_groups(trace(Surplus(), (1, 3, 8, 8)))
    stems = {index for channel in group.channels for name, _, index in channel if name == "stem.weight"}
    assert stems == set(range(14))


def test_a_removal_that_the_network_does_not_follow_is_refused() -> None:
    class Counts(nn.Module):
        """Its output depends on how many channels there are, which no operation shows."""

        def __init__(self) -> None:
            super().__init__()
            self.stem, self.last = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            return self.last(x * x.shape[1])

    model = Counts().eval()
    groups = removable(model, channel_groups(trace(model, (1, 3, 8, 8))))
    narrow = without(model, removal(model, groups, [[1, 2]]))
    with pytest.raises(InputError, match="cannot be sliced out: the output would differ"):
        check_removal(model, narrow, groups, [[1, 2]], torch.randn(1, 3, 8, 8))
    apply_changes(narrow, [keep_channels("last", 1, range(7))])
    with pytest.raises(InputError, match="cannot be sliced out"):
        check_removal(model, narrow, groups, [[1, 2]], torch.randn(1, 3, 8, 8))


@pytest.mark.parametrize("name", ["mobilenetv2_035", "shufflenet_v1_g3_x0_25", "squeezenet1_1", "vgg11", "resnet18"])
def test_costs_are_those_of_the_network_that_is_built(name: str) -> None:
    channels, side, _ = traits(name).input
    arguments, side = SMALL.get(name, ({"width": 0.25}, 64))
    model = create_model(name, num_classes=5, in_chans=channels, **arguments).eval()
    graph = trace(model, (1, channels, side, side))
    groups = removable(model, channel_groups(graph, strict=False))
    layers = layers_of(graph, groups)
    sizes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    options = candidates(groups, sizes)
    shapes = {key: tuple(value.shape) for key, value in model.named_parameters()}
    macs = mac_model(layers, options, cost(graph).macs)
    size = size_model(layers, groups, options, shapes)
    draw = random.Random(1)
    for choice in (narrowest(options), [draw.randrange(len(one)) for one in options]):
        removed = [list(range(one[0] - one[k])) for one, k in zip(options, choice, strict=True)]
        after = cost(without(model, removal(model, groups, removed)), (1, channels, side, side))
        assert macs.of(choice) == pytest.approx(after.macs)
        assert size.of(choice) == pytest.approx(4 * after.params)


def test_widths_are_multiples_of_eight() -> None:
    model = create_model("mobilenet_v2")
    graph = trace(model, (1, 3, 64, 64))
    groups = removable(model, channel_groups(graph))
    sizes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    for group, options in zip(groups, candidates(groups, sizes), strict=True):
        assert options[0] == group.size
        assert list(options) == sorted(options, reverse=True)
        name = next(name for name, axis in group.axes if axis == 0 and len(sizes[name]) == 4)
        widths = [sizes[name][0] - (group.size - kept) for kept in options[1:]]
        assert widths and all(width % (8 if sizes[name][0] >= 32 else 4) == 0 for width in widths)


def problem(seed: int) -> tuple[list[Any], CostModel]:
    draw = np.random.default_rng(seed)
    counts = [3, 2, 4, 3]
    worth = [np.sort(draw.random(count))[::-1] for count in counts]
    unary = [-np.sort(draw.random(count)) + 0 for count in counts]
    for table in unary:
        table[0] = 0
    pairs = {(0, 1): 0.2 * draw.random((3, 2)), (1, 3): -0.2 * draw.random((2, 3))}
    return worth, CostModel(4.0, unary, pairs)


@pytest.mark.parametrize("seed", range(6))
def test_the_choice_is_the_best_of_all(seed: int) -> None:
    worth, model = problem(seed)
    limit = 3.0
    kept = {
        choice: sum(one[k] for one, k in zip(worth, choice, strict=True))
        for choice in product(*(range(len(one)) for one in worth))
        if model.of(choice) <= limit
    }
    chosen = choose_widths(worth, [(model, limit)])
    assert chosen is not None
    assert model.of(chosen) <= limit + 1e-5
    assert sum(one[k] for one, k in zip(worth, chosen, strict=True)) >= max(kept.values()) * (1 - 2 * solve.GAP)


def test_where_the_solver_finds_nothing_widths_shrink_one_by_one() -> None:
    worth, model = problem(0)
    chosen = solve._greedy(worth, [(model, 3.0)])
    assert chosen is not None and model.of(chosen) <= 3.0
    assert choose_widths(worth, [(model, -1.0)]) is None


LIMITS = {
    "": "latency ''", "0": "latency 0", "1": "latency 1", "1.5": "latency 1.5", "-0.5": "latency '-0.5'", "nan": "latency 'nan'",
    "inf": "latency 'inf'", "half": "latency 'half'", "2MB": "the unit MB", "0ms": "latency 0ms", "1e999ms": "latency 1e999ms",
    "5 minutes": "the unit minutes", "0,5": "latency '0,5'", "9" * 400: "latency '999", "50%": "latency '50%'",
}  # fmt: skip


@pytest.mark.parametrize("text", LIMITS)
def test_a_limit_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(SettingsError) as error:
        parse_limit("latency", text)
    assert LIMITS[text] in str(error.value)
    assert "0.5 or 1.2ms" in str(error.value)


def test_limits_are_fractions_or_numbers_with_a_unit() -> None:
    assert parse_limit("latency", "1.2ms").of(9) == pytest.approx(1.2)
    assert parse_limit("latency", "300us").of(9) == pytest.approx(0.3)
    assert parse_limit("latency", 0.5).of(9) == pytest.approx(4.5)
    assert parse_limit("macs", "100M").of(9) == 100e6
    assert parse_limit("size", "2 MB").of(9) == 2e6
    assert parse_limit("size", "1MiB").of(9) == 2**20


# runs


@pytest.fixture(scope="module")
def parent(image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run to prune; not to be changed."""
    root = tmp_path_factory.mktemp("prune")
    return train(small(image_folder, root / "run", width=0.5, epochs=1)).path


@pytest.fixture(scope="module")
def narrow(parent: Path) -> tuple[Path, Any]:
    """The run pruned to half its multiply-adds; not to be changed."""
    result = gossamer.prune(parent, parent.parent / "narrow", macs=0.5, size="1.5MB", minutes=0.02)
    return parent.parent / "narrow", result


def test_a_pruned_run_is_a_run_that_keeps_its_limits(narrow: tuple[Path, Any], parent: Path) -> None:
    folder, result = narrow
    assert result.macs[1] <= 0.5 * result.macs[0]
    assert result.bytes[1] <= 1.5e6
    network = load_run(folder)
    assert cost(network.model, (1, 3, 32, 32)).macs == result.macs[1]
    assert 4 * sum(p.numel() for p in network.model.parameters()) == result.bytes[1]
    for layer, before, after in result.widths:
        assert network.model.get_submodule(layer).weight.shape[0] == after < before
    assert result.scores["accuracy"][1] == pytest.approx(Run.open(folder).best("val_accuracy")["val_accuracy"])
    plain = json.loads(json.dumps(result.to_json()))
    assert plain["macs"] == {"before": result.macs[0], "after": result.macs[1]}
    assert plain["ms"] is None and plain["exit_code"] == 0
    assert str(folder) in result.text() and re.search(
        r"^multiply-adds: [\d.]+ M -> [\d.]+ M \(", result.text(), re.MULTILINE
    )
    assert network.settings.teacher == str(parent)
    assert result.run.path == folder


def test_a_pruned_run_begins_with_the_weights_that_are_left(
    parent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At a rate of nothing it stays the parent without its channels; and so does a run that is pruned again."""
    from gossamer.shrink import prune as module

    settings = module.training_settings

    def still(*arguments: Any) -> Any:
        chosen, notes = settings(*arguments)
        return chosen.replace(lr=1e-12, weight_decay=0.0, momentum=0.0, teacher=""), notes

    monkeypatch.setattr(module, "training_settings", still)
    source = parent
    for name in ("once", "twice"):
        gossamer.prune(source, tmp_path / name, macs=0.6, minutes=0.01, importance="norm")
        changes = parse_changes((tmp_path / name / "changes.json").read_text())
        loaded = load_run(source)
        own = (source / "changes.json").exists()
        before = len(parse_changes((source / "changes.json").read_text())) if own else 0
        expected = without(loaded.model, changes[before:])
        actual = load_run(tmp_path / name).model
        for (key, left), right in zip(expected.named_parameters(), actual.parameters(), strict=True):
            torch.testing.assert_close(left, right, atol=1e-6, rtol=0, msg=key)
        source = tmp_path / name


def test_a_training_without_a_teacher_learns_from_labels_alone(parent: Path, tmp_path: Path) -> None:
    taught = load_run(parent).settings.replace(teacher="x", distil="kl", distil_temperature=2.0, teacher_cache="1M")
    for settings in (load_run(parent).settings, taught):
        with_run, _ = outcome.settings_after(settings, Run.open(parent), tmp_path, 1.0, "best", "narrowed")
        alone, _ = outcome.settings_after(settings, Run.open(parent), tmp_path, 1.0, "best", "narrowed", teacher=False)
        assert (with_run.teacher, with_run.distil) == (str(parent), settings.distil)
        assert (alone.teacher, alone.distil, alone.distil_temperature, alone.teacher_cache) == ("", "auto", 4.0, "")


@pytest.mark.full
def test_a_run_is_pruned_without_a_teacher(parent: Path, tmp_path: Path) -> None:
    words = ["prune", str(parent), "--out", str(tmp_path / "run"), "--macs", "0.6", "--minutes", "0.005"]
    assert cli.main([*words, "--importance", "norm", "--no-teacher"]) == 0
    run = Run.open(tmp_path / "run")
    assert run.settings.teacher == "" and run.settings.weights == str(Run.open(parent).weights("best"))


def test_a_run_of_few_epochs_is_told_that_a_narrower_network_may_be_better(
    narrow: tuple[Path, Any], parent: Path, tmp_path: Path
) -> None:
    from gossamer.shrink.prune import SHORT, short_run

    (line,) = [note for note in narrow[1].notes if "narrower network from the start" in note]
    assert "trained for 1 epoch only" in line and line in narrow[1].text()
    assert short_run(Run.open(narrow[0])) == [], "it began with weights: its own epochs say nothing"
    shutil.copytree(parent, tmp_path / "long")
    rows = [{**json.loads(one), "epoch": SHORT} for one in (parent / "metrics.jsonl").read_text().splitlines()]
    (tmp_path / "long/metrics.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    assert short_run(Run.open(tmp_path / "long")) == []


@pytest.mark.full
def test_a_pruned_run_exports_compiles_and_verifies(narrow: tuple[Path, Any], tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    assert cli.main(["export", str(narrow[0]), "--out", str(tmp_path / "m.onnx")]) == 0
    assert cli.main(["compile", str(tmp_path / "m.onnx"), "--out", str(tmp_path / "m.goss")]) == 0
    assert cli.main(["verify", str(tmp_path / "m.goss")]) == 0
    assert cli.main(["eval", str(narrow[0])]) == 0


@pytest.mark.full
def test_a_pruned_run_that_was_killed_resumes_to_the_same_bits(
    parent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gossamer.shrink import prune as module

    settings = module.training_settings

    def counted(*arguments: Any) -> Any:
        chosen, notes = settings(*arguments)
        return chosen.replace(minutes=None, epochs=1, deterministic=True, save_steps=1), notes

    monkeypatch.setattr(module, "training_settings", counted)
    gossamer.prune(parent, tmp_path / "whole", macs=0.5)
    with interrupted_after(2):
        gossamer.prune(parent, tmp_path / "killed", macs=0.5)
    monkeypatch.undo()
    assert same(weights(gossamer.resume(tmp_path / "killed").path), weights(tmp_path / "whole"))


def test_nothing_is_written_before_the_training(
    parent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(importance, "_taylor", interrupted)
    line = ["prune", str(parent), "--macs", "0.5", "--out", str(tmp_path / "run")]
    assert cli.main(line) == 130
    assert list(tmp_path.iterdir()) == []


@pytest.mark.full
def test_a_disk_that_fills_up_is_one_line(
    parent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*given: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("gossamer.host.storage.os.fsync", full)
    words = ["prune", str(parent), "--out", str(tmp_path / "run"), "--macs", "0.6", "--minutes", "0.005"]
    assert cli.main([*words, "--importance", "norm"]) == 2
    (line,) = [one for one in capsys.readouterr().err.splitlines() if one.startswith("gossamer: ")]
    assert "disk is full" in line and not (tmp_path / "run/best.safetensors").exists()


BAD: dict[str, tuple[list[str], int, str]] = {
    "no limit": ([], 2, "no limit"),
    "met": (["--macs", "900M"], 2, "keeps as it is"),
    "met size": (["--size", "1GB"], 2, "keeps as it is"),
    "out of reach": (["--macs", "1k"], 1, "cannot be reached"),
    "out of reach size": (["--size", "0.0001"], 1, "the nearest is"),
    "importance": (["--macs", "0.5", "--importance", "tailor"], 2, "did you mean taylor"),
    "minutes": (["--macs", "0.5", "--minutes", "-1"], 2, "minutes -1"),
    "minutes nan": (["--macs", "0.5", "--minutes", "nan"], 2, "minutes nan"),
    "minutes word": (["--macs", "0.5", "--minutes", "ten"], 2, "is not a number"),
    "threads": (["--macs", "0.5", "--threads", "0"], 2, "is not a number from 1"),
    "threads many": (["--macs", "0.5", "--threads", "5000"], 2, "threads 5000"),
    "unit": (["--macs", "5ms"], 2, "the unit ms"),
    "whole": (["--latency", "3"], 2, "latency 3"),
    "which": (["--macs", "0.5", "--which", "first"], 2, "first"),
    "no run": (["--macs", "0.5"], 2, "without settings.yaml"),
    "a network": (["--macs", "0.5"], 2, "a network"),
    "a file": (["--macs", "0.5"], 2, "a run folder"),
    "out is a run": (["--macs", "0.5"], 2, "holds a run already"),
    "out is a file": (["--macs", "0.5"], 2, "is a file"),
    "data gone": (["--macs", "0.5"], 2, "images"),
    "state gone": (["--macs", "0.5"], 2, "best.safetensors"),
    "nan": (["--macs", "0.5"], 2, "a finite loss"),
    "nan norm": (["--macs", "0.5", "--importance", "norm"], 2, "importance norm that is NaN"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line(case: str, parent: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words, code, text = BAD[case]
    source, out = str(parent), tmp_path / "out"
    if case == "no run":
        source = str(tmp_path)
    elif case == "a network":
        source = "mobilenet_v2"
    elif case == "a file":
        source = str(Path(__file__).parent / "compat/0.1/classify.onnx")
    elif case == "out is a run":
        out = parent
    elif case == "out is a file":
        out.write_text("x")
    elif case in ("data gone", "state gone", "nan", "nan norm"):
        shutil.copytree(parent, tmp_path / "copy")
        source = str(tmp_path / "copy")
        if case == "state gone":
            (tmp_path / "copy/best.safetensors").unlink()
        elif case.startswith("nan"):
            state, facts = Run.open(parent).load_state("best")
            first = next(name for name in state if name.endswith("weight"))
            Run.open(source).save_state("best", {**state, first: torch.full_like(state[first], float("nan"))}, facts)
        else:
            settings = (tmp_path / "copy/settings.yaml").read_text().splitlines()
            lines = [f"data: {tmp_path / 'nowhere'}" if line.startswith("data:") else line for line in settings]
            (tmp_path / "copy/settings.yaml").write_text("\n".join(lines) + "\n")
    before = sorted(path.name for path in parent.iterdir())
    assert cli.main(["prune", source, "--out", str(out), *words]) == code
    errors = [line for line in capsys.readouterr().err.strip().splitlines() if line.startswith("gossamer: ")]
    assert len(errors) == 1 and text in errors[0]
    assert not out.is_dir() or out == parent
    assert sorted(path.name for path in parent.iterdir()) == before


def test_an_error_is_json_where_it_is_asked_for(
    parent: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["prune", str(parent), "--out", str(tmp_path / "out"), "--macs", "1k", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["exit_code"] == 1


def test_without_the_engine_the_other_limits_are_named(
    parent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gossamer.runtime.native.LIBRARY", tmp_path / "none.so")
    monkeypatch.setattr("gossamer.runtime.native._library", None)
    with pytest.raises(MissingPackageError, match="--macs or --size"):
        gossamer.prune(parent, tmp_path / "out", latency=0.5)


def test_without_scipy_the_extra_is_named(parent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "scipy", None)
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    with pytest.raises(MissingPackageError, match=r"gossamer\[shrink\]"):
        gossamer.prune(parent, tmp_path / "out", macs=0.5)


@pytest.mark.parametrize("values", [{"threads": True}, {"threads": 1.5}, {"minutes": True}, {"which": "first"}])
def test_python_arguments_are_checked(values: dict[str, Any], parent: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError):
        gossamer.prune(parent, tmp_path / "out", macs=0.5, **values)
    with pytest.raises((RunError, InputError)):
        gossamer.prune(tmp_path, tmp_path / "out", macs=0.5)
    with pytest.raises(UnknownNameError):
        gossamer.prune(parent, tmp_path / "out", macs=0.5, importance="")


def test_importance_follows_the_loss_and_the_weights(parent: Path) -> None:
    from gossamer.host.progress import SILENT
    from gossamer.shrink.importance import channel_importance
    from gossamer.training.restore import run_data

    loaded = load_run(parent)
    loaded.task.prepare(run_data(loaded.run))
    groups = removable(loaded.model, channel_groups(trace(loaded.model, (1, 3, 32, 32))))
    number = next(n for n, group in enumerate(groups) if len(group.axes) > 4)
    dead = 3
    tensors = dict(loaded.model.named_parameters())
    with torch.no_grad():
        for name, axis, index in groups[number].channels[dead]:
            if name in tensors:
                tensors[name].select(axis, index).zero_()
    for kind in importance.KINDS:
        values = channel_importance(
            kind, loaded.model, groups, loaded.task, run_data(loaded.run), loaded.preprocess, SILENT
        )
        assert [len(one) for one in values] == [group.size for group in groups]
        assert all((one >= 0).all() for one in values)
        assert values[number][dead] == 0 and values[number].max() > 0, kind
    assert not any(p.grad is not None for p in loaded.model.parameters())


def test_progress_is_told_from_the_start(parent: Path, tmp_path: Path) -> None:
    messages = Messages()
    with pytest.raises(gossamer.GossamerError):
        gossamer.prune(parent, tmp_path / "out", macs="1k", progress=messages)
    assert any("removable channels" in line for line in messages.lines)
