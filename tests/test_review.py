"""`gossamer review`: files and runs, what a change gains here, the page, and what cannot be used."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gossamer.adviser import measure
from gossamer.adviser.page import review_html
from gossamer.adviser.review import Review, ranked, review
from gossamer.adviser.rule import Change, Finding, Gain
from gossamer.adviser.text import review_text
from gossamer.bench.result import Benchmark, Measurement
from gossamer.cli.main import main
from gossamer.errors import InputError
from gossamer.host.progress import SILENT
from tests.adviserpairs import PAIRS
from tests.browser import Browser, browser_program
from tests.reportcases import HOSTILE, check_alone
from tests.test_pages_browser import OUTSIDE
from tests.trained import TASKS, runs_of_tasks

onnx = pytest.importorskip("onnx")


def onnx_file(
    path: Path, *, dead: int = 0, inner: int = 32, kernel: int = 3, channels: int = 3, name: str = "c1"
) -> Path:
    """Two convolutions, a pool and a classifier; of the second convolution `dead` channels are zero."""
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    random = np.random.default_rng(0)
    shapes = {"w0": (32, channels, 3, 3), "w1": (inner, 32, kernel, kernel), "w2": (10, inner)}
    arrays = {key: random.standard_normal(shape).astype(np.float32) for key, shape in shapes.items()}
    arrays["w1"][:dead] = 0
    pad = kernel // 2
    nodes = [
        helper.make_node("Conv", ["x", "w0"], ["a"], "c0", strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"], "r0"),
        helper.make_node("Conv", ["b", "w1"], ["c"], name, pads=[pad] * 4),
        helper.make_node("Relu", ["c"], ["d"], "r1"),
        helper.make_node("GlobalAveragePool", ["d"], ["e"], "p"),
        helper.make_node("Flatten", ["e"], ["f"], "f"),
        helper.make_node("Gemm", ["f", "w2"], ["y"], "g", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", kind, ["N", channels, 64, 64])],
        [helper.make_tensor_value_info("y", kind, ["N", 10])],
        [onnx.numpy_helper.from_array(value, key) for key, value in arrays.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path


def of(result: Review, rule: str) -> Finding:
    (found,) = [finding for finding in result.findings if finding.rule == rule]
    return found


def test_a_file_is_reviewed_with_its_weights(tmp_path: Path) -> None:
    result = review(onnx_file(tmp_path / "a.onnx", dead=8))
    found = of(result, "dead-channels")
    assert (found.layers, found.figure, found.severity) == (("c1",), 0.25, "warning")
    assert result.not_applied == {} and result.subject.kind == "model file"
    assert review(onnx_file(tmp_path / "b.onnx")).findings == ()
    assert of(review(onnx_file(tmp_path / "c.onnx", kernel=5)), "large-kernel").layers == ("c1",)
    assert of(review(onnx_file(tmp_path / "d.onnx", inner=9)), "ragged-channels").layers == ("c1",)


def test_a_file_without_the_data_of_a_weight_is_judged_by_its_graph(tmp_path: Path) -> None:
    path = onnx_file(tmp_path / "a.onnx", dead=8, kernel=5)
    model = onnx.load(path)
    model.graph.initializer[1].raw_data = b"\0" * 7
    onnx.save(model, path)
    result = review(path)
    assert [finding.rule for finding in result.findings] == ["large-kernel"]


def test_a_run_of_every_task_is_reviewed(tmp_path_factory: pytest.TempPathFactory) -> None:
    home = runs_of_tasks(tmp_path_factory)
    for task in TASKS:
        result = review(home / task)
        assert result.subject.kind == "run" and result.not_applied == {}
        file = review(home / f"{task}.onnx")
        assert file.cost.macs > 0
        json.dumps([result.to_json(), file.to_json()], allow_nan=False)
        assert result.subject.network == ""  # a detector is not built from the name of its backbone


# gains


def finding(rule: str, cost: float, severity: Any = "warning", **others: Any) -> Finding:
    values: dict[str, Any] = {"figure": 2.0, "figure_is": "times", "threshold": 1.0, "below": False, "reason": "reason"}
    values |= {
        "text": "text",
        "source": "source",
        "change": Change("change"),
        "claims": "speed",
        "cost_of": "multiply-adds",
    }
    return Finding(rule, severity, ("stem",), cost=cost, places=(0,), **{**values, **others})


def gain(before: float, after: float, spread: float = 0.1) -> Gain:
    spreads = ((before - spread, before + spread), (after - spread, after + spread))
    return Gain("native 1", 1, (before, after), spreads, (1000, 900), (10, 9), (100, 90))


def test_a_slower_change_moves_down_and_says_so() -> None:
    slow = finding("a", 0.9, gain=gain(1, 2))
    fast = finding("b", 0.2, "note", gain=gain(2, 1))
    near = finding("c", 0.1, "note", gain=gain(2, 1.95))
    assert [one.rule for one in ranked([slow, near, fast])] == ["b", "c", "a"]
    assert [one.rule for one in ranked([finding("n", 0.9, "note"), finding("w", 0.1)])] == ["w", "n"]
    assert slow.gain is not None and slow.gain.slower and slow.gain.clear
    assert near.gain is not None and not near.gain.slower and not near.gain.clear
    result = dataclasses.replace(review("lenet5"), findings=ranked([slow, near, fast]), measured=True)
    text = review_text(result)
    assert "1.00 to 2.00 ms, 2.00 times slower (p10-p90" in text and "2.00 to 1.00 ms, 2.00 times faster (" in text
    assert "1.03 times faster, within the spread" in text and "native 1, 1 thread, fresh weights" in text
    assert "slower" in check_alone(review_html(result)).words
    assert result.to_json()["findings"][2]["gain"]["slower"] is True


class Bench:
    """Stands in for the benchmark: the time of a file is given by its number in the call."""

    def __init__(self, times: Sequence[float], errors: dict[str, str]) -> None:
        self.times, self.errors = times, errors
        self.asked: list[tuple[str, ...]] = []

    def __call__(self, paths: Sequence[Path], *, runtimes: Sequence[str], **others: Any) -> Benchmark:
        self.asked.append(tuple(runtimes))
        rows = []
        for path, ms in zip(paths, self.times):
            problem = self.errors.get(runtimes[0], "")
            times = {} if problem else {"median_ms": ms, "p10_ms": ms * 0.9, "p90_ms": ms * 1.1}
            rows.append(Measurement(str(path), runtimes[0], 1, 1, "1", error=problem, **times))  # type: ignore[arg-type]
        return Benchmark(tuple(rows), {"cpu": "c", "cores": 1}, 1, 0.1, None)


@pytest.fixture
def no_export(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of a few bytes in the place of exported networks."""
    monkeypatch.setattr("gossamer.export.convert.to_onnx", lambda model, size, channels: b"x" * 100)
    monkeypatch.setattr(measure, "missing", lambda entry: "")


