"""Settings that a run was given and does not look at, as those of another task or schedule: told, so that nobody waits for them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from gossamer.settings import Settings

MOMENTUM = ("sgd", "rmsprop", "rmsprop_tf")
ADAM = ("adam", "adamw")
PLACED = re.compile(r"""kind"?: "?(detect|segment)\b""")  # of a head, in YAML or JSON


class _Use(NamedTuple):
    """names: of settings; of: what they are for; is_used: whether resolved settings are of that kind."""

    names: tuple[str, ...]
    of: str
    is_used: Callable[[Settings], bool]


def _tasks(names: str, *tasks: str) -> _Use:
    """Settings of these tasks."""
    of = f"the task{'s' if len(tasks) > 1 else ''} {_listed(tasks)}"
    return _Use(tuple(names.split()), of, lambda settings: settings.task in tasks)


def _chosen(names: str, setting: str, *values: str) -> _Use:
    """Settings of some values of another one."""
    of = f"--{setting.replace('_', '-')} {_listed(values)}"
    return _Use(tuple(names.split()), of, lambda settings: getattr(settings, setting) in values)


def _has_places(settings: Settings) -> bool:
    """Whether the labels say where in the image something is."""
    return settings.task in ("detect", "segment") or (settings.task == "multi" and bool(PLACED.search(settings.heads)))


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


USES = (
    _tasks("ignore_index aspp", "segment", "multi"),
    _tasks("scales dice", "segment"),
    _tasks("fpn anchors anchor_sizes levels score_threshold iou_threshold max_detections", "detect", "multi"),
    _tasks("expand iou_crop mosaic", "detect"),
    _tasks("dim margin mining per_identity", "embed", "multi"),
    _tasks("threshold", "multilabel", "multi"),
    _tasks("head_weights", "multi", "multilabel", "regress"),
    _tasks("class_weights", "classify", "segment"),
    _tasks("sampler", "classify"),
    _tasks("label_smoothing", "classify", "segment", "multi"),
    _tasks("smoothing_over", "classify", "multi"),
    _tasks("aux_weight", "classify", "segment"),
    _Use(
        ("randaugment", "random_erasing", "crop_scale", "crop_ratio"),
        "tasks without boxes and masks",
        lambda one: not _has_places(one),
    ),
    # random_resized is what a run resolves to where it crops nothing, and what its settings.yaml then holds
    _Use(("crop",), "tasks without boxes and masks", lambda one: not _has_places(one) or one.crop == "random_resized"),
    _chosen("crop_scale crop_ratio", "crop", "random_resized"),
    _chosen("step_epochs", "schedule", "step"),
    _chosen("gamma", "schedule", "step", "exponential", "plateau"),
    _chosen("cycle_epochs", "schedule", "cyclic"),
    _chosen("patience", "schedule", "plateau"),
    _chosen("momentum", "optimizer", *MOMENTUM),
    _chosen("nesterov", "optimizer", "sgd"),
    _chosen("betas", "optimizer", *ADAM),
    _chosen("rho", "optimizer", "rmsprop", "rmsprop_tf", "adadelta"),
    _Use(("eps",), "other optimisers than sgd", lambda one: one.optimizer != "sgd" or not one.eps),  # 0: resolved
    _Use(("warmup",), "other schedules than one_cycle, which has its own", lambda one: one.schedule != "one_cycle"),
    _Use(("focal_gamma",), "--loss focal", lambda one: one.loss == "focal" or one.task == "multi"),
    _Use(("mining",), "the losses triplet and quadruplet", lambda one: one.loss in ("auto", "triplet", "quadruplet")),
    _Use(("randaugment_magnitude",), "--randaugment above 0", lambda one: one.randaugment > 0),
    _Use(("smoothing_over",), "--label-smoothing above 0", lambda one: one.label_smoothing > 0),
    _Use(("cache_dir",), "--cache or --teacher-cache", lambda one: bool(one.cache or one.teacher_cache)),
    _Use(("save_every",), "runs without --save-steps", lambda one: not one.save_steps),
    _Use(
        ("aspp",),
        "--head deeplabv3 and deeplabv3plus",
        lambda one: one.task == "multi" or one.head.startswith("deeplab"),
    ),
)


def unused(settings: Settings, given: Iterable[str]) -> list[str]:
    """A line for each of the settings `given` that a training with the resolved `settings` does not look at."""
    lines = {}
    for use in USES:
        for name in use.names:
            if name in given and name not in lines and not use.is_used(settings):
                lines[name] = f"warning: {name} has no effect here: it is for {use.of}"
    return list(lines.values())
