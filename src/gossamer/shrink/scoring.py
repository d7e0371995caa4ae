"""The float file that is quantised, the int8 files that come from it, and their scores and milliseconds."""

from __future__ import annotations

import dataclasses
import functools
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gossamer.compile.write import compile_bytes
from gossamer.data.source import Data, Source
from gossamer.errors import GossamerError
from gossamer.export.extras import with_decoded_outputs
from gossamer.host.progress import Progress
from gossamer.modelfile.metadata import ModelFile, model_file_bytes, parse_model_file
from gossamer.predictions.head import flattened
from gossamer.run import Run
from gossamer.runtime.model import Model, load, open_model
from gossamer.runtime.native import NATIVE_BFLOAT16, Native
from gossamer.shrink.calibration import spread
from gossamer.shrink.graph import OnnxGraph
from gossamer.shrink.qat import QatResult
from gossamer.shrink.qdq import QuantisationChoice, quantised_model
from gossamer.shrink.times import in_turns
from gossamer.tasks.registry import scorer_of
from gossamer.training.evaluate import evaluate

SCORED = 2000  # validation images on which both files are scored, at most
TOLERANCE = 0.01  # of the largest output: rule 20 of the format; other processors add and round in another order


@dataclass(frozen=True)
class Target:
    """What is quantised: a float file, with the run and its data where it comes from one. score: the metric that decides."""

    file: ModelFile
    run: Run | None = None
    score: str = ""
    data: Data | None = None

    def validation(self) -> Source:
        """The validation images of the run that decide."""
        assert self.data is not None, "asked of a run"
        return self.data.val.select(np.asarray(spread(len(self.data.val), SCORED)))


def int8_file(
    source: ModelFile,
    data: bytes,
    qat: QatResult | None = None,
    float_layers: Sequence[str] = (),
    precision: str = "float32",
) -> bytes:
    """The bytes of the int8 file, with the metadata of its source and the outputs of its own as the expected ones.

    float_layers: those that stay in floats; precision: that of these layers where the file is compiled.
    """
    metadata = source.metadata
    if metadata is None:
        return data
    plain = parse_model_file(data, source.path)
    model = open_model(plain, "onnxruntime")
    batch = metadata.preprocess.normalise(np.stack([check.pixels for check in metadata.checks]))
    outputs = flattened(model.run(batch), metadata.checked)
    checks = tuple(dataclasses.replace(check, outputs=row) for check, row in zip(metadata.checks, outputs, strict=True))
    tolerance = TOLERANCE * max(1.0, float(np.abs(outputs).max()))
    quantised: dict[str, Any] = {"weights": "int8", "activations": "uint8"}
    if float_layers:
        quantised["float_layers"] = {"names": list(float_layers), "precision": precision}
    if qat is not None and qat.kept:
        quantised["qat"] = {**dataclasses.asdict(qat.settings), "updates": qat.steps, "images": qat.images}
    provenance = {**metadata.provenance, "quantised": quantised}
    known = dataclasses.replace(metadata, checks=checks, tolerance=tolerance, provenance=provenance)
    return model_file_bytes(with_decoded_outputs(data, metadata.heads, metadata.preprocess.size), known)


class Scoring:
    """Scores of files of a run on its validation images, and their milliseconds."""

    def __init__(self, target: Target, progress: Progress) -> None:
        self.target, self.progress, self.images = target, progress, target.validation()
        self.unreadable: list[tuple[str, str]] = []  # of the images: name and reason, once they were scored
        self.bfloat16 = True  # whether layers in float may be, where the processor computes in it

    @functools.cached_property
    def engine(self) -> str:
        """The instruction set of the native engine where it runs the network; "" where it does not."""
        return _isa(self.target.file)

    @property
    def precision(self) -> str:
        """Of layers that stay in floats, where a file is compiled."""
        return "bfloat16" if self.bfloat16 and self.engine in NATIVE_BFLOAT16 else "float32"

    def before(self) -> dict[str, float]:
        """The metrics of the float file."""
        return self._of(open_model(self.target.file, "onnxruntime"), "scoring float")

    def after(self, graph: OnnxGraph, choice: QuantisationChoice) -> dict[str, float]:
        """The metrics of the int8 file in ONNX Runtime."""
        return self._of(open_model(self._file(graph, choice), "onnxruntime"), "scoring int8")

    def least(self, graph: OnnxGraph, choice: QuantisationChoice) -> float:
        """The score of the int8 file in ONNX Runtime; where its floats are compiled as bfloat16, in the engine too: the lower one."""
        score = self.after(graph, choice)[self.target.score]
        if self.precision == "float32":
            return score
        with tempfile.TemporaryDirectory() as folder:
            model = self._compiled(self._file(graph, choice), Path(folder) / "network.goss")
            return min(score, self._of(model, f"scoring int8 with {self.precision}")[self.target.score])

    def ms(self, graph: OnnxGraph, choices: Sequence[QuantisationChoice]) -> list[float]:
        """Milliseconds of one image in each file on one thread, measured in turn: in the engine, or where there is none in ONNX Runtime."""
        files = [self._file(graph, choice) for choice in choices]
        metadata = self.target.file.metadata
        assert metadata is not None, "of a run"
        image = metadata.preprocess.normalise(metadata.checks[0].pixels[None])
        with tempfile.TemporaryDirectory() as folder:
            models = [
                self._compiled(file, Path(folder) / f"{number}.goss")
                if self.engine
                else open_model(file, "onnxruntime", 1)
                for number, file in enumerate(files)
            ]
            calls = [lambda model=model: model.run(image) for model in models]
            return in_turns(calls, self.progress, "timing layers in float")

    def _file(self, graph: OnnxGraph, choice: QuantisationChoice) -> ModelFile:
        file = self.target.file
        return parse_model_file(int8_file(file, quantised_model(graph, choice)), file.path)

    def _compiled(self, file: ModelFile, path: Path) -> Model:
        path.write_bytes(compile_bytes(file, self.precision)[0])
        return load(path, threads=1)

    def _of(self, model: Model, what: str) -> dict[str, float]:
        metadata = self.target.file.metadata
        assert metadata is not None, "of a run"
        scorer = evaluate(
            model.run,
            self.images,
            metadata.preprocess,
            scorer_of(metadata.heads),
            what=what,
            progress=self.progress,
        )
        self.unreadable = list(scorer.unreadable)
        return dict(scorer.scores().metrics)


def _isa(file: ModelFile) -> str:
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "network.goss"
            path.write_bytes(compile_bytes(file)[0])
            return str(Native(path, 1).isa)
    except GossamerError:
        return ""
