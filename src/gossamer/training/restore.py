"""Loading a run: its network with its weights, its preprocessing and its data."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from gossamer.blocks.gates import skip_closed
from gossamer.data.changed import ImageState, changes_since
from gossamer.data.source import Data
from gossamer.errors import DataError, RunError
from gossamer.images.preprocess import Preprocess
from gossamer.modelfile.metadata import ModelMetadata
from gossamer.predictions.head import Raw
from gossamer.run import Run
from gossamer.runtime.model import Model
from gossamer.settings import Settings
from gossamer.tasks.base import Task
from gossamer.tasks.registry import task_of
from gossamer.training.evaluate import Forward
from gossamer.training.network import network_of


@dataclass(frozen=True)
class LoadedRun:
    """A trained network and what belongs to it: `model` is in evaluation mode, float32, on the CPU."""

    model: nn.Module
    preprocess: Preprocess
    classes: tuple[str, ...]
    settings: Settings
    run: Run
    task: Task


def preprocess_of(settings: Settings) -> Preprocess:
    """The deployment preprocessing that resolved `settings` describe."""
    size = settings.input_size()
    assert settings.resize != "auto", "settings must be resolved"
    assert size is not None and settings.crop_pct is not None, "settings must be resolved"
    assert settings.interpolation and settings.mean and settings.std, "settings must be resolved"
    return Preprocess(
        size=size,
        resize=settings.resize,
        crop_pct=settings.crop_pct,
        interpolation=settings.interpolation,
        channels=settings.in_chans,
        mean=_per_channel(settings.mean, settings.in_chans),
        std=_per_channel(settings.std, settings.in_chans),
        pixel_limit=settings.pixel_limit,
    )


def _per_channel(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    if len(values) == channels:
        return values
    # one number serves every channel; three numbers for a grey image are its three equal channels
    return values * channels if len(values) == 1 else (sum(values) / len(values),) * channels


def load_run(
    folder: str | Path, which: str = "best", *, takes_frames: bool = False, data: Data | None = None
) -> LoadedRun:
    """The trained network of a run folder, "best" or "last".

    takes_frames: whether the caller knows samples of several frames; model files and what reads images one by one do not.
    data: as of `network_of`.
    Raises RunError.
    """
    run = Run.open(folder)
    if run.settings.frames and not takes_frames:
        raise RunError(
            f"{folder}: its samples are {run.settings.frames} frames",
            "a run on single images for this command",
            f"score it on folders of frames: gossamer eval {shlex.quote(str(folder))} DATA",
        )
    model, task = network_of(run, data)
    tensors, _ = run.load_state(which)
    prefix = "ema." if any(name.startswith("ema.") for name in tensors) else "model."
    values = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    try:
        model.load_state_dict(values)
    except RuntimeError as error:
        raise RunError(
            f"{run.weights(which)}: does not fit the network of settings.yaml and changes.json: {error}",
            "the weights, settings and changes of one run",
            "restore settings.yaml, changes.json and the weights from the same copy",
        ) from error
    return LoadedRun(model.eval(), preprocess_of(run.settings), run.classes, run.settings, run, task)


def run_data(run: Run) -> Data:
    """The data of a run with the split that was saved with it. Raises DataError."""
    return task_of(run.settings.task).apply_split(run.settings, run.split(), run.classes)


def changes_in_data(run: Run, data: Data) -> list[str]:
    """Notes on what has changed in the data of a run since it began, beside those on its saved split. Raises RunError."""
    notes = changes_since([ImageState(*state) for state in run.images()], data)
    known = notes or any(note.startswith("since ") for note in data.notes)
    if known or data.fingerprint == run.data.get("fingerprint"):
        return notes
    return ["since the run began, the data have changed: names, sizes or annotations of images are others"]


def same_data(run: Run) -> Data:
    """The data of a run, to be trained on again. Raises DataError where they are no longer those of the run."""
    data = run_data(run)
    if data.fingerprint != run.data.get("fingerprint"):
        reason = (
            "; ".join(note for note in data.notes if note.startswith("since "))
            or "a file has another size or annotation"
        )
        raise DataError(
            f"{run.settings.data}: is not what {run.path} was trained on: {reason}", "the same images", "restore them"
        )
    return data


def torch_forward(model: nn.Module) -> Forward:
    """A float32 forward function on arrays: (n, C, H, W) -> (n, ...), by name where there are several outputs."""
    device = next(model.parameters()).device

    def forward(images: NDArray[np.float32]) -> Raw:
        with torch.inference_mode():
            outputs = model(torch.from_numpy(images).to(device))
            if isinstance(outputs, dict):
                return {name: value.float().cpu().numpy() for name, value in outputs.items()}
            result: NDArray[np.float32] = outputs.float().cpu().numpy()
        return result

    return forward


class _Torch:
    """A network in torch as a runtime."""

    version = str(torch.__version__)

    def __init__(self, model: nn.Module) -> None:
        self.forward = torch_forward(model)

    def __call__(self, batch: NDArray[np.float32]) -> Raw:
        return self.forward(batch)


def as_model(folder: str | Path, which: str = "best") -> Model:
    """The network of a run folder, in torch, behind the interface of a model file: for images before any export.

    It has no licence and no checks. Raises RunError.
    """
    network = load_run(folder, which)
    skip_closed(network.model)
    metadata = ModelMetadata(
        heads=network.task.heads(),
        preprocess=network.preprocess,
        licence="unspecified",
        provenance={},
        checks=(),
        images=(),
        tolerance=0.0,
    )
    shape = (None, network.preprocess.channels, *network.preprocess.size)
    why = f"the {which} weights of the run, not exported yet"
    return Model(str(folder), metadata, "", 0, shape, "torch", _Torch(network.model), why)
