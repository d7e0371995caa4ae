"""The main job on the digits that scikit-learn ships: images, training, model file, check, speed, report.

Every step is a command that you can type yourself; it is printed before it runs.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from pathlib import Path

WANTED = 0.97  # accuracy on held-out digits


def write_digits(folder: Path) -> None:
    """Write the 1,797 digits of 8x8 grey pixels as PNG files, one folder per class, every fifth of a class in val/."""
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    seen = [0] * 10
    for pixels, label in zip(digits.images, digits.target, strict=True):
        split = "val" if seen[label] % 5 == 4 else "train"
        target = folder / split / str(label)
        target.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels * 255 / 16).round().astype(np.uint8)).save(target / f"{seen[label]:03}.png")
        seen[label] += 1


def gossamer(*arguments: str) -> None:
    """Run a gossamer command, showing it and what it prints."""
    print(f"\n$ gossamer {shlex.join(arguments)}", flush=True)
    code = subprocess.run([sys.executable, "-m", "gossamer", *arguments]).returncode
    if code:
        sys.exit(code)


def main() -> None:
    """Do it all below runs/, in a folder that is new each time."""
    number = 1
    while (root := Path("runs") / f"demo-{number}").exists():
        number += 1
    images, run, model = root / "digits", root / "run", root / "digits.onnx"
    print(f"writing 1,797 digits as PNG files to {images}", flush=True)
    write_digits(images)

    started = time.monotonic()
    # A mirrored digit is another digit, so no flips.
    recipe = "--net resnet18 --width 0.25 --input 32 --no-small-input --in-chans 1 --mean 0.5 --std 0.5"
    recipe += " --flip 0 --crop-scale 0.7 1 --batch 32 --lr 0.05 --epochs 8"
    gossamer("train", str(images), *recipe.split(), "--out", str(run))
    seconds = time.monotonic() - started
    gossamer("eval", str(run))
    gossamer("export", str(run), "--out", str(model), "--licence", "Apache-2.0")
    gossamer("verify", str(model))
    gossamer("predict", str(model), *sorted(map(str, (images / "val" / "7").iterdir()))[:3], "--top", "2")
    gossamer("bench", str(run), "--threads", "1,2", "--plot", str(root / "latency.svg"))
    gossamer("report", str(run), "--model", str(model))
    best = json.loads((run / "best.json").read_text())
    print(f"\n{best['accuracy']:.2%} of the held-out digits are right after {seconds:.0f} s of training.")
    print(f"model  {model} ({model.stat().st_size / 1e6:.2f} MB)\nreport {run / 'report.html'}")
    if best["accuracy"] < WANTED:
        sys.exit(f"that is below the {WANTED:.0%} that the demo promises")


if __name__ == "__main__":
    main()
