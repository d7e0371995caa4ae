"""What a run folder, and its images where they are still there, tell of a training; read within a second or two."""

from __future__ import annotations

import hashlib
import math
import time
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gossamer.data.open import apply_split
from gossamer.data.source import Data, Source
from gossamer.data.tasks import reader_of
from gossamer.errors import DataError, GossamerError
from gossamer.host.storage import open_regular
from gossamer.images.decode import decode
from gossamer.run import Run
from gossamer.settings import Settings
from gossamer.settings.parse import parse_options
from gossamer.settings.rates import resolve_optimizer

MOST_IMAGES = 200_000  # of a data set that is opened; reading the names of more takes longer than a person waits
LOOKED_AT = 32  # images whose pixels are read, and masks
COMPARED = 500  # validation images that are looked for among the training images
MOST_NAMES = 1 << 26  # bytes of the names of a network's tensors
SECONDS = 0.5  # of reading images for one question, at most


@dataclass(frozen=True)
class Copies:
    """Validation images that are training images too. looked_at: how many were compared; pairs: (validation, training)."""

    looked_at: int
    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Evidence:
    """A run as its folder tells it, and its data; data: None where they were not opened, `missing` says why.

    rows: the metrics of each evaluation. log: the lines of the log without their times. state: the counters of the last
    saved state. user: the settings that the user set, None where the run does not say.
    """

    run: Run
    settings: Settings
    user: tuple[str, ...] | None
    rows: list[dict[str, Any]]
    log: list[str]
    state: dict[str, Any]
    facts: dict[str, Any]
    classes: tuple[str, ...]
    training_now: bool
    data: Data | None = None
    missing: str = ""
    notes: list[str] = field(default_factory=list)

    # settings

    @cached_property
    def usual_rate(self) -> float:
        """The learning rate that this optimiser, task and batch take where none is given."""
        rate = resolve_optimizer(self.settings.replace(lr=None)).lr
        assert rate is not None
        return rate

    @cached_property
    def batch_norms(self) -> bool:
        """Whether the saved network has layers of batch norm, by the names of its tensors; also where none can be read."""
        for which in ("last", "best"):
            if self.run.has(which):
                try:
                    with open_regular(self.run.weights(which)) as file:
                        size = int.from_bytes(file.read(8), "little")  # of the header of a safetensors file
                        return b'running_mean"' in file.read(min(size, MOST_NAMES))
                except OSError:
                    continue
        return True

    def set_by_user(self, *names: str) -> bool:
        """Whether the user set one of the settings; also where the run does not say who did."""
        return self.user is None or bool(set(names) & set(self.user))

    # metrics

    def column(self, name: str) -> list[float]:
        """The values of a metric, without those that are missing."""
        return [float(row[name]) for row in self.rows if name in row]

    def finite(self, name: str) -> list[float]:
        """The finite values of a metric."""
        return [value for value in self.column(name) if math.isfinite(value)]

    def last(self, name: str) -> float:
        """The last value of a metric, NaN where there is none."""
        return next(iter(self.column(name)[-1:]), math.nan)

    # images of each class, where images have one class

    def per_class(self, split: str) -> list[int] | None:
        """How many images of each class a split has; None where images have more than a class."""
        counts = self.facts.get("per_class", {}).get(split) if isinstance(self.facts.get("per_class"), dict) else None
        if not isinstance(counts, dict) or not counts:
            return None
        values = list(counts.values())
        if not all(isinstance(value, int) and not isinstance(value, bool) and value >= 0 for value in values):
            return None
        return values

    @cached_property
    def added_terms(self) -> bool:
        """Whether the training loss has terms that the validation loss lacks: of a teacher, of auxiliary classifiers."""
        return bool(self.settings.teacher) or parse_options(self.settings.net_options).get("aux") is True

    @property
    def chance_loss(self) -> float:
        """The cross-entropy of a network that knows nothing, in nats; NaN for other losses, and for those with `added_terms`."""
        plain = self.settings.task == "classify" and self.settings.loss in ("auto", "cross_entropy")
        return math.log(len(self.classes)) if plain and len(self.classes) > 1 and not self.added_terms else math.nan

    @property
    def least_loss(self) -> float:
        """The training loss of a network that knows everything, in nats: the entropy of smoothed targets, 0 without
        smoothing, NaN where the training loss cannot be compared with the validation loss."""
        settings, classes = self.settings, len(self.classes)
        if self.added_terms or settings.mixup or settings.cutmix:
            return math.nan
        if settings.task != "classify" or settings.loss not in ("auto", "cross_entropy") or classes < 2:
            return 0.0
        smoothing = settings.label_smoothing or 0.0
        wrong = smoothing / (classes if settings.smoothing_over == "all" else classes - 1)
        parts = [1 - wrong * (classes - 1), *[wrong] * (classes - 1)]
        return -math.fsum(part * math.log(part) for part in parts if part > 0)

    # images, read where they are

    @cached_property
    def colour(self) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
        """The mean and standard deviation per channel, 0 to 1, of a few training images; None where none can be read."""
        if self.data is None:
            return None
        total, squares, count = np.zeros(3), np.zeros(3), 0
        for index in _few(self.data.train, LOOKED_AT):
            try:
                pixels = np.asarray(decode(self.data.train.read(index)), np.float64)[::4, ::4] / 255
            except GossamerError:
                continue
            flat = pixels.reshape(-1, pixels.shape[-1])
            total, squares, count = total + flat.sum(axis=0), squares + np.square(flat).sum(axis=0), count + len(flat)
        if not count:
            return None
        mean = total / count
        return mean, np.sqrt(np.maximum(squares / count - mean**2, 0))

    @cached_property
    def ignored(self) -> float:
        """The share of pixels of a few training masks that belong to no class; NaN without masks."""
        from gossamer.predictions.masks import IGNORED

        if self.data is None or self.settings.task != "segment":
            return math.nan
        shares = []
        for index in _few(self.data.train, LOOKED_AT):
            try:
                shares.append(float((self.data.train.target(index) == IGNORED).mean()))
            except GossamerError:
                continue
        return float(np.mean(shares)) if shares else math.nan

    @cached_property
    def boxes(self) -> NDArray[np.float64]:
        """Width and height of training boxes but crowds in pixels of the network's input, (n, 2); empty without boxes."""
        if self.data is None or self.settings.task != "detect":
            return np.zeros((0, 2))
        height, width = self.input_size
        found = []
        for index in _few(self.data.train, 1000):
            target = self.data.train.target(index)
            sides = (target.corners[:, 2:].astype(np.float64) - target.corners[:, :2])[~target.crowd]
            scale = np.array([width / target.size[1], height / target.size[0]])
            if self.settings.resize != "squash":
                scale[:] = scale.min()
            found.append(sides * scale)
        return np.concatenate(found) if found else np.zeros((0, 2))

    @property
    def input_size(self) -> tuple[int, int]:
        """(height, width) of the network's input."""
        height, _, width = self.settings.input.lower().partition("x")
        return int(height), int(width or height)

    @cached_property
    def box_classes(self) -> list[int] | None:
        """How many training boxes but crowds each class has."""
        if self.data is None or self.settings.task != "detect":
            return None
        targets = (self.data.train.target(index) for index in _few(self.data.train, 20_000))
        labels = [target.labels[~target.crowd] for target in targets]
        return np.bincount(np.concatenate(labels).clip(0), minlength=len(self.classes)).tolist() if labels else None

    @cached_property
    def copies(self) -> Copies | None:
        """Validation images whose bytes are those of a training image."""
        if self.data is None:
            return None
        train, val = self.data.train, self.data.val
        by_size: dict[int, list[int]] = {}
        for index, (size, _) in enumerate(train.store.stats(train.rows)):
            by_size.setdefault(size, []).append(index)
        chosen = _few(val, COMPARED)
        sizes = [size for size, _ in val.store.stats(val.rows[np.asarray(chosen, np.int64)])]
        digests: dict[int, bytes] = {}
        deadline, looked_at, pairs = time.monotonic() + SECONDS, 0, []
        for index, size in zip(chosen, sizes, strict=True):
            if time.monotonic() > deadline:
                break
            looked_at += 1
            candidates = by_size.get(size, [])[:50]
            if size <= 0 or not candidates:
                continue
            wanted = _digest(val, index)
            for other in candidates:
                if other not in digests:
                    digests[other] = _digest(train, other)
                if wanted and digests[other] == wanted:
                    pairs.append((val.names[index], train.names[other]))
                    break
        return Copies(looked_at, tuple(pairs))


