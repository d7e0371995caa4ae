"""Gather what the report shows from a run folder: score the images, find the mistakes, count the cost."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from gossamer.analysis.cost import cost
from gossamer.analysis.graph import trace
from gossamer.analysis.layers import layers_of
from gossamer.data.source import Data, Source
from gossamer.diagnosis import diagnose
from gossamer.errors import InputError, ModelFileError
from gossamer.host.machine import versions
from gossamer.host.progress import SILENT, Progress
from gossamer.host.text import counted
from gossamer.report.contents import ExportedFile, ReportData, latencies, read_bench
from gossamer.report.detection_examples import detection_details, object_counts
from gossamer.report.gallery import Mistake, mistake
from gossamer.report.gradcam import SplitClassifier, grad_cam
from gossamer.report.neighbours import embedding_details
from gossamer.report.scores import worst_mistakes
from gossamer.report.segmentation_examples import segmentation_details
from gossamer.run import BENCH, Run
from gossamer.runtime.verification import verify
from gossamer.tasks.base import Task
from gossamer.tasks.scores import Evaluation
from gossamer.training.evaluate import evaluate
from gossamer.training.restore import LoadedRun, load_run, run_data, torch_forward

SHOWN = 12  # mistakes in the gallery


def collect(
    run_folder: str | Path,
    *,
    model_file: str | Path | None = None,
    bench: str | Path | None = None,
    progress: Progress = SILENT,
) -> ReportData:
    """Everything the report of `run_folder` shows, its best weights scored on the test images, or else the validation
    images. See `page.write` for the arguments. Raises RunError, DataError, WeightsError, InputError.
    """
    network = load_run(run_folder)
    run, preprocess = network.run, network.preprocess
    data = run_data(run)
    split, source = ("test", data.test) if data.test else ("validation", data.val)
    scorer = network.task.scorer()
    evaluate(torch_forward(network.model), source, preprocess, scorer, what="scoring", progress=progress)
    evaluation: Any = scorer.scores()
    progress.say(f"scored {counted(len(evaluation.names), f'{split} image')}")
    measured, exported = _bench(run, bench), _exported(run, model_file)
    graph = trace(network.model, (1, preprocess.channels, *preprocess.size))
    costs = cost(graph)
    precisions = {run.path.absolute().name: "float32"}  # bench measures a run's float32 weights
    if exported:
        precisions[Path(exported.path).name] = "int8" if _is_quantised(exported.path) else "float32"
    names = precisions.keys()
    return ReportData(
        run=str(run_folder),
        created=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        version=versions(("gossamer",))["gossamer"] or "unknown",
        settings=run.settings,
        split=split,
        evaluation=evaluation,
        metrics=run.metrics(),
        counts=class_counts(network.task, data),
        unreadable=list(dict.fromkeys([*run.unreadable(), *evaluation.unreadable])),
        mistakes=mistake_gallery(network, source, evaluation) if isinstance(evaluation, Evaluation) else (),
        cost=costs,
        exported=exported,
        latencies=latencies(measured, names, precisions),
        bench=_measured_on(measured),
        machine=run.environment,
        data=run.data,
        data_changed=data.fingerprint != run.data.get("fingerprint"),
        task=network.task.name,
        score=network.task.score,
        images={name: len(part) for name, part in data.splits().items()},
        details=task_details(network, data, source, evaluation),
        layers=layers_of(graph, costs),
        user_settings=run.user_settings(),
        causes=diagnose(run_folder).findings,
    )


def class_counts(task: Task, data: Data) -> dict[str, tuple[int, ...]]:
    """Images of each class, by split; objects, of a detector; nothing where an image has no class."""
    splits = data.splits().items()
    if task.name == "detect":
        return {name: object_counts(part) for name, part in splits}
    if task.name not in ("classify", "embed"):
        return {}
    return {name: tuple(np.bincount(part.labels, minlength=len(data.classes)).tolist()) for name, part in splits}


def task_details(network: LoadedRun, data: Data, source: Source, scores: Any) -> Any:
    """What only the report of this task shows, besides its scores; None for tasks without such parts."""
    task, preprocess = network.task.name, network.preprocess
    if task == "detect":
        return detection_details(data.train, source, scores, preprocess)
    if task == "segment":
        return segmentation_details(torch_forward(network.model), source, scores, preprocess)
    if task == "embed":
        return embedding_details(source, scores, preprocess)
    return None


def mistake_gallery(network: LoadedRun, source: Source, evaluation: Evaluation) -> tuple[Mistake, ...]:
    """The worst mistakes with their Grad-CAM maps for the predicted class."""
    worst = worst_mistakes(evaluation.probabilities, evaluation.targets, SHOWN).tolist()
    if not worst:
        return ()
    place = {name: index for index, name in enumerate(source.names)}
    pixels = np.stack([network.preprocess.pixels(source.read(place[evaluation.names[index]])) for index in worst])
    images = torch.from_numpy(network.preprocess.normalise(pixels))
    maps = grad_cam(cast(SplitClassifier, network.model), images, evaluation.predicted[worst])
    return tuple(
        mistake(
            evaluation.names[index],
            pixels[k],
            maps[k],
            int(evaluation.targets[index]),
            int(evaluation.predicted[index]),
            evaluation.probabilities[index],
        )
        for k, index in enumerate(worst)
    )


def _exported(run: Run, model_file: str | Path | None) -> ExportedFile | None:
    """The given file, or else the newest .onnx file in the run folder, verified here and now."""
    if model_file is None:
        files = sorted(run.path.glob("*.onnx"), key=lambda path: path.stat().st_mtime)
        if not files:
            return None
        model_file = files[-1]
    path = Path(model_file)
    if not path.is_file():
        raise InputError(f"{path}: no such file", "a model file made by `gossamer export`", "check the path")
    try:
        return ExportedFile(str(path), path.stat().st_size, verify(path))
    except ModelFileError as error:  # the report shows a broken file
        return ExportedFile(str(path), path.stat().st_size, None, str(error))


def _is_quantised(path: str) -> bool:
    """Whether a model file holds quantised weights: the operator's name stands in it as it is."""
    return b"DequantizeLinear" in Path(path).read_bytes()


def _measured_on(bench: Mapping[str, Any]) -> dict[str, Any]:
    """The facts of the benchmark's machine that decide a latency."""
    machine = bench.get("machine")
    machine = machine if isinstance(machine, Mapping) else {}
    facts = {name: machine[name] for name in ("cpu", "cores", "isa", "os") if name in machine}
    return {**facts, **{name: bench[name] for name in ("rounds", "load_average") if name in bench}}


def _bench(run: Run, bench: str | Path | None) -> Mapping[str, Any]:
    """What the benchmark wrote; empty where there is none."""
    path = Path(bench) if bench is not None else run.path / BENCH
    if bench is None and not path.is_file():
        return {}
    return read_bench(path)
