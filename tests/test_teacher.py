"""Training with a teacher: every kind of teacher and task, what is refused, and what a resumed run goes on with."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from gossamer.cli.main import main
from gossamer.errors import RunError
from gossamer.images.preprocess import Preprocess
from gossamer.run import Run
from gossamer.settings import Settings
from gossamer.settings.file import dump_settings
from gossamer.training.loop import resume, train
from gossamer.training.restore import load_run, run_data
from gossamer.training.teacher import Teacher, as_input, open_source, open_teacher

COMPAT = Path(__file__).parent / "compat" / "0.1"
CLASSES, BOXES, MASKS = COMPAT / "classes", COMPAT / "boxes", COMPAT / "masks"
SHORT: dict[str, Any] = {
    "net": "mobilenet_v1", "width": 0.05, "input": "24x24", "epochs": 1, "batch": 6, "threads": 1, "workers": 0,
    "precision": "float32", "memory_format": "channels_last",
}  # fmt: skip
TEACHERS = {"run": "runs/classify", "model file": "classify.onnx", "compiled file": "classify.goss"}


def short(data: Path, out: Path, teacher: str | Path, **values: Any) -> Settings:
    return Settings(**{**SHORT, "data": str(data), "out": str(out), "teacher": str(teacher), **values})


def log(run: Run) -> str:
    return (run.path / "log.txt").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A classifier that has learnt from a run of the same classes."""
    return train(short(CLASSES, tmp_path_factory.mktemp("student") / "run", COMPAT / TEACHERS["run"]))


def test_a_run_teaches_and_its_digest_is_kept(student: Run) -> None:
    weights = (COMPAT / "runs" / "classify" / "best.safetensors").read_bytes()
    facts = student.teacher()
    assert facts["kind"] == "run" and facts["sha256"] == hashlib.sha256(weights).hexdigest()
    assert student.settings.teacher and student.settings.distil_temperature == 4
    row = student.metrics()[-1]
    assert 0 < row["teacher_seconds"] <= row["step_seconds"]
    assert "warning: the teacher was trained with label smoothing 0.1" in log(student)
    assert not [name for name in load_run(student.path).model.state_dict() if "teacher" in name]


