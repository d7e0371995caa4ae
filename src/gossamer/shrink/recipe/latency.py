"""Milliseconds of model files in one runtime, measured in turn."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gossamer.errors import GossamerError, MissingPackageError
from gossamer.host.progress import Progress
from gossamer.modelfile.metadata import ModelFile
from gossamer.runtime import native
from gossamer.runtime.model import Model, open_model
from gossamer.shrink.times import in_turns

NATIVE, ORT = "native", "onnxruntime"


def runtime_here(file: ModelFile) -> tuple[str, str]:
    """The runtime that milliseconds and scores of this machine are of, and why it is not the native engine, "" where it is."""
    try:
        native.library()
        open_model(file, NATIVE, 1)
    except MissingPackageError:
        return ORT, "the native engine is not built: milliseconds are of ONNX Runtime"
    except GossamerError as error:
        return ORT, f"milliseconds are of ONNX Runtime, as the native engine cannot run the network: {error}"
    return NATIVE, ""


def opened(file: ModelFile, runtime: str, threads: int) -> tuple[Model, str]:
    """A model in `runtime`, or in ONNX Runtime where that refuses it, with the reason."""
    try:
        return open_model(file, runtime, threads), ""
    except GossamerError as error:
        if runtime == ORT:
            raise
        return open_model(file, ORT, threads), f"runs in ONNX Runtime: {error}"


def latencies(models: Sequence[Model], progress: Progress, what: str) -> list[float]:
    """The milliseconds of one image in each model: the fastest call, as what else the machine does only ever adds."""
    inputs = []
    for model in models:
        shape = [side if isinstance(side, int) else 1 for side in model.input_shape]
        inputs.append(np.random.default_rng(0).standard_normal(shape).astype(np.float32))
    return in_turns([lambda m=m, x=x: m.run(x) for m, x in zip(models, inputs, strict=True)], progress, what)  # type: ignore[misc]
