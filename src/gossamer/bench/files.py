"""The file that is made for each runtime before it is measured, compared with the model file: `--runtimes all`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gossamer.runtime.table import RUNTIMES
from gossamer.targets import SUFFIXES, TargetKind

ALL = "all"  # every runtime, each with the file made for it


def own_kind(runtime: str) -> TargetKind:
    """The kind of the file that is made for a runtime; "model file" where it has none of its own."""
    entry = RUNTIMES.get(runtime)
    own = [kind for kind in entry.targets if kind != "model file"] if entry is not None and entry.own_class else []
    return own[0] if own else "model file"


def own_file(folder: Path, number: int, runtime: str) -> Path:
    """Where the file for a runtime is made; `number`: of the target."""
    suffix = next(suffix for suffix, kind in SUFFIXES.items() if kind == own_kind(runtime))
    return folder / f"{number}-{runtime}{suffix}"


def make_file(job: dict[str, Any]) -> dict[str, Any]:
    """Make the file of job["runtime"] from the model file job["target"] at job["out"], or check the model file there.

    The reply has its bytes, those of the files beside it included, and the largest difference of its outputs from those of
    the model file, None where it is the model file itself. Raises what exporting and compiling raise.
    """
    target, runtime, out = job["target"], job["runtime"], job["out"]
    kind = own_kind(runtime)
    if kind == "model file":
        from gossamer.runtime import load
        from gossamer.runtime.verification import verify_model

        model = load(target, runtime=runtime, threads=1)
        if model.metadata is not None:
            verify_model(model).raise_if_failed()
        return {"file_bytes": Path(target).stat().st_size, "difference": None}
    if kind == "compiled file":
        from gossamer.runtime.compilation import compile_model

        compiled = compile_model(target, out, "float32")
        return {"file_bytes": compiled.bytes, "difference": compiled.checks.largest}
    from gossamer.export.formats import export_file

    exported = export_file(target, out, to=runtime)
    return {"file_bytes": exported.size, "difference": exported.loss.largest}