def test_both_networks_are_built_and_timed_in_turn(no_export: None, monkeypatch: pytest.MonkeyPatch) -> None:
    timer = Bench([4.0, 9.0], {})
    monkeypatch.setattr(measure, "bench", timer)
    result = review("resnet18", (3, 32, 32), measure=True)
    measured = of(result, "grid-too-small")
    assert measured.gain is not None and measured.gain.ms == (4.0, 9.0) and measured.gain.runtime == "native 1"
    assert (
        measured.gain.macs[1] > 4 * measured.gain.macs[0]
        and measured.gain.memory_bytes[1] > measured.gain.memory_bytes[0]
    )
    assert result.findings[-1] is measured, "slower here: behind the notes"
    assert timer.asked == [("native",)]
    assert "2.25 times slower" in str(result)


def test_onnx_runtime_times_what_the_engine_cannot(no_export: None, monkeypatch: pytest.MonkeyPatch) -> None:
    timer = Bench([4.0, 2.0], {"native": "no such operator"})
    monkeypatch.setattr(measure, "bench", timer)
    measured = of(review("resnet18", (3, 32, 32), measure=True), "grid-too-small")
    assert measured.gain is not None and measured.gain.runtime == "onnxruntime 1"
    assert timer.asked == [("native",), ("onnxruntime",)]


def test_without_a_runtime_it_says_what_is_missing(no_export: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "missing", lambda entry: "not installed")
    with pytest.raises(Exception, match="native: not installed; onnxruntime: not installed"):
        review("resnet18", (3, 32, 32), measure=True)


def test_a_change_that_cannot_be_built_says_why(no_export: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "bench", Bench([4.0], {}))
    subject = review("resnet18", (3, 32, 32)).subject
    broken = finding("a", 0.5, change=Change("no", "resnet18", {"width": -1.0}))
    (result,) = measure.with_gains(subject, [broken], 1, SILENT)
    assert result.gain is None and "width" in result.not_measured


def test_operators_without_a_formula_are_listed(tmp_path: Path) -> None:
    path = onnx_file(tmp_path / "a.onnx")
    model = onnx.load(path)
    model.graph.node[1].op_type, model.graph.node[1].domain = "Nonsense", "other"
    model.opset_import.append(onnx.helper.make_opsetid("other", 1))
    onnx.save(model, path)
    result = review(path)
    assert result.to_json()["unknown"] == {"onnx::Nonsense": 1} and "not counted: Nonsense (1)" in str(result)


