"""The report: what it shows, that it stands alone, that names cannot break it, and what stands out."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import re
import sys
from base64 import b64decode
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from gossamer.charts.chart_file import UNPRINTABLE
from gossamer.charts.confusion import PIXELS, confusion_chart
from gossamer.errors import InputError, MissingPackageError
from gossamer.host import text
from gossamer.report import classify, page
from gossamer.report.contents import ExportedFile, Latency, flat_rows, latencies
from gossamer.report.highlights import highlights
from gossamer.report.scores import calibrate, wilson
from gossamer.run import Run
from gossamer.runtime.verification import OutputCheck, PixelCheck, VerificationResult
from gossamer.settings import Settings
from tests.reportcases import COST, HOSTILE, LAYERS, Page, check_alone, data, evaluation, rows

# the page


def test_a_report_of_two_classes_says_its_numbers() -> None:
    parsed = check_alone(page.report_html(data()))
    low, high = wilson(34, 40)
    assert f"85.0{text.THIN}%" in "".join(parsed.text)
    assert f"{low * 100:.1f} to {high * 100:.1f}" in parsed.words
    assert "34 of 40 validation images" in parsed.words
    assert "cat predicted as dog" in parsed.words
    assert "train/cat/broken.jpg" in parsed.words and "truncated" in parsed.words
    assert "which also selected the checkpoint" in parsed.words
    (matrix,) = [svg for svg in parsed.all("svg") if "Confusion matrix" in (svg["aria-label"] or "")]
    assert "cat: 17 of 20 right; dog: 17 of 20 right" in (matrix["aria-label"] or "")


def test_every_section_that_the_navigation_names_is_there() -> None:
    parsed = Page(page.report_html(data()))
    targets = {(link["href"] or "").removeprefix("#") for link in parsed.all("a")}
    assert targets and targets <= {section["id"] for section in parsed.all("section")}


def test_what_was_not_measured_says_so_with_the_command() -> None:
    words = Page(page.report_html(data(run="runs/my pets"))).words
    assert "not measured" in words and "gossamer bench 'runs/my pets'" in words
    assert "not exported" in words and "gossamer export 'runs/my pets' --out 'my pets.onnx'" in words


def test_latency_and_file_show_once_they_are_measured() -> None:
    measured = (
        Latency("reference", 1, 1, math.nan, math.nan, math.nan, math.nan, math.nan, math.nan),
        Latency("onnxruntime", 1, 1, 2.5, 2.4, 2.9, 400.0, 30.0, 5e7),
        Latency("openvino", 2, 1, 1.25, 1.2, 1.4, 800.0, 90.0, 6e7),
        Latency("openvino", 2, 8, 0.9, 0.8, 1.0, 800.0, 90.0, 6e7),
        Latency("torch", 4, 1, math.nan, math.nan, math.nan, math.nan, math.nan, math.nan, "is not installed"),
    )
    verification = VerificationResult(
        "pets.onnx",
        "f" * 64,
        "onnxruntime",
        "installed",
        17,
        {},
        1e-4,
        (OutputCheck(2e-6, True),),
        (PixelCheck("a.jpg", True, 0),),
    )
    report_data = data(latencies=measured, exported=ExportedFile("runs/pets/pets.onnx", 1_234_567, verification))
    keys = {key.name: key for key in page.key_figures(report_data)}
    assert keys["Latency"].value == text.milliseconds(1.25), "batch 8 is not a latency of one image"
    assert "openvino, 2 threads" in keys["Latency"].note
    assert keys["Model file"].value == f"1.23{text.THIN}MB" and "verified" in keys["Model file"].note
    words = check_alone(page.report_html(report_data)).words
    assert "not measured" not in words and "is not installed" in words and "2e-06" in words


def test_a_file_that_fails_its_check_says_so_loudly() -> None:
    wrong = VerificationResult("p", "f" * 64, "reference", "", 17, {}, 1e-4, (OutputCheck(0.5, False),), ())
    for exported in (ExportedFile("p.onnx", 10, wrong), ExportedFile("p.onnx", 10, None, "digest (rule 3)")):
        words = Page(page.report_html(data(exported=exported))).words
        assert "verification FAILED" in words
    assert "digest (rule 3)" in words


@pytest.mark.parametrize("size", [2, 3, 12, 13, 32, 33, 100])
def test_a_report_stands_alone_at_any_number_of_classes(size: int) -> None:
    classes = tuple(f"class {index}" for index in range(size))
    html = page.report_html(data(classes, evaluation=evaluation(classes, 5, 1)))
    parsed = check_alone(html)
    assert all(name in parsed.words for name in classes)
    assert len(html) < 1_000_000
    table = parsed.words[parsed.words.index("Most confused pairs") :]
    assert "class 0 class 1 1 20.0" in table


def test_a_matrix_of_hundreds_of_classes_stays_small() -> None:
    confusion = np.zeros((1001, 1001), np.int64)
    np.fill_diagonal(confusion, 9)
    confusion[1000, 0] = 1
    svg = confusion_chart(confusion, [str(index) for index in range(1001)])
    assert len(svg) < 60_000
    uris = re.findall(r"data:image/png;base64,([^\"]+)", svg)
    right, wrong = (np.asarray(Image.open(io.BytesIO(b64decode(uri)))) for uri in uris)
    assert right.shape == wrong.shape and max(right.shape) <= PIXELS
    assert right[0, 0] == 255 and right[0, 1] == 0
    assert wrong[-1, 0] > 0 and np.count_nonzero(wrong) == 1, "a single mistake is not averaged away"


def test_hostile_names_are_only_text(tmp_path: Path) -> None:
    report_data = data(HOSTILE)
    report_data = dataclasses.replace(
        report_data,
        run="runs/" + HOSTILE[0],
        unreadable=[(name, name) for name in HOSTILE],
        mistakes=tuple(dataclasses.replace(one, name=HOSTILE[1]) for one in report_data.mistakes),
        machine=dict.fromkeys(HOSTILE, HOSTILE[1]),
        data={"how": HOSTILE[3], "notes": list(HOSTILE)},
        exported=ExportedFile(HOSTILE[1], 10, None, HOSTILE[0]),
        latencies=(Latency(HOSTILE[0], 1, 1, 1.0, 0.9, 1.1, 1.0, 1.0, 1.0),),
        bench={HOSTILE[0]: HOSTILE[1]},
        cost=dataclasses.replace(
            COST,
            layers=tuple(dataclasses.replace(layer, name=HOSTILE[1]) for layer in LAYERS),
            unknown={HOSTILE[0]: 2},
        ),
    )
    html = page.report_html(report_data)
    parsed = check_alone(html)
    assert html.encode(), "a name that is no UTF-8 does not stop the report from being written"
    assert not re.search(r"[\x00-\x08\x0e-\x1f\x7f-\x9f]", html)
    assert "<script>alert(1)</script>" in parsed.words and "{{ 7 * 7 }}" in parsed.words
    assert not [image for image in parsed.all("img") if not (image["src"] or "").startswith("data:image/")]


@given(st.lists(st.text(max_size=40), min_size=2, max_size=4, unique=True))
def test_any_class_names_give_a_balanced_page(names: list[str]) -> None:
    html = confusion_chart(np.array([[3] * len(names)] * len(names)), names)
    assert len(Page(html.translate(UNPRINTABLE)).all("svg")) == 1


def test_one_epoch_no_epoch_and_broken_numbers_are_drawn_as_they_are() -> None:
    for metrics in (
        [],
        rows(1),
        [{"epoch": 1.0, "loss": math.nan, "val_loss": math.inf, "val_accuracy": None}],
        [*rows(3), {"epoch": 4.0, "loss": math.nan, "val_loss": math.nan, "val_accuracy": math.nan, "lr": 0.1}],
    ):
        html = page.report_html(data(metrics=metrics))
        check_alone(html)
        assert not re.search(r"\b(nan|inf)\b", html)
    assert "Diverged" in html and "1 of 4 epochs" in html


def test_outputs_that_are_not_numbers_are_reported_and_not_counted() -> None:
    scored = evaluation(("cat", "dog"))
    broken = dataclasses.replace(scored, logits=np.full_like(scored.logits, np.nan))
    words = check_alone(page.report_html(data(evaluation=broken, mistakes=()))).words
    assert "None of the network's outputs is a number" in words
    logits = scored.logits.copy()
    logits[:4] = np.nan
    words = Page(page.report_html(data(evaluation=dataclasses.replace(scored, logits=logits)))).words
    assert "not counted 4 images" in words


def test_a_run_without_mistakes_says_so() -> None:
    words = check_alone(page.report_html(data(evaluation=evaluation(("cat", "dog"), wrong=0), unreadable=[]))).words
    assert "every validation image was predicted correctly" in words
    assert "No image was predicted as another class" in words
    assert "every image could be read" in words


def test_operations_of_unknown_cost_are_named_in_the_headline_and_the_table() -> None:
    unknown = dataclasses.replace(LAYERS[1], op="fancy", macs=None)
    report_data = data(cost=dataclasses.replace(COST, layers=(*LAYERS, unknown), unknown={"fancy": 1}))
    assert "without 1 operation of unknown cost" in page.key_figures(report_data)[2].note
    words = Page(page.report_html(report_data)).words
    assert "Operators without a cost formula, listed here and not counted: fancy × 1" in words


def test_the_page_follows_dark_mode_and_print_and_asks_for_nothing() -> None:
    html = page.report_html(data())
    assert "prefers-color-scheme: dark" in html and "@media print" in html
    assert "default-src 'none'" in html and 'lang="en"' in html and "width=device-width" in html


def test_a_missing_jinja2_is_one_line_that_names_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(MissingPackageError, match=r"gossamer\[report\]"):
        page.write_report(tmp_path)


def test_all_settings_are_shown() -> None:
    words = Page(page.report_html(data())).words
    assert all(field.name in words for field in dataclasses.fields(Settings))


# what stands out


def test_findings_name_the_weak_class_and_the_curves() -> None:
    scored = evaluation(("cat", "dog", "owl"), 20, 2)
    logits = scored.logits.copy()
    logits[:10] = [0, 9, 0]  # half of the cats are dogs, and surely
    metrics = rows(5)
    metrics[-1]["val_loss"] = 3.0
    report_data = data(
        ("cat", "dog", "owl"),
        evaluation=dataclasses.replace(scored, logits=logits),
        metrics=metrics,
        counts={"train": (10, 90, 50)},
        data_changed=True,
    )
    calibration = calibrate(report_data.evaluation.probabilities, scored.targets)
    findings = {
        one.what: one.sentence
        for one in highlights(report_data, classify.classification_highlights(report_data, calibration))
    }
    assert "epoch 4 (0.625)" in findings["Overfitting"] and "3.00" in findings["Overfitting"]
    assert (
        "cat" in findings["Most confused"]
        and "dog" in findings["Most confused"]
        and "10 times, 50" in findings["Most confused"]
    )
    assert "90 training images" in findings["Imbalance"]
    assert "Other data" in findings and "Over-confident" in findings


def test_a_class_never_predicted_is_a_finding() -> None:
    scored = evaluation(("cat", "dog"), wrong=0)
    logits = scored.logits.copy()
    logits[:, 1] += 50
    report_data = data(evaluation=dataclasses.replace(scored, logits=logits))
    assert any(
        one.what == "Never predicted" and "cat" in one.sentence
        for one in classify.classification_highlights(report_data, None)
    )


# from a run folder


@pytest.fixture(scope="module")
def run(image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder as training leaves it, with an untrained network."""
    from gossamer.data.open import open_data, split_rows
    from gossamer.networks import create_model

    folder = tmp_path_factory.mktemp("report") / "run"
    settings = Settings(
        data=str(image_folder),
        out=str(folder),
        width=0.25,
        input="32",
        small_input=True,
        resize="crop",
        crop_pct=1.0,
        interpolation="bilinear",
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        threads=1,
        workers=0,
    )
    images = open_data(image_folder)
    created = Run.create(settings)
    created.save_data(images.classes, {"how": images.how, "fingerprint": images.fingerprint}, split_rows(images))
    created.save_settings(settings)
    created.save_metrics(rows(2))
    created.save_unreadable([("train/class0/torn.png", "truncated")])
    torch.manual_seed(0)
    model = create_model("mobilenet_v2", num_classes=3, width=0.25, small_input=True)
    created.save_state("best", {f"model.{name}": value for name, value in model.state_dict().items()}, {"epoch": 2})
    created.unlock()
    return folder


