"""PASCAL VOC: Annotations/*.xml, JPEGImages/, ImageSets/Main/{train,val,test,trainval}.txt; or as tools write it, images/
for JPEGImages/, or the files beside their images, alone or in folders of splits.

Everingham et al., The PASCAL Visual Object Classes Challenge, IJCV 2010. Its pixels are counted from 1 and inclusive:
xmin..xmax covers the continuous edges xmin - 1 to xmax.
"""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Iterable, Iterator
from functools import partial
from pathlib import Path, PureWindowsPath
from typing import NamedTuple
from xml.etree import ElementTree

from gossamer.data.boxes.records import (
    BoxRecord,
    Draft,
    ImageRecord,
    Size,
    class_name,
    declared_size,
    each_image,
    files_in,
    image_files,
    image_size,
    inside,
    lines_of,
    one_split,
    parse_number,
    split_of,
)
from gossamer.data.boxes.xmlfile import parse_xml, read_xml
from gossamer.data.folder import folders, printable_path
from gossamer.data.source import class_order, shown
from gossamer.data.spelling import spelling
from gossamer.errors import DataError
from gossamer.host.text import counted
from gossamer.images.hidden import is_hidden
from gossamer.images.preprocess import IMAGE_SUFFIXES

ANNOTATIONS = ("annotations", "annotation", "labels", "label", "xmls", "xml", "annots", "annot", "anns", "ann")
IMAGES = ("jpegimages", "images", "image", "imgs", "img", "data", "photos", "pictures")
"""Folders of annotations and of images, in lower case."""
_MORE = ("pascal_voc", "pascal", "voc", "bboxes", "boxes")  # of annotations, where there are no others
_INNER = ("xmls", "xml", "default")  # folders that some sets have below the one of annotations
_SUFFIXES = tuple(sorted(IMAGE_SUFFIXES))
_UPPER = tuple(suffix.upper() for suffix in _SUFFIXES)
SETS = Path("ImageSets", "Main")
_SPLITS = ("train", "val", "test")
_OWN = frozenset({"filename", "size", "object"})  # children of an annotation that are understood
_OWN_OBJECT = frozenset({"name", "bndbox", "difficult"})
_LISTS = {"": (), "train": ("train", "trainval"), "val": ("val", "trainval"), "test": ("test",)}
_ALLOWED = "Annotations/*.xml with JPEGImages/ and, for splits, ImageSets/Main/*.txt"


class Part(NamedTuple):
    """The folders of images and of annotations of one split ("" for no split); both may be one folder."""

    split: str
    images: Path
    annotations: Path


def voc_parts(root: Path) -> list[Part]:
    """Where a folder has annotations in XML: Annotations/ with JPEGImages/ or images/, alone or in the folders of splits,
    with the splits in each, or the files beside their images; [] where there are none."""
    below = _below(root)
    if part := _beside(root, below):
        return [part]
    annotations = next((below[name] for name in ANNOTATIONS if name in below), None)
    if annotations is not None:
        images = _images_beside(root, annotations, below)
        inner = [folder for folder in folders(annotations) if split_of(folder.name) and files_in(folder, ".xml")]
        if inner:
            return [Part(split_of(folder.name), images / folder.name, folder) for folder in inner]
    if files_in(root, ".xml"):
        return [Part("", root, root)] if _annotated(root) else []
    parts = []
    for folder in folders(root):
        if split := split_of(folder.name):
            parts += [part._replace(split=split) for part in _split_part(folder)]
    return parts


def _below(root: Path) -> dict[str, Path]:
    """The folders in a folder by their names in lower case."""
    return {folder.name.lower(): folder for folder in reversed(list(folders(root)))}


def _split_part(folder: Path) -> list[Part]:
    """The part in the folder of a split, [] where it has no annotations."""
    part = _beside(folder, _below(folder))
    return [part] if part else [Part("", folder, folder)] if _annotated(folder) else []


