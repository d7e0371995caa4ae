"""Load a model file and run it: with ONNX Runtime or OpenVINO where installed, with plain numpy anywhere."""

from __future__ import annotations

from gossamer.predictions.classes import Classification
from gossamer.runtime.model import RUNTIMES, Model, load
from gossamer.runtime.predict import predict_files
from gossamer.runtime.verification import Verification, verify

__all__ = ["RUNTIMES", "Classification", "Model", "Verification", "load", "predict_files", "verify"]
