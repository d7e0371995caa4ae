"""Several heads: transforms, losses of images that lack labels, scores, and complete runs."""

from __future__ import annotations

import io
import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

import gossamer
from gossamer import Settings, train
from gossamer.data.boxes.annotation import BoxTarget
from gossamer.data.heads.spec import parse_heads
from gossamer.errors import MissingPackageError, SettingsError, UnknownNameError
from gossamer.export.formats import export
from gossamer.images.preprocess import Placement, Preprocess
from gossamer.networks.timm_adapter import import_timm
from gossamer.predictions.anchors import AnchorSpec
from gossamer.predictions.head import OutputHead
from gossamer.runtime.verification import verify_model
from gossamer.tasks.detection.match import Target
from gossamer.tasks.multihead.augment import PlacedLabels, flipped, placed
from gossamer.tasks.multihead.losses import of_known
from gossamer.tasks.multihead.network import MultiNetwork
from gossamer.tasks.multihead.scores import LabelScorer, MultiScorer, NumberScorer
from gossamer.tasks.registry import scorer_of, source_of, task_of
from gossamer.training import loop as trainer
from gossamer.training.evaluate import evaluate
from gossamer.training.optim import freeze
from tests.runs import gossamer as run_gossamer
from tests.runs import same, weights
from tests.shop import EVERY, write_shop
from tests.tiers import quick_ones

QUICK: dict[str, Any] = {
    "net": "mobilenet_v2",
    "width": 0.1,
    "input": "32",
    "epochs": 2,
    "batch": 8,
    "lr": 0.01,
    "deterministic": True,
    "threads": 1,
    "workers": 0,
}
WHOLE = Placement(2, 2, 1, 1)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shop(tmp_path_factory.mktemp("multi") / "shop")


# geometry


def test_boxes_and_masks_go_where_the_pixels_go() -> None:
    image = np.zeros((20, 40, 3), np.uint8)
    image[5:15, 10:20] = 255
    mask = (image[..., 0] > 0).astype(np.uint8)
    boxes = BoxTarget.plain([[10, 5, 20, 15]], [0], (20, 40))
    preprocess = Preprocess(size=(32, 32), resize="pad", interpolation="nearest", mean=(0.0,) * 3, std=(1.0,) * 3)
    settings = Settings(flip=0.5, vertical_flip=0.5)
    data = _png(image)
    seen = set()
    for seed in range(12):
        pixels, labels = PlacedLabels(preprocess, settings, ["b"], ["m"]).joint(
            data, {"b": boxes, "m": mask, "c": 1}, np.random.default_rng(seed)
        )
        rows, columns = np.nonzero(pixels[..., 0] > 127)
        assert labels["b"].boxes[0].tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert ((labels["m"] == 1) == (pixels[..., 0] > 127)).all()
        assert (labels["m"] == 255).sum() == 32 * 16  # the padding
        assert labels["c"] == 1
        seen.add(tuple(labels["b"].boxes[0].tolist()))
    assert seen == {(8, 12, 16, 20), (16, 12, 24, 20)}  # the block is in the middle of the height


def test_a_mask_is_placed_by_the_centres_of_pixels() -> None:
    mask = np.array([[0, 1], [2, 3]], np.uint8)
    assert placed(mask, Placement(2, 2, 2, 1, 1, 0), (6, 2)).tolist() == [
        [255, 255],
        [0, 1],
        [0, 1],
        [2, 3],
        [2, 3],
        [255, 255],
    ]


def test_an_upside_down_box() -> None:
    target = Target(np.array([[1, 2, 3, 5]], np.float32), np.zeros(1, np.int64))
    assert flipped(target, (10, 20), True, False).boxes.tolist() == [[17, 2, 19, 5]]
    assert flipped(target, (10, 20), False, True).boxes.tolist() == [[1, 5, 3, 8]]


def _png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


# losses


