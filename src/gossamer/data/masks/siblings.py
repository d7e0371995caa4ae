"""Masks that lie elsewhere than in a folder called masks: beside their images, in folders called after those of the
images, or in folders of any name that masks are recognised in by their pixels.

train/a.jpg + train/a_mask.png                 Roboflow, DeepGlobe
train/ + train_labels/ (or trainannot/)        CamVid as it is handed on
leftImg8bit/train/x/a_leftImg8bit.png + gtFine/train/x/a_gtFine_labelTrainIds.png     Cityscapes
rgb/ + seg/                                    two folders with the same names, one with the pixels of masks
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from gossamer.data.folder import SPLIT_NAMES, folders, printable_path, walk_files
from gossamer.data.source import shown
from gossamer.errors import DataError, ImageError
from gossamer.host.text import counted
from gossamer.images.decode import IMAGE_SUFFIXES, decode_stored, read_file

BESIDE = ("_mask", "_masks", "_label", "_labels", "_seg", "_segmentation", "_gt", "_L")
"""What the name of a mask has behind that of the image beside it."""
IMAGE_ENDINGS = ("_sat", "_image", "_img", "_rgb", "_leftImg8bit", "")
"""What the name of an image may have where its mask has an ending, the more telling first."""
FOLDER_ENDINGS = ("_labels", "_label", "annot", "_annot", "_masks", "_mask", "_annotations", "_gt", "_seg")
LOSSLESS = frozenset({".png", ".bmp", ".tif", ".tiff", ".gif"})
FEW_VALUES = 64  # values, or colours, that a mask has at most where no name says that it is one
_TRIED = 4  # files that are looked into

Pairs = list[tuple[str, str, str]]
"""(image, mask, split), as paths."""


def beside(folder: Path, split: str, notes: list[str]) -> Pairs:
    """The images of a folder with a mask of their name and an ending beside them, [] where there are none.

    Images without a mask are noted where others have one.
    """
    paths = {os.path.splitext(path)[0]: path for path in _images(folder)}  # noqa: PTH122
    pairs: Pairs = []
    used: set[str] = set()
    for stem, path in paths.items():
        if os.path.splitext(path)[1].lower() not in LOSSLESS:  # noqa: PTH122
            continue
        for ending in BESIDE:
            base = stem.removesuffix(ending) if stem.endswith(ending) else None
            image = next((base + each for each in IMAGE_ENDINGS if base and base + each in paths), None)
            if image is not None and image != stem:
                pairs.append((paths[image], path, split))
                used |= {stem, image}
                break
    lonely = [Path(path).name for stem, path in paths.items() if stem not in used]
    if pairs and lonely:
        names = shown(map(printable_path, sorted(lonely)))
        notes.append(f"{folder}: {without_mask(len(lonely))}: {names}")
    return pairs


def without_mask(count: int) -> str:
    """What a note says of images without a mask."""
    return counted(count, "image has no mask and is left out", "images have no mask and are left out")


def _images(folder: Path) -> list[str]:
    """The images in a folder, not those in the folders below it."""
    try:
        entries = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    except OSError as error:
        raise DataError(f"{folder}: {error.strerror}", "a folder that can be read", "check its permissions") from error
    return [os.fspath(path) for path in entries if not path.name.startswith(".") and path.is_file()]


def named_after(root: Path) -> list[tuple[str, Path, Path]]:
    """(split, folder of images, folder of masks) of folders of masks that are called after those of the images."""
    below = {folder.name.lower(): folder for folder in folders(root)}
    result = []
    for name, folder in below.items():
        masks = next((below[name + ending] for ending in FOLDER_ENDINGS if name + ending in below), None)
        if masks is not None and (split := SPLIT_NAMES.get(name)):
            result.append((split, folder, masks))
    return result


def cityscapes(root: Path, notes: list[str]) -> Pairs:
    """The pairs of Cityscapes' folders, [] elsewhere. Masks of train ids count, or else those of ids."""
    images, masks = root / "leftImg8bit", root / "gtFine"
    if not (images.is_dir() and masks.is_dir()):
        return []
    pairs: Pairs = []
    without: list[str] = []
    for path in sorted(walk_files(images, notes)):
        relative = Path(os.path.relpath(path, images))
        split = SPLIT_NAMES.get(relative.parts[0].lower(), "")
        stem = relative.stem.removesuffix("_leftImg8bit")
        places = (masks / relative.parent / f"{stem}_gtFine_{kind}.png" for kind in ("labelTrainIds", "labelIds"))
        mask = next((place for place in places if place.is_file()), None)
        if mask is None:
            without.append(relative.as_posix())
        else:
            pairs.append((path, os.fspath(mask), split))
    if pairs and without:
        notes.append(f"{images}: {without_mask(len(without))}: {shown(map(printable_path, without))}")
    return pairs


def by_pixels(root: Path) -> tuple[Path, Path] | None:
    """The folders of images and of masks of a folder with two that hold files of the same names, where the files of one
    are masks by their pixels; None elsewhere."""
    two = list(folders(root))
    if len(two) != 2:
        return None
    stems = [{Path(path).stem for path in _images(folder)} for folder in two]
    if not stems[0] or len(stems[0] & stems[1]) < 0.8 * max(map(len, stems)):
        return None
    are_masks = [_are_masks(folder) for folder in two]
    if are_masks == [True, False]:
        return two[1], two[0]
    return (two[0], two[1]) if are_masks == [False, True] else None


def _are_masks(folder: Path) -> bool:
    """Whether the first images of a folder are lossless, with few values or colours."""
    for path in _images(folder)[:_TRIED]:
        if os.path.splitext(path)[1].lower() not in LOSSLESS:  # noqa: PTH122
            return False
        try:
            pixels = np.asarray(decode_stored(read_file(path), name=path))
        except ImageError:
            return False
        flat = pixels.reshape(-1, pixels.shape[-1]) if pixels.ndim == 3 else pixels.reshape(-1, 1)
        if len(np.unique(flat, axis=0)) > min(FEW_VALUES, len(flat) // 4):
            return False
    return True
