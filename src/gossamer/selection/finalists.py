"""The files of a trained network in the precisions that keep the budget: written, timed in turn, and scored."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gossamer.data.source import Source
from gossamer.errors import GossamerError, StorageError
from gossamer.export.formats import export
from gossamer.host.progress import Progress
from gossamer.runtime.compilation import compile_model
from gossamer.runtime.model import Model, load
from gossamer.selection.budget import Budget, Use
from gossamer.shrink.calibration import spread
from gossamer.shrink.quantise import quantize
from gossamer.shrink.recipe.latency import latencies
from gossamer.shrink.recipe.paired import Outcome, outcome
from gossamer.training.restore import LoadedRun

SUFFIXES = {"float32": ".onnx", "bf16": ".goss", "int8": ".onnx"}
SCORED = 5000  # validation images that decide, at most


@dataclass(frozen=True)
class FinalFile:
    """A model file of a trained network. over: the limits that it does not keep, "" where it keeps all of them.

    score: on the validation images, None for one that was not scored as it is over the budget. metrics: all of them.
    """

    network: str
    precision: str
    file: str
    run: str
    use: Use
    over: str
    score: float | None
    metrics: dict[str, float]
    images: int

    def to_json(self) -> dict[str, Any]:
        """Plain values, which `final_of` reads."""
        return asdict(self)


def final_of(values: dict[str, Any]) -> FinalFile:
    """What `FinalFile.to_json` gave, from JSON; of a step, with the digest of the file beside."""
    own = {name: value for name, value in values.items() if name != "sha256"}
    metrics = {name: math.nan if value is None else value for name, value in own["metrics"].items()}  # JSON has no NaN
    return FinalFile(**{**own, "use": Use(**own["use"]), "metrics": metrics})


def write_file(run: Path, path: Path, precision: str, progress: Progress) -> None:
    """The verified file of a run in a precision. Raises what exporting, quantising and compiling raise."""
    if precision == "int8":
        quantize(run, path, progress=progress)
        return
    if precision == "float32":
        export(run, path, progress=progress)
        return
    plain = path.with_name(f"{path.stem}.float.onnx")
    export(run, plain, progress=progress)
    try:
        compile_model(plain, path, "bfloat16", progress=progress)
    finally:
        plain.unlink(missing_ok=True)


def opened(path: Path, runtime: str, threads: int) -> Model:
    """A written file in the runtime that the budget is of."""
    return load(path, runtime=runtime, threads=threads)


def finals(
    name: str,
    loaded: LoadedRun,
    files: dict[str, Path],
    memory: dict[str, int],
    budget: Budget,
    runtime: str,
    threads: int,
    images: Source,
    progress: Progress,
) -> tuple[list[FinalFile], dict[str, str]]:
    """The files of a run, by precision written, timed in turn and scored; and precision -> why there is none.

    memory: precision -> bytes, as counted. images: those that decide. Raises StorageError.
    """
    models: dict[str, Model] = {}
    reasons: dict[str, str] = {}
    for precision, path in files.items():
        progress.say(f"writing {name} in {precision}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_file(loaded.run.path, path, precision, progress)
            models[precision] = opened(path, runtime, threads)
        except StorageError:
            raise
        except GossamerError as error:
            reasons[precision] = f"no file: {error}"
    times = latencies(list(models.values()), progress, f"timing {name}") if models else []
    result = []
    for (precision, model), ms in zip(models.items(), times, strict=True):
        path = files[precision]
        use = Use(ms, path.stat().st_size, memory[precision])
        over = budget.why_not(use)
        found = None if over else scored(loaded, model, images, progress, f"scoring {name} in {precision}")
        result.append(
            FinalFile(
                name, precision, path.name, str(loaded.run.path), use, over, _known(found),
                {} if found is None else found.metrics, 0 if found is None else found.images,
            )
        )  # fmt: skip
    return result, reasons


def _known(found: Outcome | None) -> float | None:
    """The score; None for a file that was not scored, and for a score that nothing defines."""
    return None if found is None or not math.isfinite(found.value) else found.value


def scored(loaded: LoadedRun, model: Model, images: Source, progress: Progress, what: str) -> Outcome:
    """The outcome of a model on labelled images."""
    return outcome(model.run, images, model.need_metadata().preprocess, loaded.task, progress, what)


def deciding(source: Source) -> Source:
    """The validation images that decide: SCORED at most, evenly spread."""
    return source.select(np.asarray(spread(len(source), SCORED)))


def best_of(files: Sequence[FinalFile]) -> FinalFile | None:
    """The highest score among those that keep the budget; of equal ones the faster. None where none keeps it."""
    kept = [one for one in files if not one.over and one.score is not None]
    return min(kept, key=lambda one: (-(one.score or 0.0), one.use.ms), default=None)
