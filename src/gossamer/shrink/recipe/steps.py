"""The work of each step of the recipe; none of it knows which other steps there are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from gossamer.data.source import Data, Source
from gossamer.errors import InputError, VerificationError
from gossamer.export import onnx
from gossamer.export.convert import to_onnx
from gossamer.host.progress import Progress
from gossamer.host.storage import write_bytes
from gossamer.host.text import counted
from gossamer.modelfile.metadata import ModelFile, parse_model_file, read_model_file
from gossamer.networks.changes import Change, changes_to_json, parse_changes
from gossamer.networks.registry import NETWORKS
from gossamer.predictions.head import outputs_of
from gossamer.run import SETTINGS, Run
from gossamer.runtime.model import Model
from gossamer.settings import Settings
from gossamer.shrink.decompose import LEAST_MINUTES, decompose, unfinished_trials
from gossamer.shrink.limits import Limit
from gossamer.shrink.narrow import narrow_network
from gossamer.shrink.prune import training_settings
from gossamer.shrink.quantise import quantize
from gossamer.shrink.quantised_model import QuantisedModel
from gossamer.shrink.recipe.candidates import Candidate, made
from gossamer.shrink.recipe.latency import latencies, opened
from gossamer.shrink.recipe.paired import Drop, Outcome, drop_between, outcome, outcome_of
from gossamer.shrink.recipe.settings import ShrinkSettings
from gossamer.shrink.trials import remove_run
from gossamer.tasks.registry import task_of
from gossamer.training.loop import resume, train
from gossamer.training.network import build_network, changes_of
from gossamer.training.restore import LoadedRun

COMPARED = 256  # validation images on which an exported file is compared with its run
WIDTHS = (
    0.85,
    0.75,
    0.6,
    0.5,
    0.4,
    0.3,
    0.25,
    0.2,
)  # of the width of the network, that narrower ones of its family are tried at


@dataclass
class Workplace:
    """What the steps share. images: the validation images that decide. runtime: that ms and scores are of."""

    settings: ShrinkSettings
    loaded: LoadedRun
    data: Data
    images: Source
    runtime: str
    progress: Progress
    before: Outcome | None = None  # of the run's own file


def float_file(run: str | Path, which: str, path: Path, progress: Progress) -> ModelFile:
    """The ONNX file of a run, written. Raises what exporting raises."""
    converted = onnx.convert(run, which, "unspecified", COMPARED, progress)
    write_bytes(path, converted.data)
    return read_model_file(path)


def measured(
    place: Workplace, path: Path, name: str, step: str, precision: str, beside: Path | None, run: str = "",
    notes: Sequence[str] = (),
) -> dict[str, Any]:  # fmt: skip
    """A written file scored and timed: what `candidate_of` and `outcome_of` read. beside: a file that is timed in turn with it."""
    model, why = opened(read_model_file(path), place.runtime, place.settings.threads)
    models = (
        [model]
        if beside is None
        else [model, opened(read_model_file(beside), place.runtime, place.settings.threads)[0]]
    )
    ms = latencies(models, place.progress, f"timing {name}")[0]
    result = scored(place, model, place.images, f"scoring {name}")
    drop = Drop(0.0) if place.before is None else drop_between(place.before, result)  # None: the run itself
    candidate = made(
        name, path.name, step, precision, model.runtime_name, ms, path.stat().st_size, drop, result, run,
        [*notes, *([why] if why else [])],
    )  # fmt: skip
    return {"candidate": asdict(candidate), "outcome": result.to_json()}


def scored(place: Workplace, model: Model, images: Source, what: str) -> Outcome:
    """The outcome of a model on labelled images."""
    metadata = model.need_metadata()
    return outcome(model.run, images, metadata.preprocess, place.loaded.task, place.progress, what)


def quantised(
    place: Workplace, run: str, which: str, path: Path, name: str, step: str, max_drop: float | None, beside: Path,
    layers: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """The int8 file of a run, written, scored and timed."""
    result = quantize(run, path, max_drop=max_drop, which=which, layers=layers, progress=place.progress)
    kept = next((layer.precision for layer in result.layers if layer.name in result.float_layers), "float32")
    precision = f"int8, {counted(len(result.float_layers), 'layer')} {kept}" if result.float_layers else "int8"
    values = measured(place, path, name, step, precision, beside, run, result.notes)
    return {**values, "quantised": quantisation(result)}


def quantisation(result: QuantisedModel) -> dict[str, Any]:
    """What the page shows of a quantisation."""
    return {
        "decibels": result.decibels,
        "agreement": result.agreement,
        "calibrated_on": result.calibrated_on,
        "measured_on": result.measured_on,
        "float_layers": list(result.float_layers),
        "layers": [asdict(layer) for layer in result.layers],
        "ranges": [asdict(one) for one in result.ranges],
        "steps": list(result.steps),
    }


def narrowed(place: Workplace, limits: Sequence[Limit]) -> dict[str, Any]:
    """The channels to remove so that the network keeps `limits`, as edits. Raises as `narrow_network`."""
    settings = place.settings
    narrow = narrow_network(place.loaded, place.data, limits, settings.importance, settings.threads, place.progress)
    changes: tuple[Change, ...] = (*changes_of(place.loaded.run), *narrow.changes)
    return {
        "changes": changes_to_json(changes),
        "widths": [list(one) for one in narrow.widths],
        "dropped": list(narrow.dropped),
        "macs": list(narrow.macs),
        "parameters": list(narrow.bytes),
        "float_ms": narrow.ms,
        "staircase": [asdict(one) for one in narrow.staircase],
        "log": list(narrow.steps),
    }


def narrower_network(place: Workplace, limits: Sequence[Limit]) -> dict[str, Any]:
    """The widest network of the run's family that keeps `limits`, for a training from the start.

    Raises InputError for a network that has no width or was edited, VerificationError where none of WIDTHS is narrow enough.
    """
    loaded, progress = place.loaded, place.progress
    settings = loaded.settings
    if changes_of(loaded.run):
        raise InputError(f"{loaded.run.path}: an edited network", "a network as its family has it", "prune less")
    entry = NETWORKS.get(settings.net)
    full = settings.width or (float(entry.arguments.get("width", 1.0)) if entry else 1.0)
    preprocess, outputs = loaded.preprocess, outputs_of(loaded.task.heads())

    def opened_network(model: torch.nn.Module) -> Model:
        data = to_onnx(model.eval(), preprocess.size, preprocess.channels, outputs)
        return opened(parse_model_file(data, "the network"), place.runtime, place.settings.threads)[0]

    def size(model: torch.nn.Module) -> float:
        return float(4 * sum(parameter.numel() for parameter in model.parameters()))

    own, nearest = opened_network(loaded.model), ""
    for part in WIDTHS:
        width = round(full * part, 4)
        narrow = build_network(task_of(settings.task)(loaded.classes, settings.replace(width=width)))
        ms, now = latencies([opened_network(narrow), own], progress, f"timing width {width:g}")
        taken = {"latency": (ms, now), "size": (size(narrow), size(loaded.model))}
        kept = all(taken[limit.kind][0] <= limit.of(taken[limit.kind][1]) for limit in limits if limit.kind in taken)
        nearest = f"width {width:g} takes {ms:.3f} ms where the network takes {now:.3f}, {size(narrow) / 1e6:.3f} MB"
        if kept:
            return {"width": width, "widths": [], "staircase": [], "log": [nearest]}
    raise VerificationError(f"no narrower {settings.net} keeps the limits: {nearest}")


def trained(place: Workplace, choice: Mapping[str, Any], folder: Path, minutes: float) -> dict[str, Any]:
    """The chosen network, trained with the run as teacher; goes on where a killed training stands."""
    if (folder / SETTINGS).exists():
        run = resume(folder, progress=place.progress)
    else:
        run = _train(place, choice, folder, minutes)
    key = f"val_{place.loaded.task.score}"
    return {"run": str(run.path), "best": run.best(key), "epochs": len(run.metrics())}


def _train(place: Workplace, choice: Mapping[str, Any], folder: Path, minutes: float) -> Run:
    parent, asked = place.loaded.run, place.settings
    settings, notes = training_settings(place.loaded.settings, parent, folder, minutes, asked.which)
    changes: tuple[Change, ...] = ()
    if "width" in choice:
        settings = settings.replace(width=choice["width"], weights="", freeze=Settings().freeze)
    else:
        changes = parse_changes(choice["changes"], "the chosen edits")
    if asked.epochs is not None:
        # steps alone decide then: a schedule that also counts time differs from run to run
        settings = settings.replace(epochs=asked.epochs, minutes=None)
    for line in notes:
        place.progress.say(line)
    return train(settings, split_of=parent, changes=changes, progress=place.progress)


def decomposed(place: Workplace, run: str, which: str, folder: Path, minutes: float, max_drop: float) -> dict[str, Any]:
    """A run with layers decomposed where that is measured faster and loses at most `max_drop` points; see `decompose`.

    `run` is null where nothing was accepted. A killed training goes on where it stands; what was accepted without being
    recorded is done again.
    """
    asked, (before, _) = place.settings, unfinished_trials(folder)
    if (folder / SETTINGS).exists():
        remove_run(folder)
    result = decompose(
        run, folder, minutes=max(LEAST_MINUTES, minutes), epochs=asked.epochs, max_drop=max_drop, threads=asked.threads, which=which,
        progress=place.progress,
    )  # fmt: skip
    tried = [
        {
            "layer": one.layer,
            "method": one.method,
            "ranks": list(one.ranks),
            "ms": None if one.ms is None else [one.ms.before.median, one.ms.after.median],
            "verdict": one.verdict,
        }
        for one in result.tried
    ]
    return {
        "run": result.file or None,
        "parent": run,
        "accepted": len(result.accepted),
        "tried": tried,
        "log": list(result.steps),
        "before": before,
    }


def timed_again(place: Workplace, candidates: Sequence[Candidate], folder: Path) -> dict[str, Any]:
    """The milliseconds of all candidates in turn, so that they can be compared: name -> ms."""
    models = [opened(read_model_file(folder / one.file), one.runtime, place.settings.threads)[0] for one in candidates]
    times = latencies(models, place.progress, "timing all files in turn")
    return {"ms": {one.name: ms for one, ms in zip(candidates, times, strict=True)}}


def tested(place: Workplace, test: Source, first: Path, best: Candidate, path: Path) -> dict[str, Any]:
    """The scores of the run's file and of the best one on the test images."""
    outcomes = []
    for file, runtime in ((first, place.runtime), (path, best.runtime)):
        model, _ = opened(read_model_file(file), runtime, 0)
        outcomes.append(scored(place, model, test, "scoring the test images"))
    drop = drop_between(*outcomes)
    return {
        "before": outcomes[0].metrics,
        "after": outcomes[1].metrics,
        "images": outcomes[0].images,
        "drop": [drop.points, drop.low, drop.high],
    }


def known_outcome(values: Mapping[str, Any]) -> Outcome:
    """The outcome that a finished step has left."""
    return outcome_of(values["outcome"])
