"""Accuracy against milliseconds of three ways to a smaller int8 network, for `benchmarks/shrink.py --curve`.

Each prunes the same run to the same fractions of its milliseconds, trains the same minutes by the same loop with the run as
teacher, quantises with the same training images, and runs where it is at home:

* gossamer: `gossamer prune`, `gossamer quantize`, the native engine;
* Torch-Pruning (Taylor, widths rounded to 8), ONNX Runtime's per-channel quantiser, ONNX Runtime;
* the same pruned network, NNCF, OpenVINO.

The fraction 1 is the run itself, quantised. One thread, batch 1, each time in a process of its own, the files in turn.
"""

from __future__ import annotations

import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import gossamer
import prune
from gossamer.charts.scatter import curves_chart
from gossamer.compile.write import compile_file
from gossamer.export.formats import export
from gossamer.host.progress import Progress
from gossamer.host.text import format_table, metric_name
from gossamer.modelfile.metadata import ModelFile, read_model_file
from gossamer.run import Run
from gossamer.runtime.model import open_model
from gossamer.shrink.calibration import spread
from gossamer.tasks.registry import task_of
from gossamer.training.evaluate import evaluate
from gossamer.training.restore import run_data

OURS, ORT, OPENVINO = "gossamer", "Torch-Pruning, ONNX Runtime", "Torch-Pruning, NNCF, OpenVINO"
SECONDS = 0.5  # of timed runs in one process
Images = NDArray[np.float32]
Forward = Callable[[Images], Any]


def exported(run: Path, folder: Path) -> ModelFile:
    """The float file of a run."""
    path = folder / f"{run.parent.name}-{run.name}.onnx"
    if not path.exists():
        export(run, path)
    return read_model_file(path)


def by_onnxruntime(source: ModelFile, out: Path, images: Images) -> Forward:
    import shrink

    plain = out.with_suffix(".float.onnx")
    plain.write_bytes(source.data)
    shrink.by_onnxruntime(plain, out, images, per_channel=True)
    from gossamer.shrink.graph import OnnxSession

    session = OnnxSession(out.read_bytes())
    return lambda batch: session.run(batch, list(source.outputs))[0]


def by_openvino(source: ModelFile, out: Path, images: Images) -> Forward:
    """NNCF by default on OpenVINO's own form of the network; out: its .xml."""
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # NNCF then has a stub that sends nothing
    import nncf
    import openvino

    model = openvino.Core().read_model(source.data)
    quantised = nncf.quantize(model, nncf.Dataset(list(images), lambda image: image[None]), subset_size=len(images))
    openvino.save_model(quantised, out, compress_to_fp16=False)
    compiled = openvino.Core().compile_model(quantised, "CPU", {"INFERENCE_NUM_THREADS": 1})
    return lambda batch: compiled(batch)[compiled.output(0)]


def ours(run: Path, out: Path, progress: Progress) -> Forward:
    gossamer.quantize(run, out, progress=progress)
    compile_file(out, out.with_suffix(".goss"))
    return open_model(read_model_file(out), "native", 1).run


def time_in_openvino(path: str) -> None:
    """Print the median milliseconds of a file in OpenVINO; the work of one process."""
    import openvino

    core = openvino.Core()
    model = core.read_model(path)
    shape = [1, *(side.get_length() for side in list(model.input(0).partial_shape)[1:])]
    model.reshape(shape)
    compiled = core.compile_model(model, "CPU", {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1})
    request = compiled.create_infer_request()
    batch = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    took: list[float] = []
    end = time.perf_counter() + SECONDS
    while time.perf_counter() < end or len(took) < 8:
        start = time.perf_counter_ns()
        request.infer([batch])
        took.append((time.perf_counter_ns() - start) / 1e6)
    print(statistics.median(took[3:]))


def milliseconds(files: dict[tuple[str, float], Path], rounds: int) -> dict[tuple[str, float], list[float]]:
    """Of each file in each round, in the runtime of its pipeline."""
    script = str(Path(__file__).with_name("shrink.py"))
    flags = {OURS: "--time-engine", ORT: "--time", OPENVINO: "--time-openvino"}
    took: dict[tuple[str, float], list[float]] = {key: [] for key in files}
    for _ in range(rounds):
        for key, path in files.items():
            place = path.with_suffix(".goss") if key[0] == OURS else path
            done = subprocess.run(
                [sys.executable, script, flags[key[0]], str(place)], capture_output=True, text=True, check=True
            )
            took[key].append(float(done.stdout))
    return took


