"""The same networks in torchvision and timm, with random weights, to compare with."""

from __future__ import annotations

import importlib
import importlib.util
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_libraries: list[torch.library.Library] = []  # an operator lives as long as its library


def _define_operators() -> None:
    """Let torchvision be imported where its compiled part does not fit this torch: no network needs it."""
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None or hasattr(torch.ops.torchvision, "nms"):  # or defined by gossamer before
        return
    for compiled in Path(spec.origin).parent.glob("_C.*"):
        try:
            torch.ops.load_library(str(compiled))
            return
        except OSError:  # linked against another build of torch
            continue
    library = torch.library.Library("torchvision", "FRAGMENT")
    for operator in OPERATORS:
        library.define(operator)
    _libraries.append(library)


def import_library(package: str) -> Any:
    """torchvision or timm, imported; skips the test where it is not installed."""
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside the libraries are not ours to fix
        _define_operators()
        return importlib.import_module(package)


def counterpart(package: str, name: str, **arguments: Any) -> nn.Module:
    """The library's network in eval mode, its batch norms with random statistics and scales."""
    library = import_library(package)
    build = library.create_model if package == "timm" else library.models.get_model
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network: nn.Module = build(name, **arguments)
    randomise_norms(network)
    return network.eval()


def randomise_norms(network: nn.Module) -> None:
    """Give every batch norm random statistics, scale and shift, so that none can be left out or swapped unseen."""
    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.running_mean.normal_(0, 0.1)
                layer.running_var.uniform_(0.5, 1.5)
                layer.weight.uniform_(0.5, 1.5)
                layer.bias.normal_(0, 0.1)
