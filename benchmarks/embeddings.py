"""Four losses of metric learning at equal time, scored on classes that none of them saw.

    python benchmarks/embeddings.py CIFAR10_SHARDS --folder SCRATCH --minutes 10 --threads 1 --json embeddings.json
    python benchmarks/embeddings.py CIFAR10_SHARDS --folder SCRATCH --minutes 10 --losses triplet --json embeddings.json

CIFAR10_SHARDS is CIFAR-10 as tar shards, train-*.tar and test-*.tar of KEY.jpg and KEY.cls, with classes.txt; where it
is absent, that is printed and nothing is done. SCRATCH takes shards without the held-out classes (so no loss, no validation
and no choice of weights knows of them), shards of held-out images, and the runs. The network, its first weights,
the batches, the optimiser and the minutes are the same for all; what counts are the last weights.

The default pair is cat and dog: every network that tells animals from vehicles finds a cat among trucks, so such a pair
says nothing of a loss, while what distinguishes these two must come from the eight other classes. Chance is 0.5. Below the
losses are two baselines: the same backbone before its first step, and the pixels themselves.
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import gossamer
from gossamer import Run, Settings
from gossamer.data.open import open_source, read_table
from gossamer.data.table import Table
from gossamer.host import machine
from gossamer.host.progress import PlainLines
from gossamer.host.storage import write_text
from gossamer.images.preprocess import Preprocess
from gossamer.tasks.registry import task_of
from gossamer.training.evaluate import Forward, evaluate
from gossamer.training.restore import load_run, preprocess_of, torch_forward

Json = dict[str, Any]
LOSSES = ("contrastive", "triplet", "quadruplet", "arcface")
BASELINES = ("untrained", "pixels")
SCORES = {"recall1": "recall@1", "map_r": "MAP@R", "auc": "AUC"}


def write_shard(path: Path, table: Table, rows: Sequence[int]) -> None:
    """The images of these rows with the names of their classes."""
    with tarfile.open(path, "w") as shard:
        for number, row in enumerate(rows):
            name = table.classes[table.labels[row]].encode()
            for extension, content in (("jpg", table.store.read(row)), ("txt", name)):
                member = tarfile.TarInfo(f"{number:06}.{extension}")
                member.size = len(content)
                shard.addfile(member, io.BytesIO(content))


def prepare(data: Path, folder: Path, held: tuple[str, ...], each: int) -> tuple[Path, Path]:
    """Shards of the other classes, with the first tenth of their test images to watch, and of `each` images of the
    held-out ones, test images first."""
    seen, unseen = folder / f"without-{'-'.join(held)}", folder / f"{'-'.join(held)}-{each}"
    if unseen.is_dir():  # it is written last
        return seen, unseen
    table = read_table(data)
    unknown = [name for name in held if name not in table.classes]
    if unknown or len(held) < 2:
        raise SystemExit(f"--hold-out {','.join(held)}: two or more of {', '.join(table.classes)}")
    out = np.isin(table.labels, [table.classes.index(name) for name in held])
    train, test = (np.isin(np.arange(len(out)), table.rows(split)) for split in ("train", "test"))
    shutil.rmtree(seen, ignore_errors=True)
    seen.mkdir(parents=True)
    watched = np.flatnonzero(test & ~out)
    write_shard(seen / "train-00000.tar", table, np.flatnonzero(train & ~out).tolist())
    write_shard(seen / "val-00000.tar", table, watched[: len(watched) // 10].tolist())
    partial = unseen.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    mine = [np.flatnonzero(table.labels == table.classes.index(name)) for name in held]
    chosen = [rows[np.argsort(~test[rows], kind="stable")][:each] for rows in mine]
    write_shard(partial / "test-00000.tar", table, np.concatenate(chosen).tolist())
    partial.rename(unseen)
    return seen, unseen


def scores(forward: Forward, preprocess: Preprocess, settings: Settings, seen: Path, unseen: Path) -> Json:
    """The product's scores of the images that were watched, and of the held-out ones."""
    result: Json = {}
    for data, prefix, names in ((seen, "seen_", ["recall1"]), (unseen, "", list(SCORES))):
        source = open_source(data, ())
        scorer = task_of("embed")(source.classes, settings).scorer()
        evaluation = evaluate(forward, source, preprocess, scorer).scores()
        result |= {f"{prefix}images": len(source), **{prefix + name: evaluation.metrics[name] for name in names}}
    return result


def untrained(settings: Settings, classes: tuple[str, ...]) -> Forward:
    """The network of a run as it was before its first step."""
    torch.manual_seed(settings.seed)
    return torch_forward(task_of("embed")(classes, settings).build().eval())