def _few(source: Source, count: int) -> list[int]:
    """The indices of at most `count` images, evenly over the source."""
    spread = np.linspace(0, len(source) - 1, min(count, len(source)))
    return [int(index) for index in np.unique(spread.round())]


def _digest(source: Source, index: int) -> bytes:
    try:
        return hashlib.sha256(source.read(index)).digest()
    except GossamerError:
        return b""


def gather(run: Run, with_data: bool) -> Evidence:
    """What the folder of a run tells, and its data where they can be opened. Raises RunError, SettingsError."""
    facts, classes = (run.data, run.classes) if run.path.joinpath("data.json").exists() else ({}, ())
    evidence = Evidence(
        run=run,
        settings=run.settings,
        user=run.user_settings(),
        rows=run.metrics(),
        log=run.log_lines(),
        state=run.counters(),
        facts=facts,
        classes=classes,
        training_now=run.is_locked(),
    )
    data, missing = _data(run, with_data, facts)
    return Evidence(**{**evidence.__dict__, "data": data, "missing": missing})


def _data(run: Run, with_data: bool, facts: dict[str, Any]) -> tuple[Data | None, str]:
    """The data of a run, or why they are not looked at."""
    if not with_data:
        return None, "--no-data was given"
    images = facts.get("images")
    count = sum(n for n in images.values() if isinstance(n, int)) if isinstance(images, dict) else 0
    if count > MOST_IMAGES:
        return None, f"there are more than {MOST_IMAGES} images"
    try:
        settings = run.settings
        read = reader_of(settings.task, settings)
        return apply_split(settings.data, run.split(), val=settings.val, classes=run.classes, read=read), ""
    except DataError as error:
        return None, str(error)
