"""From a run folder to one verified model file, or to no file."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import gossamer
from gossamer import modelfile, settings, storage
from gossamer.data.source import Source
from gossamer.errors import GossamerError, ModelFileError, VerificationError
from gossamer.evaluate import Forward, evaluate
from gossamer.export.convert import machine_path, to_onnx
from gossamer.export.samples import check_images, noise
from gossamer.images import Preprocess
from gossamer.modelfile import Card, Check, ModelFile
from gossamer.progress import SILENT, Progress
from gossamer.runtime.model import AUTO, REFERENCE, open_model
from gossamer.runtime.verification import Verification, margin, verify_model
from gossamer.tasks.scores import Evaluation
from gossamer.trained import Trained, run_data, torch_forward, trained

__all__ = ["Exported", "export", "to_onnx"]

IMAGES_LIMIT = 5000  # validation images on which the file is compared with the trained model
REAL_CHECKS = 2
NOISE_BLOCKS = (1, 8)  # side of the squares of the artificial check inputs, pixels
FLOOR = 1e-4  # tolerance, as a share of the largest output (at least 1): float32 sums in another order stay below it
CEILING = 1e-3  # a difference above this share is a fault of the conversion
HEADROOM = 4  # tolerance over the largest difference measured here: other processors add up in other orders
NOISE_TRIES = 8
LOCAL_SETTINGS = (
    "data",
    "val",
    "out",
    "weights",
    "cache_dir",
)  # paths of the training machine; only their last part is kept


@dataclass(frozen=True)
class Comparison:
    """The trained model against the file, over validation images, preprocessed as in deployment.

    trained, file: metrics. images: how many of `available`. largest_difference: over all outputs. changed: images whose
    likeliest class differs; each of them had its two best outputs closer than twice the tolerance.
    """

    images: int
    available: int
    trained: dict[str, float]
    file: dict[str, float]
    largest_difference: float
    changed: int


@dataclass(frozen=True)
class Exported:
    """A model file that was written, and what was found before it was."""

    path: str
    size: int
    opset: int
    tolerance: float
    comparison: Comparison
    verifications: tuple[Verification, ...]
    notes: tuple[str, ...]

    def text(self) -> str:
        """A few lines for people."""
        found = self.comparison
        return "\n".join(
            [
                f"{self.path}: {self.size / 2**20:.2f} MiB, ONNX operator set {self.opset}",
                f"accuracy on {found.images} of {found.available} validation images: trained "
                f"{found.trained['accuracy']:.4f}, file {found.file['accuracy']:.4f}",
                f"outputs differ by at most {found.largest_difference:.3g} there; tolerance {self.tolerance:.3g}",
                *(f"verified with {one.runtime} ({one.largest_difference:.3g})" for one in self.verifications),
                *self.notes,
            ]
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            **asdict(self),
            "verifications": [one.to_json() for one in self.verifications],
            "notes": list(self.notes),
        }


def export(
    folder: str | Path,
    out: str | Path,
    *,
    which: str = "best",
    licence: str = "unspecified",
    images_limit: int = IMAGES_LIMIT,
    progress: Progress = SILENT,
) -> Exported:
    """Write the model file of a run. which: "best" or "last". images_limit: validation images to compare on, at most.

    Nothing is written where the file does not answer as the trained model does: raises VerificationError.
    Also raises RunError, DataError, ModelFileError, StorageError, MissingPackageError, InputError.
    """
    source = trained(folder, which)
    validation = run_data(source.run).val
    images = validation.select(_spread(len(validation), images_limit))
    progress.say("converting to ONNX")
    graph = to_onnx(source.model, source.preprocess.size, source.preprocess.channels)
    forward = torch_forward(source.model)
    answers, comparison, tolerance = _compare(source, forward, graph, images, len(validation), progress)
    card = Card(
        task=source.settings.task,
        preprocess=source.preprocess,
        classes=source.classes,
        licence=licence,
        provenance=_provenance(source, which, comparison),
        checks=_checks(source.preprocess, forward, images, answers, tolerance),
        images=check_images(source.preprocess),
        tolerance=tolerance,
    )
    data = modelfile.to_bytes(graph, card)
    with storage.write_aside(out, "w+b") as file:  # what fails in here leaves no file, and an older one as it was
        file.write(data)
        file.seek(0)
        written = modelfile.parse(file.read(), str(out))
        verifications, notes = _verify(written)
    return Exported(
        path=str(out),
        size=len(data),
        opset=written.onnx.opset,
        tolerance=tolerance,
        comparison=comparison,
        verifications=verifications,
        notes=notes,
    )


def _spread(count: int, most: int) -> NDArray[np.int64]:
    """At most `most` of `count` positions, evenly spread: a list sorted by class keeps its shares."""
    most = max(1, min(count, most))
    return np.arange(most, dtype=np.int64) * count // most


def _compare(
    source: Trained, forward: Forward, graph: bytes, images: Source, available: int, progress: Progress
) -> tuple[Evaluation, Comparison, float]:
    """The trained model's answers, their comparison with those of the ONNX model, and the tolerance that follows.

    Raises VerificationError where they differ by more than the order of float32 sums can explain.
    """
    model = open_model(modelfile.parse(graph, "the ONNX model"), AUTO)
    found: list[NDArray[np.float32]] = []

    def both(batch: NDArray[np.float32]) -> NDArray[np.float32]:
        expected = forward(batch)
        found.append(model.run(batch))
        if not (np.isfinite(expected).all() and np.isfinite(found[-1]).all()):
            raise VerificationError(
                f"{source.run.path}: the network's outputs are not finite; nothing was written; train it anew, "
                "with a lower learning rate"
            )
        return expected

    answers = evaluate(both, images, source.preprocess, what="comparing", progress=progress)
    file = replace(answers, logits=np.concatenate(found))
    difference = float(np.abs(answers.logits.astype(np.float64) - file.logits).max())
    scale = max(1.0, float(np.abs(answers.logits).max()))
    tolerance = max(FLOOR * scale, HEADROOM * difference)
    changed = np.flatnonzero(answers.predicted != file.predicted)
    wide = [i for i in changed.tolist() if margin(answers.logits[i]) > 2 * tolerance]
    if difference > CEILING * scale or wide:
        raise VerificationError(
            f"{source.run.path}: the ONNX model run by {model.runtime_name} does not answer as the trained one: outputs "
            f"differ by up to {difference:.3g} where {CEILING * scale:.3g} is allowed, accuracy {file.metrics['accuracy']:.4f} "
            f"against {answers.metrics['accuracy']:.4f}; nothing was written; please report this network"
        )
    comparison = Comparison(len(answers.targets), available, answers.metrics, file.metrics, difference, len(changed))
    return answers, comparison, tolerance


def _checks(
    preprocess: Preprocess, forward: Forward, images: Source, answers: Evaluation, tolerance: float
) -> tuple[Check, ...]:
    """Check inputs with the trained model's answers: validation images of different classes, and noise.

    Those whose best two outputs are too close to tell the class are passed over where there are others.
    """
    clear = [i for i in range(len(answers.names)) if margin(answers.logits[i]) > 2 * tolerance]
    first_of_class = {int(answers.predicted[i]): i for i in reversed(clear)}
    chosen = [*first_of_class.values(), *clear, *range(len(answers.names))]
    row = {name: i for i, name in enumerate(images.names)}
    pixels = [preprocess.pixels(images.read(row[answers.names[i]])) for i in list(dict.fromkeys(chosen))[:REAL_CHECKS]]
    pixels += [_clear_noise(preprocess, forward, block, tolerance) for block in NOISE_BLOCKS]
    expected = forward(preprocess.normalise(np.stack(pixels)))
    return tuple(Check(one, outputs) for one, outputs in zip(pixels, expected))


def _clear_noise(preprocess: Preprocess, forward: Forward, block: int, tolerance: float) -> NDArray[np.uint8]:
    """Noise of which the network knows what to say, or the last that was tried."""
    for seed in range(NOISE_TRIES):
        pixels = noise(preprocess.size, preprocess.channels, block, seed)
        if margin(forward(preprocess.normalise(pixels[None]))[0]) > 2 * tolerance:
            break
    return pixels


def _provenance(source: Trained, which: str, comparison: Comparison) -> dict[str, Any]:
    """Where the model comes from. Raises GossamerError where it would tell a folder of this machine."""
    plain = settings.to_dict(source.settings)
    for name in LOCAL_SETTINGS:
        if "://" not in str(plain[name]):
            plain[name] = Path(str(plain[name])).name
    facts = source.run.data
    provenance = {
        "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "versions": {"gossamer": gossamer.__version__, "torch": str(torch.__version__), "onnx": version("onnx")},
        "network": source.settings.net,
        "weights": which,
        "seed": source.settings.seed,
        "settings": plain,
        "data": {"fingerprint": facts.get("fingerprint"), "images": facts.get("images")},
        "metrics": {
            "split": "val",
            "images": comparison.images,
            **{name: value if math.isfinite(value) else None for name, value in comparison.trained.items()},
        },
    }
    found = machine_path(json.dumps(provenance, ensure_ascii=False).encode())
    if found:
        raise GossamerError(f"the model file would tell the path {found}; nothing was written; please report this")
    return provenance


def _verify(file: ModelFile) -> tuple[tuple[Verification, ...], tuple[str, ...]]:
    """The file's own checks, with the runtime that a user gets and with the reference. Raises VerificationError."""
    models, notes = [open_model(file, AUTO)], []
    if models[0].runtime_name != REFERENCE:
        try:
            models.append(open_model(file, REFERENCE))
        except ModelFileError as error:
            notes.append(f"needs onnxruntime or openvino: {error.given}")
    verifications = tuple(verify_model(model) for model in models)
    for one in verifications:
        one.raise_if_failed()
        if one.warnings:
            raise VerificationError(f"{one.path}: {one.warnings[0]}; the same image gave two results on this machine")
    return verifications, tuple(notes)
