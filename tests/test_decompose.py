"""Decomposition: what is accepted is faster and holds the score, the result is a run, and nothing is ever half-written.

The clock is replaced by the multiply-adds of each network, so that what is faster is known.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import gossamer
from gossamer.cli import main as cli
from gossamer.errors import GossamerError, InputError, MissingPackageError, RunError, SettingsError, UnknownNameError
from gossamer.run import Run
from gossamer.runtime import native
from gossamer.shrink import decompose as module
from gossamer.shrink import pairs, trials
from gossamer.shrink.candidates import Layer, ladder, macs, macs_before, pair_times
from gossamer.shrink.pairs import Clock, Times, alternating, layer_onnx
from gossamer.training.loop import train
from gossamer.training.network import changes_of
from gossamer.training.restore import load_run
from tests.interrupted import interrupted_after
from tests.runs import same, weights
from tests.test_trainer import Messages, small

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

EASY: dict[str, Any] = {"energy": 0.3, "max_drop": 100, "minutes": 0.002}


def by_macs(self: Clock, before: bytes, after: bytes, seconds: float) -> list[float]:
    """A millisecond a million multiply-adds of the convolutions and products, within a hundredth."""
    import onnx

    result = []
    for data in (before, after):
        graph = onnx.shape_inference.infer_shapes(onnx.load_from_string(data)).graph
        shapes = {one.name: one.type.tensor_type.shape.dim for one in (*graph.value_info, *graph.output)}
        sizes = {one.name: list(one.dims) for one in graph.initializer}
        total = 0.0
        for node in graph.node:
            if node.op_type in ("Conv", "Gemm"):
                places = [one.dim_value for one in shapes[node.output[0]][2:]]
                total += np.prod(sizes[node.input[1]]) * np.prod(places) / 1e6
        result += [total, 0.999 * total, 1.001 * total]
    return result


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Clock, "_measured", by_macs)


@pytest.fixture(scope="module")
def parent(image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("decompose")
    return train(small(image_folder, root / "run", net="lenet5", width=None, epochs=1)).path


@pytest.fixture(scope="module")
def made(parent: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(Clock, "_measured", by_macs)
        messages = Messages()
        out = tmp_path_factory.mktemp("made") / "out"
        return gossamer.decompose(parent, out, progress=messages, **EASY), messages.lines


def test_what_is_faster_and_holds_is_a_run(made: Any, parent: Path) -> None:
    result, lines = made
    assert result.accepted and result.ms[1] < result.ms[0]
    assert result.macs[1] < result.macs[0] and result.bytes[1] < result.bytes[0]
    assert result.score in result.scores and result.run.path == Path(result.file)
    assert result.run.settings.out == result.file and result.run.settings.teacher == str(parent)
    assert result.run.settings.lr == pytest.approx(0.1 * Run.open(parent).settings.lr)
    assert [one.change for one in result.accepted] == list(changes_of(result.run))
    assert len({one.layer for one in result.accepted}) == len(result.accepted)
    for one in result.accepted:
        assert one.ms.after.high < one.ms.before.low and one.energy >= 0.3
        assert one.drop is not None
    assert [path.name for path in Path(result.file).parent.iterdir()] == ["out"]
    values = json.loads(json.dumps(result.to_json()))
    assert values["file"] == result.file and values["ms"]["after"] == result.ms[1]
    assert len(values["tried"]) == len(result.tried)
    text = result.text()
    assert "accepted" in text and "latency in" in text and all(one.layer in text for one in result.tried)
    assert "layers can be decomposed" in lines[0]
    assert any(line.startswith("trial 1: ") for line in lines)


def test_the_run_is_like_any_other(made: Any, tmp_path: Path, clock: None) -> None:
    from gossamer.export.formats import export

    result, _ = made
    shutil.copytree(result.file, tmp_path / "run")
    assert load_run(tmp_path / "run").model is not None
    gossamer.resume(tmp_path / "run")
    export(tmp_path / "run", tmp_path / "n.onnx")
    gossamer.verify(tmp_path / "n.onnx").raise_if_failed()
    if native.LIBRARY.is_file():
        from gossamer.compile.write import compile_file

        gossamer.verify(compile_file(tmp_path / "n.onnx", tmp_path / "n.goss")).raise_if_failed()


@pytest.mark.full
def test_a_decomposed_run_is_pruned_and_a_pruned_one_decomposed(
    made: Any, parent: Path, tmp_path: Path, clock: None
) -> None:
    pytest.importorskip("scipy")
    narrow = gossamer.prune(made[0].file, tmp_path / "narrow", macs=0.7, minutes=0.002)
    assert narrow.macs[1] <= 0.7 * narrow.macs[0]
    gossamer.prune(parent, tmp_path / "first", macs=0.7, minutes=0.002)
    result = gossamer.decompose(tmp_path / "first", tmp_path / "then", **EASY)
    assert {"keep_channels", "decompose_layer"} == {one.operation for one in changes_of(result.run)}
    again = gossamer.decompose(tmp_path / "then", tmp_path / "again", **{**EASY, "energy": 0.2})
    assert again.macs[1] <= again.macs[0]
    gossamer.quantize(made[0].file, tmp_path / "n.int8.onnx", count=8)


def test_nothing_accepted_writes_nothing(
    parent: Path, tmp_path: Path, clock: None, capsys: pytest.CaptureFixture[str]
) -> None:
    result = gossamer.decompose(parent, tmp_path / "out", energy=1.0, methods=["svd", "spatial"])
    assert result.file == "" and result.accepted == () and result.ms is None and result.exit_code == 0
    assert result.tried and result.macs[0] == result.macs[1]
    assert all(before == after for before, after in result.scores.values())
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(RunError, match="no decomposition"):
        assert result.run
    line = ["decompose", str(parent), "--out", str(tmp_path / "out"), "--energy", "1", "--methods", "svd"]
    assert cli.main(line) == 0
    assert "nothing accepted: no run was written" in capsys.readouterr().out
    assert cli.main([*line, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["file"] is None


@pytest.mark.full
def test_a_score_that_does_not_hold_takes_changes_back(
    parent: Path, tmp_path: Path, clock: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: list[int] = []
    trained = module.trained_trial

    def noted(settings: Any, changes: Any, *rest: Any) -> Any:
        counts.append(len(changes))
        return trained(settings, changes, *rest)

    read = module.metrics_of
    monkeypatch.setattr(module, "trained_trial", noted)
    monkeypatch.setattr(
        module,
        "metrics_of",
        lambda run, which: {name: value if run.path == parent else -9.0 for name, value in read(run, which).items()},
    )
    result = gossamer.decompose(parent, tmp_path / "out", **{**EASY, "max_drop": 50})
    assert result.file == "" and counts[0] > 1 and counts == sorted(counts, reverse=True)
    assert len(set(counts)) == len(counts) <= 3
    assert any("did not hold" in one.verdict for one in result.tried)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.full
def test_a_loss_that_is_not_finite_ends_a_trial_and_not_the_command(
    parent: Path, tmp_path: Path, clock: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverges(*_: Any) -> Any:
        raise RunError("the loss is nan at step 3", "a finite loss", "lower --lr")

    monkeypatch.setattr(module, "trained_trial", diverges)
    result = gossamer.decompose(parent, tmp_path / "out", **EASY)
    assert result.file == "" and any("the loss is nan" in step for step in result.steps)


@pytest.mark.full
def test_a_killed_decomposition_resumes_to_the_same_weights(
    parent: Path, tmp_path: Path, clock: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = module._settings
    monkeypatch.setattr(
        module,
        "_settings",
        lambda *arguments: (settings(*arguments)[0].replace(epochs=1, minutes=None, save_steps=1), []),
    )
    gossamer.decompose(parent, tmp_path / "whole", **EASY)
    with interrupted_after(2):
        gossamer.decompose(parent, tmp_path / "out", **EASY)
    assert not (tmp_path / "out").exists() and trials.trial_folder(tmp_path / "out", 1).is_dir()
    messages = Messages()
    result = gossamer.decompose(parent, tmp_path / "out", progress=messages, **EASY)
    assert any("resuming the training of trial 1" in line for line in messages.lines)
    assert same(weights(Path(result.file)), weights(tmp_path / "whole"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "whole"]


@pytest.mark.full
def test_a_trial_of_something_else_or_damaged_begins_anew(parent: Path, tmp_path: Path, clock: None) -> None:
    folder = trials.trial_folder(tmp_path / "out", 1)
    shutil.copytree(parent, folder)
    (folder / "settings.yaml").write_text("net: [")
    assert gossamer.decompose(parent, tmp_path / "out", **EASY).file
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_trials_are_known_again_by_the_minutes_of_any_of_them(parent: Path, tmp_path: Path) -> None:
    """`unfinished_trials` divides by a share, which may change the last bit."""
    settings, out, shares = Run.open(parent).settings, tmp_path / "out", module.SHARES
    minutes = next(m for m in (k / 97 for k in range(1, 1000)) if shares[2] * m / shares[2] != m)
    for number, share in enumerate(shares, 1):
        folder = trials.trial_folder(out, number)
        shutil.copytree(parent, folder)
        Run.open(folder).save_settings(settings.replace(minutes=share * minutes))
    _, again = module.unfinished_trials(out)
    assert again is not None and again != minutes == pytest.approx(again)
    for number, share in enumerate(shares, 1):
        folder = trials.trial_folder(out, number)
        assert trials._same(folder, settings.replace(minutes=share * again), ())
        assert not trials._same(folder, settings.replace(minutes=1.001 * share * again), ())
    for number in (3, 2, 1):  # damaged: it begins anew, and ends nothing
        (trials.trial_folder(out, number) / "settings.yaml").write_text("net: [")
        assert trials.open_trial(out, number) is None
    assert module.unfinished_trials(out) == (0.0, None)


def test_another_process_at_the_same_folder_is_told(parent: Path, tmp_path: Path) -> None:
    folder = trials.trial_folder(tmp_path / "out", 1)
    shutil.copytree(parent, folder)
    with Run.open(folder) as other:
        other.lock()
        with pytest.raises(RunError, match="another process"):
            trials.remove_trials(tmp_path / "out", 3)
    assert folder.is_dir()
    trials.remove_trials(tmp_path / "out", 3)
    assert not folder.exists()


@pytest.mark.full
def test_ranks_by_the_score(parent: Path, tmp_path: Path, clock: None) -> None:
    result = gossamer.decompose(parent, tmp_path / "out", ranks="score", methods=["svd"], max_drop=100, minutes=0.002)
    assert result.accepted and all(one.drop is not None for one in result.accepted)


def test_layers_are_chosen_and_kept(parent: Path, tmp_path: Path, clock: None) -> None:
    names = [name for name, one in load_run(parent).model.named_modules() if isinstance(one, nn.Linear)]
    only = gossamer.decompose(parent, tmp_path / "out", energy=1.0, layers=names[:1])
    assert {one.layer for one in only.tried} == {names[0]}
    kept = gossamer.decompose(parent, tmp_path / "out", energy=1.0, methods=["svd"], keep=names[:1])
    assert names[0] not in {one.layer for one in kept.tried} and kept.tried


BAD: dict[str, tuple[list[str], str]] = {
    "minutes 0": (["--minutes", "0"], "minutes 0"),
    "minutes below": (["--minutes", "-1"], "minutes -1"),
    "minutes nan": (["--minutes", "nan"], "minutes nan"),
    "minutes word": (["--minutes", "ten"], "is not a number"),
    "energy 0": (["--energy", "0"], "energy 0"),
    "energy above": (["--energy", "1.5"], "energy 1.5"),
    "energy percent": (["--energy", "90"], "energy 90"),
    "drop below": (["--max-drop", "-1"], "max-drop -1"),
    "drop above": (["--max-drop", "101"], "max-drop 101"),
    "drop inf": (["--max-drop", "inf"], "max-drop inf"),
    "threads": (["--threads", "0"], "is not a number from 1"),
    "threads many": (["--threads", "5000"], "threads 5000"),
    "ranks": (["--ranks", "energi"], "did you mean energy"),
    "method": (["--methods", "tuker"], "did you mean tucker"),
    "layer": (["--layers", "body.con1"], "no convolution or fully connected layer"),
    "keep": (["--keep", "nothing"], "no convolution or fully connected layer"),
    "both": (["--keep", "a", "--layers", "a"], "both to decompose and to keep"),
    "which": (["--which", "first"], "first"),
    "method of no layer": (["--methods", "stack", "--layers", "FULL"], "no layer that takes stack"),
    "all kept": (["--keep", "ALL"], "no layer that can be decomposed is left"),
    "no run": ([], "without settings.yaml"),
    "a network": ([], "a network"),
    "a file": ([], "a run folder"),
    "out is a run": ([], "holds a run already"),
    "out is a file": ([], "is a file"),
    "out has files": ([], "with other files"),
    "data gone": ([], "images"),
    "untrained": ([], "best.safetensors"),
    "nan": ([], "NaN"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line(
    case: str, parent: Path, tmp_path: Path, clock: None, capsys: pytest.CaptureFixture[str]
) -> None:
    words, text = BAD[case]
    layers = {n: m for n, m in load_run(parent).model.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))}
    full = next(name for name, layer in layers.items() if isinstance(layer, nn.Linear))
    words = [part for word in words for part in {"FULL": [full], "ALL": list(layers)}.get(word, [word])]
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
    elif case == "out has files":
        out.mkdir()
        (out / "mine.txt").write_text("x")
    elif case in ("data gone", "untrained", "nan"):
        shutil.copytree(parent, tmp_path / "copy")
        source = str(tmp_path / "copy")
        if case == "untrained":
            (tmp_path / "copy/best.safetensors").unlink()
        elif case == "nan":
            state, facts = Run.open(parent).load_state("best")
            first = next(name for name in state if name.endswith("weight"))
            state[first] = torch.full_like(state[first], float("nan"))
            Run.open(source).save_state("best", state, facts)
        else:
            lines = (tmp_path / "copy/settings.yaml").read_text().splitlines()
            lines = [f"data: {tmp_path / 'nowhere'}" if line.startswith("data:") else line for line in lines]
            (tmp_path / "copy/settings.yaml").write_text("\n".join(lines) + "\n")
    before = sorted(path.name for path in tmp_path.iterdir())
    assert cli.main(["decompose", source, "--out", str(out), *words]) == 2
    errors = [line for line in capsys.readouterr().err.strip().splitlines() if line.startswith("gossamer: ")]
    assert len(errors) == 1 and text in errors[0]
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_depthwise_and_grouped_layers_are_named(image_folder: Path, tmp_path: Path, clock: None) -> None:
    run = train(small(image_folder, tmp_path / "run", epochs=1)).path
    modules = dict(load_run(run).model.named_modules())
    depthwise = next(n for n, m in modules.items() if isinstance(m, nn.Conv2d) and m.groups > 1)
    with pytest.raises(SettingsError, match="depthwise"):
        gossamer.decompose(run, tmp_path / "out", layers=[depthwise])
    with pytest.raises(UnknownNameError, match="did you mean"):
        gossamer.decompose(run, tmp_path / "out", layers=[depthwise[:-1]])


@pytest.mark.parametrize(
    "values",
    [{"threads": True}, {"threads": 1.5}, {"minutes": True}, {"energy": "high"}, {"layers": "conv1"}, {"methods": ()},
     {"methods": [3]}, {"which": "first"}, {"max_drop": None}],
)  # fmt: skip
def test_python_arguments_are_checked(values: dict[str, Any], parent: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError):
        gossamer.decompose(parent, tmp_path / "out", **values)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.full
def test_without_the_engine_the_other_runtime_is_named(
    parent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gossamer.runtime.native.LIBRARY", tmp_path / "none.so")
    monkeypatch.setattr("gossamer.runtime.native._library", None)
    monkeypatch.setattr(pairs, "ROUND_SECONDS", 0.0)
    messages = Messages()
    result = gossamer.decompose(parent, tmp_path / "out", energy=1.0, methods=["svd"], progress=messages)
    assert result.clock == "ONNX Runtime" and any("is not built" in line for line in messages.lines)
    monkeypatch.setattr(
        pairs.OnnxRuntime,
        "import_package",
        staticmethod(lambda: (_ for _ in ()).throw(MissingPackageError("x", "y", "z"))),
    )
    with pytest.raises(MissingPackageError, match="timing without the native engine"):
        gossamer.decompose(parent, tmp_path / "out", energy=1.0)


def test_a_layer_is_timed_and_known_again() -> None:
    clock = Clock(pairs.ENGINE if native.LIBRARY.is_file() else pairs.OTHER, 1, {})
    layer = Layer("c", nn.Conv2d(8, 8, 5, padding=2), ((8, 12, 12),))
    pair = pair_times(layer, "spatial", (4,), clock)
    assert 0 < pair.before.low <= pair.before.median <= pair.before.high < 1000
    assert clock.measured == 1 and pair_times(layer, "spatial", (4,), clock) == pair and clock.measured == 1
    entries = clock.known[clock.key]
    entries.update(dict.fromkeys(clock.unsteady, 1.0))  # on a busy machine they would not be kept
    clock.keep()
    assert clock.notes == [] and list(pairs.times.read_times(pairs.NAME)[0]) == [clock.key]
    for parts, shape in (([nn.Linear(6, 3), nn.Linear(3, 4)], (6,)), ([nn.Conv2d(4, 4, 3, padding="same")], (4, 5, 5))):
        data = layer_onnx(parts, shape)
        assert len(clock._measured(data, data, 0.0)) == 6


def test_rounds_are_in_turn_and_end_early_where_one_is_clearly_slower() -> None:
    calls: list[str] = []
    import time

    def slow(_: Any) -> None:
        calls.append("slow")
        time.sleep(0.004)

    rounds = alternating([lambda _: calls.append("quick"), slow], None, 0.0)
    assert len(rounds[0]) == len(rounds[1]) == pairs.FIRST_ROUNDS
    assert calls[: 4 * pairs.LEAST_RUNS] == [
        word for word in ("quick", "slow", "slow", "quick") for _ in range(pairs.LEAST_RUNS)
    ]
    assert len(alternating([slow, lambda _: None], None, 0.0)[0]) == pairs.ROUNDS


def test_times_of_a_busy_machine_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(pairs.OTHER, 1, {})
    monkeypatch.setattr(Clock, "key", "here")
    monkeypatch.setattr(Clock, "_measured", lambda *_: [1.0, 0.5, 1.5, 0.9, 0.9, 0.9])
    assert clock.pair(b"a", b"b") == clock.pair(b"a", b"b") and clock.measured == 1
    assert clock.known["here"] == {} and len(clock.unsteady) == 6


def test_a_pair_that_is_faster_within_the_noise_gets_more_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    now, took = 0.0, iter([1.0, 3.0] * 1000)

    def first(_: Any) -> None:
        nonlocal now
        now += next(took)

    def second(_: Any) -> None:
        nonlocal now
        now += 1.5

    monkeypatch.setattr(pairs.time, "perf_counter", lambda: now)
    monkeypatch.setattr(pairs, "LEAST_RUNS", 1)
    rounds = alternating([first, second], None, 0.0)
    assert len(rounds[0]) == pairs.MOST_ROUNDS  # 1 and 3 in turn against 1.5: the quartiles never part


@pytest.mark.parametrize("method", ["tucker", "cp", "spatial", "stack"])
def test_ranks_that_come_into_question_have_fewer_multiply_adds(method: str) -> None:
    layer = Layer("c", nn.Conv2d(16, 24, 5, padding=2), ((16, 9, 9),))
    options = ladder(layer, method)
    assert macs_before(layer) == 16 * 24 * 25 * 81
    costs = [macs(layer, method, ranks) for ranks in options]
    assert len(options) > 1 and costs == sorted(costs) and costs[-1] < macs_before(layer)


def test_an_interrupted_command_says_how_to_go_on(
    parent: Path, tmp_path: Path, clock: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "layers_to_decompose", interrupted)
    assert cli.main(["decompose", str(parent), "--out", str(tmp_path / "out")]) == 130
    assert list(tmp_path.iterdir()) == []
    messages = Messages()
    trials._WithoutFolder(messages).say("Interrupted. Resume with: gossamer train --resume .x.trial-1")
    assert "the same command resumes" in messages.lines[0] and ".trial" not in messages.lines[0]
    assert issubclass(RunError, GossamerError)


def test_times_that_differ_in_microseconds_can_be_told_apart() -> None:
    assert [str(Times(ms, ms - 1e-4, ms + 1e-4)) for ms in (0.01204, 0.01231)] == [
        "0.0120 ms (0.0119 to 0.0121)",
        "0.0123 ms (0.0122 to 0.0124)",
    ]
