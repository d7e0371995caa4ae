"""doctor --data: every task, without torch, and no all-clear above a list of what is wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gossamer.cli.main import main
from gossamer.data.check.dataset import check_dataset
from gossamer.data.check.images import ALL_CLEAR, ALL_CLEAR_IMAGES, FEW
from gossamer.data.tasks import READERS
from gossamer.tasks.registry import TASKS
from tests.annotations import write_file
from tests.toollayouts import BOXES, COUNT, coco_json, image, images, mask, name_of


def classes(root: Path, count: int = FEW + 3) -> Path:
    for number, name in enumerate(("cat", "dog")):
        for i in range(count):
            image(root / name / f"p{i}.png", 100 * number + i)
            pixels = np.random.default_rng(1000 * number + i).integers(0, 255, (48, 64, 3), dtype=np.uint8)
            Image.fromarray(pixels).resize((64, 48)).save(root / name / f"p{i}.png")
    return root


def table(root: Path) -> Path:
    images(root)
    mask(root / "m0.png", 0)
    mask(root / "m1.png", 1)
    lines = ["path,colour,tags,width,mask"]
    for number in range(COUNT):
        lines.append(
            f"images/a{number}.jpg,{name_of(number)},round|shiny,{number}.5,{f'm{number}.png' if number < 2 else ''}"
        )
    return write_file(root / "labels.csv", "\n".join(lines) + "\n")


HEADS = "{colour: classify, tags: multilabel, width: regress, mask: segment}"


def label_table(root: Path, column: str, cell: Callable[[int], str]) -> Path:
    images(root)
    lines = [f"path,{column}", *(f"images/a{number}.jpg,{cell(number)}" for number in range(COUNT))]
    return write_file(root / "labels.csv", "\n".join(lines) + "\n")


def masks(root: Path) -> Path:
    images(root)
    for number in range(COUNT):
        mask(root / f"masks/a{number}.png", number)
    return root


def boxes(root: Path) -> Path:
    BOXES["coco: one file"](root)
    return root


DATA: dict[str, Callable[[Path], Path]] = {
    "classify": classes,
    "embed": classes,
    "detect": boxes,
    "segment": masks,
    "multilabel": lambda root: label_table(root, "label", lambda n: "a|b" if n % 2 else "a"),
    "regress": lambda root: label_table(root, "width", lambda n: f"{n}.25"),
    "multi": table,
}


@pytest.mark.parametrize("task", TASKS)
def test_every_task_is_checked(tmp_path: Path, task: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert TASKS.keys() == READERS.keys() == DATA.keys()
    data = DATA[task](tmp_path)
    heads = ["--heads", HEADS] if task == "multi" else []
    assert main(["doctor", "--data", str(data), "--task", task, *heads, "--json"]) == 0
    plain = json.loads(capsys.readouterr().out)
    assert plain["task"] == task and sum(split["images"] for split in plain["splits"].values()) >= COUNT
    if task == "multi":
        counts = plain["annotations"]["counts"]["train"]
        assert {"colour/car", "tags/round", "width/width"} < counts.keys() and counts["tags/round"] > 4
        assert plain["annotations"]["facts"]["train"]["images with mask"] <= 2
    assert check_dataset(str(data), task, heads=HEADS if task == "multi" else "").text()


BLOCKED = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "torchvision", "safetensors", "onnx", "timm"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Block())
from gossamer.cli.main import main
for line in sys.stdin.read().splitlines():
    code = main(line.split("|"))
    if code:
        sys.exit(f"{line}: exit {code}")
"""


def without_torch(*commands: str) -> subprocess.CompletedProcess[str]:
    """Runs commands, words with | between, until one fails, where torch cannot be imported."""
    return subprocess.run(
        [sys.executable, "-c", BLOCKED],
        input="\n".join(commands),
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        timeout=200,
    )


@pytest.mark.parametrize("name", ["voc: Label Studio", "cvat: boxes", "yolo: Roboflow"])
def test_train_names_the_task_before_it_loads_torch(tmp_path: Path, name: str) -> None:
    BOXES[name](tmp_path)
    done = without_torch("|".join(["train", str(tmp_path)]))
    assert done.returncode and "--task detect" in done.stderr and "exit 2" in done.stderr


def test_it_needs_no_torch(tmp_path: Path) -> None:
    commands = []
    for task, make in DATA.items():
        data = make(tmp_path / task)
        heads = ["--heads", "{colour: classify, width: regress}"] if task == "multi" else []
        commands.append("|".join(["doctor", "--data", str(data), "--task", task, *heads, "--json"]))
    done = without_torch(*commands)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count('"task"') == len(DATA)


