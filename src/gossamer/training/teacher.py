"""A trained network as the teacher of a training: it sees the same pixels, and its outputs are a second target.

A teacher is a run folder (its best weights, in torch), a model file (any runtime) or a network of timm with its listed
weights. It is no part of the student: neither the state nor what is exported holds it. A run knows it by the SHA-256 of its
weights or file, and goes on with no other.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gossamer.blocks.gates import skip_closed
from gossamer.data.source import Data
from gossamer.errors import InputError, RunError, SettingsError
from gossamer.host.progress import SILENT, Progress
from gossamer.images.preprocess import Preprocess
from gossamer.networks import create_model
from gossamer.networks.base import Outputs as WithAuxiliary
from gossamer.networks.fetch import fetch, sha256
from gossamer.networks.load import load_pretrained, select_weights
from gossamer.networks.pretrained import DEFAULT, TIMM
from gossamer.networks.registry import is_network_name
from gossamer.networks.timm_adapter import class_names
from gossamer.predictions.head import OutputHead
from gossamer.runtime.model import Model, load
from gossamer.settings import Settings
from gossamer.settings.parse import parse_bytes
from gossamer.targets import FILES, target_of
from gossamer.tasks.base import Task
from gossamer.tasks.detection.heads import BoxHead
from gossamer.tasks.distillation.heads import HeadTerm, head_terms
from gossamer.tasks.distillation.losses import channel_wise
from gossamer.tasks.multihead.network import DetectHead, MultiNetwork
from gossamer.training import precision
from gossamer.training.restore import load_run, preprocess_of
from gossamer.training.teacher_cache import TeacherCache

LUMA = (0.299, 0.587, 0.114)  # of red, green and blue: Rec. 601, as Pillow converts to grey

Outputs = dict[str, Tensor]


@dataclass
class TeacherNetwork:
    """A network that predicts: images (N, C, H, W) as `preprocess` normalises them -> outputs by the names of `heads`.

    kind: "run", one of `gossamer.targets.FILES` or "network". module: the network where it runs in torch. frames: of a sample.
    smoothing: the label smoothing that it was trained with, 0 where that is not known.
    """

    target: str
    kind: str
    sha256: str
    heads: tuple[OutputHead, ...]
    preprocess: Preprocess
    forward: Callable[[Tensor], Outputs]
    module: nn.Module | None = None
    frames: int = 0
    smoothing: float = 0.0
    data: str = ""  # that a run was trained on
    names: frozenset[str] = frozenset()  # of the images that it was trained on


@dataclass
class Teacher:
    """What a student's loss gets from a teacher. seconds: that it has taken so far; notes: lines for the person."""

    source: TeacherNetwork
    terms: list[HeadTerm]
    heads: tuple[OutputHead, ...]
    preprocess: Preprocess
    frames: int
    temperature: float
    compute: str = "float32"  # precision
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0
    ours: dict[str, list[Tensor]] = field(default_factory=dict)  # pyramids of the student's last step, by head
    theirs: dict[str, list[Tensor]] = field(default_factory=dict)
    cache: TeacherCache | None = None

    def facts(self) -> dict[str, str]:
        """What tells this teacher from others, for `Run.save_teacher`."""
        return {"target": self.source.target, "kind": self.source.kind, "sha256": self.source.sha256}

    def check(self, facts: dict[str, str]) -> None:
        """Raises RunError where `facts` are of another teacher."""
        if facts["sha256"] != self.source.sha256:
            raise RunError(
                f"{self.source.target}: is not the teacher that the run began with: its SHA-256 is "
                f"{self.source.sha256[:16]}..., of the first {facts['sha256'][:16]}...",
                "the same weights",
                "restore them, or start a new run with this teacher",
            )

    def place(self, device: torch.device, settings: Settings) -> None:
        """Bring a network in torch to the device, memory format and precision of the student, without gradients."""
        self.compute = settings.precision
        if self.source.module is not None:
            module = self.source.module.to(device).eval().requires_grad_(False)
            precision.as_format(module, settings.memory_format)
        if settings.teacher_cache:
            facts = {
                "teacher": self.source.sha256, "names": [head.outputs for head in self.source.heads], "compute": self.compute,
                "device": device.type, "torch": torch.__version__, "ours": self.preprocess, "theirs": self.source.preprocess,
                "frames": self.frames,
            }  # fmt: skip
            together = torch.distributed.is_available() and torch.distributed.is_initialized()
            processes = torch.distributed.get_world_size() if together else 1  # each keeps what it computes
            self.cache = TeacherCache(facts, parse_bytes(settings.teacher_cache) // processes, settings.cache_dir)
            self.notes += self.cache.taken_notes()

    def flush(self) -> list[str]:
        """Write what the cache has gained; lines for the person."""
        if self.cache is None:
            return []
        self.cache.flush()
        return self.cache.taken_notes()

    @torch.no_grad()
    def outputs(self, images: Tensor) -> Outputs:
        """The teacher's outputs for the student's input (N, C, H, W). Raises RunError where they are not finite."""
        started = time.perf_counter()
        digests = self.cache.digests(images) if self.cache is not None else []
        known = self.cache.get(digests, images.device) if self.cache is not None else None
        if known is not None:
            self.seconds += time.perf_counter() - started
            return known
        seen = as_input(images, self.preprocess, self.source.preprocess, self.frames)
        with precision.autocast(images.device, self.compute):
            outputs = self.source.forward(seen)
        result = {name: value.float().to(images.device) for name, value in outputs.items()}
        if not all(bool(torch.isfinite(value).all()) for value in result.values()):
            raise RunError(
                f"{self.source.target}: the teacher outputs NaN or infinity", "finite numbers", "give another teacher"
            )
        if self.cache is not None:
            self.cache.put(digests, result)
        self.seconds += time.perf_counter() - started
        return result

    def term(
        self, outputs: Any, targets: Any, images: Tensor, others: Tensor | None = None, weight: float = 1.0
    ) -> Tensor:
        """What is added to the loss of each image, not yet weighed: (N,) float32.

        outputs: of the student in training mode for `images`, which the teacher sees too. targets, others, weight: as of
        `mixed_loss`; of mixed images the teacher predicts what it sees.
        """
        predicted = self.outputs(images)
        named = by_name(outputs, self.heads)
        value = self._of_heads(named, predicted, targets)
        if others is not None:
            value = weight * value + (1 - weight) * self._of_heads(named, predicted, others)
        for name, maps in self.ours.items():
            for ours, theirs in zip(maps, self.theirs.get(name, []), strict=False):
                if ours.shape == theirs.shape:
                    value = value + channel_wise(ours, theirs, self.temperature) / len(maps)
        self.ours.clear()
        self.theirs.clear()
        return value

    def _of_heads(self, named: Outputs, predicted: Outputs, targets: Any) -> Tensor:
        return torch.stack([term(named, predicted, targets) for term in self.terms]).sum(0)


def open_teacher(settings: Settings, task: Task, model: nn.Module, data: Data, progress: Progress = SILENT) -> Teacher:
    """The teacher of resolved `settings` for `model`, the student that `task` has built.

    Raises InputError, RunError, ModelFileError, SettingsError, WeightsError where it cannot teach this student.
    """
    source = open_source(settings.teacher, task.heads(), progress)
    terms, notes = head_terms(task.heads(), source.heads, settings, settings.teacher)
    preprocess = preprocess_of(settings)
    if source.frames != settings.frames:
        raise SettingsError(
            f"{settings.teacher}: sees samples of {source.frames or 1} frames, the student of {settings.frames or 1}",
            "the same number",
            f"give --frames {source.frames}, or another teacher",
        )
    teacher = Teacher(source, terms, task.heads(), preprocess, settings.frames, settings.distil_temperature)
    teacher.notes = [*notes, *_differences(source, preprocess), *_warnings(source, terms, settings, data)]
    theirs = pyramids(source.module) if source.module is not None else {}
    both = {name: module for name, module in pyramids(model).items() if name in theirs}
    if both and settings.teacher_cache and not settings.compile:
        raise SettingsError(
            "teacher_cache for a detector that learns the maps of the teacher's pyramid too",
            "a cache for outputs alone",
            "leave --teacher-cache out",
        )
    if both and settings.compile:
        teacher.notes.append("the maps of the teacher's pyramid are not learnt with --compile")
    elif both:
        for name, module in both.items():
            _capture(module, teacher.ours, name)
            _capture(theirs[name], teacher.theirs, name)
    return teacher


def open_source(target: str, heads: Sequence[OutputHead], progress: Progress = SILENT) -> TeacherNetwork:
    """The network that `target` names. heads: of the student, by which a network of timm knows what it is used for.

    Raises InputError, RunError, ModelFileError, WeightsError, MissingPackageError.
    """
    if not Path(target).exists() and is_network_name(target):
        return _timm(target, heads, progress)
    kind = target_of(target, ("run", *FILES)).kind
    return _run(target) if kind == "run" else _file(target, kind)


def _run(target: str) -> TeacherNetwork:
    loaded = load_run(target, takes_frames=True)
    skip_closed(loaded.model)
    heads = loaded.task.heads()
    return TeacherNetwork(
        target,
        "run",
        sha256(loaded.run.weights("best")),
        heads,
        loaded.preprocess,
        lambda images: by_name(loaded.model(images), heads),
        loaded.model,
        loaded.settings.frames,
        loaded.settings.label_smoothing,
        loaded.settings.data,
        frozenset(name for name, _, split in loaded.run.split() if split == "train"),
    )


def _file(target: str, kind: str) -> TeacherNetwork:
    model = load(target)
    metadata = model.need_metadata()
    trained = metadata.provenance.get("settings")
    smoothing = trained.get("label_smoothing") if isinstance(trained, dict) else 0.0
    return TeacherNetwork(
        target,
        kind,
        model.sha256,
        metadata.heads,
        metadata.preprocess,
        lambda images: _of_runtime(model, metadata.heads, images),
        smoothing=float(smoothing) if isinstance(smoothing, (int, float)) else 0.0,
    )


def _of_runtime(model: Model, heads: tuple[OutputHead, ...], images: Tensor) -> Outputs:
    """The outputs of a model file, in parts where the file fixes the batch."""
    arrays = np.ascontiguousarray(images.float().cpu().numpy())
    fixed = model.input_shape[0] if model.input_shape else None
    size = fixed if isinstance(fixed, int) else len(arrays)
    parts = []
    for start in range(0, len(arrays), size):
        part = arrays[start : start + size]
        short = size - len(part)
        raw = model.run(np.concatenate([part, np.repeat(part[-1:], short, 0)]) if short else part)
        values = raw if isinstance(raw, dict) else {heads[0].outputs[0]: raw}
        parts.append({name: torch.from_numpy(np.array(value[: len(part)])) for name, value in values.items()})
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _timm(target: str, heads: Sequence[OutputHead], progress: Progress) -> TeacherNetwork:
    """A network of timm with its listed weights: its classes, or for embeddings its features."""
    if not target.startswith(TIMM):
        raise InputError(
            f"{target}: a network without weights",
            "a run folder, a model file, or timm:NAME",
            f"train it first: gossamer train DATA --net {shlex.quote(target)} --out runs/teacher",
        )
    model = create_model(target).eval()
    load_pretrained(model, target, DEFAULT, progress=progress)
    source, listed = select_weights(target, DEFAULT)
    assert listed is not None, "it was loaded"
    preprocess = Preprocess((listed.input, listed.input), crop_pct=listed.crop_pct, mean=listed.mean, std=listed.std)
    embeds = any(head.kind == "embed" for head in heads)
    own = (OutputHead("embed"),) if embeds else (OutputHead("classify", class_names(model.num_classes)),)

    def forward(images: Tensor) -> Outputs:
        if embeds:
            return {"embedding": model.forward_head(model.forward_features(images), pre_logits=True)}
        return {"logits": model(images)}

    return TeacherNetwork(target, "network", sha256(fetch(source)), own, preprocess, forward, model)


def as_input(images: Tensor, ours: Preprocess, theirs: Preprocess, frames: int = 0) -> Tensor:
    """The teacher's input of the student's: the same pixels, normalised and resized as the teacher has them.

    images: (N, C, H, W) float32, normalised as `ours` says; a sample of several frames has them one below the other.
    """
    if (ours.channels, ours.mean, ours.std) != (theirs.channels, theirs.mean, theirs.std):
        images = images * _column(ours.std, images) + _column(ours.mean, images)
        if ours.channels == 3 and theirs.channels == 1:
            images = (images * _column(LUMA, images)).sum(1, keepdim=True)
        elif ours.channels == 1 and theirs.channels == 3:
            images = images.expand(-1, 3, -1, -1)
        images = (images - _column(theirs.mean, images)) / _column(theirs.std, images)
    n, channels, tall, width = images.shape
    count = max(1, frames)
    if (tall // count, width) == theirs.size:
        return images
    each = images.reshape(n, channels, count, tall // count, width).transpose(1, 2).flatten(0, 1)
    each = F.interpolate(each, size=theirs.size, mode="bilinear", align_corners=False, antialias=True)
    height, across = theirs.size
    return each.reshape(n, count, channels, height, across).transpose(1, 2).reshape(n, channels, count * height, across)


def _column(values: tuple[float, ...], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=torch.float32, device=like.device).reshape(1, -1, 1, 1)


def by_name(outputs: Any, heads: Sequence[OutputHead]) -> Outputs:
    """The outputs of a network by name; those of auxiliary classifiers are left out."""
    if isinstance(outputs, WithAuxiliary):
        outputs = outputs.logits
    if isinstance(outputs, Tensor):
        return {heads[0].outputs[0]: outputs}
    return {name: value for name, value in outputs.items() if isinstance(value, Tensor)}


def pyramids(model: nn.Module) -> dict[str, nn.Module]:
    """The feature pyramids of a detector, or of the heads of a network that detect, by the names of the heads."""
    if isinstance(model, MultiNetwork):
        parts = {
            name: part.boxes
            for name, part in zip(model.names, model.head_parts, strict=True)
            if isinstance(part, DetectHead)
        }
    else:
        parts = {"": model} if isinstance(model, BoxHead) else {}
    return {name: part.pyramid for name, part in parts.items() if part.pyramid is not None}


def _capture(module: nn.Module, store: dict[str, list[Tensor]], name: str) -> None:
    """Keep what a module outputs."""

    def keep(_: nn.Module, inputs: Any, output: list[Tensor]) -> None:
        store[name] = output

    module.register_forward_hook(keep)


def _differences(source: TeacherNetwork, ours: Preprocess) -> list[str]:
    """Lines on what the teacher is given otherwise than in its own use."""
    theirs, lines = source.preprocess, []
    if theirs.size != ours.size:
        (height, width), (own_height, own_width) = ours.size, theirs.size
        lines.append(f"the teacher's input is {own_height}x{own_width}: images of {height}x{width} are resized for it")
    if theirs.channels != ours.channels:
        names = {1: "grey", 3: "RGB"}
        lines.append(f"the teacher sees {names[theirs.channels]} images, converted from {names[ours.channels]}")
    elif (theirs.mean, theirs.std) != (ours.mean, ours.std):
        lines.append("the teacher has its own mean and std: the same pixels are normalised by them")
    return [f"teacher {source.target} ({source.kind}, SHA-256 {source.sha256[:16]}...)", *lines]


def _warnings(source: TeacherNetwork, terms: Sequence[HeadTerm], settings: Settings, data: Data) -> list[str]:
    lines = []
    if source.smoothing and any(one.student.kind == "classify" for one in terms):
        # Müller et al. 2019, arXiv 1906.02629, section 4
        lines.append(
            f"warning: the teacher was trained with label smoothing {source.smoothing:g}, which takes out of its outputs "
            "what a student learns from; train it with --label-smoothing 0"
        )
    same = source.data and Path(source.data).resolve() == Path(settings.data).resolve()
    seen = sum(name in source.names for name in data.val.names) if same else 0
    if seen:
        lines.append(
            f"warning: the teacher was trained on {seen} of the {len(data.val)} validation images, so the score may be too "
            "high; train both with the same --seed, --val and --val-share"
        )
    return lines
