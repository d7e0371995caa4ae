"""From a run folder to one verified model file, or to no file."""

from __future__ import annotations

import copy
import json
import math
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import gossamer
from gossamer.data.source import Source
from gossamer.errors import GossamerError, ModelFileError, VerificationError
from gossamer.export.convert import machine_path, to_onnx
from gossamer.export.converted import Comparison, ConvertedModel
from gossamer.export.extras import with_decoded_outputs
from gossamer.export.samples import build_check_images, noise
from gossamer.host.progress import Progress
from gossamer.images.preprocess import Placement, Preprocess
from gossamer.modelfile.metadata import (
    CHECKED,
    CheckInput,
    ModelMetadata,
    model_file_bytes,
    parse_model_file,
)
from gossamer.predictions.head import Raw, flattened, outputs_of
from gossamer.runtime.model import REFERENCE, Model, open_model
from gossamer.runtime.table import AUTO
from gossamer.runtime.verification import VerificationResult, margin, verify_model
from gossamer.settings import to_dict
from gossamer.tasks.scores import Scores
from gossamer.training.evaluate import Forward, evaluate
from gossamer.training.network import changes_of
from gossamer.training.restore import LoadedRun, load_run, run_data, torch_forward

COMPARED = 16  # images at once
REAL_CHECKS = 2
NOISE_BLOCKS = (1, 8)  # side of the blocks of the artificial check inputs, pixels
FLOOR = 1e-4  # tolerance, relative to the largest output (at least 1): float32 sums in another order stay below it
CEILING = 1e-3  # a relative difference above this is a fault of the conversion
# another order of sums may be so many times as far from the outputs in float64 as float32's last bit leads
ROUNDING = 10
SHAKEN = 3  # times that weights are moved by the last bit to see what it does
HEADROOM = 4  # tolerance over the largest difference measured here: other processors add up in other orders
LARGEST = 0.01 / HEADROOM  # relative to the largest output, whatever the last bit does: rule 20 of the format
NOISE_TRIES = 8
# paths of the training machine; only their last part is kept
LOCAL_SETTINGS = ("data", "val", "out", "weights", "teacher", "cache_dir")


def convert(folder: str | Path, which: str, licence: str, images_limit: int, progress: Progress) -> ConvertedModel:
    """The model file of a run: see `gossamer.export.formats`.

    Raises RunError, DataError, ModelFileError, MissingPackageError, InputError, VerificationError.
    """
    source = load_run(folder, which)
    validation = run_data(source.run).val
    images = validation.select(_spread(len(validation), images_limit))
    progress.say("converting to ONNX")
    heads = source.task.heads()
    graph = to_onnx(source.model, source.preprocess.size, source.preprocess.channels, outputs_of(heads))
    forward = torch_forward(source.model)
    parsed = parse_model_file(graph, "the ONNX model")
    model = open_model(parsed, AUTO)
    outputs, comparison, tolerance = _compare(source, forward, model, images, len(validation), progress)
    checked = CHECKED if heads[0].kind != "classify" or len(heads) > 1 else 0
    pixels = _check_inputs(source, forward, images, outputs, tolerance)
    expected, tolerance = _expected(source, forward, model, pixels, tolerance)
    metadata = ModelMetadata(
        heads=heads,
        preprocess=source.preprocess,
        licence=licence,
        provenance=_provenance(source, which, comparison),
        checks=tuple(
            CheckInput(one, outputs) for one, outputs in zip(pixels, flattened(expected, checked), strict=True)
        ),
        images=build_check_images(source.preprocess),
        tolerance=tolerance,
    )
    data = model_file_bytes(with_decoded_outputs(graph, heads, source.preprocess.size), metadata)
    return ConvertedModel(data, parsed.onnx.opset, tolerance, comparison)


def verify(data: bytes, path: str) -> tuple[tuple[VerificationResult, ...], tuple[str, ...]]:
    """The file's own checks, with the runtime that a user gets and with the reference. Raises VerificationError."""
    file = parse_model_file(data, path)
    model = open_model(file, AUTO)
    models, notes = [model], []
    if model.runtime_name != REFERENCE:
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


def _spread(count: int, most: int) -> NDArray[np.int64]:
    """At most `most` of `count` positions, evenly spread: a list sorted by class keeps its class ratios."""
    most = max(1, min(count, most))
    return np.arange(most, dtype=np.int64) * count // most


