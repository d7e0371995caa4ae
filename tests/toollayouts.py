"""Data sets of 8 images with a car or a dog on each, as labelling tools and public sets lay them out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.annotations import write_file

WIDTH, HEIGHT = 64, 48
COUNT = 8
NAMES = ("car", "dog")
Builder = Callable[[Path], object]


def image(path: Path, number: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 90, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    x0, y0, x1, y1 = box(number)
    pixels[y0:y1, x0:x1] = (255, 0, 0)
    Image.fromarray(pixels).save(path)
    return path


def box(number: int) -> tuple[int, int, int, int]:
    x0, y0 = 4 + number * 7 % 20, 4 + number * 5 % 12
    return x0, y0, x0 + 24, y0 + 20


def name_of(number: int) -> str:
    return NAMES[number % 2]


def mask(path: Path, number: int, values: Any = (0, 1), palette: list[int] | None = None) -> Path:
    """A mask with values[0] around and values[1] inside the box; colours where the values are of three numbers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    x0, y0, x1, y1 = box(number)
    pixels = np.empty((HEIGHT, WIDTH, *np.shape(values[0])), np.uint8)
    pixels[:] = values[0]
    pixels[y0:y1, x0:x1] = values[1]
    image = Image.fromarray(pixels, "P" if palette else None)
    if palette:
        image.putpalette(palette)
    image.save(path)
    return path


def voc_xml(number: int, **fields: str) -> str:
    x0, y0, x1, y1 = box(number)
    more = "".join(f"<{key}>{value}</{key}>" for key, value in fields.items())
    return (
        f"<annotation>{more}<filename>a{number}.jpg</filename><size><width>{WIDTH}</width><height>{HEIGHT}</height>"
        f"<depth>3</depth></size><object><name>{name_of(number)}</name><bndbox><xmin>{x0 + 1}</xmin>"
        f"<ymin>{y0 + 1}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox></object></annotation>"
    )


def yolo_line(number: int, more: str = "") -> str:
    x0, y0, x1, y1 = box(number)
    centre = f"{(x0 + x1) / 2 / WIDTH:.7f} {(y0 + y1) / 2 / HEIGHT:.7f}"
    return f"{number % 2} {centre} {(x1 - x0) / WIDTH:.7f} {(y1 - y0) / HEIGHT:.7f}{more}\n"


def yolo_polygon(number: int) -> str:
    x0, y0, x1, y1 = box(number)
    corners = ((x0, y0), (x1, y0), (x1, y1), (x0, y1))
    return f"{number % 2} " + " ".join(f"{x / WIDTH:.7f} {y / HEIGHT:.7f}" for x, y in corners) + "\n"


def coco_value(names: Callable[[int], str], numbers: range = range(COUNT), polygons: bool = False) -> dict[str, Any]:
    annotations = []
    for number in numbers:
        x0, y0, x1, y1 = box(number)
        segmentation = [[x0, y0, x1, y0, x1, y1, x0, y1]] if polygons else []
        annotations.append(
            {
                "id": number,
                "image_id": number,
                "category_id": number % 2,
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "segmentation": segmentation,
                "area": (x1 - x0) * (y1 - y0),
                "iscrowd": 0,
            }
        )
    images = [{"id": n, "file_name": names(n), "width": WIDTH, "height": HEIGHT} for n in numbers]
    categories = [{"id": i, "name": name} for i, name in enumerate(NAMES)]
    return {"images": images, "annotations": annotations, "categories": categories}


def coco_json(names: Callable[[int], str], numbers: range = range(COUNT), polygons: bool = False) -> str:
    return json.dumps(coco_value(names, numbers, polygons))


def images(root: Path, pattern: str = "images/a{}.jpg") -> list[Path]:
    return [image(root / pattern.format(number), number) for number in range(COUNT)]


def each(root: Path, pattern: str, content: Callable[[int], str]) -> None:
    for number in range(COUNT):
        write_file(root / pattern.format(number), content(number))


def labelme(number: int, kind: str = "rectangle", image_path: str = "a{}.jpg", **more: Any) -> str:
    x0, y0, x1, y1 = box(number)
    points = [[x0, y0], [x1, y1]]
    if kind != "rectangle" or more.pop("four", False):
        points = [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]
    shape = {"label": name_of(number), "points": points, "group_id": None, "shape_type": kind, "flags": {}}
    value = {
        "version": "5.4.1",
        "flags": {},
        "shapes": [{**shape, **more}],
        "imagePath": image_path.format(number),
        "imageData": None,
        "imageHeight": HEIGHT,
        "imageWidth": WIDTH,
    }
    return json.dumps(value, indent=2)


