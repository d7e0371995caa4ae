"""Does every network serve every task? One training step, export, verify and compile of each pair.

    python benchmarks/zoo_tasks.py --json zoo.json [--networks 'mobilenet*,resnet18'] [--tasks detect,segment]
    python benchmarks/zoo_tasks.py --json zoo.json --seconds 150    # resumes where it stopped; --again does anew
    python benchmarks/zoo_tasks.py --json zoo.json --table          # what is there, as Markdown

A pair passes where `train`, `export` (which compares the outputs of the file with those of the trained network on all images),
`verify` and `compile` (which compares the engine's outputs with the file's, then repeats the file's checks) all do. An
unsupported operator of the engine is reported and is no failure. Four images of squares and discs train, four compare; the
labels are numbers, for one step learns nothing. Each network reads the least of SIZES that it takes.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import re
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from tests.scenes import CLASSES, write_boxes, write_masks

import gossamer
from gossamer import Settings
from gossamer.analysis.graph import trace
from gossamer.errors import GossamerError, InputError
from gossamer.export.formats import export
from gossamer.host import machine
from gossamer.host.storage import write_text
from gossamer.networks import create_model
from gossamer.networks.registry import NETWORKS
from gossamer.runtime.compilation import compile_model

Json = dict[str, Any]
SIZES = (32, 64, 96, 128, 160, 192, 224)  # sides in pixels
LEAST = 64  # of networks that were not made for less
IMAGES = 4  # of each split; a batch, so an epoch is one step
HEADS = f"""
kind: classify
tags: multilabel
size: {{kind: regress, columns: [across, down]}}
boxes: {{kind: detect, classes: [{", ".join(CLASSES)}]}}
mask: {{kind: segment, classes: [ground, {", ".join(CLASSES)}]}}
who: {{kind: embed, dim: 8}}
"""
COLUMNS = ("kind", "tags", "across", "down", "boxes", "mask", "who")
# the CSV columns of a task, by the names that it gives them; detect and segment read folders
TABLES: dict[str, dict[str, str]] = {
    "classify": {"label": "kind"},
    "multilabel": {"label": "tags"},
    "regress": {"across": "across", "down": "down"},
    "embed": {"label": "who"},
    "multi": {name: name for name in COLUMNS},
}
TASKS = ("classify", "multilabel", "regress", "detect", "segment", "embed", "multi")
STATIONS = ("train", "export", "verify", "native")


def write_data(root: Path) -> None:
    """boxes/ and masks/ with the same images, and the tables of the other tasks, TASK-train.csv and TASK-val.csv."""
    write_boxes(root / "boxes", IMAGES)
    write_masks(root / "masks", IMAGES)
    for split in ("train", "val"):
        rows = []
        for i in range(IMAGES):
            name = f"{i:03}"
            cells = (f"c{i % 2}", ("a", "a|b", "b", "|")[i % 4], f"{i}", f"{i % 3}.5")
            files = (f"boxes/labels/{split}/{name}.txt", f"masks/{split}/masks/{name}.png")
            rows.append(
                dict(zip(COLUMNS, (*cells, *files, f"id{i % 2}"))) | {"path": f"boxes/images/{split}/{name}.png"}
            )
        for task, columns in TABLES.items():
            lines = [",".join(("path", *columns))]
            lines += [",".join((row["path"], *(row[own] for own in columns.values()))) for row in rows]
            (root / f"{task}-{split}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def data_of(root: Path, task: str) -> Json:
    """The settings that name the data of a task."""
    if task in TABLES:
        return {"data": str(root / f"{task}-train.csv"), "val": str(root / f"{task}-val.csv")}
    return {"data": str(root / {"detect": "boxes", "segment": "masks"}[task])}


def side_of(net: str) -> int:
    """The least of SIZES that the network takes. Raises InputError where it takes none."""
    channels, height, _ = NETWORKS[net].input
    problem = ""
    for side in (size for size in SIZES if size >= min(LEAST, height)):
        try:
            trace(create_model(net, in_chans=channels, num_classes=2), (1, channels, side, side))
            return side
        except (GossamerError, RuntimeError) as error:
            problem = str(error)
    raise InputError(f"{net}: {problem}", f"an input of at most {SIZES[-1]}", "add a larger one to SIZES")


def cell(net: str, task: str, side: int, data: Path, folder: Path, until: str = STATIONS[-1]) -> Json:
    """What came of a pair: `steps`, the stations in order with "" or what was wrong; the first wrong one is the last.

    until: the last of STATIONS to try.
    """
    result: Json = {"network": net, "task": task, "input": side, "steps": {}, "notes": []}
    onnx, compiled = folder / "m.onnx", folder / "m.goss"
    settings = {
        **data_of(data, task),
        "out": str(folder / "run"),
        "task": task,
        "net": net,
        "heads": HEADS if task == "multi" else "",
        "in_chans": NETWORKS[net].input[0],
        "input": str(side),
        "small_input": False,
        "batch": IMAGES,
        "per_identity": 2,
        "epochs": 1,
        "momentum": 0.0,  # as little as can be is saved
        "nesterov": False,
        "lr": 1e-3,
        "precision": "float32",
        "memory_format": "channels_last",
        "threads": 1,
        "workers": 0,
    }
    does: dict[str, Callable[[], Any]] = {
        "train": lambda: gossamer.train(Settings(**settings)),
        "export": lambda: export(folder / "run", onnx),
        "verify": lambda: gossamer.verify(onnx).raise_if_failed(),
        "native": lambda: (compile_model(onnx, compiled), gossamer.verify(compiled).raise_if_failed()),
    }
    for name in STATIONS[: STATIONS.index(until) + 1]:
        started = time.perf_counter()
        try:
            value = does[name]()
            result["steps"][name] = ""
            if name == "export":
                result["notes"] += list(value.notes)
        except GossamerError as error:
            result["steps"][name] = str(error)
            # not that its outputs differ, which is a VerificationError, but that it refused the file
            result["refused"] = name == "native" and isinstance(error, InputError)
        except Exception as error:  # a defect of ours: it belongs into the table, with its place
            place = traceback.extract_tb(error.__traceback__)[-1]
            result["steps"][name] = f"{type(error).__name__} in {Path(place.filename).name}:{place.lineno}: {error}"
        result[f"{name}_seconds"] = round(time.perf_counter() - started, 2)
        if result["steps"][name]:
            break
    return result


def verdict(result: Json) -> str:
    """A cell of the table: "pass", the last station where the others were not tried, or what was wrong."""
    name, problem = list(result["steps"].items())[-1]
    if problem:
        problem = re.sub(r"node '\w+', ", "", problem.partition("; allowed:")[0])
        return f"{'pass, no engine' if result.get('refused') else name}: {problem}"
    return "pass" if name == STATIONS[-1] else f"{name} passes"


def is_done(result: Json | None, until: str) -> bool:
    """Whether a pair was tried up to a station, or failed before it."""
    return result is not None and (until in result["steps"] or any(result["steps"].values()))


def table(rows: list[Json]) -> str:
    """One row per network, one column per task; what is no plain pass is a letter that is explained below."""
    tasks = [task for task in TASKS if any(row["task"] == task for row in rows)]
    cells = {(row["network"], row["task"]): row for row in rows}
    sides = {row["network"]: row["input"] for row in rows}
    marks: dict[str, int] = {}
    lines = ["| network | input | " + " | ".join(tasks) + " |", "|---|---:" + "|---" * len(tasks) + "|"]
    for net in (net for net in NETWORKS if net in sides):
        shown = []
        for task in tasks:
            text = verdict(cells[net, task]) if (net, task) in cells else "-"
            plain = ":" not in text
            shown.append(text if plain else f"{text.partition(':')[0]} ({marks.setdefault(text, len(marks) + 1)})")
        lines.append(f"| {net} | {sides[net]} | " + " | ".join(shown) + " |")
    verdicts = [verdict(row) for row in rows]
    passed, begun = (
        sum(text.startswith("pass") for text in verdicts),
        sum(text.endswith(" passes") for text in verdicts),
    )
    lines += ["", f"{passed} of {len(rows)} pairs pass; {begun} more as far as they were tried."]
    return "\n".join([*lines, *([""] if marks else []), *(f"{number}. {text}" for text, number in marks.items())])


def chosen(patterns: str, names: Iterable[str]) -> list[str]:
    """Those of the names that one of the patterns, with commas between, matches. Raises SystemExit where one has none."""
    every = list(names)
    for pattern in patterns.split(","):
        if not fnmatch.filter(every, pattern):
            raise SystemExit(f"{pattern}: none of {', '.join(every)}")
    return [name for name in every if any(fnmatch.fnmatch(name, pattern) for pattern in patterns.split(","))]


def main() -> None:
    """Do what is not yet in the file, or show it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", required=True, help="results; those that are there are kept")
    parser.add_argument("--networks", default="*")
    parser.add_argument("--tasks", default="*")
    parser.add_argument("--until", choices=STATIONS, default=STATIONS[-1], help="the last station to try")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no pair after so many")
    parser.add_argument("--again", action="store_true", help="do pairs that are there anew")
    parser.add_argument("--failed", action="store_true", help="do pairs that did not pass anew")
    parser.add_argument("--table", action="store_true", help="show what is there")
    options = parser.parse_args()
    place = Path(options.json)
    result: Json = json.loads(place.read_text(encoding="utf-8")) if place.is_file() else {"cells": []}
    if options.table:
        print(table(result["cells"]))
        return
    result["machine"] = machine.describe_machine()
    kept = {(row["network"], row["task"]): row for row in result["cells"]}
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as data:
        write_data(Path(data))
        for net in chosen(options.networks, NETWORKS):
            tasks = [
                task
                for task in chosen(options.tasks, TASKS)
                if options.again
                or not is_done(kept.get((net, task)), options.until)
                or (options.failed and any(kept[net, task]["steps"].values()))
            ]
            side = side_of(net) if tasks and time.perf_counter() - begun < options.seconds else 0
            for task in tasks:
                if time.perf_counter() - begun >= options.seconds:
                    print("more to do: the same command resumes", flush=True)
                    return
                with tempfile.TemporaryDirectory() as folder:
                    result = cell(net, task, side, Path(data), Path(folder), options.until)
                kept[net, task] = result
                write_text(place, json.dumps({**result, "cells": list(kept.values())}, indent=1))
                spent = sum(value for key, value in result.items() if key.endswith("_seconds"))
                print(f"{net} {task} {side}: {verdict(result)} ({spent:.1f} s)", flush=True)
    print("all done", flush=True)


if __name__ == "__main__":
    main()
