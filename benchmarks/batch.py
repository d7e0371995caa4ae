"""`gossamer predict --out` beside a plain loop in one process, over JPEGs in tar shards.

    python benchmarks/batch.py flowers.onnx --folder SCRATCH --images 20000 --shards 20 --workers 2 --rounds 3 --json batch.json

SCRATCH takes the shards, made once of seeded noise that is smoothed, so that a JPEG has the size of a photo's. The loop reads a
shard with tarfile, and predicts with `gossamer.load(model, threads=1)` a batch at a time, writing a JSON line an image. Both
run in processes of their own, in turn; times are wall-clock, from start to end of the process. The ratio is images a second of
the first over those of the loop; that over --workers is what a core keeps of its speed.
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
import statistics
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from gossamer.host.machine import describe_machine
from gossamer.host.storage import write_text

LOOP = """
import json, sys, tarfile
import gossamer
model = gossamer.load(sys.argv[1], threads=1)
with open(sys.argv[2], "w") as out:
    for path in sys.argv[4:]:
        with tarfile.open(path) as tar:
            names, images = [], []
            members = [member for member in tar if member.name.endswith(".jpg")]
            for number, member in enumerate(members, 1):
                names.append(member.name)
                images.append(tar.extractfile(member).read())
                if len(images) == int(sys.argv[3]) or number == len(members):
                    for name, prediction in zip(names, model.predict(images)):
                        out.write(json.dumps({"key": name, "answer": prediction.to_json()}) + "\\n")
                    names, images = [], []
"""


def write_shards(folder: Path, images: int, shards: int, side: int) -> list[Path]:
    """Tars with `images` JPEGs in all; those that are there already stay."""
    rng = np.random.default_rng(0)
    pictures = []
    for _ in range(64):  # different bytes; more of them would only take time to make
        small = Image.fromarray(rng.integers(0, 256, (side // 8, side // 8, 3), np.uint8))
        file = io.BytesIO()
        small.resize((side, side), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
        pictures.append(file.getvalue())
    paths = [folder / f"{images}-{side}" / f"{shard:05}-of-{shards}.tar" for shard in range(shards)]
    for shard, path in enumerate(paths):
        if path.exists():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        with tarfile.open(partial, "w") as tar:
            for index in range(shard, images, shards):
                member = tarfile.TarInfo(f"{index:08}.jpg")
                member.size = len(pictures[index % len(pictures)])
                tar.addfile(member, io.BytesIO(pictures[index % len(pictures)]))
        partial.rename(path)
    return paths


def seconds(command: list[str]) -> float:
    """Wall-clock time of a process that must succeed."""
    started = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - started


def lines_in(path: Path) -> int:
    """Lines of a file."""
    with path.open("rb") as file:
        return sum(1 for _ in file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--folder", required=True)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--shards", type=int, default=20)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", default="")
    options = parser.parse_args()
    folder = Path(options.folder)
    shards = write_shards(folder, options.images, options.shards, options.side)
    rounds: dict[str, list[float]] = {"loop": [], "gossamer": []}
    lines, answers = folder / "loop.jsonl", folder / "answers"
    ours = [sys.executable, "-m", "gossamer", "predict", options.model, *map(str, shards), "--out", str(answers)]
    ours += ["--workers", str(options.workers), "--batch", str(options.batch)]
    for _ in range(options.rounds):
        plain = [sys.executable, "-c", LOOP, options.model, str(lines), str(options.batch), *map(str, shards)]
        rounds["loop"].append(options.images / seconds(plain))
        shutil.rmtree(answers, ignore_errors=True)
        rounds["gossamer"].append(options.images / seconds(ours))
        counts = [lines_in(lines), sum(lines_in(path) for path in (answers / "rows").rglob("*.jsonl"))]
        if counts != [options.images] * 2:
            raise SystemExit(f"{counts} rows for {options.images} images")
    ratios = [ours / plain for ours, plain in zip(rounds["gossamer"], rounds["loop"])]
    result: dict[str, Any] = {
        "machine": describe_machine(),
        "images": options.images,
        "workers": options.workers,
        "images_per_second": {name: [round(rate, 1) for rate in rates] for name, rates in rounds.items()},
        "ratios": [round(ratio, 3) for ratio in ratios],
    }
    for name, rates in rounds.items():
        print(f"{name}: {statistics.median(rates):.0f} images/s ({min(rates):.0f} to {max(rates):.0f})")
    ratio = statistics.median(ratios)
    print(f"ratio {ratio:.2f} ({min(ratios):.2f} to {max(ratios):.2f}), {ratio / options.workers:.2f} a worker")
    if options.json:
        write_text(options.json, json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
