"""What `predict --draw` makes of every kind of head, at every size, and the thresholds of `predict`."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import gossamer
from gossamer.cli import predict as predict_command
from gossamer.cli.main import main
from gossamer.errors import SettingsError
from gossamer.images.preprocess import Preprocess
from gossamer.modelfile.metadata import ModelMetadata
from gossamer.predictions import captions, spatial
from gossamer.predictions.captions import LEAST, draw_label, draw_lines, enlarged, enlargement, text_height
from gossamer.predictions.classes import Classification, LabelScores, Numbers
from gossamer.predictions.head import OutputHead
from gossamer.predictions.limits import DecodingLimits
from gossamer.predictions.masks import palette
from gossamer.predictions.postprocess import Embedding, Prediction, Several, under_head
from gossamer.predictions.spatial import Detections, Segmentation
from gossamer.runtime.drawing import draw_files, draw_prediction
from tests.trained import runs_of_tasks

GREY = (90, 90, 90)
CLASSES = ("ground", "square", "disc")
SIZES = [(1, 1), (32, 24), (640, 480), (3000, 2000), (2000, 20), (20, 2000)]


def box(size: tuple[int, int], **options: Any) -> Detections:
    width, height = size
    corners = np.array([[0.2 * width, 0.3 * height, 0.8 * width, 0.9 * height]], np.float32)
    return Detections("a.png", corners, ("square",), (0.9,), (height, width), **options)


def halves(size: tuple[int, int]) -> Segmentation:
    mask = np.zeros((size[1], size[0]), np.uint8)
    mask[:, size[0] // 2 :] = 2
    return Segmentation("a.png", mask, CLASSES)


PREDICTIONS: dict[str, tuple[OutputHead, Any]] = {
    "classify": (OutputHead("classify", CLASSES), lambda size: Classification("a.png", ("disc", "ground"), (0.9, 0.1))),
    "multilabel": (OutputHead("multilabel", CLASSES), lambda size: LabelScores("a.png", (), (), {"disc": 0.1})),
    "regress": (OutputHead("regress", ("price",)), lambda size: Numbers("a.png", {"price": -3.25e9})),
    "detect": (OutputHead("detect", CLASSES), box),
    "segment": (OutputHead("segment", CLASSES), halves),
}


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("kind", PREDICTIONS)
def test_every_kind_is_drawn_at_every_size(kind: str, size: tuple[int, int]) -> None:
    head, predicted = PREDICTIONS[kind]
    image = Image.new("RGB", size, GREY)
    page = draw_prediction(image, predicted(size), (head,))
    factor = enlargement(size)
    assert page.size == (size[0] * factor, size[1] * factor) and max(page.size) >= 128
    assert len(page.getcolors(1 << 24)) > 1


@pytest.mark.parametrize(
    ("size", "height"), [((320, 240), 10), ((640, 480), 17), ((4000, 3000), 105), ((4000, 50), 10)]
)
def test_text_grows_with_the_image(size: tuple[int, int], height: int) -> None:
    assert text_height(size) == height >= LEAST


def test_the_legend_has_the_colour_and_name_of_each_class_that_occurs() -> None:
    size = (640, 480)
    page = np.asarray(draw_prediction(Image.new("RGB", size, GREY), halves(size), (PREDICTIONS["segment"][0],)))
    colours, corner = palette(3), page[400:, :100].reshape(-1, 3)  # the lower left corner
    for label, occurs in ((0, True), (1, False), (2, True)):
        assert (corner == colours[label]).all(axis=1).any() == occurs, CLASSES[label]
    one = Segmentation("a.png", np.zeros((480, 640), np.uint8), CLASSES)
    fewer = np.asarray(draw_prediction(Image.new("RGB", size, GREY), one, (PREDICTIONS["segment"][0],)))
    assert (page[400:, :100] == 255).sum() > (fewer[400:, :100] == 255).sum() > 0, "a name more is written"


def test_many_lines_and_long_lines_stay_on_the_page() -> None:
    page = Image.new("RGB", (200, 150), GREY)
    draw_lines(page, ["x" * 500, *map(str, range(99))], [(255, 0, 0)] * 100, below=True)
    draw_lines(page, [])
    for corner in ((-50.0, -50.0), (190.0, 140.0), (500.0, 500.0)):
        draw_label(page, corner, "a long label \u6c49\u5b57 " * 20, (0, 0, 255))
    assert page.size == (200, 150)


def test_heads_of_one_file_are_drawn_together_and_named() -> None:
    heads = (
        OutputHead("classify", CLASSES, "kind"),
        OutputHead("segment", CLASSES, "mask"),
        OutputHead("embed", (), "who"),
    )
    image = Image.new("RGB", (640, 480), GREY)
    parts: dict[str, Prediction] = {
        "kind": Classification("a.png", ("disc",), (0.9,)),
        "mask": halves((640, 480)),
        "who": Embedding("a.png", np.ones(4, np.float32)),
    }
    page = np.asarray(draw_prediction(image, Several("a.png", parts), heads))
    mask = np.asarray(draw_prediction(image, parts["mask"], (OutputHead("segment", CLASSES),)))
    changed = (page != mask).any(axis=2)
    assert changed[:40, :120].any() and not changed[60:].any(), "the class is written over the mask, in a corner"


def test_a_small_image_becomes_squares() -> None:
    image = Image.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4) * 20)
    factor = enlargement((4, 3))
    page = np.asarray(enlarged(image))
    assert factor == 80 and (page[..., 0] == np.asarray(image).repeat(factor, 0).repeat(factor, 1)).all()


def test_an_embedder_draws_each_image_beside_the_most_similar_others(tmp_path: Path) -> None:
    colours = {"a.png": (250, 0, 0), "b.png": (0, 250, 0), "c.png": (0, 0, 250)}
    for name, colour in colours.items():
        Image.new("RGB", (40, 40), colour).save(tmp_path / name)
    vectors = {"a.png": (1.0, 0.0), "b.png": (0.0, 1.0), "c.png": (0.8, 0.6)}
    predictions: list[Prediction] = [
        Embedding(str(tmp_path / name), np.array(vector, np.float32)) for name, vector in vectors.items()
    ]
    predictions.append(Embedding(str(tmp_path / "d.png"), np.zeros(2, np.float32), "not finite"))
    metadata = ModelMetadata((OutputHead("embed"),), Preprocess((8, 8)), "", {}, (), (), 0.0)
    out = tmp_path / "out"
    paths = [prediction.source for prediction in predictions]
    assert list(draw_files(predictions, metadata, paths, out)) == predictions
    assert sorted(path.name for path in out.iterdir()) == sorted(colours)
    page = np.asarray(Image.open(out / "a.png").convert("RGB"))
    drawn = [tuple(page[88, 88 + 168 * tile].tolist()) for tile in range(3)]  # the centres of the tiles
    assert drawn == [colours["a.png"], colours["c.png"], colours["b.png"]]


# thresholds


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return runs_of_tasks(tmp_path_factory)


def predicted(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["predict", *map(str, arguments), "--json"]) == 0
    plain: dict[str, Any] = json.loads(capsys.readouterr().out)
    return plain


def test_thresholds_replace_those_of_the_model_and_are_named(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, image = home / "detect.onnx", home / "signs" / "JPEGImages" / "train000.png"
    own = predicted(capsys, model, image)
    assert own["decoding"] == {"threshold": 0.01, "drawn_threshold": 0.3, "iou": 0.5, "max_boxes": 100}
    boxes = predicted(capsys, model, image, "--threshold", "0")["predictions"][0]["detections"]
    assert len(boxes) > 3, "a detector of one epoch has low scores"
    middle = boxes[len(boxes) // 2]["score"]
    fewer = predicted(capsys, model, image, "--threshold", middle)
    assert fewer["decoding"]["threshold"] == fewer["decoding"]["drawn_threshold"] == middle
    assert fewer["predictions"][0]["detections"] == [one for one in boxes if one["score"] > middle]
    two = predicted(capsys, model, image, "--threshold", "0", "--max-boxes", "2")
    assert two["predictions"][0]["detections"] == boxes[:2]
    overlapping = predicted(capsys, model, image, "--threshold", "0", "--iou", "1", "--max-boxes", "1000")
    assert len(overlapping["predictions"][0]["detections"]) > len(boxes)
    assert main(["predict", str(model), str(image), "--threshold", "0"]) == 0
    assert "below" not in capsys.readouterr().out, "all within the threshold are printed"


def test_the_threshold_of_what_is_shown_stands_in_the_help() -> None:
    assert predict_command.SHOWN == spatial.SHOWN


def test_python_takes_the_same_thresholds(home: Path) -> None:
    model = gossamer.load(home / "detect.onnx")
    image = home / "signs" / "JPEGImages" / "train000.png"
    detections = model.predict(image, max_boxes=3, threshold=0.02)
    assert len(detections.scores) <= 3 and detections.shown == 0.02
    for wrong in ({"threshold": 1.5}, {"iou": float("nan")}, {"max_boxes": 0}, {"max_boxes": 2.0}, {"iou": True}):
        with pytest.raises(SettingsError, match=next(iter(wrong))):
            model.predict(image, **wrong)


@pytest.mark.parametrize(
    "words",
    [["--threshold", "1.5"], ["--threshold", "nan"], ["--iou", "x"], ["--max-boxes", "0"], ["--max-boxes", "999999"]],
    ids=" ".join,
)
def test_thresholds_outside_their_range_are_refused(
    words: list[str], home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", str(home / "detect.onnx"), str(home / "signs"), *words]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_threshold_that_acts_on_nothing_is_refused() -> None:
    with pytest.raises(SettingsError, match="threshold for a model of kind classify"):
        DecodingLimits(threshold=0.5).check((OutputHead("classify", CLASSES),))
    with pytest.raises(SettingsError, match="iou for a model of kind multilabel"):
        DecodingLimits(iou=0.5).check((OutputHead("multilabel", CLASSES, "", {"threshold": 0.5}),))
    DecodingLimits(iou=0.5).check((OutputHead("classify", CLASSES, "a"), OutputHead("detect", CLASSES, "b")))


def test_labels_have_a_threshold() -> None:
    head = OutputHead("multilabel", CLASSES, "tags", {"threshold": 0.4})
    assert DecodingLimits().in_effect((head,), 0.3) == {"tags": {"threshold": 0.4}}
    assert DecodingLimits(threshold=0.7).in_effect((dataclasses.replace(head, name=""),), 0.3) == {"threshold": 0.7}


def test_text_of_other_scripts_has_a_font_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    captions._wide_font.cache_clear()
    monkeypatch.setattr(captions, "WIDE_FONTS", ("no such font.ttf",))
    assert captions._wide_font(13) is captions._plain_font(13)
    captions._wide_font.cache_clear()
    found = object()
    monkeypatch.setattr(captions, "WIDE_FONTS", ("no such font.ttf", "wide.ttf"))
    real = captions.ImageFont.truetype

    def truetype(name: str, height: int) -> Any:
        return (found, height) if name == "wide.ttf" else real(name, height)

    monkeypatch.setattr(captions.ImageFont, "truetype", truetype)
    assert captions._wide_font(13) == (found, 13)
    captions._wide_font.cache_clear()


def test_a_number_called_as_its_head_is_named_once() -> None:
    one = Numbers("a.png", {"price": 12.5})
    parts = {
        "price": one,
        "size": Numbers("a.png", {"width": 2.0, "size": 3.0}),
        "cat": Classification("a.png", ("cat",), (0.9,)),
    }
    assert Several("a.png", parts).text() == "price: 12.5; size: width 2, size 3; cat: cat 0.900"
    assert [under_head("price", one, line) for line in one.lines()] == ["price: 12.5"]
    assert under_head("prices", one, one.text()) == "prices: price 12.5"