def test_an_image_without_the_label_adds_nothing() -> None:
    outputs = torch.tensor([[1.0], [math.inf], [3.0]], requires_grad=True)

    def loss(outputs: dict[str, torch.Tensor], labels: list[Any]) -> torch.Tensor:
        return (outputs["values"][:, 0] - torch.tensor(labels)).square()

    values = of_known(loss, {"values": outputs}, [2.0, None, 1.0])
    assert values.tolist() == [1, 0, 4]
    values.sum().backward()
    assert outputs.grad is not None
    assert outputs.grad[:, 0].tolist() == [-2, 0, 4]


def test_a_batch_without_any_label_keeps_the_graph() -> None:
    outputs = torch.full((2, 3), math.nan, requires_grad=True)
    values = of_known(lambda outputs, labels: torch.ones(2), {"logits": outputs}, [None, None])
    values.mean().backward()
    assert values.tolist() == [0, 0]
    assert outputs.grad is not None
    assert (outputs.grad == 0).all()


# scores


def test_the_score_is_the_mean_of_the_heads_over_the_images_that_have_labels() -> None:
    heads = (OutputHead("multilabel", ("x", "y"), "tags", {"threshold": 0.5}), OutputHead("regress", ("mm",), "size"))
    scorers = {"tags": LabelScorer(("x", "y")), "size": NumberScorer(("mm",), [10.0], [2.0])}
    scorer = MultiScorer(scorers, heads, {"tags": "map", "size": "r2"})
    raw = {
        "tags.logits": np.array([[1, -1], [2, 1], [9, 9]], np.float32),
        "size.values": np.array([[0], [1], [-1]], np.float32),
    }
    tags = [np.array([1, 0], np.float32), np.array([1, 1], np.float32), None]
    size = [np.array([10], np.float32), None, np.array([12], np.float32)]
    scorer.add(["a", "b", "c"], raw, [{"tags": t, "size": s} for t, s in zip(tags, size)], [WHOLE] * 3)
    scores = scorer.scores()
    assert scores.heads["tags"].names == ["a", "b"]
    assert scores.metrics["tags.map"] == 1
    assert scores.metrics["size.mae:mm"] == 2  # 10 is right, 8 should be 12
    assert scores.metrics["size.r2"] == 1 - 16 / 2
    assert scores.metrics["score"] == 0.5  # an r2 below 0 counts as 0
    assert math.isnan(scores.loss)
    assert scores.to_json()["heads"]["size"]["images"] == 2
    assert "size:" in scores.text()


def test_scores_of_two_processes_are_those_of_one() -> None:
    heads = (OutputHead("regress", ("mm",), "size"), OutputHead("regress", ("g",), "mass"))

    def fresh() -> MultiScorer:
        return MultiScorer({h.name: NumberScorer(h.classes, [0.0], [1.0]) for h in heads}, heads, {"size": "r2"})

    values = np.arange(8, dtype=np.float32).reshape(4, 2)
    truth = [{"size": np.array([i + 0.5]), "mass": None if i == 2 else np.array([2.0 * i])} for i in range(4)]
    parts = [fresh(), fresh(), fresh()]
    for scorer, rows in zip(parts, (range(4), range(2), range(2, 4))):
        raw = {"size.values": values[list(rows), :1], "mass.values": values[list(rows), 1:]}
        scorer.add([str(i) for i in rows], raw, [truth[i] for i in rows], [WHOLE] * len(rows))
    parts[1].merge(parts[2])
    assert parts[1].scores().metrics == parts[0].scores().metrics
    assert parts[1].names == parts[0].names


# complete runs


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        ({"heads": "colour: {kind: classify, loss: triplet}"}, UnknownNameError, "loss of a classify head"),
        ({"heads": "parts: {kind: detect, column: boxes, head: lraspp}"}, UnknownNameError, "head of a detect head"),
        ({"heads": "kind: {kind: classify, hierarchy: true, loss: bce}"}, SettingsError, "hierarchy"),
        (
            {"heads": "colour: {kind: classify, weight: 2}", "head_weights": "gradnorm"},
            SettingsError,
            "weights of heads",
        ),
        ({"loss": "focal"}, SettingsError, "loss focal for the task multi"),
        ({"sampler": "balanced"}, SettingsError, "sampler balanced"),
        ({"mixup": 0.2}, SettingsError, "mixup"),
        ({"heads": ""}, SettingsError, "no heads"),
        ({"heads": "who: embed", "batch": 6}, SettingsError, "batch 6"),
    ],
)
def test_runs_that_are_refused(
    changes: dict[str, Any], error: type[Exception], match: str, shop: Path, tmp_path: Path
) -> None:
    values = {**QUICK, "data": str(shop), "task": "multi", "heads": EVERY, "out": str(tmp_path / "run"), **changes}
    with pytest.raises(error, match=match):
        train(Settings(**values))


