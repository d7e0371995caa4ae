"""The main job on the digits that scikit-learn ships: images, training, model file, check, speed, report, Grad-CAM.

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
TILE, GAP = 96, 4  # pixels


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


def installed_runtimes() -> list[str]:
    """torch, and the runtimes of files that are here; a line for each that is not. The plain numpy one is no runtime to time."""
    from gossamer.runtime.table import RUNTIMES, missing

    names = ["torch"]
    for name, entry in RUNTIMES.items():
        if name == "reference":
            continue
        if reason := missing(entry):
            print(f"not in the latency table: {reason}", flush=True)
        else:
            names.append(name)
    return names


def draw_evidence(run: Path, files: list[Path], target: Path) -> None:
    """Draw each image above where the network found the evidence for its answer (Grad-CAM), side by side."""
    import numpy as np
    import torch
    from PIL import Image

    from gossamer.images.preprocess import decode
    from gossamer.report.gallery import heat
    from gossamer.report.gradcam import grad_cam
    from gossamer.training.restore import load_run

    network = load_run(run)
    pixels = [network.preprocess.pixels(decode(file.read_bytes())) for file in files]
    images = torch.from_numpy(network.preprocess.normalise(np.stack(pixels)))
    model = network.model.eval()
    with torch.no_grad():
        answers = model(images).argmax(1).numpy()
    maps = grad_cam(model, images, answers)
    sheet = Image.new("RGB", (len(files) * (TILE + GAP) - GAP, 2 * TILE + GAP), "white")
    for column, (image, evidence) in enumerate(zip(pixels, maps, strict=True)):
        tile = Image.fromarray(image[:, :, 0]).resize((TILE, TILE), Image.Resampling.NEAREST).convert("RGB")
        sheet.paste(tile, (column * (TILE + GAP), 0))
        sheet.paste(heat(tile, evidence), (column * (TILE + GAP), TILE + GAP))
    sheet.save(target)


def main() -> None:
    """Do it all below runs/, in a folder that is new each time."""
    begun = time.monotonic()
    number = 1
    while (root := Path("runs") / f"demo-{number}").exists():
        number += 1
    images, run, model = root / "digits", root / "run", root / "digits.onnx"
    print(f"writing 1,797 digits as PNG files to {images}", flush=True)
    write_digits(images)

    started = time.monotonic()
    # LeNet-5 is the network that was made for digits. A mirrored digit is another digit, so no flips.
    recipe = "--net lenet5 --input 32 --in-chans 1 --mean 0.5 --std 0.5"
    recipe += " --flip 0 --batch 32 --lr 0.05 --epochs 12"
    gossamer("train", str(images), *recipe.split(), "--out", str(run))
    seconds = time.monotonic() - started
    gossamer("eval", str(run))
    gossamer("export", str(run), "--out", str(model), "--licence", "Apache-2.0")
    gossamer("verify", str(model))
    sevens = sorted((images / "val" / "7").iterdir())[:3]
    gossamer("predict", str(model), *map(str, sevens), "--top", "2")
    gossamer("bench", str(run), "--runtimes", ",".join(installed_runtimes()), "--plot", str(root / "latency.svg"))
    gossamer("report", str(run), "--model", str(model))
    evidence = root / "gradcam.png"
    print(f"\ndrawing where the network found the evidence for its answers (Grad-CAM): {evidence}", flush=True)
    draw_evidence(run, [sorted((images / "val" / str(digit)).iterdir())[0] for digit in range(10)], evidence)

    best = json.loads((run / "best.json").read_text())
    print(f"\n{best['accuracy']:.2%} of the held-out digits are right after {seconds:.0f} s of training.")
    print(f"model     {model} ({model.stat().st_size / 1e6:.2f} MB)")
    print(f"report    {run / 'report.html'}")
    print(f"latency   {root / 'latency.svg'}")
    print(f"Grad-CAM  {evidence}: a digit of each class, and where the network found the evidence for its answer")
    print(f"all of it took {time.monotonic() - begun:.0f} s. What to try next:")
    print("  gossamer train YOUR_IMAGES --minutes 10        # one folder per class; then gossamer report RUN")
    print(f"  gossamer compile {model} --out {root / 'digits.goss'}   # for the native engine, no Python needed")
    print(f"  gossamer inspect {run} --html {root / 'inspect.html'}   # what each layer costs")
    if best["accuracy"] < WANTED:
        sys.exit(f"that is below the {WANTED:.0%} that the demo promises")


if __name__ == "__main__":
    main()
