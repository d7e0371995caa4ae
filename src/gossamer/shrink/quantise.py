"""A trained network as an int8 file, calibrated on training images, measured on others, and verified before it is there."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import os
from collections.abc import Sequence
from itertools import chain, product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from gossamer.errors import GossamerError, InputError, SettingsError, VerificationError
from gossamer.host import storage
from gossamer.host.progress import SILENT, Progress, one_line
from gossamer.host.text import counted, metric_name
from gossamer.modelfile.metadata import ModelFile, ModelMetadata, parse_model_file, read_model_file
from gossamer.run import Run
from gossamer.runtime.model import open_model
from gossamer.shrink.calibration import (
    FEWEST,
    Calibration,
    calibration,
    files_to_read,
    images_to_read,
    paths_of,
    shared_with,
    spread,
)
from gossamer.shrink.channel_ranges import channel_ranges
from gossamer.shrink.correct import correct_biases
from gossamer.shrink.equalise import equalise, has_linear
from gossamer.shrink.fake_quant import TorchGraph
from gossamer.shrink.fallback import fall_back
from gossamer.shrink.graph import OnnxGraph, OnnxSession
from gossamer.shrink.qat import LEARNING_RATE, QatResult, QatSettings, check_loss, train_quantised
from gossamer.shrink.qdq import QuantisationChoice, quantised_model
from gossamer.shrink.quantised_model import QuantisedModel
from gossamer.shrink.ranges import BestRanges, Values, in_batches, measure_ranges
from gossamer.shrink.rounding import round_weights
from gossamer.shrink.scoring import SCORED, TOLERANCE, Scoring, Target, int8_file
from gossamer.shrink.sensitivity import LayerNoise, decibels, layer_noise
from gossamer.shrink.timing import with_milliseconds
from gossamer.targets import check_result, target_of
from gossamer.tasks.registry import task_of
from gossamer.training.restore import LoadedRun, load_run, run_data

IMAGES = 128  # for calibration
STRENGTHS = (0.5, 1.0)  # of equalisation, of which the better is taken


def quantize(
    target: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    images: str | os.PathLike[str] | Sequence[str] = (),
    count: int = IMAGES,
    max_drop: float | None = None,
    weight_bits: int = 8,
    keep: Sequence[str] = (),
    layers: bool = False,
    round_seconds: float = 0.0,
    qat_minutes: float | None = None,
    qat_epochs: float | None = None,
    qat_lr: float = LEARNING_RATE,
    which: str = "best",
    progress: Progress = SILENT,
) -> QuantisedModel:
    """Write the network of a run, or of a float ONNX file, as an int8 file (QDQ) that every runtime of gossamer runs.

    images: to calibrate with, files and folders; default the training images of a run. count: how many of them. max_drop:
    points (of 100) that the run's score may lose on its validation images; layers stay in float, those first that regain the most for a millisecond, until
    it holds, and where it cannot the file is not written. weight_bits: 8 or 7. keep: names of layers that stay in float.
    layers: measure what each layer costs alone, and its time in float and in int8. round_seconds: time for rounding weights
    by what each layer computes in place of the nearest byte, 0 for none. qat_minutes, qat_epochs: how long a run's network is
    trained with the roundings of its file, its float network as teacher (`gossamer.shrink.qat`), not at all without them; what
    comes out is taken only where it scores no lower on the validation images. qat_lr: its learning rate. which: the checkpoint of a run.
    Raises InputError for a target or images that cannot be used, UnknownNameError for a layer to keep, VerificationError
    where the limit cannot be held or the file does not give the outputs that were measured, and what reading and writing raise.
    """
    _check(count, weight_bits, max_drop, round_seconds)
    qat = QatSettings(qat_minutes, qat_epochs, qat_lr) if (qat_minutes, qat_epochs) != (None, None) else None
    if qat is None and qat_lr != LEARNING_RATE:
        raise InputError(f"a learning rate of {qat_lr} for no QAT", "it beside --qat-minutes", "give both, or neither")
    check_result(out, target, suffix=".onnx", advice="then gossamer compile FILE.onnx writes it for the native engine")
    source = _source(target, which, progress)
    _check_limit(source, max_drop)
    loaded = None if qat is None else _to_train(source, which)
    notes: list[str] = []
    seen = _calibration(source, images, count, progress, notes)
    used, held = seen.used, seen.held
    graph = OnnxGraph(source.file.data, source.file.outputs, source.file.path)
    steps: list[str] = []
    known: dict[bytes, tuple[float, float]] = {}
    graph, unequal = _equalised(graph, used, held, steps, progress, known)
    values = measure_ranges(graph, progress.track(chain(in_batches(used), seen.rest()), None, "ranges"))
    choice = QuantisationChoice(BestRanges(values, known), weight_bits=weight_bits)
    choice = dataclasses.replace(choice, float_layers=_kept(graph, keep))
    corrected = correct_biases(graph, choice, used, held, progress)
    steps.append(f"bias correction: kept in {corrected} of {len(graph.weighted())} layers")
    if round_seconds:
        choice = round_weights(graph, choice, used, held, round_seconds, steps, progress)
    trained: QatResult | None = None
    if qat is not None and loaded is not None:
        graph, choice, trained = _trained(source, graph, choice, loaded, qat, progress)
        steps.append(trained.text(source.score))
    noise = layer_noise(graph, choice, held[:FEWEST], progress) if layers or max_drop is not None else []
    scored = _scored(source, graph, choice, noise, max_drop, steps, progress)
    choice, noise = scored.choice, list(scored.noise)
    if layers:
        noise = with_milliseconds(graph, choice, noise, held[:1])
    expected = OnnxSession(OnnxGraph(source.file.data, source.file.outputs, "").model()).run(held)
    data = quantised_model(graph, choice)
    actual = OnnxSession(data).run(held)
    same = None
    if _classifies(source.file.metadata, expected):
        same = float((expected[0].argmax(1) == actual[0].argmax(1)).mean())
    steps.append(_in_engine(parse_model_file(data, os.fspath(out)), held, expected, actual))
    kept = tuple(node.name for node in graph.weighted() if node.name in choice.float_layers)
    written = int8_file(source.file, data, trained, kept, scored.precision)
    storage.write_bytes(out, written)
    return QuantisedModel(
        file=os.fspath(out),
        bytes=len(written),
        float_bytes=len(source.file.data),
        calibrated_on=len(used) + seen.later,
        measured_on=len(held),
        decibels=decibels(expected, actual),
        agreement=same,
        score=source.score,
        scored_on=scored.images,
        scores=scored.scores,
        weight_bits=weight_bits,
        float_layers=kept,
        layers=tuple(
            dataclasses.replace(one, precision=scored.precision) if one.name in kept else one for one in noise
        ),
        steps=tuple(steps),
        notes=tuple(notes),
        ranges=channel_ranges(unequal, values) if layers else (),
        qat=trained,
    )


def _check(count: int, weight_bits: int, max_drop: float | None, round_seconds: float) -> None:
    if weight_bits not in (7, 8):
        raise InputError(f"weights of {weight_bits} bits", "7 or 8", "give one of them")
    if not FEWEST <= count <= 100_000:
        raise InputError(f"{counted(count, 'image')} to calibrate with", f"{FEWEST} to 100000", "give such a number")
    if max_drop is not None and not (math.isfinite(max_drop) and 0 <= max_drop <= 100):
        raise InputError(f"a drop of at most {max_drop} points", "0 to 100", "give such a number")
    if not (math.isfinite(round_seconds) and 0 <= round_seconds <= 86_400):
        raise InputError(f"{round_seconds} seconds for rounding", "0 to 86400", "give such a number")


def _check_limit(source: Target, max_drop: float | None) -> None:
    """Raises InputError for a limit without labelled images."""
    if max_drop is not None and (source.run is None or source.data is None):
        raise InputError(
            f"--max-drop for {source.file.path}, a file without labelled images", "a run folder", "give the run"
        )


def _source(target: str | os.PathLike[str], which: str, progress: Progress) -> Target:
    if target_of(target, ("run", "model file")).kind != "run":
        if which != "best":
            raise SettingsError(f"the {which} weights of a model file", "a run folder", "leave --which out")
        return Target(read_model_file(target))
    from gossamer.export.onnx import convert

    converted = convert(os.fspath(target), which, "unspecified", SCORED, progress)
    run = Run.open(os.fspath(target))
    data = run_data(run)
    file = parse_model_file(converted.data, os.fspath(target))
    return Target(file, run, task_of(run.settings.task).score, data)


def _calibration(source: Target, images: Any, count: int, progress: Progress, notes: list[str]) -> Calibration:
    """The images to calibrate with: those named, or the training images of the run."""
    metadata = source.file.metadata
    if images and metadata is None:
        raise InputError(
            f"{source.file.path}: says nothing of how an image becomes its input",
            "a file that `gossamer export` wrote, or a run",
            "export it with gossamer, or calibrate it where it was made",
        )
    if not images and source.data is None:
        raise InputError(
            f"{source.file.path}: a file without images to calibrate with", "images like those it was trained on",
            "name a folder of them by --images",
        )  # fmt: skip
    assert metadata is not None
    if source.data is not None and not images:
        return calibration(images_to_read(source.data.train), metadata.preprocess, count, notes, progress)
    readers = files_to_read(paths_of(images))
    result = calibration(readers, metadata.preprocess, count, notes, progress)
    whole = source.data
    others = [] if whole is None else [one for one in (whole.val, whole.test) if one is not None]
    both = shared_with([readers[index] for index in spread(len(readers), count)], others) if others else 0
    if both:
        notes.append(
            f"warning: {both} of the images to calibrate with are validation or test images of the run, so the scores on "
            "those may be too high"
        )
    return result


def _equalised(
    graph: OnnxGraph,
    used: NDArray[np.float32],
    held: NDArray[np.float32],
    steps: list[str],
    progress: Progress,
    ranges: dict[bytes, tuple[float, float]],
) -> tuple[OnnxGraph, dict[str, Values]]:
    """The graph equalised: of some ways the one that brings the outputs in int8 nearest to the float ones on images that were
    not measured. With it the values before.

    The scale in which a network came is arbitrary where no activation meets a channel, so that it must not decide: there each
    way has a scale of its own, and the network as it came is none of them. Of others it is one. ranges: see `BestRanges`.
    """
    plain = graph.model()
    values = measure_ranges(graph, progress.track(list(in_batches(used)), None, "ranges before equalisation"))
    expected = OnnxSession(plain).run(held)

    def ratio(one: OnnxGraph, known: dict[str, Values]) -> float:
        choice = QuantisationChoice(BestRanges(known, ranges))
        return decibels(expected, OnnxSession(quantised_model(one, choice)).run(held))

    start = ratio(graph, values)
    streams = has_linear(graph, values)
    best, best_ratio, text = graph, -math.inf if streams else start, "no channels to rescale"
    tried: set[str] = set()
    for linear, strength in product((True, False) if streams else (False,), STRENGTHS):
        rescaled = OnnxGraph(plain, graph.outputs, graph.name)
        count = equalise(rescaled, values, strength, linear)
        if not count and not linear:
            break
        digest = _digest(rescaled)
        if digest in tried:  # as where all channels are of such streams
            continue
        tried.add(digest)
        now = ratio(rescaled, measure_ranges(rescaled, in_batches(used))) if count else start
        if best is graph:
            text = f"{counted(count, 'set')} of channels would not help"
        if now > best_ratio:
            best, best_ratio = rescaled, now
            text = f"{counted(count, 'set')} of channels rescaled, {start:.1f} dB -> {now:.1f} dB"
            if not count:
                text = "no channels to rescale"
    steps.append(f"equalisation: {text}")
    return best, values


def _digest(graph: OnnxGraph) -> str:
    """The same for two forms of one graph that hold the same numbers."""
    digest = hashlib.sha256()
    for name, value in graph.constants.items():
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(value).tobytes())
    return digest.hexdigest()


def _in_engine(
    file: ModelFile, images: NDArray[np.float32], expected: Sequence[NDArray[Any]], actual: Sequence[NDArray[Any]]
) -> str:
    """A line on the outputs of the int8 file in the native engine. expected: of the float file; actual: of ONNX Runtime."""
    try:
        raw = open_model(file, "native").run(images)
    except GossamerError as error:
        return f"native engine: not tried: {error}"
    outputs = [raw[name] for name in file.outputs] if isinstance(raw, dict) else [raw]
    pairs = list(zip(outputs, actual, strict=True))
    largest = max(float(np.abs(own - theirs).max()) for own, theirs in pairs)
    line = f"native engine: {decibels(expected, outputs):.1f} dB; its outputs differ from ONNX Runtime's by up to {largest:.3g}"
    if any(
        float(np.abs(own - theirs).max()) > TOLERANCE * max(1.0, float(np.abs(theirs).max())) for own, theirs in pairs
    ):
        line += ", as a network passes on a value that rounds to the next byte: verify the file with --runtime onnxruntime, and score it in the engine with eval"
    return line


def _kept(graph: OnnxGraph, keep: Sequence[str]) -> frozenset[str]:
    """The layers named to stay in float. Raises UnknownNameError."""
    from gossamer.errors import UnknownNameError

    names = [node.name for node in graph.weighted()]
    for name in keep:
        if name not in names:
            raise UnknownNameError("layer", name, names)
    return frozenset(keep)


def _to_train(source: Target, which: str) -> LoadedRun:
    """The run whose network QAT trains. Raises InputError where there is none, or where it cannot be trained so."""
    if source.run is None:
        raise InputError(f"QAT for {source.file.path}, a file without labelled images", "a run folder", "give the run")
    loaded = load_run(source.run.path, which, data=source.data)
    check_loss(loaded)
    metadata = source.file.metadata
    assert metadata is not None, "of a run"
    graph = OnnxGraph(source.file.data, source.file.outputs, source.file.path)
    image = torch.from_numpy(metadata.preprocess.normalise(metadata.checks[0].pixels[None]))
    with torch.no_grad():  # a form of an operator that has no gradient is told now, not after minutes of calibration
        TorchGraph(graph, torch.device("cpu")).run(image)
    return loaded


def _trained(
    source: Target,
    graph: OnnxGraph,
    choice: QuantisationChoice,
    loaded: LoadedRun,
    settings: QatSettings,
    progress: Progress,
) -> tuple[OnnxGraph, QuantisationChoice, QatResult]:
    """The graph and the choice that QAT leaves, by the score of the file on validation images."""
    assert source.data is not None, "a run has data"
    parent = OnnxGraph(source.file.data, source.file.outputs, source.file.path)
    scoring = Scoring(source, progress)

    def score(one: OnnxGraph, how: QuantisationChoice) -> float:
        return scoring.after(one, how)[source.score]

    return train_quantised(parent, graph, choice, loaded, source.data, settings, score, progress)


def _scored(
    source: Target,
    graph: OnnxGraph,
    choice: QuantisationChoice,
    noise: Sequence[LayerNoise],
    max_drop: float | None,
    steps: list[str],
    progress: Progress,
) -> _Scored:
    """Both files' scores on validation images, and the choice of layers with which the limit holds.

    Raises InputError for a limit without labelled images, VerificationError where it does not hold with all in floats.
    """
    _check_limit(source, max_drop)
    if source.run is None or source.data is None:
        return _Scored({}, 0, choice, tuple(noise), "float32")
    scoring = Scoring(source, progress)
    before, scores = scoring.before(), scoring.after(graph, choice)
    count = len(scoring.images) - len(scoring.unreadable)
    if scoring.unreadable:
        name, reason = scoring.unreadable[0]
        steps.append(
            f"{len(scoring.unreadable)} of {len(scoring.images)} validation images cannot be read and are left out, such as "
            f"{one_line(name)} ({one_line(reason)})"
        )
    if max_drop is not None and max_drop < 100 / max(1, count):
        steps.append(
            f"a drop of {max_drop:g} points is finer than {count} validation images tell: one image is "
            f"{100 / max(1, count):.2g} points"
        )
    drop = 100 * (before[source.score] - scores[source.score])
    precision = "float32"
    if max_drop is not None and not drop <= max_drop:

        def drop_of(names: frozenset[str]) -> float:
            score = scoring.least(graph, dataclasses.replace(choice, float_layers=names))
            return 100 * (before[source.score] - score)

        def ms_of(sets: Sequence[frozenset[str]]) -> list[float]:
            return scoring.ms(graph, [dataclasses.replace(choice, float_layers=names) for names in sets])

        others = frozenset(node.name for node in graph.nodes)
        result = fall_back(noise, choice.float_layers, others, drop, max_drop, drop_of, ms_of)
        steps += result.steps
        if not result.holds and scoring.precision == "bfloat16":
            steps.append("fallback: not even all layers in bfloat16 hold the limit; again in float32")
            scoring.bfloat16 = False
            result = fall_back(noise, choice.float_layers, others, drop, max_drop, drop_of, ms_of)
            steps += result.steps
        if not result.holds:
            raise VerificationError(
                f"{source.file.path}: in float it loses {result.drop:.2f} points of {metric_name(source.score)} where "
                f"{max_drop:g} are allowed; no file is written; report it"
            )
        choice, noise, precision = (
            dataclasses.replace(choice, float_layers=result.names),
            result.layers,
            scoring.precision,
        )
        steps.append(f"layers in float: {_RUNS[precision]}")
        scores = scoring.after(graph, choice)
    pairs = {name: (before[name], scores[name]) for name in before if name in scores}
    return _Scored(pairs, count, choice, tuple(noise), precision)


_RUNS = {
    "bfloat16": "bfloat16 once compiled, as this processor computes in it; float32 in ONNX Runtime and OpenVINO",
    "float32": "float32 in every runtime",
}


class _Scored(NamedTuple):
    """What scoring left. scores: metric -> (float, int8). precision: of the layers in floats, once compiled."""

    scores: dict[str, tuple[float, float]]
    images: int
    choice: QuantisationChoice
    noise: tuple[LayerNoise, ...]
    precision: str


def _classifies(metadata: ModelMetadata | None, outputs: Sequence[NDArray[Any]]) -> bool:
    if metadata is not None:
        return [head.kind for head in metadata.heads] == ["classify"]
    return len(outputs) == 1 and outputs[0].ndim == 2 and outputs[0].shape[1] > 1


def name_of(path: str | os.PathLike[str]) -> str:
    """NAME.int8.onnx for NAME.onnx or a run folder NAME: the file that is written where none is named."""
    path = Path(path)
    return str(path.with_suffix(".int8.onnx") if path.suffix == ".onnx" else Path(f"{path.name}.int8.onnx"))


quantise = quantize