def _beside(root: Path, below: dict[str, Path]) -> Part | None:
    """The folders of annotations and of images among those of one folder, None where none has annotations."""
    for name in (*ANNOTATIONS, *_MORE):
        for xml in (below[name], *(below[name] / inner for inner in _INNER)) if name in below else ():
            if files_in(xml, ".xml"):
                return Part("", _images_beside(root, xml, below), xml)
    return None


def _annotated(folder: Path) -> bool:
    """Whether an XML file of a folder is an annotation of an image beside it: other XML may lie beside images, too."""
    return any(
        path.with_suffix(suffix).is_file() for path in files_in(folder, ".xml") for suffix in (*_SUFFIXES, *_UPPER)
    )


def _images_beside(root: Path, annotations: Path, below: dict[str, Path]) -> Path:
    """The folder of the images of a folder of annotations in `root`: one of a usual name, that of the annotations, or
    `root` itself."""
    named = next((below[name] for name in IMAGES if name in below), None)
    if named or any(path.suffix.lower() in IMAGE_SUFFIXES for path in annotations.iterdir()):
        return named or annotations
    has_images = any(path.suffix.lower() in IMAGE_SUFFIXES and not is_hidden(path.name) for path in root.iterdir())
    return root if has_images else annotations


def is_voc(root: Path) -> bool:
    """Whether a folder has annotations in XML."""
    return bool(voc_parts(root))


def read_voc(root: Path) -> Draft:
    """The contents of a PASCAL VOC folder. Without ImageSets, every annotated image is used, in the split of its folder or
    in none. Raises DataError."""
    notes: list[str] = []
    records: list[ImageRecord] = []
    listed = _splits(root)
    parts = voc_parts(root)
    for part in parts:
        images = {Path(name).with_suffix("").as_posix(): name for name in image_files(part.images, notes)}
        if not images:
            where = f"{part.images.name}/" if part.images != part.annotations else "JPEGImages/"
            raise DataError(f"{root}: holds annotations but no images in {where}", _ALLOWED, "check the path")
        annotated = _annotations(part, images)
        splits = {_as_annotated(name, annotated): split for name, split in listed.items()} or dict.fromkeys(
            sorted(annotated), part.split
        )
        unlisted = annotated.keys() - set(splits)
        if unlisted:
            notes.append(
                f"{root}: {counted(len(unlisted), 'annotated image is', 'annotated images are')} in no list of "
                f"{SETS.as_posix()} and passed over: {_first(unlisted)}"
            )
        if bare := images.keys() - annotated.keys() - set(splits):
            no_annotation = counted(len(bare), "image has no annotation and is", "images have no annotation and are")
            notes.append(f"{part.images}: {no_annotation} passed over: {_first(bare)}")
        records += each_image(
            list(splits),
            partial(_record, root, part, splits, images, annotated),
            "image with a PASCAL VOC annotation",
            "images with PASCAL VOC annotations",
            notes,
        )
    classes = class_order(box.name for record in records for box in record.boxes)
    return Draft("voc", root, classes, False, records, notes)


def _annotations(part: Part, images: Collection[str]) -> dict[str, Path]:
    """The annotations of a part by the stems of their images: a.xml, and where no image is called so, a.jpg.xml and A.XML."""
    by_spelling: dict[str, str | None] = {}
    for stem in images:
        by_spelling[spelling(stem)] = None if spelling(stem) in by_spelling else stem
    result: dict[str, Path] = {}
    for path in sorted(files_in(part.annotations, ".xml"), key=lambda path: path.stem not in images):
        bare, suffix = os.path.splitext(path.stem)  # noqa: PTH122
        stem = bare if path.stem not in images and suffix.lower() in IMAGE_SUFFIXES else path.stem
        result.setdefault(stem if stem in images else by_spelling.get(spelling(stem)) or path.stem, path)
    return result


def _first(stems: Iterable[str]) -> str:
    return shown(map(printable_path, sorted(stems)))


