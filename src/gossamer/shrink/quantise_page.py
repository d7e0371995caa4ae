"""A quantisation as one HTML file beside the file that it made."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path

import numpy as np

import gossamer
from gossamer.charts import page
from gossamer.host.progress import SILENT, Progress
from gossamer.host.storage import write_text
from gossamer.host.text import counted, metric_title
from gossamer.run import Run
from gossamer.runtime.model import load
from gossamer.shrink.calibration import spread
from gossamer.shrink.changed_answers import changed_answers, shows_places
from gossamer.shrink.layer_page import ChangedImage, changed_images, layers_chart, ranges_chart
from gossamer.shrink.quantised_model import QuantisedModel
from gossamer.shrink.recipe.page import FOLDER, Answers, Figure
from gossamer.shrink.recipe.paired import drop_between, outcome
from gossamer.shrink.scoring import SCORED
from gossamer.shrink.sensitivity import verdict
from gossamer.targets import target_of
from gossamer.training.restore import as_model, load_run, run_data


def page_of(path: str | os.PathLike[str]) -> Path:
    """Where the page of a file lies: flowers.int8.html for flowers.int8.onnx."""
    return Path(path).with_suffix(".html")


def write_quantised_page(
    result: QuantisedModel, target: str | os.PathLike[str], which: str = "best", progress: Progress = SILENT
) -> Path:
    """Write the page of a quantisation that measured its layers; of a run with the images whose class changed.

    target, which: what was quantised. Raises StorageError, MissingPackageError, and what opening the run and the file raises.
    """
    images: list[ChangedImage] = []
    count, total, compared = 0, 0, False
    answers: Answers | None = None
    figures = [
        Figure("File", f"{result.bytes / 1e6:.3f} MB", f"{result.float_bytes / 1e6:.3f} MB in float"),
        Figure(
            "Signal-to-noise ratio", f"{result.decibels:.1f} dB", f"outputs on {counted(result.measured_on, 'image')}"
        ),
    ]
    if result.agreement is not None:
        note = f"of {counted(result.measured_on, 'image that was', 'images that were')} not calibrated with"
        figures.append(Figure("The same class", f"{100 * result.agreement:.1f} %", note))
    if target_of(target, ("run", "model file")).kind == "run":
        run = Run.open(os.fspath(target))
        task = load_run(run.path, which).task
        val = run_data(run).val
        source = val.select(np.asarray(spread(len(val), SCORED)))
        outcomes, models = [], []
        for model, what in ((as_model(run.path, which), "float"), (load(result.file, runtime="onnxruntime"), "int8")):
            preprocess = model.need_metadata().preprocess
            models.append(model)
            outcomes.append(outcome(model.run, source, preprocess, task, progress, f"scoring {what}"))
        before, after = outcomes
        if shows_places(models[0]):
            answers = changed_answers(models[0], models[1], source, progress)
        images, count = changed_images(before, after, source)
        total, compared = before.images, bool(before.names)
        note = f"{100 * before.value:.2f} % in float; {drop_between(before, after).text()}; {counted(total, 'validation image')}"
        figures.insert(0, Figure(metric_title(before.score), f"{100 * after.value:.2f} %", note))
    values = {
        "version": gossamer.__version__,
        "title": Path(result.file).name,
        "lead": f"{os.fspath(target)} in int8, calibrated on {counted(result.calibrated_on, 'image')}. Noise: {verdict(result.layers)}.",
        "figures": figures,
        "layers": layers_chart([asdict(layer) for layer in result.layers]),
        "ranges": ranges_chart([asdict(one) for one in result.ranges]),
        "quantised": result,
        "compared": compared,
        "images": images,
        "changed": count,
        "answers": answers,
        "total": total,
        "lines": (*result.steps, *result.notes),
    }
    html = page.render_page(page.environment(FOLDER, "the page of a quantisation"), "quantised.html", values)
    path = page_of(result.file)
    write_text(path, html)
    return path
