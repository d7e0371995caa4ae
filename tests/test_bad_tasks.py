"""What a person can give to detection, segmentation and embeddings that cannot be used: one clear line, exit code 2, and
nothing is written. Every row is a real command, run through the CLI as from a shell."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gossamer.cli.main import main
from tests.trained import SHORT, TASKS, runs_of_tasks

Make = Callable[[Path], list[str]]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Boxes, masks and identities; a run of each task, two embedders and the index of one of them."""
    root = Path(shutil.copytree(runs_of_tasks(tmp_path_factory), tmp_path_factory.mktemp("tasks"), dirs_exist_ok=True))
    for task in TASKS:
        (root / task).rename(root / f"run_{task}")
    again = ["export", str(root / "run_embed"), "--out", str(root / "other" / "other.onnx"), "--licence", "CC0-1.0"]
    (root / "other").mkdir()
    assert main(again) == 0
    index = ["index", str(root / "embed.onnx"), str(root / "people" / "val"), "--out", str(root / "people.index")]
    assert main(index) == 0
    return root


@pytest.fixture
def place(good: Path, tmp_path: Path) -> Path:
    """A copy of `good` that a test may spoil; the data of the runs stay where they were."""
    return Path(shutil.copytree(good, tmp_path, dirs_exist_ok=True))


def train(root: Path, data: str, task: str, *more: str) -> list[str]:
    out = [] if "--out" in more else ["--out", str(root / "new")]
    return ["train", str(root / data), *SHORT, "--input", "64", "--task", task, *out, *more]


