"""Every task through the loop: trained, resumed, exported, verified, compiled; predictions of the file are the network's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import gossamer
from gossamer.errors import InputError, SettingsError
from gossamer.export.formats import export
from gossamer.networks import create_model
from gossamer.predictions.head import OutputHead, concatenated, flattened, image_outputs, outputs_of
from gossamer.predictions.postprocess import check_options, postprocess
from gossamer.predictions.spatial import Detections, Segmentation
from gossamer.runtime.native import LIBRARY
from gossamer.settings import Settings
from gossamer.tasks import registry
from gossamer.tasks.classify import Classify
from gossamer.tasks.registry import scorer_of, source_of, task_of
from gossamer.training import loop as trainer
from gossamer.training.evaluate import evaluate
from gossamer.training.loop import resume, train
from gossamer.training.restore import as_model, load_run, run_data, torch_forward
from tests.interrupted import interrupted_after
from tests.runs import same, weights
from tests.tiers import quick_ones

SIDE = 64
CLASSES = ("disc", "square")
XML = """<annotation><filename>{name}.png</filename><size><width>{w}</width><height>{h}</height><depth>3</depth></size>
<object><name>{kind}</name><difficult>0</difficult><bndbox><xmin>{x0}</xmin><ymin>{y0}</ymin><xmax>{x1}</xmax>
<ymax>{y1}</ymax></bndbox></object></annotation>"""
FAST: dict[str, Any] = {
    "net": "mobilenet_v2",
    "width": 0.25,
    "input": str(SIDE),
    "small_input": False,
    "batch": 4,
    "epochs": 1,
    "optimizer": "adamw",
    "precision": "float32",
    "memory_format": "channels_last",
    "threads": 1,
    "deterministic": True,
}


def shape(rng: np.random.Generator, kind: int, size: tuple[int, int]) -> tuple[np.ndarray[Any, Any], Any, Any]:
    """An image with one disc or square on noise, its mask, and its box."""
    height, width = size
    pixels = rng.integers(0, 80, (height, width, 3)).astype(np.uint8)
    radius = int(rng.integers(8, 16))
    y, x = (int(rng.integers(radius, side - radius)) for side in size)
    down, across = np.indices(size)
    inside = (abs(down - y) < radius) & (abs(across - x) < radius)
    if kind == 0:
        inside = (down - y) ** 2 + (across - x) ** 2 < radius**2
    pixels[inside] = (230, 60, 60) if kind == 0 else (60, 60, 230)
    mask = np.where(inside, kind + 1, 0).astype(np.uint8)
    return pixels, mask, (x - radius + 1, y - radius + 1, x + radius, y + radius)


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """boxes/ (VOC), masks/ (train and val), folders/ (an identity each): the same images."""
    root = tmp_path_factory.mktemp("shapes")
    rng = np.random.default_rng(0)
    for folder in ("boxes/Annotations", "boxes/JPEGImages", "boxes/ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    for split, count in (("train", 12), ("val", 6)):
        for part in ("images", "masks"):
            (root / "masks" / split / part).mkdir(parents=True)
        names = []
        for number in range(count):
            kind, size = number % 2, (72, 96)
            image_pixels, mask, (x0, y0, x1, y1) = shape(rng, kind, size)
            name = f"{split}{number}"
            names.append(name)
            image = Image.fromarray(image_pixels)
            image.save(root / "boxes" / "JPEGImages" / f"{name}.png")
            text = XML.format(name=name, w=size[1], h=size[0], kind=CLASSES[kind], x0=x0, y0=y0, x1=x1, y1=y1)
            (root / "boxes" / "Annotations" / f"{name}.xml").write_text(text)
            image.save(root / "masks" / split / "images" / f"{name}.png")
            Image.fromarray(mask).save(root / "masks" / split / "masks" / f"{name}.png")
            home = root / "folders" / split / CLASSES[kind]
            home.mkdir(parents=True, exist_ok=True)
            image.save(home / f"{name}.png")
        (root / "boxes" / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(names))
    return root


DATA = {"detect": "boxes", "segment": "masks", "embed": "folders"}


def settings(shapes: Path, out: Path, task: str, **more: Any) -> Settings:
    own: dict[str, Any] = {"embed": {"per_identity": 2, "crop": "center"}}
    return Settings(
        **{**FAST, "data": str(shapes / DATA[task]), "out": str(out), "task": task, **own.get(task, {}), **more}
    )


@pytest.mark.parametrize(
    "task", [pytest.param(task, marks=pytest.mark.full if task == "segment" else ()) for task in DATA]
)
def test_a_task_trains_exports_and_predicts_the_same_from_the_file(shapes: Path, tmp_path: Path, task: str) -> None:
    run = train(settings(shapes, tmp_path / "run", task))
    kind = task_of(task)
    rows = run.metrics()
    assert rows[-1]["epoch"] == 1 and f"val_{kind.score}" in rows[-1]
    exported = export(run.path, tmp_path / "m.onnx")
    assert exported.comparison.score == kind.score
    model = gossamer.load(tmp_path / "m.onnx", runtime="onnxruntime")
    network = load_run(run.path)
    assert model.metadata is not None and model.metadata.heads == network.task.heads()
    source = run_data(run).val
    scores = evaluate(torch_forward(network.model), source, network.preprocess, network.task.scorer()).scores()
    again = evaluate(model.run, source, network.preprocess, scorer_of(model.metadata.heads)).scores()
    for name, value in scores.metrics.items():
        assert again.metrics[name] == pytest.approx(value, abs=1e-6, nan_ok=True), name
    place = source_of(model.metadata.heads, str(shapes / DATA[task]))
    assert set(place.names) == set(source.names)
    pixels, at = network.preprocess.read(source.read(0))
    raw = torch_forward(network.model)(network.preprocess.normalise(pixels[None]))
    predicted = model.predict(source.read(0))
    mine = postprocess(model.metadata.heads, raw, at, "<bytes>")
    if isinstance(predicted, Detections):
        assert isinstance(mine, Detections) and predicted.size == (72, 96) and predicted.labels == mine.labels
        np.testing.assert_allclose(predicted.boxes, mine.boxes, atol=0.01)
    elif isinstance(predicted, Segmentation):
        assert isinstance(mine, Segmentation) and predicted.mask.shape == (72, 96)
        np.testing.assert_array_equal(predicted.mask, mine.mask)
    else:
        np.testing.assert_allclose(predicted.vector, mine.vector, atol=1e-5)  # type: ignore[attr-defined]
        assert np.linalg.norm(predicted.vector) == pytest.approx(1, abs=1e-5)
    unexported = as_model(run.path).predict(source.read(0))
    assert str(unexported.to_json()) == str(mine.to_json())
    for runtime in ("reference", *(["native"] if LIBRARY.is_file() else [])):
        other = gossamer.load(tmp_path / "m.onnx", runtime=runtime)
        batch = network.preprocess.normalise(np.stack([pixels, pixels]))
        expected, outputs = flattened(model.run(batch)), flattened(other.run(batch))
        np.testing.assert_allclose(outputs, expected, atol=1e-4 * max(1.0, float(np.abs(expected).max())))


@pytest.mark.parametrize("task", quick_ones(["detect", "segment"], ["detect"]))
def test_an_interrupted_run_resumes_to_the_same_weights(
    shapes: Path, tmp_path: Path, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    uninterrupted = train(settings(shapes, tmp_path / "uninterrupted", task, epochs=2))
    real, steps = trainer._step, []

    def stop(*arguments: Any) -> None:
        if len(steps) == 4:
            raise KeyboardInterrupt
        steps.append(1)
        real(*arguments)

    monkeypatch.setattr(trainer, "_step", stop)
    with pytest.raises(KeyboardInterrupt):
        train(settings(shapes, tmp_path / "part", task, epochs=2, save_steps=1))
    monkeypatch.setattr(trainer, "_step", real)
    part = resume(tmp_path / "part")
    one, other = uninterrupted.load_state("last")[0], part.load_state("last")[0]
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.full
def test_a_detector_learns_where_discs_and_squares_are(shapes: Path, tmp_path: Path) -> None:
    more = {"epochs": 60, "lr": 4e-3, "expand": 0.0, "iou_crop": 0.0}
    run = train(settings(shapes, tmp_path / "run", "detect", **more))
    first, best = run.metrics()[0], max(row["val_map50"] for row in run.metrics())
    assert first["loss"] > 2 * run.metrics()[-1]["loss"]
    assert best > 0.5


def test_losses_and_heads_of_another_task_are_refused(shapes: Path, tmp_path: Path) -> None:
    for task, change, words in (
        ("detect", {"loss": "dice"}, "loss dice for the task detect"),
        ("segment", {"loss": "triplet"}, "loss triplet for the task segment"),
        ("segment", {"head": "ssdlite"}, "head ssdlite for the task segment"),
        ("detect", {"head": "lraspp"}, "head lraspp for the task detect"),
        ("detect", {"mixup": 0.2}, "mixup or cutmix for the task detect"),
        ("segment", {"output_stride": 12}, "output_stride"),
        ("detect", {"cache": "1G"}, "cache with the task detect"),
        ("embed", {"batch": 5}, "batch 5 of identities"),
    ):
        with pytest.raises(InputError, match=words):
            train(settings(shapes, tmp_path / "no", task, **change))


@pytest.mark.parametrize(
    ("kind", "classes", "options", "words"),
    [
        ("multilabel", ("a",), {}, "options"),
        ("multilabel", ("a",), {"threshold": 2}, "0 to 1"),
        ("regress", ("a",), {"mean": [0.0], "std": ["x"]}, "std"),
        ("segment", ("a", "b"), {"size": [8]}, "size"),
        ("detect", ("a",), {"anchors": {}, "decoding": {}}, "anchors"),
        ("embed", (), {"x": 1}, "options"),
    ],
)
def test_options_that_a_head_does_not_have_are_refused(
    kind: str, classes: tuple[str, ...], options: dict[str, Any], words: str
) -> None:
    with pytest.raises(SettingsError, match=words):
        check_options(OutputHead(kind, classes, options=options))


def test_a_head_names_its_outputs_and_reads_back_equal() -> None:
    head = OutputHead("detect", ("a", "b"), "boxes", {"anchors": 1})
    assert head.outputs == ("boxes.deltas", "boxes.logits")
    assert OutputHead.from_json(head.to_json()) == head
    assert outputs_of((head, OutputHead("embed", name="face"))) == ("boxes.deltas", "boxes.logits", "face.embedding")
    for wrong in ({**head.to_json(), "kind": "x"}, {**head.to_json(), "name": "a b"}, {"kind": "detect"}, 3):
        with pytest.raises(SettingsError):
            OutputHead.from_json(wrong)


def test_raw_outputs_are_split_concatenated_and_flattened_by_image() -> None:
    raw = {"a": np.arange(6, dtype=np.float32).reshape(3, 2), "b": np.arange(12, dtype=np.float32).reshape(3, 2, 2)}
    assert image_outputs(raw, 1)["a"].tolist() == [[2, 3]]  # type: ignore[call-overload, index]
    both = concatenated([raw, raw])
    assert isinstance(both, dict) and both["b"].shape == (6, 2, 2)
    assert flattened(raw)[2].tolist() == [4, 5, 8, 9, 10, 11]
    assert flattened(raw, 2)[2].tolist() == [4, 5, 8, 10]


def test_a_dice_loss_is_added_on_request() -> None:
    masks, values = [np.array([[0, 1], [1, 1]], np.uint8)], []
    for dice in (0.0, 0.5):
        settings = Settings(task="segment", loss="cross_entropy", dice=dice, net="mobilenet_v2", width=0.25)
        task = task_of("segment")(("road", "sky"), settings)
        task.build()
        values.append(float(task.loss({"logits": torch.zeros(1, 2, 2, 2)}, masks, torch.zeros(1, 3, 4, 4))))
    # both classes are predicted with 0.5: 1 - (2 * 0.5 + 1) / (2 + 1 + 1) and 1 - (2 * 1.5 + 1) / (2 + 3 + 1)
    assert values[1] - values[0] == pytest.approx(0.5 * (1 / 2 + 1 / 3) / 2)


class Distilled(Classify):
    """A classifier that also learns the logits of a network of its own, which is not trained."""

    seen: ClassVar[list[tuple[torch.Tensor, torch.Tensor]]] = []

    def build(self) -> nn.Module:
        self.teacher = create_model("lenet5", num_classes=len(self.classes), in_chans=3, small_input=True)
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(1)
            for parameter in self.teacher.parameters():
                parameter.uniform_(-0.1, 0.1)
        return super().build()

    def frozen_modules(self) -> Sequence[nn.Module]:
        return (self.teacher,)

    def loss(self, outputs: Any, targets: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        assert not self.teacher.training
        taught = self.teacher(images)
        assert not taught.requires_grad
        self.seen.append((images.detach().clone(), next(self.teacher.parameters()).detach().clone()))
        return super().loss(outputs, targets, images) + (outputs - taught).square().mean(1)


def test_a_loss_sees_the_images_and_runs_modules_that_no_state_holds(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = FAST | {"net": "lenet5", "width": None, "input": "32", "epochs": 2, "deterministic": True, "mixup": 0.5}
    options |= {"optimizer": "sgd", "save_steps": 1, "small_input": None, "precision": "auto"}
    plain = train(Settings(data=str(image_folder), out=str(tmp_path / "plain"), **options))
    monkeypatch.setitem(registry.TASKS, "classify", ("tests.test_tasks", "Distilled"))
    monkeypatch.setattr(Distilled, "seen", [])
    run = train(Settings(data=str(image_folder), out=str(tmp_path / "run"), **options))
    assert weights(run.path).keys() == weights(plain.path).keys()
    assert not same(weights(run.path), weights(plain.path))  # the teacher's part of the loss was learned
    assert {tuple(images.shape) for images, _ in Distilled.seen} == {(4, 3, 32, 32)}
    teacher = Distilled.seen[0][1]
    assert all(torch.equal(weight, teacher) for _, weight in Distilled.seen)
    with interrupted_after(5):
        train(Settings(data=str(image_folder), out=str(tmp_path / "cut"), **options))
    assert same(weights(run.path), weights(resume(tmp_path / "cut").path))
