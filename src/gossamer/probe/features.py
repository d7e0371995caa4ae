"""The features that the classifiers see: what a network's head reads, of images preprocessed as in deployment."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from gossamer.data.open import Data, open_data
from gossamer.data.source import Source
from gossamer.errors import DataError
from gossamer.host.progress import Progress
from gossamer.images.preprocess import Preprocess
from gossamer.networks.base import Network
from gossamer.settings import Settings
from gossamer.training.distributed import Processes
from gossamer.training.evaluate import Forward, classification
from gossamer.training.restore import load_run, preprocess_of, run_data, torch_forward
from gossamer.training.setup import build, resolve_settings


@dataclass(frozen=True)
class Frozen:
    """A network without its classifier, and the images for it.

    forward: (n, C, H, W) float32 -> (n, D) float32. trained: whether its weights were ever trained.
    warning: a limit of its scores; "" where there is nothing to warn of.
    """

    name: str
    forward: Forward
    preprocess: Preprocess
    data: Data
    trained: bool
    warning: str
    notes: list[str]


@dataclass(frozen=True)
class Extracted:
    """Features of one split. x: (n, D) float64. y: (n,) class numbers. seconds: for decoding and network together."""

    x: NDArray[np.float64]
    y: NDArray[np.int64]
    unreadable: list[tuple[str, str]]
    seconds: float


def of_network(settings: Settings, progress: Progress) -> Frozen:
    """The network that training with `settings` would start from. Raises what building it raises, DataError."""
    data = open_data(settings.data, val=settings.val, val_share=settings.val_share, seed=settings.seed)
    settings, _ = resolve_settings(settings, data, Processes())
    model, _, notes = build(settings, data, progress)
    warning = ""
    if not settings.weights:
        warning = (
            f"UNTRAINED NETWORK: {settings.net} has random weights (seed {settings.seed}), so these are the scores "
            "of random features; give --weights or --run for a network that has learnt something"
        )
    forward = _without_classifier(model)
    return Frozen(settings.net, forward, preprocess_of(settings), data, bool(settings.weights), warning, notes)


def of_run(folder: str | Path, which: str, root: str, val: str, seed: int) -> Frozen:
    """The network of a run folder, on the run's own data or on those at `root`. Raises RunError, DataError."""
    network = load_run(folder, which)
    data = open_data(root, val=val, seed=seed) if root else run_data(network.run)
    warning = (
        ""
        if root
        else (
            "the network was trained on these training images, so the folds flatter it; the held-out images do less so"
        )
    )
    forward = _without_classifier(network.model)
    return Frozen(f"{folder} ({network.settings.net})", forward, network.preprocess, data, True, warning, [])


def _without_classifier(model: nn.Module) -> Forward:
    assert isinstance(model, Network)
    model.reset_classifier(0)
    return torch_forward(model.eval())


def extract(network: Frozen, source: Source, batch: int, what: str, progress: Progress) -> Extracted:
    """The features of the readable images of `source`. Raises DataError where none is, or a feature is not finite."""
    begun = time.perf_counter()
    # the loop of every evaluation; the outputs that it calls logits are features here
    outputs = classification(network.forward, source, network.preprocess, batch=batch, what=what, progress=progress)
    seconds = time.perf_counter() - begun
    if not np.isfinite(outputs.logits).all():
        bad = int(np.flatnonzero(~np.isfinite(outputs.logits).all(axis=1))[0])
        raise DataError(
            f"{outputs.names[bad]}: {network.name} computes NaN or infinity", "finite features", "give other weights"
        )
    return Extracted(outputs.logits.astype(np.float64), outputs.targets, outputs.unreadable, seconds)