def _splits(root: Path) -> dict[str, str]:
    """stem -> split, {} where there are no lists. What only trainval.txt lists is for training."""
    folder = root / SETS
    lists = {split: _listed(folder / f"{split}.txt") for split in _SPLITS if (folder / f"{split}.txt").is_file()}
    split_by_name = one_split(lists, f"{root}/{SETS.as_posix()}")
    if (folder / "trainval.txt").is_file():
        for name in _listed(folder / "trainval.txt"):
            if split_by_name.setdefault(name, "train") == "test":
                raise DataError(
                    f"{root}/{SETS.as_posix()}: {printable_path(name)} is in trainval and in test",
                    "one split an image",
                    "remove it from one",
                )
    if lists and not split_by_name:
        raise DataError(f"{root}/{SETS.as_posix()}: lists no images", "a name per line", "fill or remove the lists")
    return split_by_name


def _listed(path: Path) -> list[str]:
    """The names in a list, a line each."""
    lines = [line for line in lines_of(path) if line]
    return [inside(_stem_of(line) if PureWindowsPath(line).root else line, str(path)) for line in lines]


def _as_annotated(name: str, annotated: Collection[str]) -> str:
    """The annotation that a name in a list means: that of the name as it stands, or else of what `_stem_of` makes of it."""
    return name if name in annotated or (stem := _stem_of(name)) not in annotated else stem


def _stem_of(line: str) -> str:
    """The name on a line of a list: alone, with 1, 0 or -1 behind it as the lists of one class have, with the path of the
    image or with its suffix."""
    words = line.split()
    name = " ".join(words[:-1]) if len(words) > 1 and words[-1] in ("-1", "0", "1") else line
    parts = name.replace("\\", "/").split("/")
    if ".." in parts:
        return name  # leads outside, which is refused
    name = parts[-1]
    stem, suffix = os.path.splitext(name)  # noqa: PTH122
    return stem if suffix.lower() in IMAGE_SUFFIXES else name


def _record(
    root: Path, part: Part, splits: dict[str, str], images: dict[str, str], annotated: dict[str, Path], stem: str
) -> ImageRecord:
    """Raises DataError, ImageError."""
    path = annotated.get(stem, part.annotations / f"{stem}.xml")
    if not path.is_file():
        raise DataError(
            f"{printable_path(stem)} is listed but has no {part.annotations.name}/{printable_path(stem)}.xml",
            _ALLOWED,
            "restore the file",
        )
    where = printable_path(str(path))
    top = annotation_of(path)
    name = images.get(stem) or (top.findtext("filename") or "").strip()
    if not name or not os.path.isfile(part.images / inside(name, where)):  # noqa: PTH113
        raise DataError(
            f"{where}: there is no {part.images.name}/{printable_path(stem)}.jpg",
            "an image for each",
            "restore the image",
        )
    boxes, size_in_file = objects_of(top, where)
    size = size_in_file or image_size(part.images / name)
    others = [ElementTree.tostring(child, "unicode").strip() for child in top if child.tag not in _OWN]
    depth = top.find("size/depth")
    if depth is not None:
        others.append(ElementTree.tostring(depth, "unicode").strip())
    relative = (part.images / name).relative_to(root).as_posix()
    return ImageRecord(relative, name, splits[stem], size, boxes, {"voc": others} if others else {})


def annotation_of(path: Path) -> ElementTree.Element:
    """The <annotation> that a file is. Raises DataError."""
    top = read_xml(path)
    if top.tag != "annotation":
        raise DataError(
            f"{printable_path(str(path))}: begins with <{printable_path(top.tag)}>",
            "<annotation>",
            "fix or remove the file",
        )
    return top


def objects_of(top: ElementTree.Element, where: str) -> tuple[list[BoxRecord], Size | None]:
    """The objects of an annotation, and the (height, width) that it gives its image. Raises DataError."""
    size = declared_size(top.findtext("size/height"), top.findtext("size/width"))
    return [_drawn(element, where) for element in top.findall("object")], size