def test_the_loss_is_that_of_the_labels_and_of_the_teacher(tmp_path: Path, student: Run) -> None:
    """The first step of a run is known: the same images and weights with and without a teacher."""
    task, settings = load_run(student.path).task, student.settings
    model = load_run(student.path).model.train()
    teacher = open_teacher(settings, task, model, run_data(student))
    teacher.place(torch.device("cpu"), settings)
    images = torch.randn(4, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    outputs, targets, others = model(images), torch.tensor([0, 1, 2, 0]), torch.tensor([2, 2, 1, 0])
    own = load_run(COMPAT / "runs" / "classify").model
    torch.testing.assert_close(teacher.outputs(images)["logits"], own(images).detach())
    first, second = teacher.term(outputs, targets, images), teacher.term(outputs, others, images)
    mixed = teacher.term(outputs, targets, images, others, 0.3)
    torch.testing.assert_close(mixed, 0.3 * first + 0.7 * second)
    plain = train(short(CLASSES, tmp_path / "plain", "", epochs=0.5, distil="auto")).metrics()[-1]["loss"]
    weighed = {
        weight: train(
            short(CLASSES, tmp_path / f"w{weight}", COMPAT / TEACHERS["run"], epochs=0.5, distil_weight=weight)
        )
        for weight in (0.0, 1.0, 3.0)
    }
    loss = {weight: run.metrics()[-1]["loss"] for weight, run in weighed.items()}
    assert loss[0.0] == pytest.approx(plain, rel=1e-6)
    if weighed[1.0].metrics()[-1]["step"] == 1:
        assert loss[3.0] - loss[0.0] == pytest.approx(3 * (loss[1.0] - loss[0.0]), rel=1e-4)
    assert loss[1.0] > loss[0.0]


@pytest.mark.parametrize("kind", TEACHERS)
def test_each_kind_of_teacher_answers_alike(kind: str) -> None:
    source = open_source(str(COMPAT / TEACHERS[kind]), ())
    assert source.kind == kind and len(source.sha256) == 64
    batch = torch.randn(3, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    expected = load_run(COMPAT / "runs" / "classify").model(batch).detach()
    assert tuple(source.forward(batch)) == ("logits",)
    torch.testing.assert_close(source.forward(batch)["logits"].detach(), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("task", "data", "teacher", "more"),
    [
        ("classify", CLASSES, "classify.goss", {"distil": "kl"}),
        ("classify", CLASSES, "runs/classify", {"input": "32x32", "mixup": 0.2, "in_chans": 1, "accumulate": 2}),
        ("classify", CLASSES, "runs/classify", {"net": "googlenet", "width": None, "input": "32x32", "net_options": "aux=true"}),
        ("segment", MASKS, "segment.onnx", {"net": "mobilenet_v2", "batch": 2}),
        pytest.param("segment", MASKS, "segment.onnx", {"net": "mobilenet_v2", "batch": 2, "distil": "kl", "progressive": 0.5}, marks=pytest.mark.full),
        pytest.param("segment", MASKS, "segment.onnx", {"net": "mobilenet_v2", "batch": 2, "head": "deeplabv3"}, marks=pytest.mark.full),
        ("embed", CLASSES, "embed.onnx", {"batch": 8, "dim": 5}),
    ],
)  # fmt: skip
def test_each_task_learns_from_a_teacher(
    task: str, data: Path, teacher: str, more: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    added: list[torch.Tensor] = []
    term = Teacher.term

    def keep(self: Teacher, *arguments: Any) -> torch.Tensor:
        added.append(term(self, *arguments))
        return added[-1]

    monkeypatch.setattr(Teacher, "term", keep)
    run = train(short(data, tmp_path / "run", COMPAT / teacher, task=task, **more))
    row = run.metrics()[-1]
    assert np.isfinite(row["loss"]) and row["teacher_seconds"] > 0
    assert added and all(bool((value > 0).all()) and bool(torch.isfinite(value).all()) for value in added)


def boxes_like(teacher: Path) -> dict[str, Any]:
    """The settings of a detector with the anchors of a run."""
    own = yaml.safe_load((teacher / "settings.yaml").read_text())
    names = ("net", "width", "input", "levels", "fpn", "anchor_sizes", "small_input", "loss", "head")
    return {name: own[name] for name in names if name in own}


def test_boxes_learn_from_a_detector_of_the_same_anchors(tmp_path: Path) -> None:
    like = boxes_like(COMPAT / "runs" / "detect")
    run = train(
        short(BOXES, tmp_path / "run", COMPAT / "runs" / "detect", **{**SHORT, **like, "task": "detect", "batch": 2})
    )
    assert np.isfinite(run.metrics()[-1]["loss"])
    others = {**like, "anchor_sizes": (8.0, 8.0)}
    code = main(
        ["train", str(BOXES), "--task", "detect", "--net", like["net"], "--input", str(like["input"]), "--anchor-sizes", "8", "8",
         "--teacher", str(COMPAT / "runs" / "detect"), "--out", str(tmp_path / "other"), "--epochs", "1"]
    )  # fmt: skip
    assert code == 2 and others and not (tmp_path / "other").exists()


def test_maps_of_pyramids_are_learnt_where_both_have_one(tmp_path: Path) -> None:
    common = {**SHORT, "task": "detect", "fpn": True, "input": "64x64", "net": "mobilenet_v2", "batch": 2}
    parent = train(short(BOXES, tmp_path / "parent", "", **common))
    loaded = load_run(parent.path)
    settings = parent.settings.replace(teacher=str(parent.path), width=0.1, out=str(tmp_path / "run"))
    task = type(loaded.task)(parent.classes, settings)
    model = task.build().train()
    teacher = open_teacher(settings, task, model, run_data(parent))
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    outputs = model(images)
    assert list(teacher.ours) == [""]
    with_maps = teacher.term(outputs, None, images)
    outputs = model(images)
    teacher.ours.clear()
    without = teacher.term(outputs, None, images)
    assert (with_maps > without).all() and not teacher.ours and not teacher.theirs


def test_several_heads_each_learn_by_their_own(tmp_path: Path) -> None:
    heads = {"data": COMPAT / "heads.csv", "heads": str(COMPAT / "heads.yaml"), "task": "multi", "batch": 4}
    own = yaml.safe_load((COMPAT / "runs" / "multi" / "settings.yaml").read_text())
    keep = {name: own[name] for name in ("net", "width", "input", "small_input", "fpn", "levels", "output_stride")}
    for teacher in (COMPAT / "runs" / "multi", COMPAT / "multi.onnx"):
        values = {**heads, **keep, "heads": own["heads"]}
        data = Path(str(values.pop("data")))
        run = train(short(data, tmp_path / teacher.name, teacher, **values))
        assert np.isfinite(run.metrics()[-1]["loss"]) and "has no head for" not in log(run)


# the same pixels


def test_the_teacher_sees_the_same_pixels_by_its_own_numbers() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 24, 24, 3), dtype=np.uint8)
    ours = Preprocess((24, 24), mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    theirs = Preprocess((24, 24))
    images = torch.from_numpy(ours.normalise(pixels))
    expected = torch.from_numpy(theirs.normalise(pixels))
    torch.testing.assert_close(as_input(images, ours, theirs), expected, rtol=1e-4, atol=1e-5)
    assert as_input(images, ours, ours) is images
    assert as_input(images, ours, Preprocess((32, 40))).shape == (2, 3, 32, 40)
    grey = Preprocess((24, 24), channels=1, mean=(0.0,), std=(1.0,))
    red = np.zeros((1, 24, 24, 3), np.uint8)
    red[..., 0] = 255
    seen = as_input(torch.from_numpy(ours.normalise(red)), ours, grey)
    torch.testing.assert_close(seen, torch.full((1, 1, 24, 24), 0.299), rtol=1e-4, atol=1e-4)
    back = as_input(torch.from_numpy(grey.normalise(pixels[..., :1])), grey, theirs)
    torch.testing.assert_close(back[:, 0], torch.from_numpy(theirs.normalise(pixels[..., :1].repeat(3, 3)))[:, 0])


def test_frames_are_resized_each_by_itself() -> None:
    ours, theirs = Preprocess((16, 16)), Preprocess((32, 32))
    frames = torch.randn(2, 3, 3 * 16, 16)
    whole = as_input(frames, ours, theirs, 3)
    one = as_input(frames[:, :, 16:32], ours, theirs)
    assert whole.shape == (2, 3, 96, 32)
    torch.testing.assert_close(whole[:, :, 32:64], one)


# refused and warned


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--teacher", "missing"], "missing: no such file or folder"),
        (["--teacher", "mobilenet_v2"], "a network without weights"),
        (["--teacher", "timm:mobilenetv3_smal_050"], "did you mean timm:mobilenetv3_small_050"),
        (["--teacher", str(COMPAT / "segment.onnx")], "a teacher for segment; allowed: a teacher for classify"),
        (["--teacher", str(COMPAT / "embed.index")], "an index"),
        (["--teacher", str(CLASSES)], "a folder without settings.yaml"),
        (["--teacher", str(COMPAT / "numbers.json")], "numbers.json"),
        (["--distil", "kl"], "distil without teacher"),
        (["--distil-temperature", "0", "--teacher", "x"], "distil_temperature: 0.0"),
        (["--distil-weight", "nan", "--teacher", "x"], "distil_weight: nan"),
        (["--distil", "cwd", "--teacher", "x"], "no distil setting is called 'cwd'"),
        (["--frames", "2", "--teacher", str(COMPAT / "runs" / "classify")], ""),
    ],
)
def test_a_teacher_that_cannot_be_used_is_one_line(
    arguments: list[str], text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    code = main(["train", str(CLASSES), "--net", "mobilenet_v1", "--epochs", "1", "--out", str(out), *arguments])
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert code == 2 and text in error and "Traceback" not in error, error
    assert not out.exists()


def test_a_teacher_of_other_classes_is_refused_and_another_order_is_not(tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(CLASSES, data)
    for split in ("train", "val"):
        (data / split / "class0").rename(data / split / "other")
    with pytest.raises(Exception, match="does not know other and knows class0, which the data lack"):
        train(short(data, tmp_path / "run", COMPAT / "runs" / "classify"))
    run = tmp_path / "turned"
    shutil.copytree(COMPAT / "runs" / "classify", run)
    (run / "classes.json").write_text(json.dumps(["class2", "class0", "class1"]))
    assert np.isfinite(train(short(CLASSES, tmp_path / "student", run)).metrics()[-1]["loss"])


def test_validation_images_that_the_teacher_was_trained_on_are_told(tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(CLASSES / "train", data)
    teacher = train(short(data, tmp_path / "teacher", "", seed=1, label_smoothing=0.0))
    run = train(short(data, tmp_path / "student", teacher.path))
    assert "validation images, so the score may be too high" in log(run)
    assert "label smoothing" not in log(run)
    same = train(short(data, tmp_path / "same", teacher.path, seed=1))
    assert "too high" not in log(same)


def test_a_teacher_that_answers_nan_is_named(tmp_path: Path, student: Run) -> None:
    task = load_run(student.path).task
    teacher = open_teacher(student.settings, task, load_run(student.path).model, run_data(student))
    teacher.source.forward = lambda images: {"logits": torch.full((len(images), 3), float("nan"))}
    with pytest.raises(RunError, match="the teacher outputs NaN"):
        teacher.outputs(torch.zeros(2, 3, 24, 24))


# resuming


def states(run: Run) -> dict[str, torch.Tensor]:
    return run.load_state("last")[0]


def test_a_resumed_run_has_the_same_teacher_and_ends_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = tmp_path / "teacher"
    shutil.copytree(COMPAT / "runs" / "classify", teacher)
    options = {"epochs": 3, "deterministic": True}
    whole = train(short(CLASSES, tmp_path / "whole", teacher, **options))
    calls = 0
    term = Teacher.term

    def stop(self: Teacher, *arguments: Any) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == whole.metrics()[-1]["step"]:  # the last step
            raise KeyboardInterrupt
        return term(self, *arguments)

    monkeypatch.setattr(Teacher, "term", stop)
    with pytest.raises(KeyboardInterrupt):
        train(short(CLASSES, tmp_path / "broken", teacher, **options))
    monkeypatch.setattr(Teacher, "term", term)
    weights = teacher / "best.safetensors"
    content = weights.read_bytes()
    weights.write_bytes((teacher / "last.safetensors").read_bytes())
    with pytest.raises(Exception, match="is not the teacher that the run began with"):
        resume(tmp_path / "broken")
    weights.write_bytes(content)
    ended = resume(tmp_path / "broken")
    for name, value in states(whole).items():
        torch.testing.assert_close(states(ended)[name], value, rtol=0, atol=0)


def test_a_run_that_has_lost_the_digest_of_its_teacher_does_not_guess(tmp_path: Path, student: Run) -> None:
    shutil.copytree(student.path, tmp_path / "run")
    (tmp_path / "run" / "teacher.json").unlink()
    with pytest.raises(RunError, match=r"has no teacher\.json"):
        resume(tmp_path / "run")
    (tmp_path / "run" / "teacher.json").write_text('{"sha256": 3}')
    with pytest.raises(RunError, match="does not hold texts"):
        resume(tmp_path / "run")


@pytest.mark.full
def test_a_student_is_evaluated_exported_and_repeated_without_its_teacher(tmp_path: Path) -> None:
    teacher = tmp_path / "teacher"
    shutil.copytree(COMPAT / "runs" / "classify", teacher)
    run = train(short(CLASSES, tmp_path / "run", teacher))
    shutil.rmtree(teacher)
    assert main(["eval", str(run.path)]) == 0
    assert main(["export", str(run.path), "--out", str(tmp_path / "s.onnx")]) == 0
    import gossamer

    provenance = gossamer.load(tmp_path / "s.onnx").metadata.provenance
    assert provenance["teacher"]["sha256"] == run.teacher()["sha256"]
    assert provenance["settings"]["teacher"] == "teacher"  # no path of this machine
    assert "teacher" in dump_settings(run.settings)
