"""`gossamer predict --out` beside a plain loop in one process and a plain Ray Data script, over JPEGs in tar shards.

    python benchmarks/batch.py flowers.onnx --folder SCRATCH --images 20000 --shards 20 --workers 1,2 --rounds 3
    python benchmarks/batch.py flowers.onnx --folder SCRATCH --images 20000 --shards 20 --table

SCRATCH takes the shards, made once of seeded noise that is smoothed, so that a JPEG has the size of a photo's, and
results.jsonl: a line a measurement. What is measured is not measured again, so it can be interrupted, and rounds added.

* loop: tarfile, `gossamer.load(model, threads=1)`, a batch at a time, a JSON line an image.
* gossamer-N: `gossamer predict --out --workers N`. The workers share all cores of the machine, also where N is less.
* ray-data: read_webdataset, map_batches with N actors of ONNX Runtime with one thread each (N the most of --workers), Pillow for
  decoding and resizing, write_parquet; left out where Ray, pandas or ONNX Runtime is not installed.

Each runs in processes of its own, in turn, in another order each round; times are wall-clock, from start to end of the process.
Ray's own part without its start is printed beside it. Ratios are of images a second within a round.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import json
import os
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
from gossamer.modelfile.metadata import read_model_file

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

# as the guide of Ray Data has it; what is resized is the metadata's, so that both do the same work
RAY_DATA = """
import io, json, os, sys, time
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
import numpy as np
import onnxruntime
import ray
import ray.data
from PIL import Image

model, out, batch, workers = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
how = json.loads(sys.argv[5])

class Predict:
    def __init__(self):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self.name = self.session.get_inputs()[0].name

    def pixels(self, data):
        image = Image.open(io.BytesIO(data)).convert("RGB")
        height, width = how["size"]
        scale = max(height / image.height, width / image.width) / how["crop_pct"]
        image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BILINEAR)
        left, top = (image.width - width) // 2, (image.height - height) // 2
        return np.asarray(image.crop((left, top, left + width, top + height)), np.float32)

    def __call__(self, rows):
        images = np.stack([self.pixels(data) for data in rows["jpg"]]) / 255
        images = (images - np.array(how["mean"], np.float32)) / np.array(how["std"], np.float32)
        outputs = self.session.run(None, {self.name: np.ascontiguousarray(images.transpose(0, 3, 1, 2))})[0]
        return {"key": rows["__key__"], "class": outputs.argmax(1), "score": outputs.max(1)}