@pytest.fixture(scope="module")
def finished(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The run folder of all kinds of heads, whose heads.yaml is gone, and its model file."""
    folder = tmp_path_factory.mktemp("finished")
    shutil.copy(shop / "heads.yaml", folder / "heads.yaml")
    heads = str(folder / "heads.yaml")
    run = train(
        Settings(
            data=str(shop), task="multi", heads=heads, head_weights="uncertainty", out=str(folder / "run"), **QUICK
        )
    )
    (folder / "heads.yaml").unlink()
    export(run.path, folder / "model.onnx")
    return run.path, folder / "model.onnx"


def test_a_run_of_all_kinds_of_heads(finished: tuple[Path, Path]) -> None:
    run, _ = finished
    row = gossamer.Run.open(run).metrics()[-1]
    main = ("colour.accuracy", "tags.map", "size.r2", "parts.map50", "places.miou", "who.recall1", "kind.accuracy:1")
    assert all(f"val_{name}" in row for name in main)
    assert row["val_score"] >= 0
    state = weights(run)
    assert (state["model.head_losses.weighting.log_variance"] != 0).all()
    evaluation = json.loads(run_gossamer("eval", run, "--json").stdout)
    assert evaluation["task"] == "multi"
    assert evaluation["score"] == pytest.approx(max(row["val_score"] for row in gossamer.Run.open(run).metrics()))
    training = json.loads(run_gossamer("eval", run, "--split", "train", "--json").stdout)
    counts = gossamer.Run.open(run).data["images"]
    assert (evaluation["images"], training["images"]) == (counts["val"], counts["train"])


def test_its_model_file_has_all_outputs_and_no_losses(finished: tuple[Path, Path], shop: Path) -> None:
    _, file = finished
    graph = onnx.load(file).graph
    names = [value.name for value in graph.output]
    assert names[:8] == [
        "colour.logits",
        "tags.logits",
        "size.values",
        "parts.deltas",
        "parts.logits",
        "places.logits",
        "who.embedding",
        "kind.logits",
    ]
    assert not [value.name for value in graph.initializer if "head_losses" in value.name]
    verify_model(gossamer.load(file)).raise_if_failed()
    prediction = gossamer.load(file).predict(shop / "pics/00.png")
    plain = prediction.to_json()
    assert set(plain) == {"source", "colour", "tags", "size", "parts", "places", "who", "kind"}
    assert plain["kind"]["classes"][0] in ("warm/red", "cold/green", "cold/blue")
    assert 5 < plain["size"]["values"]["across"] < 30  # in pixels, not in standard deviations


@pytest.mark.parametrize("weighting", quick_ones(["fixed", "gradnorm"], ["gradnorm"]))
def test_an_interrupted_run_resumes_to_the_same_bits(
    weighting: str, shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "heads.yaml").write_text(
        "colour: classify\nparts: {kind: detect, column: boxes}\nsize: {kind: regress, column: down}\n"
    )
    common = {**QUICK, "data": str(shop), "task": "multi", "head_weights": weighting, "save_steps": 1}
    common["heads"] = str(tmp_path / "heads.yaml")
    uninterrupted = train(Settings(out=str(tmp_path / "uninterrupted"), **common))
    step, steps = trainer._step, 0

    def cut(*arguments: Any) -> None:
        nonlocal steps
        steps += 1
        if steps == 4:
            raise KeyboardInterrupt
        step(*arguments)

    monkeypatch.setattr(trainer, "_step", cut)
    with pytest.raises(KeyboardInterrupt):
        train(Settings(out=str(tmp_path / "cut"), **common))
    monkeypatch.setattr(trainer, "_step", step)
    (tmp_path / "heads.yaml").unlink()
    gossamer.resume(tmp_path / "cut")
    assert same(weights(uninterrupted.path), weights(tmp_path / "cut"))


@pytest.mark.parametrize(
    ("task", "columns", "metric", "names"),
    [
        ("multilabel", "tags", "map", ("left", "wide")),
        ("regress", "across,down", "mae:across", ("across", "down")),
    ],
)
@pytest.mark.full
def test_the_tasks_of_one_head(
    task: str, columns: str, metric: str, names: tuple[str, ...], shop: Path, tmp_path: Path
) -> None:
    lines = [line.split(",") for line in (shop / "labels.csv").read_text().split()]
    places = [lines[0].index(name) for name in columns.split(",")]
    lines[0][lines[0].index("tags")] = "label"
    table = shop / f"{task}.csv"
    table.write_text("\n".join(",".join(line[i] for i in (0, *places)) for line in lines))
    run = train(Settings(data=str(table), task=task, out=str(tmp_path / "run"), **QUICK))
    export(run.path, tmp_path / "model.onnx")
    model = gossamer.load(tmp_path / "model.onnx")
    metadata = model.need_metadata()
    scores = evaluate(
        model.run, source_of(metadata.heads, str(table)), metadata.preprocess, scorer_of(metadata.heads)
    ).scores()
    assert len(scores.names) == 24
    assert scores.metrics[metric] > 0
    plain = model.predict(shop / "pics/00.png").to_json()
    assert set(plain["all_scores" if task == "multilabel" else "values"]) == set(names)


def test_one_head_may_have_a_name(shop: Path, tmp_path: Path) -> None:
    run = train(Settings(data=str(shop), task="multi", heads="colour: classify", out=str(tmp_path / "run"), **QUICK))
    row = gossamer.Run.open(run.path).metrics()[-1]
    assert row["val_score"] == row["val_colour.accuracy"]


def test_a_backbone_of_timm(shop: Path) -> None:
    try:
        import_timm()
    except MissingPackageError as error:
        pytest.skip(str(error))
    settings = Settings(data=str(shop), task="multi", heads=EVERY, net="timm:test_resnet", input="32")
    data = task_of("multi").open_data(settings)
    task = task_of("multi")(data.classes, task_of("multi").resolve(settings, data))
    model = task.build()
    assert isinstance(model, MultiNetwork)
    outputs = model.eval()(torch.zeros(2, 3, 32, 32))
    assert {name: tuple(value.shape[1:]) for name, value in outputs.items() if not name.startswith("parts")} == {
        "colour.logits": (3,),
        "tags.logits": (2,),
        "size.values": (2,),
        "places.logits": (2, 4, 4),
        "who.embedding": (8,),
        "kind.logits": (3,),
    }
    anchors = AnchorSpec.from_json(task.heads()[3].options["anchors"])
    assert outputs["parts.deltas"].shape == (2, anchors.count, 4)


def test_every_parameter_has_a_gradient_without_some_labels(shop: Path) -> None:
    settings = Settings(data=str(shop), task="multi", heads=EVERY, width=0.1, input="32", small_input=True)
    data = task_of("multi").open_data(settings)
    task = task_of("multi")(data.classes, task_of("multi").resolve(settings, data))
    model = task.build().train()
    labels = [dict.fromkeys((spec.name for spec in parse_heads(EVERY)), None) | {"colour": 1}] * 4
    images = torch.randn(4, 3, 32, 32)
    task.loss(model(images), labels, images).mean().backward()
    assert not [name for name, parameter in model.named_parameters() if parameter.grad is None]


def test_only_the_heads_learn_where_the_backbone_is_frozen(shop: Path) -> None:
    settings = Settings(data=str(shop), task="multi", heads="colour: classify", width=0.1, input="32")
    data = task_of("multi").open_data(settings)
    model = task_of("multi")(data.classes, task_of("multi").resolve(settings, data)).build()
    freeze(model, "backbone")
    assert {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad} == {"head_parts"}
