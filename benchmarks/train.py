"""Training throughput: `gossamer.train` against a plain PyTorch script, side by side on this machine.

    python benchmarks/train.py --case 224 --data PHOTOS [--rounds 3] [--seconds 30] [--json out.json]

Each candidate runs in a process of its own, in turn, in several rounds; every other round goes in reverse, so that a
machine that slows down slows all of them. The baselines are `plain_train.py` as it stands (float32, channels_first), and
with each other of {float32, bf16} x {channels_first, channels_last}: what can be had by hand. A ratio is taken within a
round, and given as the median over the rounds with its range.

Cases: 224 is MobileNetV2 at 224x224, batch 32; 32 is MobileNetV2 with the strides for small images at 32x32, batch 256.
DATA is an image folder (with or without train/), a folder of .tar shards (KEY.jpg and KEY.cls), or a folder of images,
each a class of its own. It is laid out in a temporary folder, each image as often as an epoch needs.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from gossamer.host import machine
from gossamer.host.storage import write_text

HERE = Path(__file__).parent
SUFFIXES = (".jpg", ".jpeg", ".png")


class Case(NamedTuple):
    """size in pixels, images per step, and images per epoch at least: epochs must not end within the measured time."""

    size: int
    batch: int
    images: int


CASES = {"224": Case(224, 32, 12_800), "32": Case(32, 256, 51_200)}
CANDIDATES = {
    "gossamer": [str(HERE / "gossamer_train.py")],
    "plain (float32, channels_first)": [str(HERE / "plain_train.py")],
    "float32, channels_last": [str(HERE / "plain_train.py"), "--channels-last"],
    "bf16, channels_first": [str(HERE / "plain_train.py"), "--precision", "bf16"],
    "bf16, channels_last": [str(HERE / "plain_train.py"), "--precision", "bf16", "--channels-last"],
}
OURS, PLAIN, *_ = CANDIDATES


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=CASES, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=30.0, help="measured for each candidate in each round")
    parser.add_argument("--json", type=Path, help="also write the result here")
    options = parser.parse_args()
    case = CASES[options.case]
    with tempfile.TemporaryDirectory() as folder:
        classes = lay_out(options.data, Path(folder), case.images)
        rounds = []
        for number in range(options.rounds):
            names = list(CANDIDATES) if number % 2 == 0 else list(reversed(CANDIDATES))
            rounds.append({name: measure(name, Path(folder), case, options.seconds) for name in names})
            best = max(rounds[-1], key=lambda name: rounds[-1][name]["images_per_second"])
            print(f"round {number + 1} of {options.rounds}: fastest {best}", file=sys.stderr)
    result = {"case": options.case, "classes": classes, "seconds": options.seconds, **summary(rounds)}
    result["machine"] = machine.describe_machine()
    print(text(result, case))
    if options.json:
        write_text(options.json, json.dumps(result, indent=1))


def measure(name: str, data: Path, case: Case, seconds: float) -> dict[str, Any]:
    """Images per second of one candidate in a process of its own."""
    options = ["--size", str(case.size), "--batch", str(case.batch), "--seconds", str(seconds)]
    command = [sys.executable, *CANDIDATES[name], str(data), *options]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode or not done.stdout.strip():
        raise SystemExit(f"{name} failed: {' '.join(command)}\n{done.stderr}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def summary(rounds: list[dict[str, dict[str, Any]]]) -> dict[str, Any]:
    """Medians with their range over the rounds, and the ratios."""
    rates = {name: [round_[name]["images_per_second"] for round_ in rounds] for name in CANDIDATES}
    by_hand = {name: statistics.median(values) for name, values in rates.items() if name != OURS}
    best = max(by_hand, key=lambda name: by_hand[name])
    return {
        "rows": [{"name": name, **spread(values), "rounds": values} for name, values in rates.items()],
        "best_by_hand": best,
        "chosen": [round_[OURS]["note"] for round_ in rounds],
        "ours_over_plain": spread([ours / other for ours, other in zip(rates[OURS], rates[PLAIN], strict=True)]),
        "ours_over_best": spread([ours / other for ours, other in zip(rates[OURS], rates[best], strict=True)]),
    }


def spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def text(result: dict[str, Any], case: Case) -> str:
    """The result for people."""
    here = result["machine"]
    lines = [
        f"MobileNetV2 at {case.size}x{case.size}, batch {case.batch}, {here['cpu']}, {here['cores']} cores",
        f"{'':34}{'images/s':>10}{'low':>10}{'high':>10}",
    ]
    for row in result["rows"]:
        lines.append(f"{row['name']:34}{row['median']:10.1f}{row['low']:10.1f}{row['high']:10.1f}")
    for name, ratio in (("plain", result["ours_over_plain"]), (result["best_by_hand"], result["ours_over_best"])):
        lines.append(f"gossamer / {name}: {ratio['median']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})")
    return "\n".join([*lines, *(f"gossamer chose {note}" for note in dict.fromkeys(result["chosen"]))])


def lay_out(source: Path, target: Path, least: int) -> int:
    """train/CLASS/N.jpg and val/CLASS/N.jpg in `target`, links to the images of `source`; the number of classes."""
    images = list(labelled(source, target / "extracted"))
    if not images:
        raise SystemExit(f"{source}: no images")
    for split, count in (("train", max(least, len(images))), ("val", min(len(images), 256))):
        for number, (path, label) in enumerate(itertools.islice(itertools.cycle(images), count)):
            folder = target / split / label
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{number:06}{path.suffix.lower()}").symlink_to(path.resolve())
    return len({label for _, label in images})


def labelled(source: Path, extracted: Path) -> Iterator[tuple[Path, str]]:
    """The training images below `source`, each with its class."""
    shards = sorted(source.glob("train*.tar"))
    if shards:
        yield from extract(shards, extracted)
        return
    root = source / "train" if (source / "train").is_dir() else source
    folders = sorted(path for path in root.iterdir() if path.is_dir())
    for folder in folders:
        yield from ((path, folder.name) for path in sorted(folder.iterdir()) if path.suffix.lower() in SUFFIXES)
    if not folders:
        yield from ((path, path.stem) for path in sorted(root.iterdir()) if path.suffix.lower() in SUFFIXES)


def extract(shards: list[Path], folder: Path) -> Iterator[tuple[Path, str]]:
    folder.mkdir()
    for shard in shards:
        with tarfile.open(shard) as tar:
            parts: dict[str, dict[str, bytes]] = {}
            for member in tar:
                file = tar.extractfile(member)
                if file is not None:
                    key, _, kind = Path(member.name).name.partition(".")
                    parts.setdefault(key, {})[kind] = file.read()
        for key, part in parts.items():
            path = folder / f"{shard.stem}-{key}.jpg"
            path.write_bytes(part["jpg"])
            yield path, part["cls"].decode().strip()


if __name__ == "__main__":
    main()