class _Both:
    """Two scorers of the same images: of the outputs of the trained model, and of the ONNX model."""

    def __init__(self, source: LoadedRun, model: Model, forward: Forward) -> None:
        self.trained, self.file = source.task.scorer(), source.task.scorer()
        self.model, self.forward, self.path = model, forward, source.run.path
        self.unreadable = self.trained.unreadable
        self.outputs: list[tuple[list[str], Raw, Raw]] = []  # names, outputs of the trained model, of the ONNX model
        self.file_outputs: Raw = {}

    def __call__(self, batch: NDArray[np.float32]) -> Raw:
        """The outputs of the trained model; those of the ONNX model are kept for `add`."""
        expected, self.file_outputs = self.forward(batch), self.model.run(batch)
        if not (np.isfinite(flattened(expected)).all() and np.isfinite(flattened(self.file_outputs)).all()):
            raise VerificationError(
                f"{self.path}: the network's outputs are not finite; nothing was written; train it anew, "
                "with a lower learning rate"
            )
        return expected

    def add(self, names: Sequence[str], raw: Raw, targets: Sequence[Any], places: Sequence[Placement]) -> None:
        """Score both, and keep a sample of their numbers."""
        self.trained.add(names, raw, targets, places)
        self.file.add(names, self.file_outputs, targets, places)
        self.outputs.append((list(names), raw, self.file_outputs))

    def merge(self, other: Any) -> None:
        """Never needed: one process compares."""
        raise AssertionError("one process compares")

    def scores(self) -> Scores:
        """Those of the trained model."""
        return self.trained.scores()


def _compare(
    source: LoadedRun, forward: Forward, model: Model, images: Source, available: int, progress: Progress
) -> tuple[dict[str, NDArray[np.float32]], Comparison, float]:
    """The outputs of the trained model by image, their comparison with those of the ONNX model, and the tolerance.

    Raises VerificationError where they differ by more than the order of float32 sums can explain.
    """
    both = _Both(source, model, forward)
    evaluate(both, images, source.preprocess, both, batch=COMPARED, what="comparing", progress=progress)
    names = [name for part, _, _ in both.outputs for name in part]
    expected = np.concatenate([flattened(raw) for _, raw, _ in both.outputs])
    file_outputs = np.concatenate([flattened(raw) for _, _, raw in both.outputs])
    difference, scale = _distance(expected, file_outputs)
    tolerance = max(FLOOR * scale, HEADROOM * difference)
    changed: list[int] = []
    if source.task.name == "classify":
        changed = np.flatnonzero(expected.argmax(1) != file_outputs.argmax(1)).tolist()
    wide = [i for i in changed if margin(expected[i]) > 2 * tolerance]
    score, trained_scores, file_scores = source.task.score, both.scores().metrics, both.file.scores().metrics
    if difference > CEILING * scale or wide:
        raise VerificationError(
            f"{source.run.path}: the ONNX model run by {model.runtime_name} does not compute what the trained one does: outputs "
            f"differ by up to {difference:.3g} where {CEILING * scale:.3g} is allowed, {score} {file_scores[score]:.4f} "
            f"against {trained_scores[score]:.4f}; nothing was written; please report this network"
        )
    comparison = Comparison(score, len(names), available, trained_scores, file_scores, difference, len(changed))
    return dict(zip(names, expected)), comparison, tolerance


def _check_inputs(
    source: LoadedRun, forward: Forward, images: Source, outputs: dict[str, NDArray[np.float32]], tolerance: float
) -> list[NDArray[np.uint8]]:
    """Validation images, of a classifier of different classes, and noise.

    Those of which a classifier's best two outputs are too close to tell the class are passed over where there are
    others.
    """
    preprocess, classes = source.preprocess, source.task.name == "classify"
    names = list(outputs)
    chosen = names
    if classes:
        clear = [name for name in names if margin(outputs[name]) > 2 * tolerance]
        first_of_class = {int(outputs[name].argmax()): name for name in reversed(clear)}
        chosen = [*first_of_class.values(), *clear, *names]
    row = {name: i for i, name in enumerate(images.names)}
    pixels = [preprocess.pixels(images.read(row[name])) for name in list(dict.fromkeys(chosen))[:REAL_CHECKS]]
    return pixels + [_clear_noise(preprocess, forward, block, tolerance if classes else 0.0) for block in NOISE_BLOCKS]