def test_a_run_folder_gives_a_report_with_its_gallery(run: Path) -> None:
    path = page.write_report(run)
    assert path == run / "report.html"
    html = path.read_text(encoding="utf-8")
    parsed = check_alone(html)
    assert "mobilenet_v2, width 0.25" in parsed.words and "torn.png" in parsed.words
    assert "not measured" in parsed.words and "Other data" not in parsed.words
    photos = parsed.all("img")
    assert photos and len(photos) % 2 == 0
    assert any("Grad-CAM" in (image["alt"] or "") for image in photos)
    assert len(html) < 3_000_000


def test_the_headline_counts_what_the_confusion_matrix_holds(run: Path) -> None:
    from gossamer.report.collect import collect

    collected = collect(run)
    assert collected.evaluation.confusion.sum() == 36 and collected.counts["train"] == (12, 12, 12)
    assert collected.cost.params == sum(layer.params for layer in collected.cost.layers)
    wrong = int(collected.evaluation.confusion.sum() - collected.evaluation.confusion.trace())
    assert len(collected.mistakes) == min(wrong, 12)


def test_measurements_in_the_run_folder_are_shown(run: Path, tmp_path: Path) -> None:
    bench = tmp_path / "bench.json"
    bench.write_text(json.dumps(BENCH), encoding="utf-8")
    words = Page(page.write_report(run, tmp_path / "r.html", bench=bench).read_text(encoding="utf-8")).words
    assert "1.50" in words and "gossamer bench" not in words


