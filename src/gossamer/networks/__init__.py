"""Networks: one family per file, laid out like its paper's table.

    create_model("mobilenet_v2", num_classes=5, width=0.5)
    list_models("mobile*")

The public names are loaded when first used: listing the names needs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gossamer.networks.base import FeatureInfo, FeatureList, Features, Network
    from gossamer.networks.create import create_model
    from gossamer.networks.load import load_pretrained
    from gossamer.networks.registry import list_models, resolve
    from gossamer.networks.weights import Difference, load_weights

__all__ = [
    "Difference",
    "FeatureInfo",
    "FeatureList",
    "Features",
    "Network",
    "create_model",
    "list_models",
    "load_pretrained",
    "load_weights",
    "resolve",
]

_HOMES = {
    "Difference": "weights",
    "FeatureInfo": "base",
    "FeatureList": "base",
    "Features": "base",
    "Network": "base",
    "create_model": "create",
    "list_models": "registry",
    "load_pretrained": "load",
    "load_weights": "weights",
    "resolve": "registry",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
