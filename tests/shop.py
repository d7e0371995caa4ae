"""Images of coloured blocks with every kind of label."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

EVERY = """
colour: classify
tags: multilabel
size: {kind: regress, columns: [across, down], loss: mse}
parts: {kind: detect, column: boxes}
places: {kind: segment, column: mask, classes: [ground, block]}
who: {kind: embed, dim: 8}
kind: {kind: classify, hierarchy: true}
"""
COLOURS = {"red": (230, 40, 40), "green": (40, 210, 60), "blue": (50, 70, 240)}
HEADER = "path,colour,tags,across,down,boxes,mask,who,kind"


def write_shop(root: Path, count: int = 24) -> Path:
    """Images of a coloured block, with every kind of label; some images lack some."""
    rng = np.random.default_rng(0)
    for name in ("pics", "boxes", "masks"):
        (root / name).mkdir(parents=True)
    lines = [HEADER]
    for i in range(count):
        colour = list(COLOURS)[i % 3]
        pixels, mask = rng.integers(0, 90, (32, 40, 3)).astype(np.uint8), np.zeros((32, 40), np.uint8)
        w, h = rng.integers(10, 22, 2).tolist()
        x, y = int(rng.integers(0, 40 - w)), int(rng.integers(0, 32 - h))
        pixels[y : y + h, x : x + w], mask[y : y + h, x : x + w] = COLOURS[colour], 1
        Image.fromarray(pixels).save(root / f"pics/{i:02}.png")
        Image.fromarray(mask).save(root / f"masks/{i:02}.png")
        corners = f"<xmin>{x + 1}</xmin><ymin>{y + 1}</ymin><xmax>{x + w}</xmax><ymax>{y + h}</ymax>"
        box = f"<object><name>block</name><bndbox>{corners}</bndbox></object>"
        (root / f"boxes/{i:02}.xml").write_text(f"<annotation>{box}</annotation>")
        tags = "|".join(tag for tag, true in (("wide", w > h), ("left", x + w / 2 < 20)) if true) or "|"
        tree = {"red": "warm/red", "green": "cold/green", "blue": "cold/blue"}[colour]
        cells = [colour, tags, str(w), str(h), f"boxes/{i:02}.xml", f"masks/{i:02}.png", f"id{i % 4}", tree]
        if i > 3:
            cells = ["" if (i * 7 + c * 5) % 6 == 0 else cell for c, cell in enumerate(cells)]
        lines.append(",".join([f"pics/{i:02}.png", *cells]))
    (root / "labels.csv").write_text("\n".join(lines) + "\n")
    (root / "heads.yaml").write_text(EVERY)
    return root