ray.init(address="local", num_cpus=workers, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
ray.data.DataContext.get_current().enable_progress_bars = False
begun = time.monotonic()
rows = ray.data.read_webdataset(sys.argv[6:], decoder=None)
rows = rows.map_batches(Predict, batch_size=batch, concurrency=workers, num_cpus=0.5)  # reading needs the rest
rows.write_parquet(out)
print(json.dumps({"pipeline_seconds": time.monotonic() - begun}))
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


def lines_in(path: Path) -> int:
    """Lines of a file."""
    with path.open("rb") as file:
        return sum(1 for _ in file)


def commands(options: argparse.Namespace, shards: list[Path]) -> dict[str, tuple[list[str], Path]]:
    """name -> (the command of a process, where its rows are)."""
    paths, scratch = list(map(str, shards)), Path(options.folder)
    lines = scratch / "loop.jsonl"
    result = {"loop": ([sys.executable, "-c", LOOP, options.model, str(lines), str(options.batch), *paths], lines)}
    for workers in options.workers:
        out = scratch / f"answers-{workers}"
        words = [sys.executable, "-m", "gossamer", "predict", options.model, *paths, "--out", str(out)]
        result[f"gossamer-{workers}"] = ([*words, "--workers", str(workers), "--batch", str(options.batch)], out)
    missing = [name for name in ("ray", "pandas", "pyarrow", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        print(f"ray-data is left out: {', '.join(missing)} not installed")
        return result
    metadata = read_model_file(options.model).metadata
    if metadata is None or (metadata.preprocess.resize, metadata.preprocess.channels) != ("crop", 3):
        raise SystemExit("a model file of gossamer with resize crop and 3 channels, so that all do the same work")
    how = {name: getattr(metadata.preprocess, name) for name in ("size", "crop_pct", "mean", "std")}
    out = scratch / "ray-data"
    words = [sys.executable, "-c", RAY_DATA, str(Path(options.model).resolve()), str(out.resolve()), str(options.batch)]
    words += [str(max(options.workers)), json.dumps(how), *(str(path.resolve()) for path in shards)]
    result["ray-data"] = (words, out)
    return result


def rows_of(name: str, out: Path) -> int:
    """Rows that a process has written."""
    if name == "loop":
        return lines_in(out)
    if name == "ray-data":
        import pyarrow.parquet

        return sum(pyarrow.parquet.read_metadata(path).num_rows for path in out.rglob("*.parquet"))
    return sum(lines_in(path) for path in (out / "rows").rglob("*.jsonl"))


def measure(name: str, command: list[str], out: Path, images: int) -> dict[str, Any]:
    """Seconds of a process that must succeed and leave a row an image."""
    shutil.rmtree(out, ignore_errors=True) if out.is_dir() else out.unlink(missing_ok=True)
    load = os.getloadavg()[0]
    started = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True)
    seconds = time.monotonic() - started
    if done.returncode:
        raise SystemExit(f"{name}: exit code {done.returncode}\n{done.stderr[-2000:]}")
    if rows_of(name, out) != images:
        raise SystemExit(f"{name}: {rows_of(name, out)} rows for {images} images")
    inner = json.loads(done.stdout.splitlines()[-1]) if name == "ray-data" else {}
    return {"seconds": seconds, "load_before": load, **inner}


def text_of(values: list[float], form: str) -> str:
    """The median, and the range."""
    middle, low, high = (f"{value:{form}}" for value in (statistics.median(values), min(values), max(values)))
    return f"{middle} ({low} to {high})"


def print_table(results: list[dict[str, Any]], images: int) -> None:
    """A row a contestant, as Markdown."""
    by_name: dict[str, dict[int, dict[str, Any]]] = {}
    for one in results:
        by_name.setdefault(one["name"], {})[one["round"]] = one
    loop = by_name.get("loop", {})
    print("| | rounds | images/s | beside the loop | beside ray-data | without Ray's start, images/s |")
    print("|---|---:|---:|---:|---:|---:|")
    for name, rounds in by_name.items():
        cells = [name, str(len(rounds)), text_of([images / one["seconds"] for one in rounds.values()], ".0f")]
        for others in (loop, by_name.get("ray-data", {})):
            ratios = [others[number]["seconds"] / one["seconds"] for number, one in rounds.items() if number in others]
            cells.append(text_of(ratios, ".2f") if ratios else "-")
        inner = [images / one["pipeline_seconds"] for one in rounds.values() if "pipeline_seconds" in one]
        cells.append(text_of(inner, ".0f") if inner else "-")
        print("| " + " | ".join(cells) + " |")
    loads = [one["load_before"] for one in results]
    machine = describe_machine()
    print(f"\n{machine['cpu']}, {os.cpu_count()} cores; load before a measurement {text_of(loads, '.1f')}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--folder", required=True)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--shards", type=int, default=20)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--workers", type=lambda text: [int(one) for one in text.split(",")], default=[1, 2])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="names, divided by commas")
    parser.add_argument("--table", action="store_true", help="print what is measured, and measure nothing")
    options = parser.parse_args()
    path = Path(options.folder) / "results.jsonl"
    setting = {"model": read_model_file(options.model).sha256, "images": options.images, "shards": options.shards}
    setting |= {"side": options.side, "batch": options.batch, "workers": options.workers}

    def known() -> list[dict[str, Any]]:
        lines = path.read_text().splitlines() if path.exists() else []
        return [one for one in map(json.loads, lines) if one["setting"] == setting]

    if not options.table:
        contestants = commands(
            options, write_shards(Path(options.folder), options.images, options.shards, options.side)
        )
        names = [name for name in contestants if not options.only or name in options.only.split(",")]
        for number in range(options.rounds):
            turn = number % max(1, len(names))
            for name in names[turn:] + names[:turn]:
                if any((one["name"], one["round"]) == (name, number) for one in known()):
                    continue
                found = measure(name, *contestants[name], options.images)
                line = json.dumps({"setting": setting, "name": name, "round": number, **found})
                with path.open("a") as file:
                    file.write(line + "\n")
                print(f"round {number}, {name}: {options.images / found['seconds']:.0f} images/s", flush=True)
    if not known():
        raise SystemExit("nothing is measured")
    print_table(known(), options.images)


if __name__ == "__main__":
    main()
