"""Which of the teacher's outputs each head of a student learns from, and by which loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gossamer.errors import SettingsError
from gossamer.predictions.head import KINDS, OutputHead
from gossamer.settings import Settings
from gossamer.tasks.distillation import losses
from gossamer.tasks.losses import regression

Outputs = dict[str, Tensor]
Term = Callable[[Outputs, Outputs, Tensor | None], Tensor]
"""The student's and the teacher's outputs of a head without its name, class numbers or None -> (N,) float32."""


@dataclass(frozen=True)
class HeadTerm:
    """A head of the student with the head of the teacher that it learns from. labels: whether the term reads class numbers."""

    student: OutputHead
    teacher: OutputHead
    term: Term
    labels: bool

    def __call__(self, student: Outputs, teacher: Outputs, targets: Any) -> Tensor:
        """All outputs of both by name, the targets of the batch -> (N,) float32."""
        ours, theirs = _of(self.student, student), _of(self.teacher, teacher)
        labels = class_numbers(self.student.name, targets).to(ours["logits"].device) if self.labels else None
        return self.term(ours, theirs, labels)


def head_terms(
    heads: Sequence[OutputHead], theirs: Sequence[OutputHead], settings: Settings, teacher: str
) -> tuple[list[HeadTerm], list[str]]:
    """The terms of the heads of a student, and lines on heads that the teacher has no output for.

    heads: of the student; theirs: of the teacher, whose name in messages is `teacher`. A head learns from the one of its
    name and kind, an only head from the only one of its kind. Raises SettingsError where none fits, where classes are
    others, or where `settings.distil` is no loss of these heads.
    """
    terms, missing = [], []
    for head in heads:
        match = _match(head, theirs)
        if match is None:
            missing.append(f"{head.name} ({head.kind})" if head.name else head.kind)
        else:
            terms.append(HeadTerm(head, match, _term(head, match, settings, teacher), _reads_labels(head, settings)))
    if not terms:
        kinds = ", ".join(dict.fromkeys(one.kind for one in theirs))
        raise SettingsError(
            f"{teacher}: a teacher for {kinds}",
            f"a teacher for {', '.join(missing)}",
            "give one that was trained for the same task",
        )
    _check_loss(terms, settings)
    return terms, [f"the teacher has no head for {name}: it learns from its labels alone" for name in missing]


def class_numbers(name: str, targets: Any) -> Tensor:
    """The class of each image for the head called `name`, -1 where it has none: (N,) int64."""
    if isinstance(targets, Tensor):
        return targets
    return torch.tensor([-1 if one[name] is None else int(one[name]) for one in targets], dtype=torch.int64)


def _match(head: OutputHead, theirs: Sequence[OutputHead]) -> OutputHead | None:
    same = [one for one in theirs if one.kind == head.kind]
    named = [one for one in same if one.name == head.name]
    if named:
        return named[0]
    return same[0] if len(same) == 1 and not (head.name and same[0].name) else None


def _check_loss(terms: Sequence[HeadTerm], settings: Settings) -> None:
    """Raises SettingsError where no head has the loss of the settings."""
    kinds = {one.student.kind for one in terms}
    allowed = {"auto": kinds, "dkd": {"classify"}, "kl": {"classify", "segment"}}[settings.distil]
    if not kinds & allowed:
        raise SettingsError(
            f"distil {settings.distil} for {', '.join(sorted(kinds))}",
            "dkd for classes, kl for classes and masks",
            "leave --distil out: other outputs have one loss each",
        )


def _reads_labels(head: OutputHead, settings: Settings) -> bool:
    return head.kind == "classify" and settings.distil != "kl" and not head.options.get("hierarchy")


def _of(head: OutputHead, outputs: Outputs) -> Outputs:
    return {short: outputs[full] for short, full in zip(KINDS[head.kind], head.outputs, strict=True)}


def _term(head: OutputHead, their_head: OutputHead, settings: Settings, teacher: str) -> Term:
    """The loss of a head. Raises SettingsError."""
    if head.kind == "embed":
        return lambda ours, theirs, labels: losses.relations(ours["embedding"], theirs["embedding"])
    order = class_order(head, their_head, teacher)
    if head.kind == "regress":
        return _numbers(head, their_head, order)
    if head.kind == "detect":
        return _boxes(head, their_head, order, settings, teacher)
    temperature = settings.distil_temperature
    if head.kind == "segment":
        loss = losses.pixel_kl if settings.distil == "kl" else losses.channel_wise
        return lambda ours, theirs, labels: loss(
            ours["logits"], _sized(theirs["logits"][:, order], ours["logits"]), temperature
        )
    if head.kind == "multilabel":
        return lambda ours, theirs, labels: losses.binary_kl(ours["logits"], theirs["logits"][:, order], temperature)
    return _classes(order, temperature, settings.distil_beta)


def _classes(order: list[int], temperature: float, beta: float) -> Term:
    def term(ours: Outputs, theirs: Outputs, labels: Tensor | None) -> Tensor:
        logits, their_logits = ours["logits"], theirs["logits"][:, order]
        if labels is None:
            return losses.kl(logits, their_logits, temperature)
        decoupled = losses.dkd(logits, their_logits, labels.clamp_min(0), temperature, beta)
        if bool((labels >= 0).all()):
            return decoupled
        return torch.where(labels >= 0, decoupled, losses.kl(logits, their_logits, temperature))  # what has no label

    return term


def _numbers(head: OutputHead, their_head: OutputHead, order: list[int]) -> Term:
    """Smooth L1 in deviations of the student's targets: both give numbers in units of their own."""

    def moments(one: OutputHead) -> tuple[Tensor, Tensor]:
        mean, std = (torch.tensor(one.options[name], dtype=torch.float32) for name in ("mean", "std"))
        return mean, std

    (mean, std), (their_mean, their_std) = moments(head), moments(their_head)
    scale, shift = their_std[order] / std, (their_mean[order] - mean) / std

    def term(ours: Outputs, theirs: Outputs, labels: Tensor | None) -> Tensor:
        values = theirs["values"].detach().float()[:, order]
        return regression(ours["values"], values * scale.to(values.device) + shift.to(values.device), "smooth_l1")

    return term


