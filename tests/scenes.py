"""Images of squares and discs with their boxes and masks, easy enough to be learnt in seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

CLASSES = ("square", "disc")
COLOURS = ((220, 60, 50), (60, 110, 230))
HEIGHT, WIDTH = 64, 96


def write_boxes(root: Path, each: int = 8) -> Path:
    """A YOLO folder with train and val, `each` images in both."""
    for split, image, shapes, _ in _scenes(each):
        name = f"{len(list((root / 'images' / split).glob('*'))):03}"
        for kind in ("images", "labels"):
            (root / kind / split).mkdir(parents=True, exist_ok=True)
        image.save(root / "images" / split / f"{name}.png")
        lines = [
            f"{label} {(x0 + x1) / 2 / WIDTH} {(y0 + y1) / 2 / HEIGHT} {(x1 - x0) / WIDTH} {(y1 - y0) / HEIGHT}"
            for label, (x0, y0, x1, y1) in shapes
        ]
        (root / "labels" / split / f"{name}.txt").write_text("\n".join(lines))
    (root / "data.yaml").write_text(f"train: images/train\nval: images/val\nnames: [{', '.join(CLASSES)}]\n")
    return root


def write_masks(root: Path, each: int = 8) -> Path:
    """train/ and val/ with images/ and masks/ in each; the classes are the ground, squares and discs."""
    for split, image, _, mask in _scenes(each):
        name = f"{len(list((root / split / 'images').glob('*'))):03}"
        for kind in ("images", "masks"):
            (root / split / kind).mkdir(parents=True, exist_ok=True)
        image.save(root / split / "images" / f"{name}.png")
        mask.save(root / split / "masks" / f"{name}.png")
    (root / "classes.txt").write_text("\n".join(("ground", *CLASSES)) + "\n")
    return root


def _scenes(each: int) -> list[tuple[str, Image.Image, list[tuple[int, tuple[int, int, int, int]]], Image.Image]]:
    """(split, image, (label, corners) of each shape, mask)."""
    rng = np.random.default_rng(11)
    scenes = []
    for split in ("train", "val"):
        for _ in range(each):
            image = Image.fromarray(rng.integers(90, 140, (HEIGHT, WIDTH, 3)).astype(np.uint8))
            mask = Image.new("L", image.size)
            shapes = []
            for left in (2, 50):  # one in each half, so that none hides another
                label, side = int(rng.integers(2)), int(rng.integers(16, 42))
                x0, y0 = left + int(rng.integers(0, 44 - side)), int(rng.integers(0, HEIGHT - side))
                corners = (x0, y0, x0 + side, y0 + side)
                for page, fill in ((image, COLOURS[label]), (mask, label + 1)):
                    draw = ImageDraw.Draw(page)
                    (draw.ellipse if label else draw.rectangle)((x0, y0, x0 + side - 1, y0 + side - 1), fill=fill)
                shapes.append((label, corners))
            scenes.append((split, image, shapes, mask))
    return scenes