def curves(
    run_folder: str, fractions: Sequence[float], minutes: float, count: int, scored: int, rounds: int, folder: Path, progress: Progress
) -> dict[str, Any]:  # fmt: skip
    """All points of a run. folder: keeps the trainings; what is there goes on."""
    run = Run.open(run_folder)
    data, task = run_data(run), task_of(run.settings.task)(run.classes, run.settings)
    validation = data.val.select(np.asarray(spread(len(data.val), scored)))
    preprocess = exported(run.path, folder).metadata.preprocess  # type: ignore[union-attr]  # of a run
    chosen = spread(len(data.train), count)
    images = preprocess.normalise(np.stack([preprocess.pixels(data.train.read(index)) for index in chosen]))
    files: dict[tuple[str, float], Path] = {}
    scores: dict[tuple[str, float], float] = {}
    problems: dict[str, str] = {}

    def add(key: tuple[str, float], path: Path, make: Callable[[], Forward]) -> None:
        progress.say(f"{key[0]} at {key[1]:g}")
        try:
            forward = make()
            metrics = evaluate(forward, validation, preprocess, task.scorer()).scores().metrics
        except ModuleNotFoundError as error:
            problems[f"{key[0]} at {key[1]:g}"] = f"{error.name} is not installed"
            return
        except Exception as error:  # a peer may raise anything; ours must not
            if key[0] == OURS:
                raise
            problems[f"{key[0]} at {key[1]:g}"] = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            return
        files[key], scores[key] = path, float(metrics[task.score])

    for fraction in fractions:
        place = folder / f"{fraction:g}"
        place.mkdir(parents=True, exist_ok=True)
        narrow = other = run.path
        failed = ""
        if fraction < 1:
            bench = prune.Bench(run_folder, fraction, minutes, place, progress)
            narrow = prune.ours(bench).path
            try:
                other = prune.by_torch_pruning("taylor")(bench).path
            except ModuleNotFoundError as error:
                failed = f"{error.name} is not installed"
            except Exception as error:
                failed = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        add((OURS, fraction), place / "gossamer.onnx", lambda p=place, r=narrow: ours(r, p / "gossamer.onnx", progress))  # type: ignore[misc]
        if failed:
            problems[f"Torch-Pruning at {fraction:g}"] = failed
            continue
        source = exported(other, place)
        for kind, name, make in ((ORT, "ort.onnx", by_onnxruntime), (OPENVINO, "openvino.xml", by_openvino)):
            add((kind, fraction), place / name, lambda m=make, s=source, p=place / name: m(s, p, images))  # type: ignore[misc]
    took = milliseconds(files, rounds)
    rows = [
        {
            "pipeline": kind,
            "fraction": fraction,
            "score": scores[kind, fraction],
            "ms": statistics.median(ms),
            "ms_of_rounds": ms,
        }
        for (kind, fraction), ms in took.items()
    ]
    return {
        "run": run_folder, "minutes": minutes, "metric": task.score, "images": len(validation), "calibrated_on": count,
        "problems": problems, "rows": rows,
    }  # fmt: skip


def picture(result: dict[str, Any]) -> str:
    """The chart of a result, as markup."""
    lines: dict[str, list[tuple[float, float]]] = {}
    for row in result["rows"]:
        lines.setdefault(row["pipeline"], []).append((row["ms"], 100 * row["score"]))
    return curves_chart(
        "Smaller int8 networks", lines, "milliseconds of an image", f"{metric_name(result['metric'])}, %"
    )


def at_equal_score(result: dict[str, Any], other: str) -> float:
    """Our milliseconds over those of another pipeline at the highest score that both reach, along straight lines; nan for none."""

    def points(kind: str) -> list[tuple[float, float]]:
        return sorted((row["score"], row["ms"]) for row in result["rows"] if row["pipeline"] == kind)

    first, second = points(OURS), points(other)
    if not first or not second:
        return math.nan
    score = min(first[-1][0], second[-1][0])
    if score < max(first[0][0], second[0][0]):
        return math.nan

    def ms(of: list[tuple[float, float]]) -> float:
        return float(np.interp(score, [one[0] for one in of], [one[1] for one in of]))

    return ms(first) / ms(second)


def text(result: dict[str, Any]) -> str:
    """The table for people."""
    rows = [
        (
            row["pipeline"],
            f"{row['fraction']:g}",
            f"{100 * row['score']:.2f}",
            f"{row['ms']:.3f} ({min(row['ms_of_rounds']):.3f} to {max(row['ms_of_rounds']):.3f})",
        )
        for row in result["rows"]
    ]
    lead = f"{result['run']}: {result['minutes']:g} minutes of training each, {result['images']} validation images"
    table = format_table(("pipeline", "pruned to", f"{result['metric']}, %", "ms (extremes)"), rows)
    ratios = [(other, at_equal_score(result, other)) for other in (ORT, OPENVINO)]
    equal = [
        f"ms at equal {result['metric']}, ours over {other}: {ratio:.2f}"
        for other, ratio in ratios
        if math.isfinite(ratio)
    ]
    return "\n".join([lead, *table, *equal, *(f"{name}: {reason}" for name, reason in result["problems"].items())])
