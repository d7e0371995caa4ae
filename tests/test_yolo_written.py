"""The data.yaml that `convert-boxes --to yolo` writes: what Ultralytics needs of one, and read back as what it was."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from gossamer.cli.main import main
from gossamer.data.boxes.convert import convert
from gossamer.data.boxes.open import read_boxes
from tests.conftest import write_boxes


def voc(root: Path, splits: tuple[str, ...]) -> Path:
    """A VOC folder with these splits; without any, none is named."""
    write_boxes(root, each=2, splits=splits or ("train",))
    if not splits:
        for path in (root / "ImageSets" / "Main").iterdir():
            path.unlink()
    return root


@pytest.mark.parametrize(
    ("splits", "named"),
    [
        (("train", "val"), {"train": "images/train", "val": "images/val"}),
        (("train", "val", "test"), {"train": "images/train", "val": "images/val", "test": "images/test"}),
        (("train",), {"train": "images/train", "val": "images/train"}),
        (("val",), {"train": "images/val", "val": "images/val"}),
        (("train", "test"), {"train": "images/train", "val": "images/train", "test": "images/test"}),
        ((), {"train": "images", "val": "images"}),
    ],
    ids=str,
)
def test_it_names_path_train_val_and_names(tmp_path: Path, splits: tuple[str, ...], named: dict[str, str]) -> None:
    root, out = voc(tmp_path / "voc", splits), tmp_path / "a folder: with # signs"
    conversion = convert(root, out, "yolo")
    value = yaml.safe_load((out / "data.yaml").read_text(encoding="utf-8"))
    assert value == {"path": str(out), **named, "names": {0: "cone", 1: "sign"}}
    for split in named:
        images = Path(value["path"]) / value[split]
        labels = Path(str(images).replace("/images", "/labels"))
        assert {path.stem for path in images.iterdir()} == {path.stem for path in labels.iterdir()} != set()
    assert any("held out" in note for note in conversion.notes) == ("val" not in splits)
    assert "val names those of train" in conversion.text() or "val" in splits
    before, moved = read_boxes(root), out.rename(tmp_path / "moved")
    after = read_boxes(moved)
    assert sorted(zip(map(stem, before.paths), before.splits)) == sorted(zip(map(stem, after.paths), after.splits))


def stem(path: str) -> str:
    return Path(path).stem


def test_the_command_prints_what_it_wrote(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = voc(tmp_path / "voc", ("train", "val"))
    assert main(["convert-boxes", str(root), str(tmp_path / "out"), "--to", "yolo"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{tmp_path / 'out'}: 4 images with 4 boxes, PASCAL VOC boxes as YOLO boxes"
    assert not any("BoxConversion(" in line for line in lines)


def test_images_for_validation_and_testing_alone_stay_so(tmp_path: Path) -> None:
    root, out = voc(tmp_path / "voc", ("val", "test")), tmp_path / "out"
    convert(root, out, "yolo")
    value = yaml.safe_load((out / "data.yaml").read_text(encoding="utf-8"))
    assert "train" in value and value["train"] is None  # Ultralytics asks for the key
    before, after = read_boxes(root), read_boxes(out)
    assert sorted(zip(map(stem, before.paths), before.splits)) == sorted(zip(map(stem, after.paths), after.splits))
