"""`gossamer diagnose`: planted failures are named first, healthy runs draw nothing that is certain or likely."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import gossamer
from gossamer.cli.main import main
from gossamer.diagnosis import Diagnosis, causes, diagnose
from gossamer.diagnosis.causes import CAUSES
from gossamer.diagnosis.evidence import Evidence
from gossamer.settings import Settings
from gossamer.tasks.losses import cross_entropy
from gossamer.training.precision import computes_bf16
from tests.conftest import once, write_boxes, write_image_folder, write_masks
from tests.trained import runs_of_tasks

SHORT = (
    "--net mobilenet_v1 --width 0.25 --input 32 --batch 8 --threads 1 --workers 0 --precision float32 "
    "--memory-format channels_last --warmup 0"
).split()


def train(data: Path, out: Path, *flags: str, code: int = 0, epochs: int = 3) -> Path:
    """Train a small network for a few epochs."""
    given = [*SHORT, "--epochs", str(epochs), *flags]
    assert main(["train", str(data), *given, "--out", str(out)]) == code
    return out


@pytest.fixture(scope="session")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has learnt its images, with them beside it; not to be changed."""

    def fill(root: Path) -> None:
        write_image_folder(root / "photos", each=16)
        train(root / "photos", root / "run", epochs=12)

    return once(tmp_path_factory, "healthy", fill) / "run"


def first(run: Path) -> str:
    """The cause that is named first, with its certainty."""
    found = diagnose(run).findings
    return f"{found[0].cause} ({found[0].certainty})" if found else ""


def firm(result: Diagnosis) -> list[str]:
    """The causes that are certain or likely."""
    return [finding.cause for finding in result.findings if finding.certainty != "possible"]


def copied(run: Path, folder: Path) -> Path:
    """A run that may be damaged."""
    return Path(shutil.copytree(run, folder / "damaged"))


def test_a_healthy_run_draws_nothing(healthy: Path) -> None:
    result = gossamer.diagnose(healthy)
    assert not firm(result), str(result)
    assert "known causes" in str(result) or result.findings


