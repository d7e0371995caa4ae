"""The splits that data.yaml names: lists, folders of any name, and what is not where it says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from gossamer.data.boxes.convert import convert
from gossamer.data.boxes.open import open_boxes, read_boxes, recognise
from gossamer.data.source import Data
from gossamer.errors import DataError
from tests.annotations import write_file, write_image

LINE = "0 .5 .5 .5 .5\n1 .25 .25 .2 .2\n"
TRAIN, VAL = [f"a{i}" for i in range(6)], ["a6", "a7"]


def flat(root: Path, yaml: str) -> Path:
    """Eight images in images/, which no folder splits."""
    for name in (*TRAIN, *VAL):
        write_image(root / "images" / f"{name}.png")
        write_file(root / "labels" / f"{name}.txt", LINE)
    write_file(root / "data.yaml", f"names: [car, dog]\n{yaml}")
    return root


def cameras(root: Path, yaml: str, images: str = "images/{}") -> Path:
    """Images of two cameras; labels where Ultralytics looks for them."""
    for camera, names in (("camA", TRAIN), ("camB", VAL)):
        folder = root / images.format(camera)
        for name in names:
            write_image(folder / f"{name}.png")
            write_file(Path(str(folder).replace("images", "labels")) / f"{name}.txt", LINE)
    write_file(root / "data.yaml", f"names: [car, dog]\n{yaml}")
    return root


def stems(data: Data) -> dict[str, list[str]]:
    return {split: sorted(Path(name).stem for name in source.names) for split, source in data.splits().items()}


def lists(root: Path, line: str = "./images/{}.png") -> None:
    for split, names in (("train", TRAIN), ("val", VAL)):
        write_file(
            root / f"{split}.txt", "# written by a tool\n\n" + "".join(line.format(name) + "\n" for name in names)
        )


@pytest.mark.parametrize(
    "line", ["./images/{}.png", "images/{}.png", "/content/set/images/{}.png", "data\\set\\images\\{}.png", "{root}"]
)
def test_lists_of_images(tmp_path: Path, line: str) -> None:
    root = flat(tmp_path, "path: .\ntrain: train.txt\nval: val.txt\n")
    lists(root, line.replace("{root}", f"{root}/images/{{}}.png"))
    data = open_boxes(root)
    assert stems(data) == {"train": TRAIN, "val": VAL} and not data.notes
    assert data.train.target(0).corners.tolist() == [
        [12, 8, 36, 24],
        [pytest.approx(7.2), pytest.approx(4.8), *[pytest.approx(v) for v in (16.8, 11.2)]],
    ]


@pytest.mark.parametrize(
    "yaml",
    [
        "train: images/camA\nval: images/camB\n",
        "path: .\ntrain: ./images/camA/\nval: [images/camB]\n",
        "path: ../{name}\ntrain: images/camA\nvalid: images/camB\n",
        "path: {root}\ntrain: images/camA\nval: images/camB\ntest: \n",
        "path: /content/gone\ntrain: images/camA\nval: images/camB\nnc: 2\n",
        "train: ../images/camA\nval: ../images/camB\n",
        "train: /content/set/images/camA\nval: /content/set/images/camB\n",
        "path: images\ntrain: camA\nval: camB\n",
        "train: images/*A\nval: images/*B\n",
        "train: images/camA/**/*.png\nval: images/camB/**\n",
    ],
)
def test_folders_of_any_name(tmp_path: Path, yaml: str) -> None:
    root = cameras(tmp_path / "set", yaml.replace("{name}", "set").replace("{root}", str(tmp_path / "set")))
    data = open_boxes(root)
    assert stems(data) == {"train": TRAIN, "val": VAL} and not data.notes
    assert all(len(source.target(i)) == 2 for source in data.splits().values() for i in range(len(source)))


@pytest.mark.parametrize("path", ["/datasets/set", "../datasets/set", "C:\\\\data\\\\set", "~/all/set", "./set", "set"])
def test_a_path_whose_end_is_beside_data_yaml(tmp_path: Path, path: str) -> None:
    """Ultralytics starts from its folder of data sets."""
    yaml = f'path: "{path}"\ntrain: images/camA\nval: images/camB\n'
    cameras(tmp_path / "set", yaml)
    (tmp_path / "set/data.yaml").rename(tmp_path / "data.yaml")
    data = open_boxes(tmp_path)
    assert stems(data) == {"train": TRAIN, "val": VAL} and not data.notes


@pytest.mark.parametrize("images", ["{}/images", "pictures/{}", "shots/images/{}"])
def test_folders_that_only_data_yaml_knows(tmp_path: Path, images: str) -> None:
    yaml = f"train: {images.format('camA')}\nval: {images.format('camB')}\n"
    root = cameras(tmp_path, yaml, images)
    assert recognise(root) == "yolo"
    data = open_boxes(root)
    assert stems(data) == {"train": TRAIN, "val": VAL} and len(data.train.target(0)) == 2


def test_a_yaml_outside_the_folder_that_it_describes(tmp_path: Path) -> None:
    cameras(tmp_path / "pictures", "")
    write_file(
        tmp_path / "yaml" / "data.yaml", "path: ../pictures\ntrain: images/camA\nval: images/camB\nnames: [car, dog]\n"
    )
    data = open_boxes(tmp_path / "yaml")
    assert stems(data) == {"train": TRAIN, "val": VAL}
    assert data.val.read(0) == (tmp_path / "pictures/images/camB/a6.png").read_bytes()
    done = convert(tmp_path / "yaml", tmp_path / "out", "yolo")
    again = open_boxes(done.folder)
    assert stems(again) == stems(data)


def test_a_list_of_folders_and_lists(tmp_path: Path) -> None:
    root = cameras(tmp_path, "train: [images/camA, more.txt]\nval: images/camB\n")
    write_image(root / "images/camC/c.png")
    write_file(root / "labels/camC/c.txt", LINE)
    write_file(root / "more.txt", "images/camC/c.png\nimages/camC/gone.png\n")
    data = open_boxes(root)
    assert stems(data) == {"train": [*TRAIN, "c"], "val": VAL}
    assert ["1 of 2 images are not there" in note and "gone.png" in note for note in data.notes] == [True]


def test_an_image_that_validates_is_never_trained_on(tmp_path: Path) -> None:
    root = cameras(tmp_path, "train: images\nval: images/camB\ntest: images/camB\n")
    data = open_boxes(root)
    assert stems(data) == {"train": TRAIN, "val": VAL}
    assert any("2 images of val are in" in note and "a6.png, a7.png" in note for note in data.notes)


def test_the_same_images_to_train_and_to_validate_are_split(tmp_path: Path) -> None:
    plain = flat(tmp_path / "plain", "")
    same = flat(tmp_path / "same", "train: images\nval: images\n")
    one, two = open_boxes(plain), open_boxes(same)
    assert stems(one) == stems(two) and one.fingerprint == two.fingerprint
    assert any("train and val name the same images" in note for note in two.notes)


def test_what_no_split_names_is_left_out_and_noted(tmp_path: Path) -> None:
    root = flat(tmp_path, "train: train.txt\nval: val.txt\n")
    lists(root)
    write_image(root / "images/extra.png")
    data = open_boxes(root)
    assert stems(data) == {"train": TRAIN, "val": VAL}
    assert any("1 image is in none of its splits and left out: images/extra.png" in note for note in data.notes)


def test_missing_paths_are_reported(tmp_path: Path) -> None:
    tested = open_boxes(flat(tmp_path / "a", "train: images\ntest: test.txt\n"))
    assert any("test names test.txt, which is not there" in note for note in tested.notes)
    root = flat(tmp_path / "b", "train: train.txt\nval: val.txt\n")
    lists(root)
    (root / "train.txt").unlink()
    with pytest.raises(DataError, match=r"train names train.txt, which is not there"):
        open_boxes(root)


def test_folders_called_as_a_split_serve_where_the_path_leads_nowhere(tmp_path: Path) -> None:
    def folder(name: str, yaml: str) -> Path:
        for split, names in (("train", TRAIN), ("val", VAL)):
            for stem in names:
                write_image(tmp_path / name / "images" / split / f"{stem}.png")
                write_file(tmp_path / name / "labels" / split / f"{stem}.txt", LINE)
        write_file(tmp_path / name / "data.yaml", f"names: [car, dog]\n{yaml}")
        return tmp_path / name

    plain = open_boxes(folder("plain", ""))
    for name, yaml in (("a", "train: images/train\nval: images/val\n"), ("b", "train: ../train/images\nval: gone\n")):
        data = open_boxes(folder(name, yaml))
        assert data.notes == [] and data.fingerprint == plain.fingerprint
        assert [source.names for source in data.splits().values()] == [s.names for s in plain.splits().values()]
    swapped = open_boxes(folder("c", "train: images/val\nval: images/train\n"))
    assert stems(swapped) == {"train": VAL, "val": TRAIN}


def test_darknet_files_of_cvat(tmp_path: Path) -> None:
    for name in (*TRAIN, *VAL):
        folder = tmp_path / f"obj_{'train' if name in TRAIN else 'valid'}_data"
        write_image(folder / f"{name}.png")
        write_file(folder / f"{name}.txt", LINE)
    write_file(tmp_path / "obj.names", "car\ndog\n")
    write_file(tmp_path / "obj.data", "classes = 2\ntrain = data/train.txt\nvalid = data/valid.txt\nbackup = backup/\n")
    write_file(tmp_path / "train.txt", "".join(f"data/obj_train_data/{name}.png\n" for name in TRAIN))
    write_file(tmp_path / "valid.txt", "".join(f"data/obj_valid_data/{name}.png\n" for name in VAL))
    data = open_boxes(tmp_path)
    assert data.classes == ("car", "dog") and stems(data) == {"train": TRAIN, "val": VAL} and not data.notes
    assert len(data.train.target(0)) == 2


def test_names_and_their_number(tmp_path: Path) -> None:
    root = flat(tmp_path, "nc: 3\n")
    assert any("says 3 classes but names 2" in note for note in read_boxes(root).notes)
    write_file(root / "data.yaml", "nc: 2\ntrain: images\n")
    with pytest.raises(DataError, match="has no names"):
        read_boxes(root)
    write_file(root / "classes.txt", "car\ndog\n")
    table = read_boxes(root)
    assert table.classes == ("car", "dog") and not any("says" in note for note in table.notes)
    np.testing.assert_allclose(table.targets.read(0).corners[0], [12, 8, 36, 24])


@pytest.mark.parametrize("entry", ["{a: b}", "[[images]]", "'a\\0b'", '"a\\0b"'])
def test_an_entry_that_is_no_path(tmp_path: Path, entry: str) -> None:
    root = flat(tmp_path, f"train: {entry}\n")
    with pytest.raises(DataError, match="which is not there" if entry == "'a\\0b'" else "train is"):
        open_boxes(root)


@pytest.mark.parametrize(
    "yaml",
    [
        "train: C:\\sets\\Images\\CamA\nval: c:/sets/IMAGES/CAMB\n",
        "path: D:\\sets\ntrain: Images\\camA\nval: images/CAMB/\n",
        "train: \\\\nas\\share\\images\\camA\nval: \\\\nas\\share\\images\\camB\n",
        'train: "images/camA "\nval: ["images/camB "]\n',
        "Train: images/camA\nVal: images/camB\n",
    ],
)
def test_paths_that_windows_wrote_lead_to_their_folders(tmp_path: Path, yaml: str) -> None:
    data = open_boxes(cameras(tmp_path, yaml))
    assert stems(data) == {"train": TRAIN, "val": VAL} and not data.notes


@pytest.mark.parametrize(
    ("yaml", "words"),
    [
        (b"train: images/camA\ntrain: images/camB\nval: images/camB\nnames: [car, dog]\n", "train is given twice"),
        (b"names: [car, dog]\ntrain: images/camA\nval: images/camB\nnames: [a, b]\n", "names is given twice"),
        (b"'train': images/camA\n'train': images/camB\nnames: [car, dog]\n", "train is given twice"),
        (b"{train: images/camA, names: [car, dog], train: images/camB}\n", "train is given twice"),
        (b"train: images/camA\nval: images/camB\nnames:\n  0: car\n  0: van\n  1: dog\n", "names: 0 is given twice"),
        (b"train: images/camA\nval: images/camB\nnames: {0: car, 1: dog, 1: cow}\n", "names: 1 is given twice"),
        ("names: [caf\xe9, dog]\ntrain: images/camA\n".encode("latin-1"), "byte 11 is not UTF-8"),
    ],
)
def test_a_configuration_that_says_two_things_is_refused(tmp_path: Path, yaml: bytes, words: str) -> None:
    cameras(tmp_path, "")
    write_file(tmp_path / "data.yaml", yaml)
    with pytest.raises(DataError, match=words):
        open_boxes(tmp_path)


def test_entries_that_are_not_there_read_a_folder_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list of thousands of images in a data.yaml, beside thousands of files, would take hours otherwise."""
    gone = ", ".join(f"images/camA/gone{number}.png" for number in range(50))
    root = cameras(tmp_path, f"train: [images/camA, {gone}]\nval: images/camB\n")
    listed: list[Path] = []
    iterdir = Path.iterdir

    def counting(folder: Path) -> Iterator[Path]:
        listed.append(folder)
        return iterdir(folder)

    monkeypatch.setattr(Path, "iterdir", counting)
    data = open_boxes(root)
    assert stems(data) == {"train": TRAIN, "val": VAL} and len(listed) < 40


