"""Load a model file and run it: on the native engine, ONNX Runtime or OpenVINO where installed, in plain numpy anywhere.

The public names are loaded when first used: the table of runtimes needs no numpy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gossamer.predictions.classes import Classification as Classification
    from gossamer.runtime.model import Model as Model
    from gossamer.runtime.model import load as load
    from gossamer.runtime.predict import predict_files as predict_files
    from gossamer.runtime.table import RUNTIMES as RUNTIMES
    from gossamer.runtime.verification import VerificationResult as VerificationResult
    from gossamer.runtime.verification import verify as verify

_HOMES = {
    "Classification": "gossamer.predictions.classes",
    "Model": "gossamer.runtime.model",
    "RUNTIMES": "gossamer.runtime.table",
    "VerificationResult": "gossamer.runtime.verification",
    "load": "gossamer.runtime.model",
    "predict_files": "gossamer.runtime.predict",
    "verify": "gossamer.runtime.verification",
}

__all__ = ["RUNTIMES", "Classification", "Model", "VerificationResult", "load", "predict_files", "verify"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
