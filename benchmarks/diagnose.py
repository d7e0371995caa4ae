"""How often `gossamer diagnose` names a planted failure first, and how often it alarms on a healthy run.

    python benchmarks/diagnose.py [--data SETS] [--seeds 3] [--results results.jsonl]

Each failure is planted in the data or the settings of a real training on the digits of scikit-learn (600 for training, 300 for
validation, drawn by the seed), or on boxes and masks of SETS (bccd, camvid) where that folder is given; no file of a run is
edited. A failure counts as named where the first finding is the one expected. A healthy run alarms where a finding is certain or
likely. The time is that of `diagnose` on the run, torch not imported, the fastest of three.
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from gossamer.cli.main import main as gossamer
from gossamer.diagnosis import diagnose
from gossamer.errors import GossamerError

ONE = "--threads 1 --workers 0 --precision float32 --memory-format channels_last".split()
SMALL = ["--net", "mobilenet_v1", "--width", "0.25", "--input", "32", "--batch", "32", "--flip", "0"]
BOXES = "--task detect --net mobilenet_v2 --width 0.35 --input 160 --batch 8".split()
MASKS = "--task segment --net mobilenet_v2 --width 0.35 --input 96x128 --batch 8 --ignore-index 11".split()


@dataclass(frozen=True)
class Failure:
    """A failure: the finding expected (any of several words for it), the set, the flags, and what is done to the data before."""

    expected: tuple[str, ...]
    flags: tuple[str, ...]
    data: str = "digits"
    damage: Callable[[Path, np.random.Generator], None] | None = None
    killed: bool = False


def exchange(root: Path, rng: np.random.Generator) -> None:
    """Every image gets the class of another, in both splits."""
    for split in ("train", "val"):
        paths = sorted((root / split).glob("*/*"))
        contents = [path.read_bytes() for path in paths]
        for path, place in zip(paths, rng.permutation(len(paths)), strict=True):
            path.write_bytes(contents[place])


def shift(root: Path, rng: np.random.Generator) -> None:
    """The classes of the validation images are one further."""
    count = int(rng.integers(1, 4))
    for label in range(10):
        (root / "val" / f"{label}").rename(root / "val" / f"was{label}")
    for label in range(10):
        (root / "val" / f"was{label}").rename(root / "val" / f"{(label + count) % 10}")


def copy_over(root: Path, rng: np.random.Generator) -> None:
    """A tenth of the training images are validation images as well."""
    for path in rng.permutation(sorted((root / "train").glob("*/*")))[::10]:
        shutil.copy(path, root / "val" / Path(path).parent.name / f"copy-{Path(path).name}")


def thin(root: Path, rng: np.random.Generator) -> None:
    """Five classes keep two training images each."""
    for label in rng.permutation(10)[:5]:
        for path in sorted((root / "train" / f"{label}").iterdir())[2:]:
            path.unlink()


def truncate(root: Path, rng: np.random.Generator) -> None:
    """A tenth of the images are cut off."""
    for path in rng.permutation(sorted(root.glob("*/*/*")))[::10]:
        Path(path).write_bytes(Path(path).read_bytes()[:60])


def keep_few(root: Path, rng: np.random.Generator) -> None:
    """Three training images a class, their pixels drowned in noise."""
    for path in sorted((root / "train").glob("*/*")):
        if int(path.stem) % 20:
            path.unlink()
    for path in root.glob("*/*/*"):
        pixels = np.asarray(Image.open(path), float)
        Image.fromarray(np.clip(pixels * 0.5 + rng.normal(60, 60, pixels.shape), 0, 255).astype(np.uint8)).save(path)


def enlarge(root: Path, rng: np.random.Generator) -> None:
    """Photographs of 3000 pixels where 32 are looked at."""
    for number, path in enumerate(sorted(root.glob("*/*/*"))):
        with Image.open(path) as image:
            big = image.convert("RGB").resize((2400, 2400))
        path.unlink()
        if number % 8 == 0:
            big.save(path.with_suffix(".png"), compress_level=1)


def ignore_all(root: Path, rng: np.random.Generator) -> None:
    """Masks of which two columns are labelled."""
    for path in mask_files(root):
        mask = np.asarray(Image.open(path)).copy()
        mask[:, 2:] = 11
        Image.fromarray(mask).save(path)


def mask_files(root: Path) -> list[Path]:
    """The PNG files of one channel below `root`."""
    found = []
    for path in sorted(root.rglob("*.png")):
        with Image.open(path) as image:
            if image.mode in ("L", "P"):
                found.append(path)
    return found


LABELS = ("the labels do not belong", "labels of training and validation images are shifted")
FAILURES: dict[str, Failure] = {
    "rate 300 times too high": Failure(("rate too high", "rate is too high"), (*SMALL, "--lr", "30", "--epochs", "4")),
    "rate of 1e-6": Failure(("rate is too low",), (*SMALL, "--lr", "1e-6", "--epochs", "4")),
    "labels exchanged": Failure(
        LABELS[:1], (*SMALL, "--epochs", "60", "--label-smoothing", "0", "--crop", "center"), damage=exchange
    ),
    "labels of validation shifted": Failure(
        LABELS[1:], (*SMALL, "--epochs", "40", "--label-smoothing", "0"), damage=shift
    ),
    "training images in validation": Failure(
        ("are among the validation",), (*SMALL, "--epochs", "4"), damage=copy_over
    ),
    "classes of two images": Failure(("class is drowned",), (*SMALL, "--epochs", "12"), damage=thin),
    "backbone frozen": Failure(("frozen",), (*SMALL, "--freeze", "backbone", "--epochs", "3")),
    "batches of two": Failure(("tiny batches",), (*SMALL, "--batch", "2", "--epochs", "1")),
    "mean and std of 255": Failure(
        ("mean and std",), (*SMALL, "--mean", "123.7", "116.3", "103.5", "--std", "58", "57", "57", "--epochs", "3")
    ),
    "crops of a hundredth": Failure(
        ("augmentation leaves too little",),
        (*SMALL, "--crop", "random_resized", "--crop-scale", "0.001", "0.01", "--epochs", "6"),
    ),
    "30 noisy images": Failure(
        ("by heart",),
        (*SMALL, "--epochs", "60", "--batch", "10", "--crop", "center", "--label-smoothing", "0"),
        damage=keep_few,
    ),
    "photographs of 2400 pixels": Failure(("waits for images",), (*SMALL, "--epochs", "2"), damage=enlarge),
    "images cut off": Failure(("could not be read",), (*SMALL, "--epochs", "8"), damage=truncate),
    "killed": Failure(("was killed",), (*SMALL, "--epochs", "500"), killed=True),
    "anchors of the wrong size": Failure(
        ("anchors do not match",), (*BOXES, "--epochs", "1", "--anchor-sizes", "2", "3", "150", "158"), "bccd"
    ),
    "masks ignored": Failure(("masks is ignored",), (*MASKS, "--epochs", "1"), "camvid", damage=ignore_all),
}

HEALTHY: dict[str, tuple[str, tuple[str, ...]]] = {
    "mobilenet_v1": ("digits", (*SMALL, "--epochs", "20")),
    "mobilenet_v2, adamw": (
        "digits",
        (*SMALL, "--net", "mobilenet_v2", "--optimizer", "adamw", "--lr", "0.003", "--epochs", "20"),
    ),
    "shufflenet_v2, cosine, ema": (
        "digits",
        (*SMALL, "--net", "shufflenet_v2_x0_5", "--width", "1", "--ema", "0.99", "--epochs", "20"),
    ),
    "squeezenet, mixup": ("digits", (*SMALL, "--net", "resnet18", "--mixup", "0.2", "--epochs", "12")),
    "lenet5, batch 16": ("digits", (*SMALL, "--net", "lenet5", "--width", "1", "--batch", "16", "--epochs", "20")),
    "balanced": ("digits", (*SMALL, "--sampler", "balanced", "--epochs", "20")),
    "embeddings": ("digits", (*SMALL, "--task", "embed", "--epochs", "12")),
    "embeddings, arcface": ("digits", (*SMALL, "--task", "embed", "--loss", "arcface", "--epochs", "12")),
    "multilabel": ("table", (*SMALL, "--task", "multilabel", "--epochs", "20")),
    "boxes": ("bccd", (*BOXES, "--epochs", "6")),
    "masks": ("camvid", (*MASKS, "--epochs", "6")),
    "masks, adamw": ("camvid", (*MASKS, "--optimizer", "adamw", "--lr", "0.001", "--epochs", "6")),
}


def write_digits(root: Path, seed: int) -> Path:
    """60 digits a class for training and 30 for validation, as PNG files of 8x8 drawn by the seed."""
    from sklearn.datasets import load_digits

    digits, rng = load_digits(), np.random.default_rng(seed)
    for label in range(10):
        for place, index in enumerate(rng.permutation(np.flatnonzero(digits.target == label))[:90]):
            target = root / ("val" if place < 30 else "train") / str(label)
            target.mkdir(parents=True, exist_ok=True)
            Image.fromarray((digits.images[index] * 255 / 16).round().astype(np.uint8)).save(target / f"{place:03}.png")
    return root


def write_table(root: Path, seed: int) -> Path:
    """The digits with two labels each: even, and above four."""
    write_digits(root, seed)
    lines = ["path,split,labels"]
    for path in sorted(root.glob("*/*/*")):
        digit = int(path.parent.name)
        names = ["even"] * (digit % 2 == 0) + ["large"] * (digit > 4)
        lines.append(f"{path.relative_to(root)},{path.parts[-3]},{';'.join(names)}")
    (root / "labels.csv").write_text("\n".join(lines) + "\n")
    return root / "labels.csv"


def place_data(name: str, root: Path, seed: int, sets: Path | None, part: bool) -> Path | None:
    """A copy of the set that may be damaged; None where it is not there."""
    if name == "digits":
        return write_digits(root, seed)
    if name == "table":
        return write_table(root, seed)
    if sets is None or not (sets / name).is_dir():
        return None
    return Path(shutil.copytree(sets / name, root))


def train(data: Path, out: Path, flags: tuple[str, ...], seed: int, killed: bool) -> str:
    """Train as the command line does; the last line of what was said where it failed."""
    words = ["train", str(data), *flags, *ONE, "--seed", str(seed), "--out", str(out)]
    if killed:
        with subprocess.Popen(
            [sys.executable, "-c", "import sys; from gossamer.cli.main import main; sys.exit(main())", *words],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        ) as process:  # fmt: skip
            for _ in range(600):
                if (out / "metrics.jsonl").exists() or process.poll() is not None:
                    break
                time.sleep(0.1)
            process.send_signal(signal.SIGKILL)
        return ""
    said = io.StringIO()
    with redirect_stdout(said), redirect_stderr(said):
        code = gossamer(words)
    return (said.getvalue().strip().splitlines() or [""])[-1] if code else ""


def outcome(
    name: str, kind: str, failure: Failure, seed: int, sets: Path | None, folder: Path
) -> dict[str, object] | None:
    """The line of one training, None where its data are not there."""
    root = folder / f"{kind}-{len(name)}-{seed}-{time.time_ns()}"
    data = place_data(failure.data, root, seed, sets, False)
    if data is None:
        return None
    if failure.damage:
        failure.damage(root, np.random.default_rng(seed))
    out = root.with_name(root.name + "-run")
    error = train(data, out, failure.flags, seed, failure.killed)
    try:
        found = [f"{finding.cause} ({finding.certainty})" for finding in diagnose(out).findings]
    except GossamerError as problem:
        found, error = [], f"{error}; {problem}"
    seconds = fastest(out)
    shutil.rmtree(root)
    shutil.rmtree(out, ignore_errors=True)
    firm = [text for text in found if not text.endswith("(possible)")]
    right = (
        any(word in found[0] for word in failure.expected)
        if kind == "failure" and found
        else kind == "healthy" and not firm
    )
    return {
        "kind": kind,
        "name": name,
        "seed": seed,
        "right": right,
        "found": found,
        "error": error,
        "seconds": seconds,
    }


def fastest(run: Path) -> float:
    """Seconds of `gossamer diagnose RUN` in a process of its own, the fastest of three."""
    command = [
        sys.executable,
        "-c",
        "import sys; from gossamer.cli.main import main; sys.exit(main())",
        "diagnose",
        str(run),
    ]
    times = []
    for _ in range(3):
        begun = time.perf_counter()
        subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
        times.append(time.perf_counter() - begun)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="the folder that holds bccd and camvid")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", default="", help="those whose name contains this")
    parser.add_argument("--results", type=Path, help="a line of JSON a training; those that are there are not repeated")
    options = parser.parse_args()
    rows: list[dict[str, object]] = []
    if options.results and options.results.exists():
        rows = [json.loads(line) for line in options.results.read_text().splitlines()]
    done = {(row["kind"], row["name"], row["seed"]) for row in rows}
    todo = [("failure", name, failure, seed) for name, failure in FAILURES.items() for seed in range(options.seeds)]
    todo += [("healthy", name, Failure((), flags, data), 0) for name, (data, flags) in HEALTHY.items()]
    with tempfile.TemporaryDirectory() as folder:
        for kind, name, failure, seed in todo:
            if (kind, name, seed) in done or options.only not in name:
                continue
            row = outcome(name, kind, failure, seed, options.data, Path(folder))
            if row is None:
                print(f"{name}: needs {failure.data} of --data, left out", file=sys.stderr)
                continue
            rows.append(row)
            print(
                f"{'right' if row['right'] else 'WRONG'}: {name}, seed {seed}: {row['found'] or 'nothing'} {row['error']}",
                file=sys.stderr,
            )
            if options.results:
                with options.results.open("a") as file:
                    file.write(json.dumps(row) + "\n")
    print(table(rows))


def table(rows: list[dict[str, object]]) -> str:
    """Named first of how many, for each failure, and the alarms of the healthy runs."""
    lines = ["| run | right | the first finding of the others |", "|---|---|---|"]
    for kind in ("failure", "healthy"):
        for name in dict.fromkeys(row["name"] for row in rows if row["kind"] == kind):
            own = [row for row in rows if row["kind"] == kind and row["name"] == name]
            others = {str((list(row["found"]) or ["nothing"])[0]) for row in own if not row["right"]}  # type: ignore[call-overload]
            lines.append(
                f"| {kind}: {name} | {sum(bool(row['right']) for row in own)} of {len(own)} | {'; '.join(sorted(others))} |"
            )
        own = [row for row in rows if row["kind"] == kind]
        if own:
            share = sum(bool(row["right"]) for row in own)
            lines.append(f"| **{kind}, all** | {share} of {len(own)} ({share / len(own):.0%}) | |")
    if rows:
        lines.append(f"\nSlowest `gossamer diagnose`: {max(float(str(row['seconds'])) for row in rows):.2f} s")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