def pixels(batch: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    """(N, C, H, W) as embeddings (N, C * H * W)."""
    return {"embedding": batch.reshape(len(batch), -1)}


def train(loss: str, seen: Path, options: argparse.Namespace) -> Run:
    """A run with this loss."""
    out = Path(options.folder) / "runs" / loss
    shutil.rmtree(out, ignore_errors=True)
    settings = Settings(
        data=str(seen),
        out=str(out),
        task="embed",
        loss=loss,
        net=options.net,
        width=options.width,
        dim=options.dim,
        input="32",
        minutes=options.minutes,
        batch=options.batch,
        per_identity=options.per_identity,
        optimizer="adamw",
        lr=options.lr,
        crop="padded",
        seed=options.seed,
        precision=options.precision,
        memory_format="channels_last",
        threads=options.threads,
        workers=0,
    )
    return gossamer.train(settings, progress=PlainLines())


def row_of(run: Run, seen: Path, unseen: Path) -> Json:
    """What a run came to."""
    rows, log = run.metrics(), (run.path / "log.txt").read_text(encoding="utf-8").splitlines()
    network = load_run(run.path, "last")
    return {
        "steps": rows[-1]["step"],
        "epochs": rows[-1]["epoch"],
        "minutes": rows[-1]["seconds"] / 60,
        "alarms": sum("collapsed" in line for line in log),
        **scores(torch_forward(network.model), network.preprocess, network.settings, seen, unseen),
    }


def table(result: Json) -> str:
    """One row per loss, and the baselines."""
    names = [name for name in (*LOSSES, *BASELINES) if name in result["rows"]]
    lines = [
        "| loss | minutes | steps | epochs | steps called collapsed | recall@1, classes trained on | "
        + " | ".join(f"{score}, {' and '.join(result['held_out'])}" for score in SCORES.values())
        + " |",
        "|---|---:|---:|---:|---:|---:" + "|---:" * len(SCORES) + "|",
    ]
    for name in names:
        row = result["rows"][name]
        cells = [f"{row[key]:.4g}" if key in row else "-" for key in ("minutes", "steps", "epochs", "alarms")]
        cells += [f"{row[key]:.3f}" for key in ("seen_recall1", *SCORES)]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    row = next(iter(result["rows"].values()))
    counts = f"{row['images']} held-out images, {row['seen_images']} of the classes trained on"
    return "\n".join([*lines, "", f"{counts}; {result['settings']}"])


def main() -> None:
    """Train the chosen losses, and show all that the file holds."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data")
    parser.add_argument("--folder", required=True, help="scratch: prepared shards and runs")
    parser.add_argument("--hold-out", default="cat,dog", help="classes that no loss sees")
    parser.add_argument("--images", type=int, default=2000, help="of each held-out class")
    parser.add_argument("--minutes", type=float, default=10.0, help="of training, each loss")
    parser.add_argument("--losses", default=",".join(LOSSES))
    parser.add_argument("--net", default="preresnet20")
    parser.add_argument("--width", type=float, default=None)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--per-identity", type=int, default=8)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--precision", default="float32", choices=("float32", "bf16"))
    parser.add_argument("--json", help="results; those of other losses that are there are kept")
    options = parser.parse_args()
    data, folder, held = Path(options.data), Path(options.folder), tuple(options.hold_out.split(","))
    if not data.exists():
        print(f"skipped: {data} is not there")
        return
    losses = options.losses.split(",")
    if not set(losses) <= set(LOSSES):
        raise SystemExit(f"--losses {options.losses}: some of {', '.join(LOSSES)}")
    seen, unseen = prepare(data, folder, held, options.images)
    not_listed = {"data", "folder", "hold_out", "losses", "json"}
    settings = ", ".join(f"{name} {value}" for name, value in vars(options).items() if name not in not_listed)
    result: Json = {"held_out": held, "settings": settings, "rows": {}}
    place = Path(options.json) if options.json else None
    if place and place.is_file():
        before = json.loads(place.read_text(encoding="utf-8"))
        if (before["settings"], tuple(before["held_out"])) != (settings, held):
            raise SystemExit(
                f"{place}: holds results of {before['settings']}, held out {before['held_out']}; name another"
            )
        result["rows"] = before["rows"]
    result["machine"] = machine.describe_machine()
    for loss in losses:
        run = train(loss, seen, options)
        result["rows"][loss] = row_of(run, seen, unseen)
        preprocess = preprocess_of(run.settings)
        if BASELINES[0] not in result["rows"]:
            start = untrained(run.settings, run.classes)
            for name, forward in zip(BASELINES, (start, pixels)):
                result["rows"][name] = scores(forward, preprocess, run.settings, seen, unseen)
        if place:
            write_text(place, json.dumps(result, indent=1))
    print(table(result))


if __name__ == "__main__":
    main()
