"""The benchmarks: every runtime takes part with outputs of its own, and ours is never alone; the tables say what ran."""

from __future__ import annotations

import importlib
import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import tarfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gossamer.data.open import open_source, read_table
from gossamer.host.machine import versions
from gossamer.runtime.native import LIBRARY
from tests.conftest import write_image_folder

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"
BASELINES = "onnxruntime,openvino,torch,ncnn,mnn"  # the others need minutes for their files


@pytest.fixture(autouse=True)
def from_the_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """The files of benchmarks/ import each other as scripts do."""
    monkeypatch.syspath_prepend(str(FOLDER))


def row(runtime: str, rounds: list[float], **more: Any) -> dict[str, Any]:
    """A row as engine.py writes them, of 1000 multiply-adds a call."""
    times: dict[str, Any] = {}
    if rounds:
        times = {"median_ms": statistics.median(rounds), "p10_ms": min(rounds), "p90_ms": max(rounds)}
    named = {"network": "net", "precision": "fp32", "runtime": runtime, "threads": 1, "batch": 1, "macs": 1000}
    return {**named, "problem": "", "round_medians_ms": rounds, **times, **more}


def tables(rows: list[dict[str, Any]], ceiling: dict[str, dict[str, float]]) -> str:
    """The text of a result."""
    machine = {"cpu": "a processor", "cores": 2, "packages": {}}
    return str(
        importlib.import_module("table").text({"machine": machine, "ceiling": ceiling, "rounds": 3, "rows": rows})
    )


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    """One round of the smallest network in every precision: what --json holds, and the tables."""
    for package in ("onnx", "onnxruntime", "openvino"):
        pytest.importorskip(package)
    if not LIBRARY.is_file():
        pytest.skip("the native engine is not built: make engine")
    out = tmp_path_factory.mktemp("engine") / "out.json"
    once = ("--threads", "1", "--batches", "3", "--rounds", "1", "--seconds", "0")
    command = [sys.executable, str(FOLDER / "engine.py"), "lenet5", "--baselines", BASELINES, *once, "--json", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    return json.loads(out.read_text(encoding="utf-8")), done.stdout


@pytest.mark.full
def test_every_runtime_takes_part_in_every_precision_that_it_has(measured: tuple[dict[str, Any], str]) -> None:
    rows = {(one["runtime"], one["precision"]): one for one in measured[0]["rows"]}
    assert len(rows) == 3 * (1 + len(BASELINES.split(",")))
    here = [(name, kind) for name in ("native", "openvino") for kind in ("fp32", "bf16", "int8")]
    here += [("onnxruntime", "fp32"), ("onnxruntime", "int8"), ("torch", "fp32"), ("torch", "bf16")]
    for key in here:
        assert rows[key]["problem"] == "" and rows[key]["runs"] >= 3 and rows[key]["median_ms"] > 0, rows[key]
        assert rows[key]["input"] == [3, 1, 32, 32]
    for name, package in (("ncnn", "ncnn"), ("mnn", "MNN")):
        if versions([package])[package] is None:
            assert "not installed" in rows[name, "fp32"]["problem"]
    assert all(one["problem"] for key, one in rows.items() if "median_ms" not in one)


@pytest.mark.full
def test_outputs_are_those_of_the_precision(measured: tuple[dict[str, Any], str]) -> None:
    bounds = {"fp32": (0, 1e-4), "bf16": (1e-4, 0.1), "int8": (1e-3, 0.5)}
    assert {one["precision"] for one in measured[0]["rows"] if "median_ms" in one} == set(bounds)
    for one in measured[0]["rows"]:
        low, high = bounds[one["precision"]]
        if "median_ms" in one and not (one["runtime"] == "openvino" and one["precision"] == "bf16"):
            assert low <= one["difference"] < high, one  # (OpenVINO keeps float32 where a processor lacks bf16)
            assert one["same"] > 0.7


@pytest.mark.full
def test_the_tables_name_a_baseline_in_every_ratio(measured: tuple[dict[str, Any], str]) -> None:
    lines = [line for line in measured[1].splitlines() if line.startswith("| lenet5 |")]
    assert len(lines) == 3
    for line in lines:
        assert any(baseline in line.split("|")[-3] for baseline in BASELINES.split(",")), line
    assert "* onnxruntime: its fast bfloat16" in measured[1]


def test_a_ratio_is_within_a_round_against_the_fastest_baseline() -> None:
    rows = [row("native", [2.0, 4.0, 1.0]), row("slow", [9.0, 9.0, 9.0]), row("quick", [3.0, 4.0, 10.0])]
    line = next(line for line in tables(rows, {"fp32": {"1": 1e6}}).splitlines() if line.startswith("| net |"))
    assert line.endswith("| 1.50 (1.00-9.00), quick | 50%, 25% |")  # 3/2, 4/4, 9/1; 1000 MACs in 2 and 4 ms


def test_what_was_not_measured_is_named_and_compares_with_nothing() -> None:
    rows = [row("native", [2.0]), row("other", [], problem="not installed")]
    table = tables(rows, {})
    assert table.endswith("| net | 1 | 1 | 2.00 (2.00-2.00) | - | - |\n\n* other: not installed")


def test_accuracy_stands_beside_a_time_in_less_than_float32() -> None:
    table = tables([row("native", [2.0], precision="int8", same=0.875, difference=0.034)], {})
    assert "2.00 (2.00-2.00); 88%, 3.4%" in table


def test_the_ceiling_is_that_of_a_processor() -> None:
    if shutil.which(os.environ.get("CXX", "c++")) is None:
        pytest.skip("no C++ compiler")
    peak = importlib.import_module("ceiling").ceiling([1])
    assert "fp32" in peak
    for rates in peak.values():
        assert 1e8 < rates["1"] < 1e13


def test_the_highest_rate_of_several_measurements_counts() -> None:
    first, second = {"fp32": {"1": 5.0, "2": 8.0}}, {"fp32": {"1": 4.0, "2": 9.0}, "int8": {"1": 20.0}}
    peak = importlib.import_module("ceiling").highest(first, second)
    assert peak == {"fp32": {"1": 5.0, "2": 9.0}, "int8": {"1": 20.0}}


def test_files_of_several_runs_make_one_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [str(tmp_path / name) for name in ("a.json", "b.json")]
    for path, network, peak in zip(paths, ("one", "two"), (5e5, 1e6)):
        rows = [row("native", [2.0], network=network), row("baseline", [1.0], network=network)]
        machine = {"cpu": "a processor", "cores": 2, "packages": {}}
        result = {"machine": machine, "ceiling": {"fp32": {"1": peak}}, "rounds": 1, "rows": rows}
        Path(path).write_text(json.dumps(result), encoding="utf-8")
    importlib.import_module("table").main(paths)
    table = capsys.readouterr().out
    assert table.count("0.50 (0.50-0.50), baseline | 50%, 100% |") == 2 and "| one |" in table and "| two |" in table


def pair(network: str, task: str, **steps: str) -> dict[str, Any]:
    """A pair as zoo_tasks.py keeps it."""
    return {"network": network, "task": task, "input": 64, "steps": steps, "notes": []}


def test_the_table_of_pairs_passes_only_what_went_all_the_way() -> None:
    zoo = importlib.import_module("zoo_tasks")
    passed = {"train": "", "export": "", "verify": "", "native": ""}
    rows = [
        pair("vgg11", "classify", **passed),
        pair("vgg11", "segment", **{**passed, "native": "node 'Pad_3', operator Pad; allowed: others"})
        | {"refused": True},
        pair("resnet18", "segment", train="", export="outputs differ"),
        pair("resnet18", "classify", train=""),
    ]
    lines = zoo.table(rows).splitlines()
    assert lines[0] == "| network | input | classify | segment |"
    assert lines[2:4] == [
        "| resnet18 | 64 | train passes | export (1) |",
        "| vgg11 | 64 | pass | pass, no engine (2) |",
    ]
    assert lines[5] == "2 of 4 pairs pass; 1 more as far as they were tried."
    assert lines[7:] == ["1. export: outputs differ", "2. pass, no engine: operator Pad"]
    assert [zoo.is_done(row, "native") for row in rows] == [True, True, True, False]


def test_a_pair_is_trained_exported_and_verified_and_what_fails_is_named(tmp_path: Path) -> None:
    zoo = importlib.import_module("zoo_tasks")
    zoo.write_data(tmp_path)
    assert zoo.side_of("lenet5") == 32
    cell = zoo.cell("lenet5", "regress", 32, tmp_path, tmp_path / "good", "verify")
    assert cell["steps"] == {"train": "", "export": "", "verify": ""}
    assert zoo.verdict(zoo.cell("lenet5", "detect", 8, tmp_path, tmp_path / "small", "train")).startswith("train: ")


def test_no_loss_sees_the_classes_that_are_held_out(tmp_path: Path) -> None:
    embeddings = importlib.import_module("embeddings")
    shards, classes = tmp_path / "shards", ("bird", "cat", "dog", "ship")
    shards.mkdir()
    (shards / "classes.txt").write_text("\n".join(classes))
    image = io.BytesIO()
    Image.new("RGB", (8, 8)).save(image, "JPEG")
    for split, each in (("train", 6), ("test", 5)):
        with tarfile.open(shards / f"{split}-00000.tar", "w") as shard:
            for number in range(each * len(classes)):
                for extension, content in (("jpg", image.getvalue()), ("cls", str(number % 4).encode())):
                    member = tarfile.TarInfo(f"{number}.{extension}")
                    member.size = len(content)
                    shard.addfile(member, io.BytesIO(content))
    seen, unseen = embeddings.prepare(shards, tmp_path / "scratch", ("cat", "dog"), 7)
    table = read_table(seen)
    assert table.classes == ("bird", "ship") and [len(table.rows(split)) for split in ("train", "val")] == [12, 1]
    held = open_source(unseen, ())
    assert held.classes == ("cat", "dog") and np.bincount(held.labels).tolist() == [7, 7]
    assert embeddings.prepare(tmp_path / "gone", tmp_path / "scratch", ("cat", "dog"), 7) == (seen, unseen)
    with pytest.raises(SystemExit, match="two or more of bird, cat, dog, ship"):
        embeddings.prepare(shards, tmp_path / "scratch", ("cat", "cow"), 7)


@pytest.mark.full
def test_int8_files_of_all_sides_are_compared_and_the_trap_changes_no_float_output(tmp_path: Path) -> None:
    shrink = importlib.import_module("shrink")
    compat = FOLDER.parent / "tests" / "compat" / "0.1"
    shutil.copytree(compat / "runs" / "classify", tmp_path / "run")
    settings = tmp_path / "run" / "settings.yaml"
    data = write_image_folder(tmp_path / "classes", each=4)
    settings.write_text(settings.read_text().replace("data: classes\n", f"data: {data}\n"))
    images = [(path.relative_to(data), path.parts[-2], path.parts[-3]) for path in sorted(data.rglob("*.png"))]
    rows = [f"{path},{label[-1]},{split}\n" for path, label, split in images]
    (tmp_path / "run" / "split.csv").write_text("name,label,split\n" + "".join(rows))
    result = {}
    for trap in (None, 1):
        folder = tmp_path / str(trap)
        folder.mkdir()
        result[trap] = shrink.compare(str(tmp_path / "run"), 16, 100, 1, trap, folder)
        sides = {row["side"]: row for row in result[trap]["rows"]}
        assert {"float", "gossamer", "onnxruntime", "onnxruntime per channel"} <= {*sides, *result[trap]["problems"]}
        assert sides["float"]["agreement"] == 1 and sides["gossamer"]["decibels"] > 15
        assert all(row["ms"] > 0 and row["bytes"] > 0 for row in sides.values())
        assert "gossamer" in shrink.text(result[trap])
    assert result[1]["rows"][0]["score"] == result[None]["rows"][0]["score"]


def test_the_trap_rescales_residual_streams_and_keeps_every_bit() -> None:
    from gossamer.shrink.graph import OnnxSession
    from tests.test_quantise import images, residual

    shrink = importlib.import_module("shrink")
    data, streams = shrink.trapped(residual(), ["y"], images(8), 0)
    assert streams == 8  # one stream of eight channels
    expected, actual = (OnnxSession(one, exact=True).run(images(seed=4))[0] for one in (residual(), data))
    np.testing.assert_array_equal(actual, expected)


def test_advice_is_counted_by_rule_with_its_worst_cases(tmp_path: Path) -> None:
    advice = importlib.import_module("advice")

    def piece(rule: str, before: float, after: float, claims: str = "speed", clear: bool = True) -> dict[str, object]:
        change = {"rule": rule, "claims": claims, "change": "resnet18", "arguments": {"width": "0.5"}, "clear": clear}
        return {**change, "severity": "note", "ms": [before, after], "macs": [2, 1], "runtime": "native"}

    path = tmp_path / "results.jsonl"
    lines = [
        {
            "network": "a",
            "advice": [piece("big", 2.0, 1.0), piece("big", 1.0, 1.5), piece("wide", 1.0, 1.01, clear=False)],
        },
        {"network": "b", "advice": [piece("deep", 1.0, 9.0, "accuracy"), piece("wide", 3.0, 1.0)]},
        {"network": "c", "error": "cannot be built", "advice": []},
    ]
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines) + '{"network": "d", "adv')
    results = advice.read(path)
    assert [one["network"] for one in results] == ["a", "b", "c"], "a line that was cut short is measured again"
    text = advice.table(results)
    assert "3 networks reviewed, 5 pieces of advice measured, 4 of them claim speed" in text
    rows = {line.split()[0]: line for line in text.splitlines()}
    assert "2 (50.0" in rows["all"] and "1 (50.0" in rows["wide"] and "deep" not in rows
    assert rows["big"].split()[-2] == "1" and rows["wide"].split()[-2] == "0", "slower beyond the spread"
    assert text.index("0.67x") < text.index("0.99x") and "failed: c: cannot be built" in text
    assert advice.main(["--results", str(path), "--table"]) == 0