def _expected(
    source: LoadedRun, forward: Forward, model: Model, pixels: list[NDArray[np.uint8]], tolerance: float
) -> tuple[Raw, float]:
    """The outputs of the trained model for the check inputs, and the tolerance, larger where these ask for it.

    Noise may be far from every image that the network has seen, and its outputs many times as large.
    Raises VerificationError where the file's differ by more than the order of float32 sums can explain.
    """
    batch = source.preprocess.normalise(np.stack(pixels))
    expected = forward(batch)
    difference, scale = _distance(flattened(expected), flattened(model.run(batch)))
    allowed = CEILING * scale
    if difference > allowed:  # a network that has hardly been trained can make much of the last bit
        allowed = max(allowed, min(ROUNDING * _rounding(source.model, batch), LARGEST * scale))
    if difference > allowed:
        raise VerificationError(
            f"{source.run.path}: the ONNX model run by {model.runtime_name} does not compute what the trained one does on the "
            f"check inputs: outputs differ by up to {difference:.3g} where {allowed:.3g} is allowed; nothing "
            "was written; please report this network"
        )
    return expected, max(tolerance, FLOOR * scale, HEADROOM * difference)


def _rounding(model: nn.Module, batch: NDArray[np.float32]) -> float:
    """How far float32's last bit leads from the outputs of `model` for a batch (n, C, H, W) in float64, on the CPU.

    The largest difference of two kinds: of the outputs in float32, one order of sums among many, which may be lucky; and
    of the outputs in float64 where each weight is off by up to float32's last bit, as sums in other orders are.
    """
    outputs = [_outputs(model, batch, torch.float64), _outputs(model, batch, torch.float32)]
    outputs += [_outputs(model, batch, torch.float64, seed) for seed in range(SHAKEN)]
    exact, *others = outputs
    return max(float((a.double() - b).abs().max()) for other in others for a, b in zip(other, exact, strict=True))


def _outputs(model: nn.Module, batch: NDArray[np.float32], dtype: torch.dtype, seed: int | None = None) -> list[Tensor]:
    """The outputs of a copy of `model` in `dtype`; with a seed, of weights that are each off by up to a float32's last bit."""
    copied = copy.deepcopy(model).cpu().to(dtype).eval()
    with torch.inference_mode():
        if seed is not None:
            draw = torch.Generator().manual_seed(seed)
            for weight in copied.parameters():
                weight.mul_(1 + (2 * torch.rand(weight.shape, generator=draw, dtype=dtype) - 1) * 2.0**-23)
        outputs = copied(torch.from_numpy(batch).to(dtype))
    return list(outputs.values()) if isinstance(outputs, dict) else [outputs]


def _distance(expected: NDArray[np.float32], file_outputs: NDArray[np.float32]) -> tuple[float, float]:
    """The largest difference, and what it is relative to: the largest output, at least 1."""
    return float(np.abs(expected.astype(np.float64) - file_outputs).max()), max(1.0, float(np.abs(expected).max()))


def _clear_noise(preprocess: Preprocess, forward: Forward, block: int, tolerance: float) -> NDArray[np.uint8]:
    """Noise with a clear class, or the last that was tried; without a tolerance the first."""
    for seed in range(NOISE_TRIES):
        pixels = noise(preprocess.size, preprocess.channels, block, seed)
        if not tolerance or margin(flattened(forward(preprocess.normalise(pixels[None])))[0]) > 2 * tolerance:
            break
    return pixels


def _provenance(source: LoadedRun, which: str, comparison: Comparison) -> dict[str, Any]:
    """Where the model comes from. Raises GossamerError where it would tell a folder of this machine."""
    plain = to_dict(source.settings)
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
    if source.settings.teacher:
        provenance["teacher"] = {key: source.run.teacher()[key] for key in ("kind", "sha256")}
    changes = Counter(change.operation for change in changes_of(source.run))
    if changes:  # the settings alone do not give this network
        provenance["changes"] = dict(changes)
    path = machine_path(json.dumps(provenance, ensure_ascii=False).encode())
    if path:
        raise GossamerError(f"the model file would tell the path {path}; nothing was written; please report this")
    return provenance