@pytest.mark.parametrize("task", ["detect", "segment", "embed"])
def test_runs_of_the_other_tasks_draw_nothing_firm(task: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    result = diagnose(runs_of_tasks(tmp_path_factory) / task)
    assert not set(firm(result)) - {"the training waits for images"}, str(result)  # one epoch of eight images does


# data


def test_shuffled_labels(tmp_path: Path) -> None:
    photos = write_image_folder(tmp_path / "photos", classes=2, each=24)
    for split in ("train", "val"):
        for index in range(0, 24, 2):  # every other image of each class goes to the other
            one, other = (photos / split / f"class{label}" / f"{index:03}.png" for label in (0, 1))
            kept = one.read_bytes()
            one.write_bytes(other.read_bytes())
            other.write_bytes(kept)
    run = train(photos, tmp_path / "run", "--crop", "center", "--label-smoothing", "0", epochs=40)
    assert first(run).startswith("the labels do not belong to the images")


def test_shifted_labels(tmp_path: Path) -> None:
    photos = write_image_folder(tmp_path / "photos", each=24)
    (photos / "val" / "class0").rename(photos / "val" / "spare")
    for label in (1, 2):
        (photos / "val" / f"class{label}").rename(photos / "val" / f"class{label - 1}")
    (photos / "val" / "spare").rename(photos / "val" / "class2")
    run = train(photos, tmp_path / "run", "--label-smoothing", "0", epochs=12)
    assert first(run) == "the labels of training and validation images are shifted (certain)"


def test_training_images_among_the_validation_images(tmp_path: Path) -> None:
    photos = write_image_folder(tmp_path / "photos")
    for index in range(4):
        shutil.copy(photos / "train" / "class1" / f"{index:03}.png", photos / "val" / "class1" / f"copy{index}.png")
    run = train(photos, tmp_path / "run")
    assert first(run) == "training images are among the validation images (certain)"
    assert "4 of 40" in diagnose(run).findings[0].what
    shutil.rmtree(photos / "train")
    result = diagnose(run)
    assert "were not looked at" in str(result) and result.findings[:1] != diagnose(run, with_data=False).findings[:0]


def test_a_class_without_training_images(healthy: Path, tmp_path: Path) -> None:
    run = copied(healthy, tmp_path)
    facts = json.loads((run / "data.json").read_text())
    facts["per_class"]["train"]["class1"] = 0
    (run / "data.json").write_text(json.dumps(facts))
    assert first(run) == "a class has nothing to learn from (certain)"


def test_a_drowned_class(healthy: Path, tmp_path: Path) -> None:
    run = copied(healthy, tmp_path)
    facts = json.loads((run / "data.json").read_text())
    facts["per_class"]["train"].update(class0=400, class1=5, class2=300)
    (run / "data.json").write_text(json.dumps(facts))
    change_last_row(run, val_accuracy=0.9, val_balanced_accuracy=0.6)
    assert first(run) == "a class is drowned by the others (likely)"
    change_last_row(run, val_accuracy=0.9, val_balanced_accuracy=0.89)
    assert not firm(diagnose(run))
    change_last_row(run, val_accuracy=0.7, val_balanced_accuracy=0.7)  # as many validation images of each class
    assert first(run) == "a class is drowned by the others (likely)"
    assert "33.3% of the validation images" in diagnose(run).findings[0].what
    change_last_row(
        run, val_accuracy=0.3, val_balanced_accuracy=0.3
    )  # it knows none of the classes: that is something else
    assert all("drowned" not in finding.cause for finding in diagnose(run).findings)


@pytest.mark.parametrize(
    ("rare", "accuracy", "named"), [(5, 0.2, True), (5, 0.13, False), (1, 0.2, False), (1, 0.5, True)]
)
def test_many_drowned_classes_are_named_before_much_is_learnt(
    rare: int, accuracy: float, named: bool, healthy: Path, tmp_path: Path
) -> None:
    """Of 10 classes; a network that is right for 13 % of 300 images may be guessing."""
    run = copied(healthy, tmp_path)
    facts = json.loads((run / "data.json").read_text())
    names = [*facts["per_class"]["train"], *"abcdefg"]
    facts["per_class"] = {
        "train": {name: 2 if index < rare else 60 for index, name in enumerate(names)},
        "val": dict.fromkeys(names, 30),
    }
    (run / "data.json").write_text(json.dumps(facts))
    change_last_row(run, val_accuracy=accuracy, val_balanced_accuracy=accuracy)
    assert any("drowned" in finding.cause for finding in diagnose(run).findings) == named
    if rare == 5:  # it knows which classes are frequent, and no more: worse than guessing where all are as frequent
        change_last_row(run, val_accuracy=0.1, val_balanced_accuracy=0.1, loss=0.9, val_loss=3.0)
        assert first(run) == "a class is drowned by the others (likely)"


def test_masks_that_are_ignored(tmp_path: Path) -> None:
    import numpy as np
    from PIL import Image

    street = write_masks(tmp_path / "street", each=4)
    for path in street.rglob("*.png"):
        if "mask" in str(path.parent).lower():
            mask = np.asarray(Image.open(path)).copy()
            mask[:, 2:] = 255
            Image.fromarray(mask).save(path)
    run = train(street, tmp_path / "run", "--task", "segment", "--input", "64", epochs=1)
    assert first(run) == "nearly every pixel of the masks is ignored (certain)"


def test_anchors_that_match_nothing(tmp_path: Path) -> None:
    signs = write_boxes(tmp_path / "signs", each=4)
    flags = ["--task", "detect", "--input", "64"]
    good = train(signs, tmp_path / "good", *flags, epochs=1)
    bad = train(signs, tmp_path / "bad", *flags, "--anchor-sizes", "2", "3", "60", "62", epochs=1)
    assert first(bad) == "the anchors do not match the boxes (certain)"
    assert "the anchors do not" not in str(diagnose(good))


# settings


def test_a_rate_that_is_too_high(image_folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = [word for word in SHORT if word not in ("--width", "0.25")]
    words[words.index("mobilenet_v1")] = "squeezenet1_1"  # without norms that would hold it
    assert main(["train", str(image_folder), *words, "--epochs", "4", "--lr", "90", "--out", str(run)]) == 2
    assert first(run) == "the learning rate is too high (certain)"
    found = diagnose(run).findings[0]
    assert "at step" in found.what and "--lr 0.003" in found.command


def test_a_rate_that_is_too_low(image_folder: Path, tmp_path: Path) -> None:
    run = train(image_folder, tmp_path / "run", "--lr", "1e-7", "--label-smoothing", "0")
    assert first(run) == "the learning rate is too low (certain)"


def test_frozen_random_layers(image_folder: Path, tmp_path: Path) -> None:
    run = train(image_folder, tmp_path / "run", "--freeze", "backbone")
    assert first(run) == "layers with random weights are frozen (certain)"


@pytest.mark.parametrize("note", ["1 parameter tensor is frozen (stem)", "2 parameter tensors are frozen (stem)"])
def test_the_note_on_frozen_tensors_is_quoted(monkeypatch: pytest.MonkeyPatch, note: str) -> None:
    monkeypatch.setattr(causes, "_again", lambda *_: "")
    evidence: Any = SimpleNamespace(settings=Settings(freeze="stem"), log=["a line", note])
    found = causes._frozen(evidence)
    assert found is not None and found.what.startswith(note)


def test_tiny_batches(image_folder: Path, tmp_path: Path) -> None:
    run = train(image_folder, tmp_path / "run", "--batch", "2", epochs=1)
    assert first(run) == "batch norm on tiny batches (certain)"
    grouped = train(image_folder, tmp_path / "grouped", "--batch", "2", "--norm", "group", epochs=1)
    assert "batch norm" not in str(diagnose(grouped))
    plain = tmp_path / "plain"
    words = (
        "--net lenet5 --input 32 --batch 2 --threads 1 --workers 0 --precision float32 --warmup 0 --epochs 1".split()
    )
    assert main(["train", str(image_folder), *words, "--out", str(plain)]) == 0
    assert "batch norm" not in str(diagnose(plain))  # it has none
    (plain / "last.safetensors").write_bytes(b"\x01")
    (plain / "best.safetensors").unlink()
    diagnose(plain)


@pytest.mark.parametrize("scale", [("123.7", "116.3", "103.5"), ("0.5", "0.5", "0.5")])
def test_a_mean_for_pixels_of_255(scale: tuple[str, ...], image_folder: Path, tmp_path: Path) -> None:
    deviations = ("58", "57", "57") if float(scale[0]) > 1 else ("0.25", "0.25", "0.25")
    run = train(image_folder, tmp_path / "run", "--mean", *scale, "--std", *deviations, epochs=1)
    named = "mean and std do not fit the images" in str(diagnose(run))
    assert named == (float(scale[0]) > 1)
    if named:
        assert first(run).startswith("mean and std")
        assert diagnose(run, with_data=False).findings[0].cause.startswith("mean and std")


def test_crops_of_nothing(image_folder: Path, tmp_path: Path) -> None:
    run = train(image_folder, tmp_path / "run", "--crop", "random_resized", "--crop-scale", "0.001", "0.01")
    assert first(run) == "the augmentation leaves too little of the images (likely)"


def trained_with(**settings: Any) -> Any:
    """Evidence of a classifier of ten classes, of its settings alone."""
    names = ("added_terms", "chance_loss", "least_loss")
    given: Any = SimpleNamespace(settings=Settings(**settings), classes=tuple("abcdefghij"))
    for name in names:
        member = vars(Evidence)[name]
        setattr(given, name, (member.func if hasattr(member, "func") else member.fget)(given))
    return given


def test_losses_with_more_terms_are_not_compared_with_those_without() -> None:
    plain = trained_with(label_smoothing=0.0)
    assert plain.chance_loss == pytest.approx(math.log(10)) and plain.least_loss == 0
    for more in ({"teacher": "runs/teacher"}, {"net": "googlenet", "net_options": "aux=true"}):
        assert all(math.isnan(getattr(trained_with(**more), name)) for name in ("chance_loss", "least_loss"))
    assert math.isnan(trained_with(mixup=0.2).least_loss) and trained_with(mixup=0.2).chance_loss == plain.chance_loss
    for over in ("all", "others"):
        smoothed = trained_with(label_smoothing=0.1, smoothing_over=over)
        perfect = torch.full((1, 10), 0.1 / (10 if over == "all" else 9)).log()
        perfect[0, 3] = math.log(0.91 if over == "all" else 0.9)
        loss = cross_entropy(perfect, torch.tensor([3]), 0.1, over)
        assert smoothed.least_loss == pytest.approx(float(loss), rel=1e-5)


def test_smoothed_targets_are_no_sign_of_strong_augmentation() -> None:
    def found(train: float, val: float) -> Any:
        settings = Settings(label_smoothing=0.1, randaugment=2, randaugment_magnitude=20)
        last = {"loss": train, "val_loss": val}.get
        run: Any = SimpleNamespace(path="runs/one")
        values = {**vars(trained_with(label_smoothing=0.1)), "settings": settings, "run": run}
        return causes._augmentation(SimpleNamespace(**values, last=last, set_by_user=lambda *names: True))  # type: ignore[arg-type]

    assert found(0.7, 0.25) is None, "0.5 of it is the entropy of the targets"
    assert found(1.1, 0.25) is not None


def test_emulated_bf16(image_folder: Path, tmp_path: Path) -> None:
    import torch

    run = train(image_folder, tmp_path / "run", "--precision", "bf16", epochs=1)
    named = "bf16 is emulated" in str(diagnose(run))
    assert named != computes_bf16(torch.device("cpu"))


# what stopped it, and what the curves show


def change_last_row(run: Path, **values: float) -> None:
    """Change metrics of the last evaluation."""
    path = run / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[-1].update(values)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def unfinished(run: Path, *lines: str) -> None:
    """A run whose process ended after its second epoch, and what the log says at last."""
    log = [line for line in (run / "log.txt").read_text().splitlines() if " finished: " not in line]
    (run / "log.txt").write_text("\n".join([*log, *(f"2026-01-01T00:00:00Z {line}" for line in lines)]) + "\n")
    state = json.loads((run / "last.json").read_text())
    state["counters"]["finished"] = ""
    (run / "last.json").write_text(json.dumps(state))


STOPS = {
    "the disk is full (certain)": "stopped: runs/x/last.safetensors: No space left on device",
    "the training stopped with an error (certain)": "stopped: photos: 12 images cannot be read",
    "the embeddings have collapsed (certain)": "the embeddings have collapsed to a point: two are 0.001 apart on average",
    "the loss is not finite (certain)": "stopped: the loss is nan at step 31 (learning rate 0.003); allowed: a finite loss",
}


@pytest.mark.parametrize("cause", STOPS)
def test_what_the_log_says(cause: str, healthy: Path, tmp_path: Path) -> None:
    run = copied(healthy, tmp_path)
    unfinished(run, STOPS[cause])
    assert first(run) == cause


def test_a_killed_process(healthy: Path, tmp_path: Path) -> None:
    run = copied(healthy, tmp_path)
    unfinished(run)
    assert first(run) == "the process was killed (likely)"
    unfinished(run, "Interrupted. Resume with: gossamer train --resume run")
    assert not firm(diagnose(run))


def test_a_run_that_trains_now_is_not_killed(healthy: Path, tmp_path: Path) -> None:
    run = copied(healthy, tmp_path)
    unfinished(run)
    with gossamer.Run.open(run) as held:
        held.lock()
        result = diagnose(run)
    assert not firm(result) and "training now" in str(result)


def test_a_loss_that_recovered_is_not_named(healthy: Path, tmp_path: Path) -> None:
    run = copied(healthy, tmp_path)
    log = (run / "log.txt").read_text().splitlines()
    place = next(index for index, line in enumerate(log) if " epoch 2" in line)
    log.insert(
        place, "2026-01-01T00:00:00Z stopped: the loss is nan at step 5 (learning rate 0.1); allowed: a finite loss"
    )
    (run / "log.txt").write_text("\n".join(log) + "\n")
    assert not firm(diagnose(run))


def test_waiting_for_images(healthy: Path, tmp_path: Path) -> None:
    run = copied(healthy, tmp_path)
    change_last_row(run, data_seconds=60.0, step_seconds=30.0)
    assert first(run) == "the training waits for images (certain)"


def test_overfitting(healthy: Path, tmp_path: Path) -> None:
    run = copied(healthy, tmp_path)
    change_last_row(run, val_loss=3.0, loss=0.1)
    assert first(run) == "it learns the training images by heart (likely)"


@pytest.mark.parametrize("epochs", [4, 5])
def test_labels_are_doubted_where_five_epochs_learn_nothing(epochs: int, healthy: Path, tmp_path: Path) -> None:
    run = copied(healthy, tmp_path)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()[:epochs]]
    for row in rows:
        row.update(loss=1.0986, val_loss=1.0986, val_accuracy=1 / 3, val_balanced_accuracy=1 / 3)
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    doubted = "the labels do not belong to the images" in [finding.cause for finding in diagnose(run).findings]
    assert doubted == (epochs == 5)


def test_the_same_answer_for_every_image(healthy: Path, tmp_path: Path) -> None:
    run = copied(healthy, tmp_path)
    share = 1 / 3
    change_last_row(
        run, val_accuracy=share, val_balanced_accuracy=share, val_macro_f1=2 * share / (1 + share) / 3, loss=0.9
    )
    assert first(run) == "every image gets the same answer (likely)"


def test_images_that_cannot_be_read(healthy: Path, tmp_path: Path) -> None:
    run = copied(healthy, tmp_path)
    (run / "unreadable.csv").write_text("name,reason\n" + "".join(f"{n}.png,truncated\n" for n in range(9)))
    assert first(run) == "many images could not be read (certain)"


# the command


def test_the_command_prints_and_writes_json(healthy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = copied(healthy, tmp_path)
    change_last_row(run, val_loss=3.0, loss=0.1)
    before = {path: path.read_bytes() for path in run.iterdir()}
    assert main(["diagnose", str(run)]) == 0
    text = capsys.readouterr().out
    assert text.startswith("1. it learns the training images by heart (likely)") and "next: gossamer train" in text
    assert main(["diagnose", str(run), "--json", "--no-data"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert value["findings"][0]["certainty"] == "likely" and "--no-data" in value["notes"][0]
    assert {path: path.read_bytes() for path in run.iterdir()} == before


def test_the_report_shows_what_is_firm(image_folder: Path, tmp_path: Path) -> None:
    run = train(image_folder, tmp_path / "run", "--freeze", "backbone", epochs=1)
    assert main(["report", str(run)]) == 0
    page = (run / "report.html").read_text()
    assert "Layers with random weights are frozen" in page and "Next: gossamer train --config" in page


def test_neither_torch_nor_weights_are_needed(healthy: Path, tmp_path: Path) -> None:
    import subprocess
    import sys

    run = copied(healthy, tmp_path)
    (run / "best.safetensors").write_bytes(b"")
    code = f"import sys, gossamer; gossamer.diagnose({str(run)!r}); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0


Damage = Callable[[Path], object]
DAMAGED: dict[str, Damage] = {
    "no metrics": lambda run: (run / "metrics.jsonl").unlink(),
    "torn metrics": lambda run: (run / "metrics.jsonl").write_text('{"epoch": 1, "loss": 1.0, "val_loss": 2'),
    "metrics without scores": lambda run: (run / "metrics.jsonl").write_text('{"epoch": 1}\n'),
    "null scores": lambda run: (run / "metrics.jsonl").write_text(
        '{"epoch": null, "loss": null, "val_accuracy": null}\n'
    ),
    "no log": lambda run: (run / "log.txt").unlink(),
    "a log of bytes": lambda run: (run / "log.txt").write_bytes(bytes(range(256)) * 9),
    "no state": lambda run: [path.unlink() for path in run.glob("last.*")],
    "no data.json": lambda run: (run / "data.json").unlink(),
    "counts that are texts": lambda run: (run / "data.json").write_text(
        '{"images": {"train": "9"}, "per_class": {"train": {"a": "x"}}}'
    ),
    "counts that are a list": lambda run: (run / "data.json").write_text('{"images": [], "per_class": []}'),
    "no split": lambda run: (run / "split.csv").unlink(),
    "a split of one line": lambda run: (run / "split.csv").write_text("name,label,split\n"),
    "a negative label": lambda run: (run / "split.csv").write_text("name,label,split\nx.png,-1,train\nx.png,0,val\n"),
    "a state of a list": lambda run: (run / "last.json").write_text("[]"),
    "deep JSON": lambda run: (run / "last.json").write_text("[" * 100_000),
    "an environment of texts": lambda run: (run / "environment.json").write_text('[{"processes": "many"}]'),
    "classes that are numbers": lambda run: (run / "classes.json").write_text("[1, 2]"),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_run_is_diagnosed_or_refused_in_a_line(
    damage: str, healthy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copied(healthy, tmp_path)
    DAMAGED[damage](run)
    code = main(["diagnose", str(run)])
    error = capsys.readouterr().err
    assert code in (0, 2) and error.count("\n") == (1 if code else 0), error


@pytest.mark.parametrize("what", ["nowhere", "a file", "an empty folder", "mobilenet_v2"])
def test_what_is_no_run_is_refused(what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x"
    if what == "a file":
        path.write_text("x")
    elif what == "an empty folder":
        path.mkdir()
    assert main(["diagnose", what if what == "mobilenet_v2" else str(path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_every_cause_has_a_name_of_its_own() -> None:
    assert len({cause.name for cause in CAUSES}) == len(CAUSES) >= 20
    assert all(cause.reads for cause in CAUSES)