def _drawn(element: ElementTree.Element, where: str) -> BoxRecord:
    """Raises DataError where the object has no name or no box; numbers that are none become nan."""
    name, box = class_name(element.findtext("name"), where), element.find("bndbox")
    if box is None:
        raise DataError(f"{where}: an <object> has no <bndbox>", "a box for each", "fix the file")
    x0, y0, x1, y1 = (parse_number(box.findtext(tag)) for tag in ("xmin", "ymin", "xmax", "ymax"))
    others = [ElementTree.tostring(child, "unicode").strip() for child in element if child.tag not in _OWN_OBJECT]
    difficult = (element.findtext("difficult") or "").strip() in ("1", "true", "True")
    return BoxRecord((x0 - 1, y0 - 1, x1, y1), name, difficult=difficult, extra={"voc": others} if others else {})


def voc_files(draft: Draft, paths: list[str]) -> Iterator[tuple[str, str]]:
    """(path, text) of Annotations and ImageSets for records whose images are at `paths` (JPEGImages/...)."""
    listed: dict[str, list[str]] = {}
    for record, path in zip(draft.records, paths, strict=True):
        stem = Path(path).stem
        yield f"Annotations/{stem}.xml", _xml(record, Path(path).name)
        for name in _LISTS[record.split]:
            listed.setdefault(name, []).append(stem)
    for name, stems in listed.items():
        yield f"{SETS.as_posix()}/{name}.txt", "".join(f"{stem}\n" for stem in sorted(stems))


def _xml(record: ImageRecord, name: str) -> str:
    top = ElementTree.Element("annotation")
    _leaf(top, "filename", name)
    size = ElementTree.SubElement(top, "size")
    _leaf(size, "width", str(record.size[1]))
    _leaf(size, "height", str(record.size[0]))
    for element in _kept(record.extra):
        (size if element.tag == "depth" else top).append(element)
    for drawn in record.boxes:
        part = ElementTree.SubElement(top, "object")
        _leaf(part, "name", drawn.name)
        part.extend(_kept(drawn.extra))
        _leaf(part, "difficult", str(int(drawn.difficult)))
        box = ElementTree.SubElement(part, "bndbox")
        x0, y0, x1, y1 = drawn.box
        for tag, value in (("xmin", x0 + 1), ("ymin", y0 + 1), ("xmax", x1), ("ymax", y1)):
            _leaf(box, tag, _digits(value))
    ElementTree.indent(top)
    return ElementTree.tostring(top, "unicode") + "\n"


def _kept(extra: dict[str, list[str]]) -> Iterator[ElementTree.Element]:
    """Elements that a VOC file had beside those that are understood."""
    return (parse_xml(source.encode(), "kept element") for source in extra.get("voc", ()))


def _leaf(parent: ElementTree.Element, tag: str, content: str) -> None:
    ElementTree.SubElement(parent, tag).text = content


def _digits(value: float) -> str:
    """A whole number without a point, as readers that take integers only expect; else to 1e-6 pixel."""
    rounded = round(value, 6)
    return str(int(rounded)) if rounded == int(rounded) else repr(rounded)


def lost_in_voc(draft: Draft) -> list[str]:
    """What the format has no place for, a line each."""
    boxes = [box for record in draft.records for box in record.boxes]
    crowds = sum(box.crowd for box in boxes)
    areas = sum(not math.isnan(box.area) for box in boxes)
    unused = [name for name in draft.classes if name not in {box.name for box in boxes}]
    return [
        *([f"PASCAL VOC has no place for crowds: {counted(crowds, 'box')}"] if crowds else []),
        *([f"PASCAL VOC has no place for areas: {counted(areas, 'box')}"] if areas else []),
        *([f"PASCAL VOC has no place for classes without boxes: {shown(unused)}"] if unused else []),
    ]