def _boxes(head: OutputHead, their_head: OutputHead, order: list[int], settings: Settings, teacher: str) -> Term:
    if head.options["anchors"] != their_head.options["anchors"]:
        raise SettingsError(
            f"{teacher}: its anchors are others than the student's",
            "a detector with the same input, levels and anchors",
            "give --input, --levels and --anchor-sizes as in the settings.yaml of the teacher",
        )
    score = head.options["decoding"]["score"]
    if score != their_head.options["decoding"]["score"]:
        raise SettingsError(
            f"{teacher}: gives scores by {their_head.options['decoding']['score']}, the student by {score}",
            "the same for both",
            "train both with the same --loss",
        )
    background = score == "softmax"
    columns = [0, *(index + 1 for index in order)] if background else order

    def term(ours: Outputs, theirs: Outputs, labels: Tensor | None) -> Tensor:
        outputs = {"deltas": theirs["deltas"], "logits": theirs["logits"][..., columns]}
        return losses.boxes(ours, outputs, settings.distil_temperature, background=background)

    return term


def class_order(head: OutputHead, their_head: OutputHead, teacher: str) -> list[int]:
    """For each class of the student its number in the teacher. Raises SettingsError where the classes are others."""
    if set(head.classes) != set(their_head.classes):
        missing = [name for name in head.classes if name not in their_head.classes]
        unknown = [name for name in their_head.classes if name not in head.classes]
        parts = [f"does not know {_listed(missing)}"] if missing else []
        parts += [f"knows {_listed(unknown)}, which the data lack"] if unknown else []
        raise SettingsError(
            f"{teacher}: a teacher of other classes: it {' and '.join(parts)}",
            f"one of the same {len(head.classes)} classes, in any order",
            "train the teacher on the same classes",
        )
    return [their_head.classes.index(name) for name in head.classes]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _sized(maps: Tensor, like: Tensor) -> Tensor:
    """Maps at the height and width of `like`, bilinear."""
    if maps.shape[-2:] == like.shape[-2:]:
        return maps
    return F.interpolate(maps.float(), size=like.shape[-2:], mode="bilinear", align_corners=False)
