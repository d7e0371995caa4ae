"""Recognise folders of images with masks, and pair them by name.

train/images + train/masks     the same with val/ and test/
images/train + masks/train     the same with val and test
images + masks                 not split; data + labels as FiftyOne writes it
JPEGImages + SegmentationClass + ImageSets/Segmentation/*.txt     PASCAL VOC
and what `siblings.py` finds: masks beside their images, or in folders of other names.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from gossamer.data.folder import SPLIT_NAMES, folders, hidden_notes, printable_path, walk_files
from gossamer.data.masks import siblings
from gossamer.data.source import shown
from gossamer.data.spelling import spelling
from gossamer.errors import DataError
from gossamer.host.encoding import decode_text
from gossamer.host.storage import read_unchanged
from gossamer.host.text import counted
from gossamer.images.hidden import is_hidden
from gossamer.images.preprocess import IMAGE_SUFFIXES

IMAGE_FOLDERS = ("images", "image", "imgs", "img", "img_dir", "jpegimages")
MASK_FOLDERS = (
    *("masks", "mask", "ann_dir", "labels", "label", "annotations", "annotation", "segmentationclass"),
    *("segmentationclasspng", "segmentationmask", "segmentation_masks", "segmentation", "gt", "gts", "groundtruth"),
    *("ground_truth", "ground truth", "seg", "label_masks", "mask_images", "labelstr"),
)
MASK_ENDINGS = (
    *("_mask", "_masks", "_label", "_labels", "_L", "_segmentation", "_seg", "_gt", "_groundtruth", "_GT"),
    *("-mask", "-label", "-gt", " mask", ".mask"),
)
"""What the name of a mask may have behind that of its image."""
MASK_STARTS = ("mask_", "mask-", "label_", "seg_", "gt_")
IMAGE_STARTS = ("img_", "image_", "image-", "img-", "")
"""What the names of a mask and of its image may begin with where the rest is the same."""
ALLOWED = (
    "images/ and masks/, alone or under train/ and val/, with train/ and val/ in each, PASCAL VOC's folders, "
    "a_mask.png beside a.jpg, or annotations with polygons"
)


@dataclass(frozen=True)
class MaskPair:
    """An image and its mask, as paths; split is "train", "val", "test" or ""."""

    image: str
    mask: str
    split: str


def find_pairs(root: Path, notes: list[str]) -> tuple[str, list[MaskPair]]:
    """What kind of folder `root` is, and its images with masks in the order of their paths. Raises DataError."""
    if not root.is_dir():
        raise DataError(f"{root}: is no folder", ALLOWED, "check the path")
    image_folder, mask_folder = _image_folder(root), _named(root, MASK_FOLDERS)
    parts = _splits(root)
    if image_folder and mask_folder:
        lists = _lists(root)
        if lists:
            kind, pairs = "PASCAL VOC folder", _listed(_paired("", image_folder, mask_folder, notes), lists, notes)
        elif inner := _splits(image_folder):
            kind, pairs = "mask folder", _split_inside(inner, _splits(mask_folder), notes)
        else:
            kind, pairs = "mask folder", _paired("", image_folder, mask_folder, notes)
    elif not any(map(_has_named, [root, *parts.values()])) and (elsewhere := _elsewhere(root, parts, notes)):
        kind, pairs = "mask folder", elsewhere
    elif recognised := _by_pixels(parts or {"": root}, notes):
        kind, pairs = "mask folder", recognised
    elif parts:
        kind, pairs = "mask folder", []
        for split, folder in parts.items():
            pairs += _split_pairs(split, folder, _image_folder(folder), _named(folder, MASK_FOLDERS), notes)
    else:
        inner_folders = list(folders(root))
        if len(inner_folders) == 1 and not _has_named(root) and _is_nested(inner_folders[0]):
            kind, pairs = find_pairs(inner_folders[0], notes)  # an archive has a folder around it
            notes.append(f"{root}: the data are in {printable_path(os.fspath(inner_folders[0]))}")
            return kind, pairs
        missing = "no folder of images" if not image_folder else "no folder of masks"
        raise DataError(f"{root}: has {missing}", ALLOWED, "check the path, or rename the folders")
    if not pairs:
        raise DataError(
            f"{root}: no image has a mask", "masks named as their images, such as a.png for a.jpg", "check the names"
        )
    return kind, sorted(pairs, key=lambda pair: pair.image)


def _elsewhere(root: Path, parts: dict[str, Path], notes: list[str]) -> list[MaskPair]:
    """The pairs of masks that are not in a folder of their own name, [] where there are none."""
    places = [("", root)] if not parts else list(parts.items())
    pairs = [pair for split, folder in places for pair in siblings.beside(folder, split, notes)]
    pairs = pairs or siblings.cityscapes(root, notes)
    if pairs:
        return [MaskPair(*pair) for pair in pairs]
    if named := siblings.named_after(root):
        return [pair for split, images, masks in named for pair in _paired(split, images, masks, notes)]
    return _by_pixels(dict(places), notes)


def _by_pixels(parts: dict[str, Path], notes: list[str]) -> list[MaskPair]:
    """The pairs of folders with two in them of which one holds masks by its pixels, whatever they are called, and of those
    that are called so; [] where no folder is of the first kind. parts: by split, "" for none. Raises DataError."""
    found: dict[str, tuple[Path, Path]] = {}
    named: dict[str, tuple[Path, Path]] = {}
    for split, folder in parts.items():
        images, masks = _image_folder(folder), _named(folder, MASK_FOLDERS)
        if images and masks:
            named[split] = images, masks
        elif two := siblings.by_pixels(folder):
            found[split] = two
    if not found:
        return []
    notes += [
        f"{parts[split]}: the masks are in {printable_path(masks.name)}/, by their pixels"
        for split, (_, masks) in found.items()
    ]
    return [pair for split, two in (found | named).items() for pair in _paired(split, *two, notes)]


def _holds_text(folder: Path) -> bool:
    """Whether the files of a folder are annotations in text, and no images."""
    suffixes = {path.suffix.lower() for path in folder.iterdir() if not path.name.startswith(".")}
    return bool(suffixes & {".xml", ".txt", ".json"}) and not suffixes & IMAGE_SUFFIXES


def _has_named(root: Path) -> bool:
    """Whether a folder has one that is called as those of images or of masks."""
    return any(folder.name.lower() in (*IMAGE_FOLDERS, *MASK_FOLDERS) for folder in folders(root))


def _is_nested(folder: Path) -> bool:
    """Whether a folder holds folders only, as one that an archive has around the data does."""
    return any(folders(folder)) and not any(path.suffix.lower() in IMAGE_SUFFIXES for path in folder.iterdir())


def _image_folder(root: Path) -> Path | None:
    """The folder of the images in `root`; where one of masks is beside it, data/ or `root` itself, too. Raises DataError."""
    if named := _named(root, IMAGE_FOLDERS):
        return named
    masks = _named(root, MASK_FOLDERS)
    if masks is None:
        return None
    return _named(root, ("data", "photos", "original", "originals", "rgb", "raw")) or (
        root if _has_images(root) else None
    )


def _has_images(folder: Path) -> bool:
    """Whether images that are not hidden lie in a folder itself."""
    return any(path.suffix.lower() in IMAGE_SUFFIXES and not is_hidden(path.name) for path in folder.iterdir())


def _named(root: Path, names: tuple[str, ...]) -> Path | None:
    """The folder in `root` of one of `names`. Raises DataError where there are several."""
    matching = [folder for folder in folders(root) if folder.name.lower() in names]
    if len(matching) > 1:
        matching = [folder for folder in matching if not _holds_text(folder)]  # VOC has Annotations/*.xml beside
    if len(matching) > 1:
        raise DataError(
            f"{root}: has {shown(each.name + '/' for each in matching)}", "one of them", "move the others away"
        )
    return matching[0] if matching else None


def _splits(root: Path) -> dict[str, Path]:
    """The folders in `root` that are called as a split. Raises DataError where two name one split."""
    split_folders: dict[str, Path] = {}
    for folder in folders(root):
        split = SPLIT_NAMES.get(folder.name.lower())
        if split in split_folders:
            raise DataError(
                f"{root}: both {split_folders[split].name}/ and {folder.name}/", f"one {split} folder", "remove one"
            )
        if split:
            split_folders[split] = folder
    return split_folders


def _split_inside(images: dict[str, Path], masks: dict[str, Path], notes: list[str]) -> list[MaskPair]:
    pairs = []
    for split, folder in images.items():
        pairs += _split_pairs(split, folder, folder, masks.get(split), notes)
    notes.extend(
        f"{folder}: no folder of images goes with it" for split, folder in masks.items() if split not in images
    )
    return pairs


def _split_pairs(split: str, where: Path, images: Path | None, masks: Path | None, notes: list[str]) -> list[MaskPair]:
    if images and masks:
        return _paired(split, images, masks, notes)
    if split == "train":
        raise DataError(f"{where}: has no folder of {'masks' if images else 'images'}", ALLOWED, "add it")
    notes.append(f"{where}: is passed over, for it has no folder of {'masks' if images else 'images'}")
    return []


def _paired(split: str, image_folder: Path, mask_folder: Path, notes: list[str]) -> list[MaskPair]:
    """The images of a folder that have a mask in the other; one without the other is noted."""
    images = _by_stem(image_folder, notes, alone=image_folder in mask_folder.parents)
    masks: dict[str, str] = {}
    for stem, path in _by_stem(mask_folder, notes).items():
        ending = next((each for each in MASK_ENDINGS if stem.endswith(each) and stem not in images), "")
        key = stem.removesuffix(ending)
        if key in masks:
            raise DataError(
                f"{printable_path(masks[key])} and {printable_path(path)} name one image",
                "one mask an image",
                "remove one",
            )
        masks[key] = path
    if not masks.keys() & images.keys():
        masks = _by_start(images, masks)
    if not masks.keys() & images.keys():
        masks = _by_last_part(images, masks)
    if not masks.keys() & images.keys():
        masks = _by_spelling(images, masks)
    bare = [stem for stem in images if stem not in masks]
    alone = [stem for stem in masks if stem not in images]
    no_image = counted(len(alone), "mask has no image and is left out", "masks have no image and are left out")
    for lonely, folder, what in (
        (bare, image_folder, siblings.without_mask(len(bare))),
        (alone, mask_folder, no_image),
    ):
        if lonely:
            notes.append(f"{folder}: {what}: {shown(map(printable_path, sorted(lonely)))}")
    return [MaskPair(path, masks[stem], split) for stem, path in images.items() if stem in masks]


def _by_start(images: dict[str, str], masks: dict[str, str]) -> dict[str, str]:
    """Masks by the keys of the images where they are called after them otherwise than by an ending: mask_a.png for a.jpg
    or img_a.jpg, and a.jpg.png for a.jpg."""
    keyed: dict[str, str] = {}
    for key, path in masks.items():
        folder, slash, name = key.rpartition("/")
        start = next((each for each in MASK_STARTS if name.startswith(each)), "")
        rest = name.removeprefix(start)
        stem, suffix = os.path.splitext(name)  # noqa: PTH122
        others = [f"{folder}{slash}{each}{rest}" for each in IMAGE_STARTS if start]
        others += [f"{folder}{slash}{stem}"] if suffix.lower() in IMAGE_SUFFIXES else []
        keyed[next((other for other in others if other in images and other not in keyed), key)] = path
    return keyed if len(keyed) == len(masks) else masks


def _by_last_part(images: dict[str, str], masks: dict[str, str]) -> dict[str, str]:
    """Masks by the keys of the images, where they lie in other folders below and the last part of a path is unique."""
    called: dict[str, list[str]] = {}
    for key in images:
        called.setdefault(key.rpartition("/")[2], []).append(key)
    last = {key.rpartition("/")[2]: path for key, path in masks.items()}
    if len(last) < len(masks) or any(len(keys) > 1 for keys in called.values()):
        return masks
    return {called[name][0] if name in called else name: path for name, path in last.items()}


def _by_spelling(images: dict[str, str], masks: dict[str, str]) -> dict[str, str]:
    """Masks by the keys of the images, where they are spelt otherwise, as systems do that do not tell A from a."""
    spelt: dict[str, list[str]] = {}
    for key in images:
        spelt.setdefault(spelling(key), []).append(key)
    keyed = {spelt[spelling(key)][0] if len(spelt.get(spelling(key), ())) == 1 else key: masks[key] for key in masks}
    return keyed if len(keyed) == len(masks) else masks


def _by_stem(folder: Path, notes: list[str], *, alone: bool = False) -> dict[str, str]:
    """The images under a folder by their path in it without the suffix; alone: without the folders below. Raises DataError
    where two have one."""
    paths: dict[str, str] = {}
    skipped: list[str] = []
    for path in sorted(map(os.fspath, folder.iterdir())) if alone else walk_files(folder, notes, skipped):
        if alone and is_hidden(os.path.basename(path)):  # noqa: PTH119
            continue
        stem, suffix = os.path.splitext(os.path.relpath(path, folder))  # noqa: PTH122
        if suffix.lower() not in IMAGE_SUFFIXES:
            continue
        if stem in paths:
            raise DataError(
                f"{printable_path(paths[stem])} and {printable_path(path)} differ in their suffix only",
                "one of them",
                "remove one",
            )
        paths[stem] = path
    notes += hidden_notes(folder, skipped)
    return paths


def _lists(root: Path) -> dict[str, Path]:
    """VOC's lists of names by split. Without train, trainval serves for both train and val, to be split."""
    folder = root / "ImageSets" / "Segmentation"
    lists = {name: folder / f"{name}.txt" for name in ("train", "val", "test") if (folder / f"{name}.txt").is_file()}
    trainval = folder / "trainval.txt"
    if "train" in lists or not trainval.is_file():
        return lists
    return {"": trainval, **{name: path for name, path in lists.items() if name == "test"}}