def label_studio_value(number: int, kind: str = "rectangle") -> dict[str, Any]:
    x0, y0, x1, y1 = box(number)
    percent = [(x / WIDTH * 100, y / HEIGHT * 100) for x, y in ((x0, y0), (x1, y0), (x1, y1), (x0, y1))]
    value: dict[str, Any] = {f"{kind}labels": [name_of(number)]}
    if kind == "rectangle":
        value |= {"x": percent[0][0], "y": percent[0][1], "rotation": 0}
        value |= {"width": percent[2][0] - percent[0][0], "height": percent[2][1] - percent[0][1]}
    else:
        value |= {"points": [list(corner) for corner in percent], "closed": True}
    return value


def label_studio(root: Path, address: str = "/data/upload/3/1a2b3c4d-a{}.jpg", kind: str = "rectangle") -> None:
    tasks = []
    for number in range(COUNT):
        region = {
            "id": f"r{number}",
            "type": f"{kind}labels",
            "from_name": "label",
            "to_name": "image",
            "original_width": WIDTH,
            "original_height": HEIGHT,
            "value": label_studio_value(number, kind),
        }
        draft = {"id": 1, "was_cancelled": True, "result": []}
        done = {"id": 2, "was_cancelled": False, "ground_truth": False, "result": [region]}
        data = {"image": address.format(number)}
        tasks.append({"id": number, "annotations": [draft, done], "predictions": [], "data": data})
    write_file(root / "project-3.json", json.dumps(tasks))


def label_studio_min(root: Path) -> None:
    tasks = []
    for number in range(COUNT):
        region = {**label_studio_value(number), "original_width": WIDTH, "original_height": HEIGHT}
        tasks.append({"image": f"/data/local-files/?d=set/images/a{number}.jpg", "id": number, "label": [region]})
    write_file(root / "project-3.json", json.dumps(tasks))


def cvat(root: Path, kind: str = "box", subset: str = "default") -> None:
    elements = []
    for number in range(COUNT):
        x0, y0, x1, y1 = box(number)
        shape = f'<box label="{name_of(number)}" xtl="{x0}" ytl="{y0}" xbr="{x1}" ybr="{y1}" occluded="0"/>'
        if kind == "polygon":
            shape = f'<polygon label="{name_of(number)}" points="{x0},{y0};{x1},{y0};{x1},{y1};{x0},{y1}"/>'
        elements.append(
            f'<image id="{number}" name="a{number}.jpg" subset="{subset}" width="{WIDTH}" height="{HEIGHT}">{shape}</image>'
        )
    labels = "".join(f"<label><name>{name}</name><color>#fa3253</color></label>" for name in NAMES)
    head = f"<version>1.1</version><meta><job><labels>{labels}</labels></job></meta>"
    write_file(root / "annotations.xml", f'<?xml version="1.0"?>\n<annotations>{head}{"".join(elements)}</annotations>')


def fiftyone(root: Path) -> None:
    labels = {}
    for number in range(COUNT):
        x0, y0, x1, y1 = box(number)
        relative = [x0 / WIDTH, y0 / HEIGHT, (x1 - x0) / WIDTH, (y1 - y0) / HEIGHT]
        labels[f"a{number}"] = [{"label": number % 2, "bounding_box": relative}]
    write_file(root / "labels.json", json.dumps({"classes": list(NAMES), "labels": labels}))


def split_name(number: int) -> str:
    return "valid" if number > 5 else "train"


def by_split(root: Path, pattern: str, content: Callable[[int], str], images_at: str) -> None:
    for number in range(COUNT):
        image(root / images_at.format(split_name(number), number), number)
        write_file(root / pattern.format(split_name(number), number), content(number))


def coco_by_split(root: Path, images_at: str, file: str, names: Callable[[int], str]) -> None:
    for split, numbers in (("train", range(6)), ("valid", range(6, 8))):
        for number in numbers:
            image(root / images_at.format(split, number), number)
        write_file(root / file.format(split), coco_json(names, numbers))


def data_yaml(train: str, val: str, more: str = "") -> str:
    return f"train: {train}\nval: {val}\nnc: 2\nnames: [car, dog]\n{more}"