def spelt(root: Path, images: str, labels: str, yaml: str) -> Path:
    for split, names in (("Train", TRAIN), ("Valid", VAL)):
        for name in names:
            write_image(root / images.format(split) / f"{name}.png")
            write_file(root / labels.format(split) / f"{name}.txt", LINE)
    write_file(root / "data.yaml", f"names: [car, dog]\n{yaml}")
    return root


@pytest.mark.parametrize(
    ("images", "labels", "train", "val"),
    [
        ("Images/{}", "Labels/{}", "images/train", "images/valid"),
        ("{}/Images", "{}/Labels", "train/images", "valid/images"),
        ("{}/IMAGES", "{}/labels", "../train/images", "../valid/images"),
        ("shots/{}/Images", "shots/{}/Labels", "shots/train/images", "shots/valid/images"),
        ("{}", "{}", "train", "valid"),
        ("{}Pictures", "{}Pictures", "./trainpictures", "validpictures/"),
    ],
)
def test_folders_in_another_case_than_data_yaml_has_them(
    tmp_path: Path, images: str, labels: str, train: str, val: str
) -> None:
    data = open_boxes(spelt(tmp_path, images, labels, f"train: {train}\nval: {val}\n"))
    assert stems(data) == {"train": TRAIN, "val": VAL} and not data.notes
    assert all(len(source.target(i)) == 2 for source in data.splits().values() for i in range(len(source)))


