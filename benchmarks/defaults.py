"""Which settings learn most from small images in a given time: the grid behind the defaults of `gossamer train`.

    python benchmarks/defaults.py --data SETS --results results.jsonl [--minutes 1] [--seeds 2] [--only crop,lr]
    python benchmarks/defaults.py --results results.jsonl --table

SETS is a folder that holds some of: cifar10-shards (tar shards), cifar10-small (train/ and val/), bccd (VOC boxes, whose
cells are cut out at 64x64 as pictures of three classes). The digits of scikit-learn are always there.

Each training is of one thread in float32, and as long as a budget in minutes, which is counted in steps: a step of each
network and batch is timed once (processor time, the fastest of several), and a training takes the steps that fit into the
minutes. So it is fair on a machine that others use too, and a faster setting takes more steps. Evaluation is not counted; it
takes place once, at the end, on held-out images. A result is a line of the file; those that are there are not computed
again, so it can be stopped and started. Run a setting in parts by --only (names of settings) and --sets.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import gossamer
from gossamer.data.boxes.open import open_boxes
from gossamer.images.preprocess import decode
from gossamer.networks.create import create_model
from gossamer.settings import Settings
from gossamer.tasks.registry import task_of
from gossamer.training.setup import start

# what every training has, and the settings that are compared: changes against these
BASE: dict[str, Any] = {
    "net": "mobilenet_v2",
    "width": 0.35,
    "input": "32",
    "small_input": True,
    "batch": 64,
    "crop": "random_resized",
    "label_smoothing": 0.1,
    "ema": 0.0,
}
PADDED = {"crop": "padded"}
GRID: dict[str, dict[str, Any]] = {
    "base": {},
    "crop: scale 0.7 to 1": {"crop_scale": (0.7, 1.0)},
    "crop: padded": PADDED,
    "crop: padded, lr x2": {**PADDED, "lr": 0.05},
    "crop: padded, lr x4": {**PADDED, "lr": 0.1},
    "crop: padded, lr x2, ema 0.99": {**PADDED, "lr": 0.05, "ema": 0.99},
    "crop: padded, smoothing 0": {**PADDED, "label_smoothing": 0.0},
    "crop: padded, batch 32": {**PADDED, "batch": 32, "lr": 0.025},
    "crop: padded, adamw 0.003": {**PADDED, "optimizer": "adamw", "lr": 0.003},
    "crop: padded, one_cycle, lr x4": {**PADDED, "schedule": "one_cycle", "lr": 0.1},
    "crop: padded, the network's own strides": {**PADDED, "small_input": False},
    "crop: padded, width 1": {**PADDED, "width": 1.0},
    "crop: padded, progressive 0.5": {**PADDED, "progressive": 0.5},
}
# name -> (fraction of the minutes, settings that the pictures need)
SETS: dict[str, tuple[float, dict[str, Any]]] = {
    "cifar10-small": (1.0, {}),
    "cifar10-shards": (1.0, {"val_share": 0.02}),
    "digits": (0.25, {"flip": 0.0}),
    "cells": (0.5, {"vertical_flip": 0.5}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="the folder of the sets")
    parser.add_argument("--results", type=Path, required=True, help="a line a training")
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--only", default="", help="settings that contain one of these texts, with semicolons")
    parser.add_argument("--table", action="store_true", help="print the table and end")
    options = parser.parse_args()
    if not options.table:
        wanted = [name for name in GRID if not options.only or any(part in name for part in options.only.split(";"))]
        with tempfile.TemporaryDirectory() as folder:
            sets = prepare(options.data, Path(folder), options.sets.split(","))
            compute(sets, wanted, options, Path(folder))
    print(table(read(options.results)))


def prepare(data: Path | None, folder: Path, wanted: list[str]) -> dict[str, Path]:
    """Where the pictures of each set that is there lie."""
    sets: dict[str, Path] = {}
    for name in wanted:
        if name == "digits":
            sets[name] = write_digits(folder / "digits")
        elif name == "cells" and data and (data / "bccd").is_dir():
            sets[name] = write_cells(data / "bccd", folder / "cells")
        elif data and (data / name).is_dir():
            sets[name] = data / name
        else:
            print(f"{name}: not in {data}, left out", file=sys.stderr)
    return sets


def write_digits(folder: Path) -> Path:
    """The 1,797 digits of 8x8 grey pixels that scikit-learn ships, every fifth of a class held out."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    for index, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        target = folder / ("val" if index % 5 == 4 else "train") / str(label)
        target.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels * 255 / 16).round().astype(np.uint8)).save(target / f"{index:04}.png")
    return folder


