"""gossamer: small convolutional networks, measured where they run.

The public names are loaded when first used, so that a deployment that only runs a model file
loads numpy and nothing else heavy.
"""

from __future__ import annotations

import importlib

TYPE_CHECKING = False  # as typing has it, which takes as long to load as Python itself

__version__ = "0.1.0"

if TYPE_CHECKING:
    from typing import Any

    from gossamer.adviser.review import review as review
    from gossamer.batch.predict import predict_many as predict_many
    from gossamer.diagnosis import diagnose as diagnose
    from gossamer.errors import GossamerError as GossamerError
    from gossamer.images.preprocess import Preprocess as Preprocess
    from gossamer.networks import create_model as create_model
    from gossamer.networks import list_models as list_models
    from gossamer.run import Run as Run
    from gossamer.runtime import load as load
    from gossamer.runtime import verify as verify
    from gossamer.selection.pick import pick as pick
    from gossamer.settings import Settings as Settings
    from gossamer.shrink.decompose import decompose as decompose
    from gossamer.shrink.prune import prune as prune
    from gossamer.shrink.quantise import quantise as quantise
    from gossamer.shrink.quantise import quantize as quantize
    from gossamer.shrink.recipe.recipe import shrink as shrink
    from gossamer.sweeps.sweep import sweep as sweep
    from gossamer.training.loop import resume as resume
    from gossamer.training.loop import train as train

# public name -> module; no public name is also the name of a module, or importing that would hide it, but `shrink`, a
# package that can be called
_PUBLIC = {
    "GossamerError": "errors",
    "Preprocess": "images.preprocess",
    "Run": "run",
    "Settings": "settings",
    "create_model": "networks",
    "decompose": "shrink.decompose",
    "diagnose": "diagnosis",
    "list_models": "networks",
    "load": "runtime",
    "pick": "selection.pick",
    "predict_many": "batch.predict",
    "prune": "shrink.prune",
    "quantise": "shrink.quantise",
    "quantize": "shrink.quantise",
    "resume": "training.loop",
    "review": "adviser.review",
    "shrink": "shrink",
    "sweep": "sweeps.sweep",
    "train": "training.loop",
    "verify": "runtime",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        from gossamer.errors import nearest_names

        near = nearest_names(name, _PUBLIC, 1)
        raise AttributeError(
            f"module 'gossamer' has no attribute {name!r}" + (f"; did you mean {near[0]}?" if near else "")
        )
    try:
        module = importlib.import_module(f"gossamer.{_PUBLIC[name]}")
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        if package in ("", "gossamer"):
            raise
        from gossamer.errors import MissingPackageError

        raise MissingPackageError(package, "train", f"gossamer.{name}") from error
    value = module if _PUBLIC[name] == name else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