@pytest.mark.parametrize("entry", ["images", "./images", "../images", "IMAGES/"])
def test_the_only_folder_of_images_in_another_case(tmp_path: Path, entry: str) -> None:
    for name in (*TRAIN, *VAL):
        write_image(tmp_path / "Images" / f"{name}.png")
        write_file(tmp_path / "Labels" / f"{name}.txt", LINE)
    write_file(tmp_path / "data.yaml", f"names: [car, dog]\ntrain: {entry}\n")
    data = open_boxes(tmp_path)
    assert sorted(name for names in stems(data).values() for name in names) == [*TRAIN, *VAL] and data.notes == []


@pytest.mark.parametrize(
    ("yaml", "said", "do"),
    [
        (
            "train: train.txt\nval: /x/val.txt\n",
            "train names train.txt, which is not there; val names /x/val.txt",
            "paths",
        ),
        (
            "train: [a, b]\nval: c\n",
            "train names a, b, none of which is there; val names c, which is not there",
            "remove",
        ),
        ("train: https://host/images.zip\n", "train names https://host/images.zip, which is not", "remove train to"),
        (
            "train: none\nval: none\n",
            "train names none, which leads to no image; val names none",
            "remove train and val",
        ),
        ("train: [none, gone]\n", "train names gone, which is not there and none, which leads to no image", "the path"),
        ("train: gone.txt\nval: gone.txt\n", "train names gone.txt, which leads to no image", "fix the paths"),
        ("train: images\nval: images/vall\n", "val names images/vall, which is not there", "remove val to have some"),
        ("train: images\nval: none\n", "val names none, which leads to no image", "held out"),
        ("train: gone\nval: images\n", "train names gone, which is not there", "fix the path"),
    ],
)
def test_training_and_validation_images_are_not_guessed(tmp_path: Path, yaml: str, said: str, do: str) -> None:
    """A random split would train on the images that the file keeps apart."""
    root = flat(tmp_path, yaml)
    (root / "none").mkdir()
    write_file(root / "gone.txt", "images/x1.png\nimages/x2.png\n")
    with pytest.raises(DataError) as raised:
        open_boxes(root)
    assert said in raised.value.given and do in raised.value.do, raised.value


@pytest.mark.parametrize("val", ["../valid/images", "images/val", "val.txt", "none/val2017", "valid\\images"])
def test_validation_images_that_an_export_left_out(tmp_path: Path, val: str) -> None:
    """Tools write the place of each split, whether it has images or not."""
    root = flat(tmp_path, f"train: images\nval: {val}\n")
    (root / "none/val2017").mkdir(parents=True)
    data = open_boxes(root)
    assert len(data.train) + len(data.val) == 8 and "held out" in data.how
    assert len(data.notes) == 1 and f"val names {val}, which" in data.notes[0]