def write_cells(boxes: Path, folder: Path) -> Path:
    """The boxes of the training and validation photos as pictures of 64x64; of red cells, which are most, about every tenth."""
    data = open_boxes(boxes)
    for split, source in (("train", data.train), ("val", data.val)):
        number = 0
        for index in range(len(source)):
            pixels, target = Image.fromarray(np.asarray(decode(source.read(index)))), source.target(index)
            for box, label in zip(target.corners, target.labels, strict=True):
                number += 1
                if data.classes[label].upper() == "RBC" and number % 10:
                    continue
                place = folder / split / data.classes[label]
                place.mkdir(parents=True, exist_ok=True)
                left, top, right, bottom = (float(side) for side in box)
                if right - left >= 8 and bottom - top >= 8:
                    pixels.crop((left, top, right, bottom)).resize((64, 64)).save(place / f"{number:05}.png")
    return folder


def compute(sets: dict[str, Path], wanted: list[str], options: argparse.Namespace, folder: Path) -> None:
    """All trainings that have no line yet, a line each; the seeds outermost, so that the first are a whole grid."""
    done = {key(row) for row in read(options.results)}
    times = {row["step_of"]: row["step_seconds"] for row in read(options.results)}
    for seed in range(options.seeds):
        for name in wanted:
            for data, path in sets.items():
                minutes = options.minutes * SETS[data][0]
                if (data, name, seed, minutes) in done:
                    continue
                row = one(path, data, name, seed, minutes, times, folder)
                with options.results.open("a") as file:
                    file.write(json.dumps(row) + "\n")
                print(f"{data}, {name}, seed {seed}: {row['accuracy']:.3f} in {row['steps']} steps", file=sys.stderr)


def one(
    path: Path, data: str, name: str, seed: int, minutes: float, times: dict[str, float], folder: Path
) -> dict[str, Any]:
    """Train once; the line of the result."""
    values = {**BASE, **SETS[data][1], **GRID[name]}
    settings = Settings(
        data=str(path),
        out=str(folder / "run" / f"{time.time_ns()}"),
        seed=seed,
        threads=1,
        precision="float32",
        memory_format="channels_last",
        workers=0,
        eval_every=1 << 20,
        save_every=0.0,
        **values,
    )
    what = ", ".join(str(values.get(part)) for part in ("net", "width", "small_input", "input", "batch"))
    if what not in times:
        times[what] = step_seconds(settings)
    steps = max(10, round(60 * minutes / times[what]))
    if settings.progressive < 1:  # the steps of smaller inputs cost their fraction of the area
        scales = [min(1.0, settings.progressive + (1 - settings.progressive) * 1.5 * at / 100) for at in range(100)]
        steps = round(steps / statistics.fmean(scale**2 for scale in scales))
    images = len(task_of(settings.task).open_data(settings).train)
    begun = time.monotonic()
    run = gossamer.train(settings.replace(epochs=steps / max(1, images // settings.batch)))
    row = run.metrics()[-1]
    return {
        "data": data,
        "setting": name,
        "seed": seed,
        "minutes": minutes,
        "steps": row["step"],
        "accuracy": row["val_accuracy"],
        "val_loss": row["val_loss"],
        "step_of": what,
        "step_seconds": times[what],
        "wall_seconds": time.monotonic() - begun,
        "changes": GRID[name],
    }


def step_seconds(settings: Settings) -> float:
    """Processor seconds of a training step of one thread, the fastest of five."""
    start(settings)  # one thread, and the allocator as in a training
    model = create_model(
        settings.net, num_classes=10, width=settings.width, small_input=bool(settings.small_input)
    ).train()
    model.to(memory_format=torch.channels_last)
    size = settings.input_size() or (32, 32)
    images = torch.randn(settings.batch, 3, *size).to(memory_format=torch.channels_last)
    updates = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)
    seconds = []
    for _ in range(6):
        begun = time.process_time()
        updates.zero_grad()
        torch.nn.functional.cross_entropy(model(images), torch.zeros(settings.batch, dtype=torch.long)).backward()
        updates.step()
        seconds.append(time.process_time() - begun)
    return min(seconds[1:])


def key(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["data"], row["setting"], row["seed"], row["minutes"]


def read(path: Path) -> list[dict[str, Any]]:
    """The results so far."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: accuracy in per cent by setting and set, mean (lowest to highest of the seeds), and the mean over the sets."""
    cells: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        cells.setdefault((row["setting"], f"{row['data']}, {row['minutes']:g} min"), []).append(100 * row["accuracy"])
    sets = sorted({data for _, data in cells})
    lines = [f"| setting | {' | '.join(sets)} | mean |", "|---|" + "---:|" * (len(sets) + 1)]
    for name in GRID:
        means, texts = [], []
        for data in sets:
            values = cells.get((name, data), [])
            means += [statistics.fmean(values)] if values else []
            spread = f" ({min(values):.1f} to {max(values):.1f}, n={len(values)})" if len(values) > 1 else ""
            texts.append(f"{means[-1]:.1f}{spread}" if values else "")
        if means:
            complete = f"{statistics.fmean(means):.1f}" if len(means) == len(sets) else ""
            lines.append(f"| {name} | {' | '.join(texts)} | {complete} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