def _yolo(root: Path, line: Callable[[int], str] = yolo_line, more: str = "") -> None:
    by_split(root, "{}/labels/a{}.txt", line, "{}/images/a{}.jpg")
    write_file(root / "data.yaml", data_yaml("../train/images", "../valid/images", more))


def _steps(*steps: Builder) -> Builder:
    def build(root: Path) -> None:
        for step in steps:
            step(root)

    return build


def _images(pattern: str) -> Builder:
    return lambda root: images(root, pattern)


def _texts(pattern: str, content: Callable[[int], str]) -> Builder:
    return lambda root: each(root, pattern, content)


def _file(name: str, content: str) -> Builder:
    return lambda root: write_file(root / name, content)


_CLASSES = _file("classes.txt", "car\ndog\n")
_AT = "images/a{}.jpg"

BOXES: dict[str, Builder] = {
    "voc: Label Studio": _steps(_images(_AT), _texts("Annotations/a{}.xml", voc_xml)),
    "voc: lower case": _steps(_images(_AT), _texts("annotations/a{}.xml", voc_xml)),
    "voc: FiftyOne": _steps(_images("data/a{}.jpg"), _texts("labels/a{}.xml", voc_xml)),
    "voc: images and labels": _steps(_images(_AT), _texts("labels/a{}.xml", voc_xml)),
    "voc: Oxford pets": _steps(_images(_AT), _texts("annotations/xmls/a{}.xml", voc_xml)),
    "voc: beside": _steps(_images("a{}.jpg"), _texts("a{}.xml", voc_xml)),
    "voc: Roboflow": lambda root: by_split(root, "{}/a{}.xml", voc_xml, "{}/a{}.jpg"),
    "voc: splits with both": lambda root: by_split(root, "{}/annotations/a{}.xml", voc_xml, "{}/images/a{}.jpg"),
    "voc: splits inside": lambda root: by_split(root, "annotations/{}/a{}.xml", voc_xml, "images/{}/a{}.jpg"),
    "voc: CVAT": _steps(
        _images("JPEGImages/a{}.jpg"),
        _texts("Annotations/a{}.xml", voc_xml),
        _file("ImageSets/Main/default.txt", "".join(f"a{i}\n" for i in range(COUNT))),
        _file("labelmap.txt", "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncar:1,2,3::\ndog:4,5,6::\n"),
    ),
    "voc: VOCdevkit": _steps(
        _images("VOCdevkit/VOC2012/JPEGImages/a{}.jpg"), _texts("VOCdevkit/VOC2012/Annotations/a{}.xml", voc_xml)
    ),
    "coco: FiftyOne": _steps(_images("data/a{}.jpg"), _file("labels.json", coco_json("a{}.jpg".format))),
    "coco: CVAT": _steps(
        _images("images/default/a{}.jpg"), _file("annotations/instances_default.json", coco_json("a{}.jpg".format))
    ),
    "coco: Label Studio": _steps(_images(_AT), _file("result.json", coco_json(r"images\a{}.jpg".format))),
    "coco: Label Studio with paths of the server": _steps(
        _images("images/1a2b3c4d-a{}.jpg"),
        _file("result.json", coco_json("../../media/upload/3/1a2b3c4d-a{}.jpg".format)),
    ),
    "coco: one file": _steps(_images(_AT), _file("annotations.json", coco_json("a{}.jpg".format))),
    "coco: one file beside": _steps(
        _images("a{}.jpg"), _file("annotations.json", coco_json("/mnt/set/a{}.jpg".format))
    ),
    "coco: Roboflow": lambda root: coco_by_split(
        root, "{}/a{}.jpg", "{}/_annotations.coco.json", lambda n: f"a{n}.jpg"
    ),
    "coco: as published": lambda root: coco_by_split(
        root, "{}2017/a{}.jpg", "annotations/instances_{}2017.json", lambda n: f"a{n}.jpg"
    ),
    "coco: files by split": lambda root: coco_by_split(root, "images/a{1}.jpg", "{}.json", lambda n: f"a{n}.jpg"),
    "yolo: Label Studio": _steps(
        _images(_AT),
        _texts("labels/a{}.txt", yolo_line),
        _CLASSES,
        _file("notes.json", json.dumps({"categories": [{"id": 0, "name": "car"}, {"id": 1, "name": "dog"}]})),
    ),
    "yolo: Label Studio without classes.txt": _steps(
        _images(_AT),
        _texts("labels/a{}.txt", yolo_line),
        _file("notes.json", json.dumps({"categories": [{"id": 0, "name": "car"}, {"id": 1, "name": "dog"}]})),
    ),
    "yolo: Roboflow": _yolo,
    "yolo: Roboflow Darknet": _steps(
        lambda root: by_split(root, "{}/a{}.txt", yolo_line, "{}/a{}.jpg"),
        _file("train/_darknet.labels", "car\ndog\n"),
        _file("valid/_darknet.labels", "car\ndog\n"),
    ),
    "yolo: polygons": lambda root: _yolo(root, yolo_polygon),
    "yolo: key points": lambda root: _yolo(
        root, lambda n: yolo_line(n, " 0.5 0.5 2 0.4 0.4 0"), "kpt_shape: [2, 3]\nflip_idx: [1, 0]\n"
    ),
    "yolo: key points of two numbers": lambda root: _yolo(
        root, lambda n: yolo_line(n, " 0.5 0.5 0.4 0.4"), "kpt_shape: [2, 2]\n"
    ),
    "yolo: key points unsaid": lambda root: _yolo(root, lambda n: yolo_line(n, " 0.5 0.5 2")),
    "yolo: beside": _steps(_images("a{}.jpg"), _texts("a{}.txt", yolo_line), _CLASSES),
    "yolo: CVAT 1.1": _steps(
        _images("obj_train_data/a{}.jpg"),
        _texts("obj_train_data/a{}.txt", yolo_line),
        _file("obj.names", "car\ndog\n"),
        _file("obj.data", "classes = 2\ntrain = data/train.txt\nnames = data/obj.names\nbackup = backup/\n"),
        _file("train.txt", "".join(f"data/obj_train_data/a{i}.jpg\n" for i in range(COUNT))),
    ),
    "yolo: FiftyOne": _steps(
        _images("data/a{}.jpg"),
        _texts("data/a{}.txt", yolo_line),
        _file("obj.names", "car\ndog\n"),
        _file("images.txt", "".join(f"data/a{i}.jpg\n" for i in range(COUNT))),
    ),
    "yolo: a file of any name": _steps(
        lambda root: by_split(root, "labels/{}/a{}.txt", yolo_line, "images/{}/a{}.jpg"),
        _file("cars.yaml", "path: .\n" + data_yaml("images/train", "images/valid")),
    ),
    "labelme: beside": _steps(_images("a{}.jpg"), _texts("a{}.json", labelme)),
    "labelme: polygons in a folder": _steps(
        _images(_AT), _texts("labels/a{}.json", lambda n: labelme(n, "polygon", r"..\images\a{}.jpg"))
    ),
    "labelme: X-AnyLabeling": _steps(
        _images("a{}.jpg"), _texts("a{}.json", lambda n: labelme(n, four=True, description="", difficult=False))
    ),
    "labelme: rotated": _steps(_images("a{}.jpg"), _texts("a{}.json", lambda n: labelme(n, "rotation", direction=0))),
    "labelme: splits": lambda root: by_split(root, "{}/a{}.json", labelme, "{}/a{}.jpg"),
    "labelstudio: JSON": _steps(_images(_AT), label_studio),
    "labelstudio: polygons": _steps(_images(_AT), lambda root: label_studio(root, kind="polygon")),
    "labelstudio: addresses": _steps(_images(_AT), lambda root: label_studio(root, "s3://bucket/set%20one/a{}.jpg")),
    "labelstudio: JSON-MIN": _steps(_images(_AT), label_studio_min),
    "cvat: boxes": _steps(_images(_AT), cvat),
    "cvat: polygons": _steps(_images("a{}.jpg"), lambda root: cvat(root, "polygon")),
    "fiftyone: detections": _steps(_images("data/a{}.jpg"), fiftyone),
}
"""Kind and tool -> what builds it: 8 pictures, a box of a car or a dog on each."""

FILES: dict[str, tuple[str, str]] = {
    "yolo: Roboflow": ("data.yaml", "yolo"),
    "yolo: a file of any name": ("cars.yaml", "yolo"),
    "yolo: CVAT 1.1": ("obj.data", "yolo"),
    "coco: CVAT": ("annotations/instances_default.json", "coco"),
    "coco: one file": ("annotations.json", "coco"),
    "cvat: boxes": ("annotations.xml", "cvat"),
    "labelstudio: JSON": ("project-3.json", "labelstudio"),
    "fiftyone: detections": ("labels.json", "fiftyone"),
}
"""Layouts that may be given by a file of theirs."""
