"""ONNX operators in plain numpy: the reference runtime runs them, and the compile step computes constants with them."""

from __future__ import annotations

from gossamer.operators.table import OPERATORS

__all__ = ["OPERATORS"]