def test_pruning_beside_others_is_a_table_of_all_sides() -> None:
    prune = importlib.import_module("prune")
    row = {"side": "the run", "score": 0.5, "ms": 2.0, "macs": 10**7, "parameters": 10**6, "minutes": 3.0, "epochs": 4}
    rows = [row, {**row, "side": "gossamer", "score": None, "ms": 1.0}]
    result = {
        "run": "runs/x",
        "latency": 0.5,
        "minutes": 3.0,
        "metric": "accuracy",
        "problems": {"narrower": "none"},
        "rows": rows,
    }
    text = prune.text(result)
    assert "1.000 (0.50x)" in text and "narrower: none" in text and set(prune.MAKERS) == set(prune.SIDES)


@pytest.mark.full
@pytest.mark.skipif(find_spec("torch_pruning") is None, reason="Torch-Pruning is a peer that development does without")
def test_what_torch_pruning_keeps_becomes_edits(tmp_path: Path) -> None:
    prune = importlib.import_module("prune")
    from gossamer.host.progress import SILENT
    from gossamer.networks.changes import parse_changes
    from gossamer.training.loop import train
    from tests.test_trainer import small

    write_image_folder(tmp_path / "data", each=8)
    run = train(small(tmp_path / "data", tmp_path / "run", net="mobilenet_v2", width=0.35, epochs=1)).path
    bench = prune.Bench(str(run), 0.5, 0.01, tmp_path, SILENT)
    for kind in ("magnitude", "taylor"):
        changes = prune.torch_pruning_changes(bench, kind, 0.5)  # checks the network that they leave against the peer's
        assert changes and parse_changes(prune_json(changes)) == changes


