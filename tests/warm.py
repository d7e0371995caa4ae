"""What torch's exporter builds anew at every export, kept: most of the time that the export of a small network takes.

The tests export hundreds of them in one process, where a user exports one. test_export compares what is written with and
without this. A release of torch without these functions is only slower.
"""

from __future__ import annotations

import copy
from typing import Any


def keep_tables_of_torch() -> None:
    """Keep the table of ONNX functions, by opset, and the walk over torch's operators, while no new ones are registered."""
    import torch
    from torch._export import utils
    from torch.onnx._internal.exporter import _registration

    registry = getattr(_registration, "ONNXRegistry", None)
    build, walk = getattr(registry, "from_torchlib", None), getattr(utils, "_materialize_cpp_cia_ops", None)
    if build is None or walk is None or hasattr(build, "kept"):
        return
    tables: dict[Any, Any] = {}
    seen: list[list[str]] = [[]]

    def from_torchlib(*opset: Any, **named: Any) -> Any:
        key = (*opset, *named.items())
        if key not in tables:
            tables[key] = build(*opset, **named)
        table = copy.copy(tables[key])
        table.functions = {
            name: list(functions) for name, functions in table.functions.items()
        }  # callers may add theirs
        return table

    def materialize() -> None:
        names = torch._C._dispatch_get_registrations_for_dispatch_key("CompositeImplicitAutograd")
        if names != seen[0]:
            walk()
            seen[0] = names

    from_torchlib.kept = True  # type: ignore[attr-defined]
    registry.from_torchlib = staticmethod(from_torchlib)
    utils._materialize_cpp_cia_ops = materialize
