"""What is decided before the first training step: device, processes, resolved settings, the network and its start."""

from __future__ import annotations

import copy
import ctypes
import math
import os
import shutil
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from gossamer.analysis.graph import trace
from gossamer.data.source import Data
from gossamer.errors import DataError, ImageError, InputError, SettingsError
from gossamer.host import machine
from gossamer.host.progress import Progress
from gossamer.host.text import counted
from gossamer.images.preprocess import decode
from gossamer.networks.changes import Change, apply_changes
from gossamer.networks.load import load_pretrained, select_weights
from gossamer.networks.pretrained import IMAGENET
from gossamer.networks.registry import traits
from gossamer.run import CHANGES, next_folder
from gossamer.settings import Settings
from gossamer.settings.rates import resolve_optimizer
from gossamer.tasks.base import Task, check_head, check_loss, progressive_size, sized, stacked
from gossamer.tasks.registry import task_of
from gossamer.training import defaults, distributed, optim
from gossamer.training.distributed import Processes
from gossamer.training.network import build_network, changes_of_weights

SIDES = range(32, 513, 32)  # pixels: the inputs that are tried where one is too small


def start(settings: Settings) -> tuple[torch.device, Processes]:
    """Choose the device, join the other processes, set threads and determinism. Raises SettingsError."""
    device = _device(settings.device)
    processes = distributed.join_processes(device.type)
    parts = processes.world * settings.accumulate
    if settings.batch % parts:
        distributed.leave_processes()
        raise SettingsError(
            f"batch {settings.batch} for {processes.world} processes and {settings.accumulate} gradient accumulation steps each",
            f"a batch that {parts} divides",
            f"use --batch {math.ceil(settings.batch / parts) * parts}",
        )
    if device.type == "cuda":
        device = device if device.index is not None else torch.device("cuda", processes.local_rank)
        torch.cuda.set_device(device)
    else:
        keep_memory()
        torch.set_num_threads(settings.threads or max(1, machine.usable_cores() // processes.local_world))
    if settings.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if settings.compile:
        torch.use_deterministic_algorithms(settings.deterministic)
    else:  # the same but for torch.compile, whose thousand modules the other call imports: seconds before a training begins
        torch.set_deterministic_debug_mode("error" if settings.deterministic else "default")
    return device, processes


def keep_memory() -> None:
    """Have the C library keep freed memory for the next step, where it can be told so (glibc).

    It would give every large tensor's pages back to the system and fetch them anew, zeroed, thousands of times a
    step: without that, MobileNetV2 trains 1.3 to 1.9 times as fast on two cores. The process holds its peak instead.
    A process with settings of its own for the allocator is left alone.
    """
    if "GLIBC_TUNABLES" in os.environ or any(name.startswith("MALLOC_") for name in os.environ):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mmap_max, trim_threshold = -4, -1  # M_MMAP_MAX, M_TRIM_THRESHOLD of malloc.h
        mallopt(mmap_max, 0)
        mallopt(trim_threshold, -1)  # never


def _device(wanted: str) -> torch.device:
    count = torch.cuda.device_count()
    if wanted == "auto":
        return torch.device("cuda" if count else "cpu")
    allowed = ["cpu", *(["cuda"] if count else []), *(f"cuda:{index}" for index in range(count))]
    if wanted not in allowed:
        raise SettingsError(f"device {wanted!r}", ", ".join(["auto", *allowed]), "choose one that this machine has")
    return torch.device(wanted)


def resolve_settings(settings: Settings, data: Data, processes: Processes) -> tuple[Settings, list[str]]:
    """The settings with everything decided that needs no timing, and lines that say what the data have decided.

    Raises DataError, SettingsError.
    """
    task = task_of(settings.task)
    settings = resolve_optimizer(settings)
    size = settings.input_size() or _typical_size(data)
    chosen = defaults.choose(settings, size, len(data.train))
    changes: dict[str, Any] = {choice.name: choice.value for choice in chosen}
    changes |= {"input": f"{size[0]}x{size[1]}", "loss": check_loss(task, settings)}
    check_head(task, settings)
    if (settings.mixup or settings.cutmix) and not task.mixes:
        raise SettingsError(f"mixup or cutmix for the task {task.name}", "mixing for classify", "leave it out")
    if settings.cache and not task.caches:
        raise SettingsError(f"cache with the task {task.name}", "a cache for classes", "leave --cache out")
    if settings.progressive < 1 and not task.supports_progressive:
        raise SettingsError(
            f"progressive {settings.progressive:g} for the task {task.name}", "inputs of one size", "leave it out"
        )
    if settings.progressive < 1 and settings.cache:
        raise SettingsError("progressive with a cache", "one of them: a cache is of one size", "leave --cache out")
    if settings.resize == "auto":
        changes["resize"] = task.resize_for(settings)
    listed = select_weights(settings.net, settings.weights)[1] if settings.weights else None
    if settings.crop_pct is None:
        changes["crop_pct"] = 1.0 if min(size) < 128 else listed.crop_pct if listed else 0.875
    if settings.interpolation is None:
        changes["interpolation"] = listed.interpolation if listed else "bilinear"
    if settings.mean is None:
        changes["mean"] = listed.mean if listed else IMAGENET.mean
    if settings.std is None:
        changes["std"] = listed.std if listed else IMAGENET.std
    if settings.norm_eps is None and listed:
        changes["norm_eps"] = listed.norm_eps
    if settings.eval_every is None and settings.minutes is None:
        changes["eval_every"] = 1
    if settings.workers is None:
        # on few cores another process only takes time from the arithmetic; a thread uses our memory and ends with us
        cores = machine.usable_cores() // processes.local_world
        changes["workers"] = 0 if cores < 8 else min(12, cores - 2)
    if settings.deterministic:  # a choice by the clock could differ from run to run
        changes["precision"] = "float32" if settings.precision == "auto" else settings.precision
        changes["memory_format"] = "channels_last" if settings.memory_format == "auto" else settings.memory_format
    if not settings.out:
        changes["out"] = distributed.broadcast(next_folder(settings.net))
    if settings.compile and not any(shutil.which(name) for name in (os.environ.get("CXX", "c++"), "g++", "clang++")):
        raise SettingsError(
            "compile: this machine has no C++ compiler", "a machine with g++ or clang++", "leave --compile out"
        )
    lines = [str(choice) for choice in chosen if choice.reason]
    return task.resolve(settings.replace(**changes), data), lines


def _typical_size(data: Data) -> tuple[int, int]:
    """A square input for these images: the median shorter side of 32 of them, in steps of 32, from 32 to 224."""
    sides = []
    for index in np.linspace(0, len(data.train) - 1, min(len(data.train), 32)).astype(int):
        try:
            sides.append(min(decode(data.train.read(int(index)), name=data.train.names[index]).size))
        except (ImageError, DataError):
            continue  # the loader lists it when it comes to it
    if not sides:
        raise DataError(
            f"none of {counted(min(len(data.train), 32), 'image')} looked at can be read",
            "readable images",
            "look at them: gossamer doctor --data DIR",
        )
    side = int(min(224, max(32, np.median(sides) // 32 * 32)))
    return side, side


def _norm_eps(model: nn.Module) -> float | None:
    """What the batch norms of `model` add to the variance; None where it has none."""
    return next((layer.eps for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)), None)


def _refuse_small_input(settings: Settings, classes: tuple[str, ...]) -> None:
    """Raises SettingsError where the network would take a larger input than that of the settings."""
    height, width = sized(settings)
    for side in (side for side in SIDES if side > min(height, width)):
        size = (max(height, side), max(width, side))
        larger = settings.replace(input=f"{size[0]}x{size[1]}")
        try:
            trace(task_of(settings.task)(classes, larger).build(), (1, settings.in_chans, *stacked(size, larger)))
        except InputError:
            continue
        raise SettingsError(
            f"{settings.net} with --task {settings.task} and an input of {height}x{width}",
            f"{side} pixels a side or more",
            f"give --input {side}, or a network for small images",
        )


def _check_smallest(model: nn.Module, settings: Settings) -> None:
    """Raises SettingsError where the network does not take the inputs with which a progressive run begins."""
    if settings.progressive == 1:
        return
    size = progressive_size(sized(settings), settings.progressive)
    try:
        trace(model, (1, settings.in_chans, *stacked(size, settings)))
    except InputError as error:
        raise SettingsError(
            f"progressive {settings.progressive:g}: {settings.net} does not take {size[0]}x{size[1]}",
            "a scale at which it runs, from there to 1",
            "raise --progressive, or leave it out",
        ) from error


def _check_inputs(model: nn.Module, settings: Settings) -> None:
    """Raises SettingsError where a network that `trace` cannot look into does not take the run's inputs."""
    full = sized(settings)
    training = model.training
    model.eval()  # the means of batch norms stay as they are
    try:
        for size in dict.fromkeys((full, progressive_size(full, settings.progressive))):
            try:
                with torch.no_grad():
                    model(torch.zeros(1, settings.in_chans, *stacked(size, settings)))
            except (AssertionError, RuntimeError, ValueError) as error:
                reason = (str(error).splitlines() or [type(error).__name__])[0]
                raise SettingsError(
                    f"{settings.net} does not take {size[0]}x{size[1]} pixels ({reason})",
                    "inputs that it takes; many of timm's transformers take the one of their name only",
                    "give another --input" + (", or leave --progressive out" if settings.progressive < 1 else ""),
                ) from error
    finally:
        model.train(training)


def build(
    settings: Settings, data: Data, progress: Progress, changes: Sequence[Change] = ()
) -> tuple[nn.Module, Task, list[str]]:
    """The network with its first weights and edits, its task, and lines that say what was loaded, edited or frozen.

    Raises UnknownNameError, SettingsError, WeightsError, RunError.
    """
    task = task_of(settings.task)(data.classes, settings)
    task.prepare(data)
    torch.manual_seed(settings.seed)
    notes: list[str] = []
    own = changes_of_weights(settings.weights)
    if tuple(changes[: len(own)]) != own:
        own = ()

    def initialise() -> nn.Module:
        model, lines = _with_first_weights(task, data, progress, own)
        notes.extend(lines)
        return model

    # without weights to start from there is nothing to decompose
    model = build_network(task, changes, initialise, len(own), values=bool(settings.weights))
    if changes:
        notes.append(f"{counted(len(changes), 'edit')} of the network ({CHANGES})")
    frozen = optim.freeze(model, settings.freeze)
    if frozen:
        notes.append(
            f"{counted(len(frozen), 'parameter tensor is', 'parameter tensors are')} frozen ({settings.freeze})"
        )
    _check_single_images(model, settings, len(data.train))
    return model, task, notes


def _check_single_images(model: nn.Module, settings: Settings, images: int) -> None:
    """Raises SettingsError where a process gets one image at a time and a norm would take its statistics of one value, as
    batch norm on a pooled map does."""
    together = torch.distributed.is_available() and torch.distributed.is_initialized()
    world = torch.distributed.get_world_size() if together else 1
    if min(settings.batch // settings.accumulate, images) // world > 1:
        return
    trial = copy.deepcopy(model).train()  # norms keep running means in training
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            trial(torch.zeros(1, settings.in_chans, *stacked(sized(settings), settings)))
    except ValueError as error:
        raise SettingsError(
            f"{settings.net} with one image at a time: {str(error).splitlines()[0]}",
            "two or more images in each step of a process, of which batch norm can take mean and variance",
            "raise --batch, or give --norm group",
        ) from error


def _with_first_weights(
    task: Task, data: Data, progress: Progress, changes: Sequence[Change]
) -> tuple[nn.Module, list[str]]:
    """The network with the edits that its first weights have, these weights, and lines that say what was loaded."""
    settings = task.settings
    try:
        model = task.build()
        if traits(settings.net).traceable:
            trace(model, (1, settings.in_chans, *stacked(sized(settings), settings)))
            _check_smallest(model, settings)
        else:
            _check_inputs(model, settings)
    except InputError as error:
        if isinstance(error.__cause__, RuntimeError):
            _refuse_small_input(settings, data.classes)
        raise
    notes = []
    apply_changes(model, changes, values=False)  # the state of this network follows
    if settings.weights:
        eps = _norm_eps(model)
        difference = load_pretrained(model, settings.net, settings.weights, strict=False, progress=progress)
        if _norm_eps(model) != eps:  # the run would build another network when it is evaluated or exported
            raise SettingsError(
                f"{settings.weights}: trained with batch norms that add {difference.norm_eps:g}, the network here adds {eps:g}",
                "one value for both",
                f"give --norm-eps {difference.norm_eps:g}",
            )
        notes += [f"weights {line}" for line in str(difference).splitlines()]
    return model, notes