def advice(root: Path, task: str = "classify") -> list[str]:
    check = check_dataset(str(root), task)
    text = check.text()
    assert text.index("What to do") > text.index(check.images.how)
    return check.images.advice


def test_clean_boxes_are_all_clear(tmp_path: Path) -> None:
    for number in range(COUNT):
        pixels = np.random.default_rng(number).integers(0, 255, (48, 64, 3), dtype=np.uint8)
        path = tmp_path / f"images/a{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(path)
    write_file(tmp_path / "annotations.json", coco_json("a{}.png".format))
    assert advice(tmp_path, "detect") == [ALL_CLEAR_IMAGES]
    write_file(tmp_path / "images/@eaDir/x.txt", "")
    image(tmp_path / "images/@eaDir/a0.png", 0)
    (line,) = advice(tmp_path, "detect")
    assert line.startswith("Notes from reading the data: 1")


def test_clean_data_are_all_clear(tmp_path: Path) -> None:
    assert advice(classes(tmp_path)) == [ALL_CLEAR]


FAULTS: dict[str, Callable[[Path], object]] = {
    "near duplicates": lambda root: Image.open(root / "cat/p0.png").save(root / "cat/q0.jpg", quality=95),
    "exact duplicates": lambda root: (root / "cat/q0.png").write_bytes((root / "cat/p0.png").read_bytes()),
    "unreadable": lambda root: (root / "cat/p0.png").write_bytes(b"no image"),
    "blank": lambda root: Image.new("RGB", (64, 48), (3, 4, 5)).save(root / "cat/q.png"),
    "small": lambda root: Image.open(root / "cat/p0.png").crop((0, 0, 30, 9)).save(root / "cat/q.png"),
    "a thumbnail": lambda root: image(root / "cat/@eaDir/p0.png/SYNOPHOTO_THUMB_M.jpg", 3),
    "a text": lambda root: write_file(root / "cat/notes.txt", "hello"),
    "a loose image": lambda root: image(root / "loose.png", 3),
    "an empty folder": lambda root: (root / "fish").mkdir(),
}


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("task", ["classify", "embed"])
def test_an_empty_list_has_no_advice_and_a_list_has(tmp_path: Path, name: str, task: str) -> None:
    FAULTS[name](classes(tmp_path))
    lines = advice(tmp_path, task)
    assert lines and ALL_CLEAR not in lines


@pytest.mark.parametrize("task", ["detect", "segment"])
def test_annotated_data_have_no_all_clear_above_a_list(tmp_path: Path, task: str) -> None:
    root = DATA[task](tmp_path)
    place = next(path for path in sorted((root / "images").iterdir()))
    place.with_name("copy.jpg").write_bytes(place.read_bytes())
    if task == "segment":
        (root / "masks/copy.png").write_bytes((root / "masks/a0.png").read_bytes())
    check = check_dataset(str(root), task)
    assert not {ALL_CLEAR, ALL_CLEAR_IMAGES} & {*check.images.advice} and check.images.advice


def test_arguments_without_data_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for flag in ("--task", "--val", "--heads"):
        assert main(["doctor", flag, "detect"]) == 2
        assert f"{flag} detect without --data" in capsys.readouterr().err


def test_boxes_are_counted_in_place_of_classes_and_what_is_read_comes_first(tmp_path: Path) -> None:
    """Images with boxes have no class of their own: none is counted, and none stands beside a duplicate."""
    root = boxes(tmp_path)
    picture = next(path for path in sorted(root.rglob("*")) if path.suffix in (".jpg", ".png"))
    twin = picture.with_name("twin" + picture.suffix)
    twin.write_bytes(picture.read_bytes())
    listing = next(path for path in root.rglob("*.json"))
    plain = json.loads(listing.read_text())
    known = next(image for image in plain["images"] if Path(image["file_name"]).name == picture.name)
    plain["images"].append({**known, "id": 999, "file_name": known["file_name"].replace(picture.name, twin.name)})
    listing.write_text(json.dumps(plain))
    lines = check_dataset(str(root), "detect").text().splitlines()
    assert lines[0].startswith("COCO boxes")
    assert any(line.startswith("boxes ") for line in lines) and not any(line.startswith("class ") for line in lines)
    [pair] = [line for line in lines if "twin" in line and "=" in line][:1]
    assert ", images)" not in pair
    assert not any("of different class" in line for line in lines)