def test_nothing_is_built_where_no_change_is_an_argument(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "bench", lambda *args, **others: pytest.fail("nothing to measure"))
    result = review(onnx_file(tmp_path / "a.onnx", kernel=5), measure=True)
    assert result.measured and "nothing measured" in str(result)


@pytest.mark.full
def test_a_change_is_measured_here(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["review", "mobilenetv1_025", "--input", "3x64x64", "--measure", "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    (found,) = [one for one in values["findings"] if one["rule"] == "missing-shortcut"]
    gained = found["gain"]
    assert gained["runtime"].split()[0] in measure.RUNTIME_ORDER and gained["ms"][0] > 0 < gained["ms"][1]
    (low, high), _ = gained["spread"]
    assert low <= gained["ms"][0] <= high and gained["bytes"][0] > 100_000
    assert gained["slower"] == (gained["ms"][1] > gained["ms"][0])


# page


def test_the_page_has_every_finding_in_place() -> None:
    result = review("vgg16")
    html = review_html(result)
    parsed = check_alone(html)
    for number, one in enumerate(result.findings, 1):
        assert f'id="finding-{number}"' in html and one.rule in parsed.words and one.source in parsed.words
    marks = re.findall(r'class="small mark"[^>]*>([^<]+)<', html)
    assert len(marks) == len({place for one in result.findings for place in one.places})
    assert {number for mark in marks for number in mark.split(", ")} == {
        str(n + 1) for n in range(len(result.findings))
    }
    assert html.count('class="layer bottleneck"') == len(marks)
    regions = [attributes for tag, attributes in parsed.elements if attributes.get("role") == "region"]
    assert regions and all(attributes.get("tabindex") == "0" for attributes in regions)  # scrolled by keyboard
    assert (
        "No rule names anything" in check_alone(review_html(review(PAIRS["large-kernel"].partner(), (3, 64, 64)))).words
    )


@pytest.mark.full
@pytest.mark.skipif(browser_program() is None, reason="no Chromium here to look at pages with")
@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_cut_off_on_a_screen(tmp_path: Path, width: int) -> None:
    page = tmp_path / "review.html"
    page.write_text(review_html(review("inception_v3")), encoding="utf-8")
    with Browser(tmp_path / "profile") as browser:
        browser.open(page, width)
        assert browser.value(OUTSIDE) == []
        assert browser.value("document.documentElement.scrollWidth") <= width
        browser.value("document.querySelector('summary').focus()")
        assert browser.value("document.activeElement.tagName") == "SUMMARY"


def test_hostile_names_stay_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, hostile in enumerate(HOSTILE):
        path = onnx_file(tmp_path / f"{number}.onnx", kernel=5, name=hostile.encode(errors="replace").decode())
        check_alone(review_html(review(path)))
        assert main(["review", str(path)]) == 0
        assert "\u202e" not in capsys.readouterr().out


def test_the_command_writes_page_text_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "review.html"
    assert main(["review", "mobilenetv1_025", "--input", "96x64", "--html", str(page)]) == 0
    text = capsys.readouterr().out
    assert "mobilenetv1_025 at 1x3x96x64" in text and "warning: missing-shortcut" in text
    check_alone(page.read_text(encoding="utf-8"))
    assert main(["review", "mobilenetv1_025", "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert {"target", "input_shape", "findings", "rules", "not_applied", "macs", "params"} <= set(values)
    assert {"rule", "layer", "layers", "figure", "threshold", "source", "change", "cost"} <= set(values["findings"][0])


# what cannot be used


def bad_files(root: Path) -> dict[str, Path]:
    good = onnx_file(root / "good.onnx")
    data = good.read_bytes()
    files = {
        "empty": b"",
        "half": data[: len(data) // 2],
        "text": b"no network",
        "zeros": bytes(4096),
        "zip": b"PK\3\4" + bytes(64),
        "html": b"<!doctype html>",
    }
    for name, content in files.items():
        (root / f"{name}.onnx").write_bytes(content)
    model = onnx.load(good)
    for name, edit in {
        "no input": lambda m: m.graph.ClearField("input"),
        "no nodes": lambda m: m.graph.ClearField("node"),
        "no weights": lambda m: m.graph.ClearField("initializer"),
        "unconnected": lambda m: m.graph.node[2].input.__setitem__(0, "nowhere"),
        "wrong shape": lambda m: m.graph.initializer[1].dims.__setitem__(1, 33),
        "only pools": lambda m: [m.graph.node.pop(0) for _ in range(3)],
    }.items():
        changed = onnx.ModelProto()
        changed.CopyFrom(model)
        edit(changed)
        (root / f"{name}.onnx").write_bytes(changed.SerializeToString())
    (root / "folder").mkdir()
    (root / "image.png").write_bytes(b"\x89PNG")
    (root / "notes.txt").write_text("no network")
    (root / "torn").mkdir()
    (root / "torn" / "settings.yaml").write_text("net: [")
    (root / "bare").mkdir()
    (root / "bare" / "settings.yaml").write_text("net: resnet18\n")
    return {path.stem: path for path in root.iterdir()} | {"inside a file": good / "review.html"}


# words of the command after `review`, "@" before a file of `bad_files`, and what its line says
BAD: dict[str, tuple[list[str], str]] = {
    "a mistyped network": (["resnet19"], "resnet18"),
    "another mistyped network": (["mobilnet_v2"], "mobilenet_v2"),
    "no such file": (["nowhere.onnx"], "no such file"),
    "no such folder": (["runs/nowhere"], "no such file"),
    "an empty name": ([""], "gossamer:"),
    "a name of spaces": (["   "], "gossamer:"),
    "a null character": (["a\0b"], "no path"),
    "a name too long": (["x" * 5000], "gossamer:"),
    "an empty file": (["@empty"], "has no input"),
    "half a file": (["@half"], "ONNX"),
    "a file of text": (["@text"], "ONNX"),
    "a file of zeros": (["@zeros"], "gossamer:"),
    "an archive": (["@zip"], "ONNX"),
    "a web page": (["@html"], "ONNX"),
    "a file without input": (["@no input"], "no input"),
    "a file without nodes": (["@no nodes"], "gossamer:"),
    "a file without weights": (["@no weights"], "which nothing makes"),
    "an unconnected node": (["@unconnected"], "gossamer:"),
    "weights that do not fit": (["@wrong shape"], "weights for 33"),
    "a file without a convolution": (["@only pools"], "gossamer:"),
    "a folder": (["@folder"], "without settings.yaml"),
    "an image": (["@image"], "an image"),
    "another file": (["@notes"], "gossamer:"),
    "a torn run": (["@torn"], "gossamer:"),
    "a run without weights": (["@bare"], "gossamer:"),
    "a file at another size": (["@good", "--input", "3x128x128"], "as the file fixes it"),
    "a file of other channels": (["@good", "--input", "1x64x64"], "as the file fixes it"),
    "no digits": (["resnet18", "--input", "abc"], "240x320"),
    "no rows": (["resnet18", "--input", "3x0x224"], "8 to 4096"),
    "too many rows": (["resnet18", "--input", "3x99999x224"], "8 to 4096"),
    "four sides": (["resnet18", "--input", "1x3x224x224"], "3x224x224"),
    "grey for colours": (["resnet18", "--input", "1x64x64"], "gossamer:"),
    "no channels": (["resnet18", "--input", "0x64x64"], "3x224x224"),
    "too small": (["inception_v3", "--input", "3x32x32"], "gossamer:"),
    "no threads": (["resnet18", "--threads", "0"], "number from 1"),
    "threads of letters": (["resnet18", "--threads", "two"], "number from 1"),
    "a page in no folder": (["resnet18", "--html", "@inside a file"], "gossamer:"),
    "a page that is a folder": (["resnet18", "--html", "@folder"], "gossamer:"),
    "a page over the file": (["@good", "--html", "@good"], "would replace"),
    "two targets": (["resnet18", "resnet34"], "gossamer:"),
    "no target": ([], "gossamer:"),
    "an unknown flag": (["resnet18", "--mesure"], "--measure"),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return bad_files(tmp_path_factory.mktemp("bad"))


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_used_is_one_line(
    case: str,
    files: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    words, says = BAD[case]
    given = [str(files[word[1:]]) if word.startswith("@") else word for word in words]
    try:
        code = main(["review", *given])
    except SystemExit as stop:  # argparse
        code = int(stop.code or 0)
    out, error = capsys.readouterr()
    lines = [line for line in error.splitlines() if line.startswith("gossamer:")]
    assert code == 2, (code, error)
    assert len(lines) == 1 and says in lines[0] and "Traceback" not in error, error
    assert out == "" and list(tmp_path.iterdir()) == []


def test_there_are_40_kinds_of_bad_input() -> None:
    assert len(BAD) >= 40


def test_arguments_belong_to_names(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="for a network by its name alone"):
        review(onnx_file(tmp_path / "a.onnx"), width=0.5)