def prune_json(changes: object) -> str:
    from gossamer.networks.changes import changes_to_json

    return changes_to_json(changes)  # type: ignore[arg-type]


def test_three_pipelines_are_one_picture_compared_at_equal_scores() -> None:
    pipelines = importlib.import_module("pipelines")

    def point(kind: str, fraction: float, score: float, ms: float) -> dict[str, Any]:
        return {"pipeline": kind, "fraction": fraction, "score": score, "ms": ms, "ms_of_rounds": [ms, 2 * ms]}

    rows = [point(pipelines.OURS, 1, 0.8, 1.0), point(pipelines.OURS, 0.5, 0.6, 0.5)]
    rows += [point(pipelines.ORT, 1, 0.7, 3.0), point(pipelines.ORT, 0.5, 0.5, 2.0)]
    rows += [point(pipelines.OPENVINO, 1, 0.4, 0.1)]
    common = {"run": "runs/x", "minutes": 3, "metric": "accuracy", "images": 500, "calibrated_on": 128}
    result = {**common, "problems": {"Torch-Pruning at 0.3": "none"}, "rows": rows}
    assert pipelines.at_equal_score(result, pipelines.ORT) == pytest.approx(0.75 / 3.0)  # at 70 %
    assert np.isnan(pipelines.at_equal_score(result, pipelines.OPENVINO)), "it never comes to our lowest score"
    text = pipelines.text(result)
    assert "ours over Torch-Pruning, ONNX Runtime: 0.25" in text and text.endswith("Torch-Pruning at 0.3: none")
    chart = pipelines.picture(result)
    assert chart.count("<circle") == len(rows) + 3 and chart.count('class="line') == 2
    assert "gossamer: 60.0 at 0.500, 80.0 at 1.00" in chart


