"""Images with masks: recognised, split, read and refused, and what a random transform makes of them."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from gossamer.data.masks import classes as label_maps
from gossamer.data.masks.open import open_masks, pixel_counts, read_masks
from gossamer.data.open import apply_split, open_source
from gossamer.data.split import split_rows
from gossamer.errors import DataError, ImageError, SettingsError
from gossamer.host.progress import escaped
from gossamer.images.preprocess import Preprocess
from gossamer.predictions import masks as mask_predictions
from gossamer.settings import Settings
from gossamer.tasks.losses import class_weights
from gossamer.tasks.segment import Segment
from gossamer.tasks.segmentation import losses
from gossamer.tasks.segmentation.augment import SegmentTransform
from gossamer.tasks.segmentation.heads import Segmenter
from gossamer.tasks.segmentation.scores import MaskScorer
from tests.drawnmasks import RNG, mask


def save(path: Path, array: Any, mode: str | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(array, np.uint8))
    (image.convert(mode) if mode else image).save(path)
    return path


def random_pixels(height: int = 6, width: int = 8) -> np.ndarray:
    return RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)


def folder(root: Path, count: int = 4, values: tuple[int, ...] = (0, 1, 2), parts: tuple[str, ...] = ("train", "val")):
    for part in parts:
        for index in range(count):
            save(root / part / "images" / f"{index}.png", random_pixels())
            save(root / part / "masks" / f"{index}.png", mask(*values))
    return root


# transforms


def encoded(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize("resize", ["squash", "pad"])
@pytest.mark.parametrize("size", [(40, 64), (21, 13)])
def test_image_and_mask_move_as_one(resize: str, size: tuple[int, int]) -> None:
    """With the nearest pixel for both, each pixel of the result shows its own class, or the page."""
    truth = RNG.integers(0, 20, size, dtype=np.uint8)
    pixels = np.repeat(truth[..., None] * 10, 3, axis=2)
    preprocess = Preprocess((32, 48), resize=resize, interpolation="nearest", mean=(0.99,) * 3)
    transform = SegmentTransform(preprocess)
    assert transform.shape == (32, 48, 3)
    page = covered = 0
    for seed in range(40):
        image, target = transform.joint(encoded(pixels), truth, np.random.default_rng(seed))
        assert image.shape == (32, 48, 3) and target.shape == (32, 48)
        assert image.dtype == target.dtype == np.uint8
        assert (np.where(target == 255, 252, target.astype(int) * 10) == image[..., 0]).all()
        page += int((target == 255).any())
        covered += int((target != 255).all())
        again = transform.joint(encoded(pixels), truth, np.random.default_rng(seed))
        assert (again[0] == image).all() and (again[1] == target).all()
    assert page > 5
    assert covered > 5 or resize == "pad"


def test_at_scale_one_training_sees_what_deployment_sees() -> None:
    pixels = random_pixels(60, 80)
    preprocess = Preprocess((32, 48), resize="pad")
    transform = SegmentTransform(preprocess, scale=(1, 1), flip=0)
    image, target = transform.joint(encoded(pixels), mask(1, height=60, width=80), np.random.default_rng(0))
    inner = np.flatnonzero(target[0] != 255)
    deployed = preprocess.pixels(pixels)
    start = (48 - len(inner)) // 2
    assert (image[:, inner] == deployed[:, start : start + len(inner)]).all()
    assert (image[target == 255] == deployed[0, 0]).all()


def test_a_jpeg_decoded_small_keeps_its_place() -> None:
    pixels = np.zeros((400, 640, 3), np.uint8)
    pixels[200:, 320:] = 255
    truth = (pixels[..., 0] > 0).astype(np.uint8)
    transform = SegmentTransform(Preprocess((40, 64), resize="squash"), color_jitter=0.1)
    for seed in range(10):
        image, target = transform.joint(encoded(pixels, "JPEG"), truth, np.random.default_rng(seed))
        seen = target != 255
        assert ((image[..., 0] > 110) == target)[seen].mean() > 0.97


def test_a_scale_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(SettingsError, match="scale"):
        SegmentTransform(Preprocess((32, 32)), scale=(2.0, 0.5))


# data


def test_folders_by_split_are_recognised(tmp_path: Path) -> None:
    data = open_masks(folder(tmp_path, 3, parts=("train", "val", "test")))
    assert [len(source) for source in data.splits().values()] == [3, 3, 3]
    assert data.classes == ("0", "1", "2")
    assert data.train.names[0] == "train/images/0.png"
    assert (data.train.targets.read(int(data.train.rows[0])) == mask(0, 1, 2)).all()
    assert "3 classes, 3 training and 3 validation" in data.how
    assert len(open_source(tmp_path, data.classes, read=read_masks)) == 3
    assert open_source(tmp_path, data.classes, read=read_masks).names[0].startswith("test/")
    assert open_source(tmp_path, data.classes, split="train", read=read_masks).names == data.train.names


def test_splits_inside_the_folders_are_recognised(tmp_path: Path) -> None:
    for split, count in (("train", 3), ("validation", 2)):
        for index in range(count):
            save(tmp_path / "images" / split / f"town/{index}.png", random_pixels())
            save(tmp_path / "masks" / split / f"town/{index}_mask.png", mask(0, 1))
    data = open_masks(tmp_path)
    assert (len(data.train), len(data.val)) == (3, 2)


def test_a_flat_folder_is_split_by_seed(tmp_path: Path) -> None:
    for index in range(10):
        save(tmp_path / "images" / f"{index}.png", random_pixels())
        save(tmp_path / "masks" / f"{index}.png", mask(0, 1))
    data = open_masks(tmp_path, val_share=0.3, seed=1)
    assert (len(data.train), len(data.val)) == (7, 3)
    assert not set(data.train.names) & set(data.val.names)
    assert open_masks(tmp_path, val_share=0.3, seed=1).val.names == data.val.names
    assert open_masks(tmp_path, val_share=0.3, seed=2).val.names != data.val.names


def voc(root: Path) -> Path:
    for index in range(6):
        save(root / "JPEGImages" / f"{index}.jpg", random_pixels())
        if index < 5:
            image = Image.fromarray(mask(0, 1, 2, 255))
            image.putpalette(np.vstack([[[0, 0, 0]], mask_predictions.palette(255)]).astype(np.uint8).ravel().tolist())
            path = root / "SegmentationClass" / f"{index}.png"
            path.parent.mkdir(exist_ok=True)
            image.save(path)
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("0\n1\n2\n")
    (lists / "val.txt").write_text("3\n4\n5\n")
    return root


def test_pascal_voc_is_recognised(tmp_path: Path) -> None:
    data = open_masks(voc(tmp_path))
    assert data.how.startswith("PASCAL VOC folder")
    assert (len(data.train), len(data.val), data.classes) == (3, 2, ("0", "1", "2"))
    assert any("1 of 3 have no image with a mask: 5" in note for note in data.notes)
    assert set(np.unique(data.train.targets.read(0)).tolist()) == {0, 1, 2, 255}
    lists = tmp_path / "ImageSets" / "Segmentation"
    (lists / "train.txt").rename(lists / "trainval.txt")
    (lists / "test.txt").write_text("4\n")
    assert [len(source) for source in open_masks(tmp_path, val_share=0.4).splits().values()] == [2, 1, 1]


def test_an_ignored_value_is_no_class(tmp_path: Path) -> None:
    root = folder(tmp_path, values=(0, 1, 2, 3))
    last = open_masks(root, ignore_index=3)
    assert last.classes == ("0", "1", "2")
    assert (last.train.targets.read(0) == mask(0, 1, 2, 255)).all()
    first = open_masks(root, ignore_index=0)
    assert first.classes == ("1", "2", "3")
    assert (first.train.targets.read(0) == mask(255, 0, 1, 2)).all()
    (root / "classes.txt").write_text("void\nroad\ncar\nsky\n")
    named = open_masks(root, ignore_index=0)
    assert named.classes == ("road", "car", "sky")
    assert (named.train.targets.read(0) == mask(255, 0, 1, 2)).all()
    source = open_source(root, ("sky", "road", "car"), read=partial(read_masks, ignore_index=0))
    assert (source.targets.read(0) == mask(255, 1, 2, 0)).all()


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_colours_are_classes_by_the_classes_file(tmp_path: Path, mode: str) -> None:
    colours = np.array([[128, 64, 0], [0, 0, 255], [9, 9, 9]], np.uint8)
    for split in ("train", "val"):
        save(tmp_path / split / "images" / "a.jpg", random_pixels())
        image = Image.fromarray(colours[mask(0, 1, 2)])
        image = image.quantize(16) if mode == "P" else image.convert(mode)
        (tmp_path / split / "masks").mkdir()
        image.save(tmp_path / split / "masks" / "a.png")
    (tmp_path / "classes.json").write_text(json.dumps({"road": [128, 64, 0], "sky": [0, 0, 255], "void": [9, 9, 9]}))
    data = open_masks(tmp_path, ignore_index=2)
    assert data.classes == ("road", "sky")
    assert (data.train.targets.read(0) == mask(0, 1, 255)).all()


@pytest.mark.parametrize("mode", ["L", "1", "RGB"])
def test_masks_in_black_and_white_are_classes_by_their_colours(tmp_path: Path, mode: str) -> None:
    for split in ("train", "val"):
        save(tmp_path / split / "images" / "a.png", random_pixels())
        save(tmp_path / split / "masks" / "a.png", mask(0, 255), mode)
    if mode == "L":
        with pytest.raises(DataError, match="object 255 255 255"):
            open_masks(tmp_path)
    (tmp_path / "classes.txt").write_text("ground 0 0 0\nliving thing 255 255 255\n")
    data = open_masks(tmp_path)
    assert data.classes == ("ground", "living thing")
    assert (data.train.targets.read(0) == mask(0, 1)).all()


def test_masks_of_16_bits_and_grey_rgb_hold_class_numbers(tmp_path: Path) -> None:
    folder(tmp_path, 2)
    Image.fromarray(mask(0, 1, 2).astype(np.uint16)).save(tmp_path / "train/masks/0.png")
    save(tmp_path / "train/masks/1.png", mask(0, 1, 2), "RGB")
    source = open_masks(tmp_path).train
    for row in (0, 1):
        assert (source.targets.read(row) == mask(0, 1, 2)).all()


def test_validation_data_may_lie_elsewhere(tmp_path: Path) -> None:
    root, other = folder(tmp_path / "a"), folder(tmp_path / "b", 2, values=(0, 1))
    (root / "classes.txt").write_text("x\ny\nz\n")
    data = open_masks(root, val=other)
    assert len(data.val) == 2 and data.classes == data.val.classes == ("x", "y", "z")
    assert data.val.names[0].startswith(str(other))
    assert any("not used" in note for note in data.notes)
    (other / "classes.txt").write_text("x\ny\nother\n")
    with pytest.raises(DataError, match="other"):
        open_masks(root, val=other)


def test_a_saved_split_is_restored(tmp_path: Path) -> None:
    for index in range(6):
        save(tmp_path / "images" / f"{index}.png", random_pixels())
        save(tmp_path / "masks" / f"{index}.png", mask(0, 1))
    data = open_masks(tmp_path)
    rows = split_rows(data)
    gone, added = Path(data.train.names[0]).name, "7.png"
    (tmp_path / "masks" / gone).unlink()
    save(tmp_path / "images" / added, random_pixels())
    save(tmp_path / "masks" / added, mask(0, 1))
    again = apply_split(tmp_path, rows, classes=data.classes, read=read_masks)
    assert again.val.names == data.val.names and again.train.names == data.train.names[1:]
    assert again.val.targets is not None
    assert any("1 image is gone" in note for note in again.notes)
    assert any("1 image was added" in note for note in again.notes)


def test_the_fingerprint_knows_the_masks(tmp_path: Path) -> None:
    before = open_masks(folder(tmp_path)).fingerprint
    assert open_masks(tmp_path).fingerprint == before
    save(tmp_path / "val/masks/0.png", RNG.integers(0, 3, (6, 8)))
    assert open_masks(tmp_path).fingerprint != before


def test_selected_images_keep_their_masks(tmp_path: Path) -> None:
    data = open_masks(folder(tmp_path))
    save(tmp_path / "train/masks/2.png", mask(2, 2, 1))
    chosen = data.train.select(np.array([2]))
    assert (chosen.targets.read(int(chosen.rows[0])) == mask(2, 2, 1)).all()


def test_pixels_of_each_class_are_counted(tmp_path: Path) -> None:
    data = open_masks(folder(tmp_path, 2, values=(0, 1, 1, 2)))
    assert pixel_counts(data.train) == [24, 48, 24]
    (tmp_path / "train/masks/0.png").write_bytes(b"")
    assert pixel_counts(data.train) == [12, 24, 12]


@pytest.mark.parametrize("kind", ["none", "balanced", "log"])
def test_a_segmenter_weighs_its_classes_by_their_pixels(tmp_path: Path, kind: str) -> None:
    data = open_masks(folder(tmp_path, 2, values=(0, 1, 1, 2)))
    task = Segment(data.classes, Settings(data="x", task="segment", class_weights=kind))  # type: ignore[arg-type]
    task.prepare(data)
    if kind == "none":
        assert task.weights is None
    else:
        expected = class_weights(kind, [24, 48, 24])
        assert task.weights is not None and expected is not None and torch.equal(task.weights, expected)


def test_images_and_masks_without_a_partner_are_noted(tmp_path: Path) -> None:
    folder(tmp_path, 3)
    save(tmp_path / "train/images/lonely.png", random_pixels())
    save(tmp_path / "train/masks/forgotten.png", mask(0, 1))
    save(tmp_path / "test/images/a.png", random_pixels())
    notes = open_masks(tmp_path).notes
    assert any("1 image has no mask and is left out: lonely" in note for note in notes)
    assert any("1 mask has no image and is left out: forgotten" in note for note in notes)
    assert any("test: is passed over, for it has no folder of masks" in note for note in notes)


def _jpeg(root: Path) -> None:
    (root / "train/masks/0.png").write_bytes(encoded(mask(0, 1), "JPEG"))


BAD_MASKS: dict[str, tuple[Callable[[Path], object], str]] = {
    "another size": (
        lambda root: save(root / "train/masks/0.png", mask(0, 1, width=9)),
        "9 x 6 pixels, its image 8 x 6",
    ),
    "a value that is no class": (
        lambda root: save(root / "train/masks/0.png", mask(0, 77)),
        "24 pixels have the value 77",
    ),
    "a 16-bit value": (
        lambda root: Image.fromarray(mask(0, 1).astype(np.uint16) * 300).save(root / "train/masks/0.png"),
        "value 300",
    ),
    "colours without a list": (lambda root: save(root / "train/masks/0.png", random_pixels()), "has colours"),
    "a JPEG": (_jpeg, "is a JPEG file"),
    "empty": (lambda root: (root / "train/masks/0.png").write_bytes(b""), "is empty"),
    "cut off": (lambda root: (root / "train/masks/0.png").write_bytes(encoded(mask(0, 1))[:60]), "0.png"),
    "no image": (lambda root: (root / "train/masks/0.png").write_text("hello"), "not an image"),
    "gone": (lambda root: (root / "train/masks/0.png").unlink(), "No such file"),
    "of a damaged image": (lambda root: (root / "train/images/0.png").write_bytes(b"x"), "images/0.png"),
    "of odd pixels": (
        lambda root: Image.fromarray(mask(0, 1)).convert("CMYK").save(root / "train/masks/0.png", "TIFF"),
        "CMYK",
    ),
}


@pytest.mark.parametrize("name", BAD_MASKS)
def test_a_bad_mask_is_one_image_set_aside(tmp_path: Path, name: str) -> None:
    data = open_masks(folder(tmp_path), num_classes=3)
    spoil, message = BAD_MASKS[name]
    spoil(tmp_path)
    with pytest.raises(ImageError) as caught:
        data.train.targets.read(0)
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert data.train.targets.read(1).shape == (6, 8)
    if name != "gone":
        assert len(open_masks(tmp_path, num_classes=3).train) == 4  # the others go on


def test_a_mask_is_as_upright_as_its_image(tmp_path: Path) -> None:
    data = open_masks(folder(tmp_path), num_classes=3)
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn: 8 x 6 stored pixels are 6 x 8 upright
    Image.fromarray(random_pixels()).save(tmp_path / "train/images/0.png", exif=exif)
    with pytest.raises(ImageError, match="8 x 6 pixels, its image 6 x 8"):
        data.train.targets.read(0)
    save(tmp_path / "train/masks/0.png", mask(0, 1, height=8, width=6))
    assert data.train.targets.read(0).shape == (8, 6)


def test_a_colour_that_is_not_listed_is_reported(tmp_path: Path) -> None:
    folder(tmp_path, 2)
    (tmp_path / "classes.txt").write_text("a 0 0 0\nb 1 2 3\nc 200 0 0\n")
    save(tmp_path / "train/masks/0.png", np.full((6, 8, 3), (1, 2, 4)))
    source = open_masks(tmp_path).train
    with pytest.raises(ImageError, match="48 pixels have the colour 1 2 4"):
        source.targets.read(0)


def _drop(path: Path) -> None:
    for each in path.iterdir():
        each.unlink()
    path.rmdir()


BAD_DATA: dict[str, tuple[Callable[[Path], object], str]] = {
    "no masks folder": (lambda root: _drop(root / "train/masks"), "has no folder of masks"),
    "no images folder": (lambda root: _drop(root / "train/images"), "has no folder of images"),
    "two mask folders": (lambda root: (root / "train/labels").mkdir(), "labels/, masks/"),
    "two folders of a split": (lambda root: (root / "training").mkdir(), "both train/ and training/"),
    "two masks of an image": (lambda root: save(root / "train/masks/0.bmp", mask(0, 1)), "differ in their suffix"),
    "two masks by ending": (lambda root: save(root / "train/masks/0_mask.png", mask(0, 1)), "name one image"),
    "no pair": (
        lambda root: [path.rename(path.with_name(f"x{path.name}")) for path in [*root.glob("*/masks/*")]],
        "no image has a mask",
    ),
    "one class": (lambda root: [save(p, mask(0)) for p in root.glob("*/masks/*")], "one class"),
    "all masks wrong": (lambda root: [save(p, random_pixels()) for p in root.glob("*/masks/*")], "has colours"),
    "both classes files": (
        lambda root: [(root / name).write_text("a\nb\n") for name in label_maps.FILES],
        "both classes.txt and classes.json",
    ),
    "a name twice": (lambda root: (root / "classes.txt").write_text("a\nb\na\n"), "'a' twice"),
    "a colour twice": (lambda root: (root / "classes.txt").write_text("a 1 1 1\nb 1 1 1\n"), "one colour twice"),
    "a colour missing": (lambda root: (root / "classes.txt").write_text("a 1 1 1\nb\n"), "no colour for 'b'"),
    "a colour too large": (lambda root: (root / "classes.txt").write_text("a 1 1 256\nb 1 1 1\n"), "outside 0 to 255"),
    "no classes": (lambda root: (root / "classes.txt").write_text("\n\n"), "lists no classes"),
    "too many classes": (
        lambda root: (root / "classes.txt").write_text("\n".join(map(str, range(300)))),
        "300 classes",
    ),
    "classes in Latin-1": (lambda root: (root / "classes.txt").write_bytes(b"caf\xe9\nb\n"), "not UTF-8"),
    "too few classes": (lambda root: (root / "classes.txt").write_text("a\nb\n"), "value 2"),
    "broken JSON": (lambda root: (root / "classes.json").write_text("[1,"), "classes.json"),
    "other JSON": (lambda root: (root / "classes.json").write_text('{"a": [1, 2]}'), "holds something else"),
}


@pytest.mark.parametrize("name", BAD_DATA)
def test_data_that_cannot_be_used_are_one_clear_line(tmp_path: Path, name: str) -> None:
    spoil, message = BAD_DATA[name]
    spoil(folder(tmp_path))
    with pytest.raises(DataError) as caught:
        open_masks(tmp_path)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_arguments_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    root = folder(tmp_path / "data")
    with pytest.raises(DataError, match="does not exist"):
        open_masks(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no folder of images"):
        open_masks(tmp_path / "empty")
    with pytest.raises(DataError, match="ignore_index 300"):
        open_masks(root, ignore_index=300)
    (root / "classes.txt").write_text("a\nb\nc\n")
    with pytest.raises(DataError, match="3 classes"):
        open_masks(root, num_classes=4)
    with pytest.raises(DataError, match="a, b, c"):
        open_source(root, ("a", "b", "d"), read=read_masks)


def test_voc_lists_that_contradict_are_refused(tmp_path: Path) -> None:
    root = voc(tmp_path)
    (root / "ImageSets/Segmentation/val.txt").write_text("0\n3\n")
    with pytest.raises(DataError, match="0 is in train too"):
        read_masks(root)


@given(st.text(), st.sampled_from([label_maps.parse_text, label_maps.parse_json]))
def test_no_classes_file_breaks_the_parser(
    content: str, parse: Callable[[str, str], list[label_maps.ClassEntry]]
) -> None:
    try:
        entries = parse(content, "classes")
    except DataError:
        return
    names = [name for name, _ in entries]
    assert names and len(set(names)) == len(names)
    assert all(
        escaped(name) == name and not {"\n", "\t"} & {*name} for name in names
    )  # nothing that acts on a terminal


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 300) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
)


@given(json_values)
def test_no_json_breaks_the_parser(values: Any) -> None:
    try:
        entries = label_maps.parse_json(json.dumps(values), "classes")
    except DataError:
        return
    assert len(entries) == len(values)


@given(st.lists(st.sampled_from("abcdefgh"), min_size=2, unique=True), st.none() | st.integers(0, 9))
def test_every_value_has_a_class_or_is_ignored(names: list[str], ignore: int | None) -> None:
    entries = label_maps.numbered(len(names), ignore, names)
    label_map = label_maps.label_map_of(entries, ignore)
    assert label_map.classes == tuple(names)
    for value in range(len(entries)):
        index = int(label_map.indices[value])
        assert (value == ignore) == (index == mask_predictions.IGNORED)
        assert value == ignore or index == value - (ignore is not None and ignore < value)
    turned = label_map.ordered(names[::-1])
    kept = label_map.indices[(label_map.indices >= 0) & (label_map.indices != mask_predictions.IGNORED)]
    assert [names[::-1][i] for i in turned.indices[: len(entries)] if i != mask_predictions.IGNORED] == [
        names[i] for i in kept
    ]


# a real data set


def test_camvid_opens_and_can_be_learnt_from(real_data: Path) -> None:
    root = real_data / "camvid"
    if not root.is_dir():
        pytest.skip("no CamVid beside this checkout")
    data = open_masks(root, ignore_index=11)
    assert (len(data.train), len(data.val), len(data.classes)) == (367, 101, 11)
    counts = pixel_counts(data.val.select(np.arange(8)))
    assert 0.7 * 8 * 360 * 480 < sum(counts) <= 8 * 360 * 480
    preprocess = Preprocess((96, 128), resize="squash", crop_pct=1.0)
    transform = SegmentTransform(preprocess)
    torch.manual_seed(0)
    network = Segmenter("mobilenetv2_035", 11, channels=32).train()
    optimiser = torch.optim.Adam(network.parameters(), 3e-3)
    loss, history = losses.SegmentationLoss(), []
    for step in range(12):
        rows = np.random.default_rng(step).integers(0, 16, 4)
        pairs = [
            transform.joint(
                data.train.read(int(i)), data.train.targets.read(int(i)), np.random.default_rng((step, int(i)))
            )
            for i in rows
        ]
        batch = torch.from_numpy(preprocess.normalise(np.stack([pixels for pixels, _ in pairs])))
        value = loss(network(batch), torch.from_numpy(np.stack([target for _, target in pairs]))).mean()
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        history.append(value.item())
    assert np.mean(history[-3:]) < 0.9 * np.mean(history[:3])
    scorer = MaskScorer(data.classes, (96, 128))
    pixels, place = preprocess.read(data.val.read(0))
    with torch.no_grad():
        logits = network.eval()(torch.from_numpy(preprocess.normalise(pixels[None])))["logits"].numpy()
    scorer.add(data.val.names[:1], logits, [data.val.targets.read(int(data.val.rows[0]))], [place])
    assert 0.1 < scorer.scores().metrics["pixel_accuracy"] <= 1