def _names_in(text: str, known: Collection[str]) -> list[str]:
    """The names of a list: as they stand, or those of the images that lines of paths (of image and mask) name."""
    names = [word for line in text.splitlines() if (word := line.strip())]
    if any(name in known for name in names):
        return names
    words = [line.split()[0].replace("\\", "/") for line in names]
    stems = [Path(word).stem if Path(word).suffix.lower() in IMAGE_SUFFIXES else Path(word).name for word in words]
    return stems if any(stem in known for stem in stems) else text.split()


def _listed(pairs: list[MaskPair], lists: dict[str, Path], notes: list[str]) -> list[MaskPair]:
    """The pairs that the lists name, with their splits. Raises DataError."""
    by_stem = {Path(pair.image).stem: pair for pair in pairs}
    listed: dict[str, MaskPair] = {}
    for split, path in lists.items():
        try:
            names = _names_in(decode_text(read_unchanged(path)), by_stem)
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{path}: {error}", "a text file of a name per line", "fix the file") from error
        missing = [name for name in names if name not in by_stem]
        if missing:
            notes.append(
                f"{path}: {len(missing)} of {len(names)} have no image with a mask: {shown(map(printable_path, missing))}"
            )
        for name in names:
            if name in listed and listed[name].split != split:
                raise DataError(
                    f"{path}: {printable_path(name)} is in {listed[name].split} too", "one list a name", "fix the lists"
                )
            if name in by_stem:
                listed[name] = MaskPair(by_stem[name].image, by_stem[name].mask, split)
    return list(listed.values())