BENCH = {
    "machine": {"cpu": "a processor"},
    "rows": [
        {
            "target": "runs/run",
            "runtime": "onnxruntime",
            "threads": 1,
            "batch": 1,
            "median_ms": 1.5,
            "load_ms": None,
            "version": "1.31",
        },
        {"target": "resnet18", "runtime": "onnxruntime", "threads": 1, "batch": 1, "median_ms": 0.5},
    ],
}


def test_what_was_not_measured_or_is_of_another_network_is_no_latency_of_the_run() -> None:
    (row,) = latencies(BENCH, {"run"})
    assert row.runtime == "onnxruntime 1.31" and row.median == 1.5 and math.isnan(row.load) and math.isnan(row.memory)


def test_facts_are_flat_rows_and_the_unknown_is_named() -> None:
    nested = {
        "cpu": "x",
        "cpu_quota": None,
        "memory_bytes": 24e9,
        "versions": {"torch": "2.13"},
        "notes": [],
        "isa": ["a", "b"],
    }
    assert flat_rows(nested) == [
        ("cpu", "x"),
        ("cpu quota", "unknown"),
        ("memory", f"24.0{text.THIN}GB"),
        ("versions torch", "2.13"),
        ("isa", "a, b"),
    ]


def test_a_broken_model_file_is_news_for_the_report(run: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"\x08\x07not a model")
    words = Page(page.write_report(run, tmp_path / "r.html", model_file=broken).read_text(encoding="utf-8")).words
    assert "verification FAILED" in words and "broken.onnx" in words


def test_files_that_are_not_there_are_one_clear_line(run: Path, tmp_path: Path) -> None:
    for model_file, bench in ((tmp_path / "no.onnx", None), (None, tmp_path / "no.json")):
        with pytest.raises(InputError) as caught:
            page.write_report(run, tmp_path / "r.html", model_file=model_file, bench=bench)
        assert "\n" not in str(caught.value) and "no." in str(caught.value)
    assert not (tmp_path / "r.html").exists()
