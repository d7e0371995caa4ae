"""Masks as tools and public sets lay them out, their class names, and masks drawn from polygons."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gossamer.data.boxes.rle import rle_box, rle_mask
from gossamer.data.masks import siblings
from gossamer.data.masks.classfiles import CITYSCAPES_NAMES, VOC_NAMES, voc_palette
from gossamer.data.masks.open import open_masks
from gossamer.data.masks.polygons import fill
from gossamer.data.source import Data
from gossamer.errors import DataError
from gossamer.settings import Settings
from gossamer.tasks.registry import task_of
from tests.annotations import write_file
from tests.toollayouts import (
    BOXES,
    COUNT,
    HEIGHT,
    WIDTH,
    box,
    coco_value,
    each,
    image,
    images,
    mask,
    split_name,
    voc_xml,
)

RED, BLACK = (128, 0, 0), (0, 0, 0)


def both(root: Path, image_at: str, mask_at: str, **options: object) -> None:
    for number in range(COUNT):
        image(root / image_at.format(split_name(number), number), number)
        mask(root / mask_at.format(split_name(number), number), number, **options)  # type: ignore[arg-type]


def roboflow(root: Path) -> None:
    both(root, "{}/a{}.jpg", "{}/a{}_mask.png")
    write_file(root / "train/_classes.csv", "Pixel Value, Class\n0, background\n1, car\n")


def camvid(root: Path) -> None:
    both(root, "{}/a{}.png", "{}_labels/a{}_L.png", values=(BLACK, RED))
    write_file(root / "class_dict.csv", "name,r,g,b\nbackground,0,0,0\ncar,128,0,0\n")


def camvid_colours(root: Path) -> None:
    both(root, "images/{}/a{}.png", "labels/{}/a{}_L.png", values=(BLACK, RED))
    write_file(root / "label_colors.txt", "0 0 0\t\tbackground\n128 0 0\t\tcar\n")


def segnet(root: Path) -> None:
    both(root, "{}/a{}.png", "{}annot/a{}.png")


def cvat(root: Path) -> None:
    both(root, "JPEGImages/a{1}.jpg", "SegmentationClass/a{1}.png", values=(BLACK, RED))
    write_file(root / "ImageSets/Segmentation/default.txt", "".join(f"a{i}\n" for i in range(COUNT)))
    lines = "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncar:128,0,0::\n"
    write_file(root / "labelmap.txt", lines)


def labelme(root: Path) -> None:
    both(root, "JPEGImages/a{1}.jpg", "SegmentationClass/a{1}.png")
    write_file(root / "class_names.txt", "__ignore__\n_background_\ncar\n")


def voc(root: Path, name: str = "2007_00000{1}") -> None:
    both(root, f"JPEGImages/{name}.jpg", f"SegmentationClass/{name}.png", values=(0, 7), palette=voc_palette())
    both(root, f"JPEGImages/{name}.jpg", f"SegmentationObject/{name}.png")


def voc_with_boxes(root: Path) -> None:
    voc(root, "a{1}")
    each(root, "Annotations/a{}.xml", voc_xml)


def cityscapes(root: Path) -> None:
    both(
        root,
        "leftImg8bit/{}/ulm/a{}_leftImg8bit.png",
        "gtFine/{}/ulm/a{}_gtFine_labelTrainIds.png",
        values=(255, 13),
    )
    both(root, "leftImg8bit/{}/ulm/a{}_leftImg8bit.png", "gtFine/{}/ulm/a{}_gtFine_labelIds.png", values=(0, 26))


def numbers_in_json(root: Path) -> None:
    both(root, "images/{}/a{}.jpg", "masks/{}/a{}.png")
    write_file(root / "classes.json", json.dumps({"0": "background", "1": "car", "255": "void"}))


CAR = ("background", "car")
MASKS: dict[str, tuple[Callable[[Path], None], tuple[str, ...]]] = {
    "Roboflow": (roboflow, CAR),
    "DeepGlobe": (lambda root: both(root, "{}/a{}_sat.jpg", "{}/a{}_mask.png"), ("0", "1")),
    "beside": (lambda root: both(root, "a{1}.jpg", "a{1}_mask.png"), ("0", "1")),
    "CamVid": (camvid, CAR),
    "CamVid with label_colors.txt": (camvid_colours, CAR),
    "SegNet": (segnet, ("0", "1")),
    "CVAT": (cvat, CAR),
    "labelme": (labelme, ("_background_", "car")),
    "VOC": (voc, VOC_NAMES),
    "VOC with boxes": (voc_with_boxes, VOC_NAMES),
    "VOC's palette alone": (lambda root: voc(root, "a{1}"), tuple(map(str, range(8)))),
    "Cityscapes": (cityscapes, CITYSCAPES_NAMES),
    "FiftyOne": (lambda root: both(root, "data/a{1}.jpg", "labels/a{1}.png"), ("0", "1")),
    "mmsegmentation": (lambda root: both(root, "img_dir/{}/a{}.jpg", "ann_dir/{}/a{}.png"), ("0", "1")),
    "folders of any name": (lambda root: both(root, "rgb/a{1}.png", "seg/a{1}.png"), ("0", "1")),
    "trimaps": (lambda root: both(root, "images/a{1}.jpg", "annotations/trimaps/a{1}.png"), ("0", "1")),
    "in a folder of an archive": (lambda root: both(root, "set/images/a{1}.jpg", "set/masks/a{1}.png"), ("0", "1")),
    "values in classes.json": (numbers_in_json, CAR),
}


def check(data: Data, inside: int, outside: int) -> None:
    assert len(data.train) + len(data.val) == COUNT
    for source in (data.train, data.val):
        for index, name in enumerate(source.names):
            number = int(re.findall(r"\d", name.partition("_left")[0].partition("_sat")[0])[-1])
            x0, y0, x1, y1 = box(number)
            pixels = source.target(index)
            assert pixels.shape == (HEIGHT, WIDTH) and (pixels[y0:y1, x0:x1] == inside).all()
            assert (pixels == inside).sum() == 24 * 20 and (pixels == outside).sum() == HEIGHT * WIDTH - 24 * 20


@pytest.mark.parametrize("name", MASKS)
def test_masks_of_tools_are_read_as_they_are(tmp_path: Path, name: str) -> None:
    make, classes = MASKS[name]
    make(tmp_path)
    data = open_masks(tmp_path)
    assert data.classes == classes
    inside, outside = (13, 255) if name == "Cityscapes" else (7, 0) if "VOC" in name else (1, 0)
    check(data, inside, outside)


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("task", ["classify", "embed"])
def test_masks_without_their_task_are_no_classes(tmp_path: Path, name: str, task: str) -> None:
    MASKS[name][0](tmp_path)
    with pytest.raises(DataError) as caught:
        task_of(task).open_data(Settings(data=str(tmp_path), task=task))  # type: ignore[arg-type]
    assert "--task segment" in str(caught.value) and ("--task detect" in str(caught.value)) == (
        name == "VOC with boxes"
    )


PLACES = ("{0}/{1}/a{2}", "{1}/a{2}")  # under the folders of splits, and without any


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    "names", [("img", "ann"), ("src", "mask"), ("images", "labels_png"), ("input", "gt"), ("images", "masks_instances")]
)
def test_one_folder_of_a_known_name_and_one_of_masks_by_their_pixels(
    tmp_path: Path, names: tuple[str, str], place: str
) -> None:
    for number in range(COUNT):
        split = split_name(number)
        image(tmp_path / f"{place.format(split, names[0], number)}.jpg", number)
        mask(tmp_path / f"{place.format(split, names[1], number)}.png", number)
    with pytest.raises(DataError, match="--task segment"):
        task_of("classify").open_data(Settings(data=str(tmp_path)))
    data = open_masks(tmp_path)
    check(data, 1, 0)
    assert any(f"the masks are in {names[1]}/, by their pixels" in note for note in data.notes)


def test_two_classes_of_photos_with_one_known_name_are_classes(tmp_path: Path) -> None:
    """The same names, and no pixels of masks."""
    for number in range(COUNT):
        for name in ("images", "paintings"):
            image(tmp_path / f"{name}/a{number}.png", number)
    assert task_of("classify").open_data(Settings(data=str(tmp_path))).classes == ("images", "paintings")


POLYGONS = [name for name in BOXES if "polygon" in name or "rotated" in name]


@pytest.mark.parametrize("name", POLYGONS)
def test_polygons_are_masks(tmp_path: Path, name: str) -> None:
    BOXES[name](tmp_path)
    data = open_masks(tmp_path)
    assert data.classes == ("background", "car", "dog") and len(data.train) + len(data.val) == COUNT
    for source in (data.train, data.val):
        for index, path in enumerate(source.names):
            number = int(Path(path).stem[-1])
            x0, y0, x1, y1 = box(number)
            expected = np.zeros((HEIGHT, WIDTH), np.uint8)
            expected[y0:y1, x0:x1] = 1 + number % 2
            np.testing.assert_array_equal(source.target(index), expected)


def test_coco_polygons_run_lengths_and_boxes_alone(tmp_path: Path) -> None:
    images(tmp_path)
    value = coco_value("a{}.jpg".format, polygons=True)
    x0, y0, x1, y1 = box(0)
    full = np.zeros((HEIGHT, WIDTH), np.uint8)
    full[y0:y1, x0:x1] = 1
    flat = full.T.ravel()
    changes = np.flatnonzero(np.diff(flat)) + 1
    value["annotations"][0]["segmentation"] = {
        "size": [HEIGHT, WIDTH],
        "counts": np.diff([0, *changes.tolist(), flat.size]).tolist(),
    }
    value["annotations"][1]["segmentation"] = []
    write_file(tmp_path / "annotations/instances_all.json", json.dumps(value))
    data = open_masks(tmp_path, val=tmp_path)
    at = {Path(name).stem: index for index, name in enumerate(data.train.names)}
    np.testing.assert_array_equal(data.train.target(at["a0"]), full)
    x0, y0, x1, y1 = box(1)
    alone = data.train.target(at["a1"])
    assert (alone[y0:y1, x0:x1] == 255).all() and (alone == 255).sum() == 24 * 20 and (alone == 0).any()
    assert any("1 of 8 objects have a box and no polygon" in note for note in data.notes)
    assert data.classes == ("background", "car", "dog") == data.val.classes


def test_boxes_alone_are_no_masks(tmp_path: Path) -> None:
    BOXES["coco: one file"](tmp_path)
    with pytest.raises(DataError, match=r"COCO boxes without polygons.*--task detect"):
        open_masks(tmp_path)


def test_run_lengths_as_text_are_those_of_pycocotools() -> None:
    # pycocotools.mask.encode of a 5 x 4 mask with ones in rows 1 to 3 of columns 1 and 2
    assert rle_box({"size": [5, 4], "counts": "6320:0"}) is None  # sums to another size
    mask_of = rle_mask({"size": [5, 4], "counts": [6, 3, 2, 3, 6]})
    assert mask_of is not None and mask_of.astype(int).tolist() == [
        [0, 0, 0, 0],
        [0, 1, 1, 0],
        [0, 1, 1, 0],
        [0, 1, 1, 0],
        [0, 0, 0, 0],
    ]
    text = rle_mask({"size": [5, 4], "counts": "63204"})  # 6, 3, 2, then 3 - 3 and 6 - 2
    assert text is not None and (text == mask_of).all()
    assert rle_box({"size": [5, 4], "counts": "63204"}) == [1, 1, 2, 3]


@pytest.mark.parametrize("share", [0.5, 0.02, 0.0005])
def test_long_run_lengths_are_those_of_pycocotools(share: float) -> None:
    """Runs of one to four letters, and differences below 0."""
    coco = pytest.importorskip("pycocotools.mask")
    mask = np.random.default_rng(0).random((301, 257)) < share
    mask[40:220, 30:200] = True
    text = coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
    decoded = rle_mask({"size": [301, 257], "counts": text})
    assert decoded is not None and (decoded == mask).all()


@pytest.mark.parametrize("counts", ["", "~", "oooooooooooooooo", "6", [6, -1, 15], [2.5, 17.5], None, 7, [21]])
def test_broken_run_lengths_are_none(counts: object) -> None:
    assert rle_mask({"size": [5, 4], "counts": counts}) is None
    assert rle_mask({"size": [5], "counts": counts}) is None and rle_mask(counts) is None


def test_a_polygon_covers_the_pixels_whose_centres_are_in_it() -> None:
    square = fill(np.array([[1, 1], [3, 1], [3, 4], [1, 4]], float), (5, 5))
    assert square.sum() == 6 and square[1:4, 1:3].all()
    outside = fill(np.array([[-9, -9], [99, -9], [99, 99], [-9, 99]], float), (5, 7))
    assert outside.all() and not fill(np.array([[1, 1], [1, 1], [1, 1]], float), (5, 5)).any()
    triangle = fill(np.array([[0, 0], [4, 0], [0, 4]], float), (4, 4))
    assert triangle.sum(axis=1).tolist() == [4, 3, 2, 1] or triangle.sum(axis=1).tolist() == [3, 2, 1, 0]


BAD = {
    "_classes.csv": ("Pixel Value, Class\n0, a\n2, b\n", "no class of the value 1"),
    "class_dict.csv": ("name,r,g\na,1,2\n", "its header is"),
    "label_colors.txt": ("1 2 a\n", "1 2 a"),
    "labelmap.txt": ("a\n", "'a'"),
    "class_names.txt": ("a\na\n", "twice"),
    "classes.csv": ("name,r,g,b\na,1,2,900\n", "0 to 255"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_broken_classes_file_is_one_line(tmp_path: Path, name: str) -> None:
    segnet(tmp_path)
    write_file(tmp_path / name, BAD[name][0])
    with pytest.raises(DataError) as caught:
        open_masks(tmp_path)
    assert BAD[name][1] in str(caught.value) and name in str(caught.value)


def test_images_without_a_mask_beside_them_are_reported(tmp_path: Path) -> None:
    roboflow(tmp_path)
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "train/lonely.jpg")
    notes = open_masks(tmp_path).notes
    assert any("1 image has no mask and is left out: lonely.jpg" in note for note in notes)


def test_two_classes_with_the_same_file_names_are_classes(tmp_path: Path) -> None:
    for name in ("left", "right"):
        for number in range(COUNT):
            image(tmp_path / name / f"a{number}.png", number)
    assert task_of("classify").open_data(Settings(data=str(tmp_path))).classes == ("left", "right")


@pytest.mark.parametrize("masked", [3, 2, 0])
def test_images_of_cityscapes_without_a_mask_are_noted_where_others_have_one(tmp_path: Path, masked: int) -> None:
    for number in range(3):
        write_file(tmp_path / f"leftImg8bit/train/ulm/a{number}_leftImg8bit.png", "")
        if number < masked:
            write_file(tmp_path / f"gtFine/train/ulm/a{number}_gtFine_labelIds.png", "")
    write_file(tmp_path / "gtFine/train/ulm/a0_gtFine_labelTrainIds.png" if masked else tmp_path / "gtFine/x.txt", "")
    notes: list[str] = []
    pairs = [(Path(image).name, Path(mask).name, split) for image, mask, split in siblings.cityscapes(tmp_path, notes)]
    assert [image for image, _, _ in pairs] == [f"a{number}_leftImg8bit.png" for number in range(masked)]
    kinds = ["labelTrainIds", "labelIds", "labelIds"][:masked]  # those of train ids before those of ids
    assert [mask for _, mask, _ in pairs] == [f"a{number}_gtFine_{kind}.png" for number, kind in enumerate(kinds)]
    assert {split for _, _, split in pairs} == ({"train"} if masked else set())
    images_at = tmp_path / "leftImg8bit"
    lonely = f"{images_at}: 1 image has no mask and is left out: train/ulm/a2_leftImg8bit.png"
    assert notes == [lonely] * (masked == 2)
    assert siblings.cityscapes(images_at, notes) == []


@pytest.mark.parametrize(
    ("values", "side", "are_masks"), [(64, 20, True), (65, 20, False), (9, 6, True), (10, 6, False)]
)
def test_files_of_few_values_are_masks(tmp_path: Path, values: int, side: int, are_masks: bool) -> None:
    """At most 64, and a quarter of the pixels."""
    rng = np.random.default_rng(0)
    for name in "ab":
        pixels = np.arange(side * side) % values
        for folder, stored in (("x", rng.integers(0, 256, (side, side, 3))), ("y", pixels.reshape(side, side))):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.fromarray(stored.astype(np.uint8)).save(tmp_path / folder / f"{name}.png")
    assert siblings.by_pixels(tmp_path) == ((tmp_path / "x", tmp_path / "y") if are_masks else None)
