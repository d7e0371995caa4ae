"""JSON as RFC 8259 has it: NaN and infinity, which are no JSON, become null."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any


def strict(value: Any) -> Any:
    """Plain values with None for each number that is not finite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: strict(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [strict(item) for item in value]
    return value


def dumps(value: Any, *, indent: int | None = None, ascii_only: bool = False) -> str:
    """Strict JSON text."""
    return json.dumps(strict(value), ensure_ascii=ascii_only, indent=indent, allow_nan=False)
