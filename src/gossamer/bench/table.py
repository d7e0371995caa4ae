"""The runtimes that a benchmark measures: torch for runs and networks, and those of model files."""

from __future__ import annotations

from gossamer.runtime import table
from gossamer.runtime.table import RuntimeEntry

RUNTIMES: dict[str, RuntimeEntry] = {
    "torch": RuntimeEntry("", "", "PyTorch", "torch", "train", ("run", "network"), "training"),
    "torch.compile": RuntimeEntry("", "", "torch.compile", "torch", "train", ("run", "network"), "training"),
    **table.RUNTIMES,  # runs and networks are exported for these
}
ALIASES = {"ort": "onnxruntime"}
# without reference, which is plain numpy and not meant to be fast
DEFAULT = tuple(name for name in RUNTIMES if name != "reference")