@pytest.mark.full
@pytest.mark.timeout(900)
@pytest.mark.skipif(not LIBRARY.is_file(), reason="the native engine is not built: make engine")
def test_pipelines_are_timed_where_they_are_at_home_and_peers_may_be_missing(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    shrink = importlib.import_module("shrink")
    from gossamer.training.loop import train
    from tests.test_trainer import small

    write_image_folder(tmp_path / "data", each=12)
    run = train(small(tmp_path / "data", tmp_path / "run", net="resnet18", width=0.25, epochs=1)).path
    words = ["--run", str(run), "--curve", str(tmp_path / "curve.svg"), "--json", str(tmp_path / "curve.json")]
    words += [
        "--folder",
        str(tmp_path / "runs"),
        "--fractions",
        "1",
        "0.7",
        "--minutes",
        "0.02",
        "--rounds",
        "1",
        "--count",
        "16",
    ]
    assert shrink.main(words) == 0
    result = json.loads((tmp_path / "curve.json").read_text())
    names = {(row["pipeline"], row["fraction"]) for row in result["rows"]}
    assert {("gossamer", 1), ("gossamer", 0.7), ("Torch-Pruning, ONNX Runtime", 1)} <= names
    assert len(names) + len(result["problems"]) >= 5 and all(row["ms"] > 0 for row in result["rows"])
    assert (tmp_path / "curve.svg").read_text().startswith("<svg")