def write_file(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def annotated(content: Callable[[str], str]) -> Make:
    """Training with the annotations of every image changed."""

    def make(root: Path) -> list[str]:
        for path in (root / "signs" / "Annotations").iterdir():
            path.write_text(content(path.read_text()))
        return train(root, "signs", "detect")

    return make


def coco(content: str) -> Make:
    """Training on COCO's folder with this text for its annotations."""

    def make(root: Path) -> list[str]:
        write_file(root / "coco" / "annotations" / "instances_train.json", content)
        shutil.copytree(root / "signs" / "JPEGImages", root / "coco" / "train")
        return train(root, "coco", "detect")

    return make


def yolo(label: str, names: str = "names: [sign, cone]") -> Make:
    """Training on a YOLO folder with this line for every image."""

    def make(root: Path) -> list[str]:
        shutil.copytree(root / "signs" / "JPEGImages", root / "yolo" / "images" / "train")
        for path in (root / "yolo" / "images" / "train").iterdir():
            write_file(root / "yolo" / "labels" / "train" / f"{path.stem}.txt", label)
        write_file(root / "yolo" / "data.yaml", f"train: images/train\n{names}\n")
        return train(root, "yolo", "detect")

    return make


def stranger_in_val(root: Path) -> list[str]:
    for path in (root / "signs" / "Annotations").glob("val*"):
        path.write_text(path.read_text().replace("cone", "zebra"))
    return train(root, "signs", "detect")


def two_kinds(root: Path) -> list[str]:
    write_file(
        root / "signs" / "annotations" / "a.json", json.dumps({"images": [], "annotations": [], "categories": []})
    )
    return train(root, "signs", "detect")


def masked(change: Callable[[Path], None]) -> Make:
    """Training with every training mask changed."""

    def make(root: Path) -> list[str]:
        for path in (root / "street" / "train" / "masks").iterdir():
            change(path)
        return train(root, "street", "segment")

    return make


def filled(value: int, size: int = 64) -> Callable[[Path], None]:
    return lambda path: Image.fromarray(np.full((size, size), value, np.uint8)).save(path)


def renamed_classes(root: Path) -> list[str]:
    (root / "street" / "classes.txt").write_text("ground\ntriangle\n")
    return ["eval", str(root / "run_segment"), str(root / "street")]


def one_identity(root: Path) -> list[str]:
    shutil.rmtree(root / "people" / "train" / "class1")
    shutil.rmtree(root / "people" / "val" / "class1")
    return train(root, "people", "embed")


def without(name: str, root: Path, command: list[str]) -> list[str]:
    """The command, with a file gone."""
    (root / name).unlink()
    return command


def changed_data(root: Path) -> list[str]:
    """A run of its own whose data then lose an image."""
    assert main(train(root, "people", "embed", "--out", str(root / "own"))) == 0
    (root / "people" / "train" / "class0" / "000.png").unlink()
    return ["swap", str(root / "own"), "--net", "squeezenet1_1", "--out", str(root / "new")]


def search(root: Path, *more: str, index: str = "people.index") -> list[str]:
    return ["search", str(root / index), str(root / "people" / "val" / "class0"), *more]


def swap(root: Path, net: str, run: str = "run_detect", out: str = "new") -> list[str]:
    return ["swap", str(root / run), "--net", net, "--out", str(root / out)]


def index(root: Path, model: str = "embed.onnx", folder: str = "people/val") -> list[str]:
    return ["index", str(root / model), str(root / folder), "--out", str(root / "new.index")]


def empty(root: Path) -> str:
    (root / "empty").mkdir()
    return "empty"


def to(root: Path, data: str, kind: str, out: str = "new") -> list[str]:
    return ["convert-boxes", str(root / data), str(root / out), "--to", kind]


# the input -> (the command, a word that its line must have)
KINDS: dict[str, tuple[Make, str]] = {
    # settings of another task
    "a task that nobody knows": (lambda r: train(r, "signs", "detekt"), "detect"),
    "a head of another task": (lambda r: train(r, "signs", "detect", "--head", "lraspp"), "ssdlite"),
    "a head for a classifier": (lambda r: train(r, "people", "classify", "--head", "ssd"), "none"),
    "a loss of another task": (lambda r: train(r, "people", "embed", "--loss", "cross_entropy"), "triplet"),
    "a loss of masks for boxes": (lambda r: train(r, "signs", "detect", "--loss", "dice"), "giou"),
    "images too small for the network": (
        lambda r: train(r, "signs", "detect", "--net", "inception_v3", "--input", "16"),
        "pixels a side",
    ),
    "mixup with boxes": (lambda r: train(r, "signs", "detect", "--mixup", "0.2"), "mixup"),
    "CutMix with identities": (lambda r: train(r, "people", "embed", "--cutmix", "1"), "cutmix"),
    "a cache for boxes": (lambda r: train(r, "signs", "detect", "--cache", "1M"), "cache"),
    "an output stride that is no power of two": (
        lambda r: train(r, "street", "segment", "--output-stride", "12"),
        "12",
    ),
    "more maps than a network has": (lambda r: train(r, "signs", "detect", "--levels", "9"), "1 to 4"),
    "anchors in odd number": (lambda r: train(r, "signs", "detect", "--anchor-sizes", "8", "8", "9"), "pairs"),
    "a batch that identities do not fill": (lambda r: train(r, "people", "embed", "--per-identity", "3"), "multiple"),
    "a batch of one identity": (lambda r: train(r, "people", "embed", "--per-identity", "8"), "at least 16"),
    "a score of more than all": (lambda r: train(r, "signs", "detect", "--score-threshold", "1.5"), "0 to 1"),
    # boxes
    "boxes where there are none": (lambda r: train(r, "people", "detect"), "holds no boxes"),
    "an empty folder for boxes": (lambda r: train(r, empty(r), "detect"), "holds no boxes"),
    "no folder of boxes": (lambda r: train(r, "none", "detect"), "does not exist"),
    "broken XML": (annotated(lambda text: text[:50]), ".xml"),
    "an entity bomb": (annotated(lambda text: f'<!DOCTYPE a [<!ENTITY b "{text[:9]}">]><a>&b;</a>'), ".xml"),
    "XML of something else": (annotated(lambda _: "<svg/>"), ".xml"),
    "boxes without names": (annotated(lambda text: text.replace("name>", "title>")), ".xml"),
    "boxes outside their images": (
        annotated(lambda text: text.replace("<xmin>", "<xmin>9").replace("<xmax>", "<xmax>9")),
        "can be used",
    ),
    "a class that only validation has": (stranger_in_val, "zebra"),
    "two kinds of boxes in one folder": (two_kinds, "one kind"),
    "JSON that is cut off": (coco('{"images": ['), "instances_train.json"),
    "JSON of another schema": (coco('{"pictures": [], "boxes": []}'), "instances_train.json"),
    "a list for an object": (coco("[1, 2, 3]"), "instances_train.json"),
    "a YOLO line of words": (yolo("0 a b c d"), "can be used"),
    "a YOLO class beyond the list": (yolo("7 0.5 0.5 0.2 0.2"), "class '7'"),
    # masks
    "masks where there are none": (lambda r: train(r, "people", "segment"), "no folder of images"),
    "an empty folder for masks": (lambda r: train(r, empty(r), "segment"), "no folder of images"),
    "masks of another size": (masked(filled(1, 48)), "48 x 48"),
    "values beyond the classes": (masked(filled(9)), "9"),
    "masks that are no images": (masked(lambda path: path.write_bytes(b"mask") and None), "masks"),
    "other classes than the run's": (renamed_classes, "square"),
    # embeddings
    "one identity only": (one_identity, "one class"),
    "an index by a detector": (lambda r: index(r, "detect.onnx"), "a network for detect"),
    "an index by a run folder": (lambda r: index(r, "run_embed"), "run_embed"),
    "an index of no folder": (lambda r: index(r, folder="none"), "no folder"),
    "an index of an empty folder": (lambda r: index(r, folder=empty(r)), "empty"),
    "an index of another embedder": (
        lambda r: search(r, "--model", str(r / "other" / "other.onnx")),
        "made by another model file",
    ),
    "a search without the model file": (lambda r: without("embed.onnx", r, search(r)), "--model"),
    "an index that is cut off": (
        lambda r: write_file(r / "people.index", (r / "people.index").read_bytes()[:-40]) and search(r),
        "checksum",
    ),
    "an image as an index": (lambda r: search(r, index="people/val/class0/000.png"), "no gallery"),
    "a backend that nobody knows": (lambda r: search(r, "--backend", "annoy"), "faiss"),
    "a search for no images": (lambda r: search(r, "--top", "0"), "--top"),
    # swap, compare, convert, doctor
    "a swap for a network that nobody knows": (lambda r: swap(r, "squeezenet"), "squeezenet1_1"),
    "a swap for the same network": (lambda r: swap(r, "mobilenet_v2"), "another network"),
    "a swap into a run": (lambda r: swap(r, "squeezenet1_1", out="run_embed"), "holds a run already"),
    "a swap of no run": (lambda r: swap(r, "squeezenet1_1", run="signs"), "settings.yaml"),
    "a swap whose data have changed": (changed_data, "gone"),
    "boxes to a format that nobody knows": (lambda r: to(r, "signs", "pascal"), "voc"),
    "boxes into a folder that is there": (lambda r: to(r, "signs", "coco", "people"), "already there"),
    "boxes into their own folder": (lambda r: to(r, "signs", "coco", "signs/coco"), "is inside"),
    "a check of masks as boxes": (lambda r: ["doctor", "--data", str(r / "street"), "--task", "detect"], "boxes"),
    "a check for a task that nobody knows": (lambda r: ["doctor", "--data", str(r / "street"), "--task", "x"], "task"),
    "a check for a task without data": (lambda r: ["doctor", "--task", "detect"], "--data"),
    # model files
    "a detector scored on masks": (lambda r: ["eval", str(r / "detect.onnx"), str(r / "street")], "boxes"),
    "a split that a run has not": (lambda r: ["eval", str(r / "run_segment"), "--split", "test"], "train, val"),
    "a run with a runtime": (lambda r: ["predict", str(r / "run_embed"), "a.jpg", "--runtime", "native"], "export"),
    "a split of a model file without data": (lambda r: ["eval", str(r / "segment.onnx"), "--split", "val"], "DATA"),
    "a split that data have not": (
        lambda r: ["eval", str(r / "segment.onnx"), str(r / "street"), "--split", "test"],
        "train, val",
    ),
    "a split of data without any": (
        lambda r: ["eval", str(r / "segment.onnx"), str(r / "street/val"), "--split", "val"],
        "splits of their own",
    ),
    "a segmenter scored on classes": (lambda r: ["eval", str(r / "segment.onnx"), str(r / "people")], "images"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_bad_input_is_one_clear_line_and_nothing_is_written(
    kind: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make, word = KINDS[kind]
    arguments = make(place)
    kept = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
    capsys.readouterr()
    code = main(arguments)
    out, error = capsys.readouterr()
    last = (error.strip() or out.strip()).splitlines()[-1]
    assert code == 2, (out, error)
    assert word in last, last
    assert "Traceback" not in error
    assert {path: path.read_bytes() for path in place.rglob("*") if path.is_file()} == kept


def test_there_are_at_least_twenty_five_kinds() -> None:
    assert len(KINDS) >= 25
