"""What makes a training fail or holds it back: one table of causes, each with what it reads and its threshold.

A cause is named where the run's own figures show it, not where a setting is merely unusual: either the figures prove it
("certain"), or a setting is far from the usual and the figures agree ("likely"), or the figures alone suggest it ("possible").
"""

from __future__ import annotations

import math
import re
import shlex
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from gossamer.diagnosis.evidence import Evidence
from gossamer.host.text import counted, metric_name, significant
from gossamer.run import STOPPED

Certainty = Literal["certain", "likely", "possible"]
ORDER: tuple[Certainty, ...] = ("certain", "likely", "possible")

FAR_RATE = 5.0  # times the usual learning rate, or a fifth of it
LOADER_SHARE = 0.3  # of the time of training spent waiting for images
RARE = 20.0  # images of the largest class for one of the smallest
MANY_RARE = 0.05  # of the validation images, of classes that are drowned
MOST_RARE = 0.25  # of them, from which they hold a network back that knows little yet
SMALL_BATCH = (
    4  # images of which a batch norm takes mean and variance: Wu and He 2018 (1803.08494), figure 1, at 4 and below
)
NOTHING_LEARNT = 0.95  # of the loss of a network that knows nothing
MEMORISED = 0.6  # of the same
OVERFIT = 1.15  # last validation loss over the smallest
MATCHED = 0.5  # intersection over union of a box with its best anchor: SSD (1512.02325), section 2.2
UNMATCHED = 0.5  # of the boxes
IGNORED = 0.9  # of the pixels of masks
FREE_BYTES = 64 << 20


@dataclass(frozen=True)
class Finding:
    """A cause that was found. what: one sentence with its figures. command: what to try next."""

    cause: str
    certainty: Certainty
    what: str
    command: str


@dataclass(frozen=True)
class Cause:
    """name: as findings show it. reads: what of a run it looks at. check: the finding, or None."""

    name: str
    reads: str
    check: Callable[[Evidence], Finding | None]


def _again(evidence: Evidence, flags: str) -> str:
    """The command that trains with the same settings but for `flags`."""
    path = str(evidence.run.path)
    return f"gossamer train --config {shlex.quote(f'{path}/settings.yaml')} {flags} --out {shlex.quote(f'{path}_2')}"


def _standard_error(evidence: Evidence, share: float) -> float:
    """Of an accuracy over the validation images."""
    counts = evidence.per_class("val")
    return math.sqrt(max(share * (1 - share), 1e-9) / max(1, sum(counts))) if counts else math.nan


def _at_chance(evidence: Evidence) -> bool:
    """Whether the last accuracy of a classifier is that of guessing, within two standard errors."""
    counts = evidence.per_class("val")
    if evidence.settings.task != "classify" or not counts:
        return False
    guess = max(counts) / sum(counts) if sum(counts) else math.nan
    return evidence.last("val_accuracy") <= guess + 2 * _standard_error(evidence, guess)


def _learns_nothing(evidence: Evidence) -> bool:
    """Whether the training loss stays where it began."""
    losses, chance = evidence.finite("loss"), evidence.chance_loss
    if not losses:
        return False
    if math.isfinite(chance):
        return losses[-1] >= NOTHING_LEARNT * chance
    return len(losses) > 1 and losses[-1] >= NOTHING_LEARNT * losses[0]


# what stopped it


def _not_finite(evidence: Evidence) -> Finding | None:
    found = None
    for line in evidence.log:
        if match := re.search(r"the loss is (-?nan|-?inf) at step (\d+) \(learning rate ([^)]*)\)", line):
            found = match
        elif line.startswith("epoch "):
            found = None  # it went on since
    if found is None:
        return None
    settings, usual = evidence.settings, evidence.usual_rate
    rate = settings.lr or usual
    where = f"the loss became {found[1]} at step {found[2]}, at a learning rate of {found[3]}"
    if rate >= FAR_RATE * usual:
        return Finding(
            "the learning rate is too high",
            "certain",
            f"{where}; {rate:g} is {rate / usual:.3g} times the usual {usual:g} of {settings.optimizer} at a batch of {settings.batch}",
            _again(evidence, f"--lr {usual:g}"),
        )
    low = "" if settings.precision == "float32" else f", in {settings.precision}"
    return Finding(
        "the loss is not finite",
        "certain",
        f"{where}{low}; the rate is usual for {settings.optimizer}",
        _again(evidence, f"--clip-norm 1 --lr {rate / 4:g}" + (" --precision float32" if low else "")),
    )


def _no_space(evidence: Evidence) -> Finding | None:
    stopped = next((line for line in reversed(evidence.log) if line.startswith((STOPPED, "epoch "))), "")
    full = stopped.startswith(STOPPED) and re.search("[Nn]o space left|disk quota", stopped)
    try:
        free = shutil.disk_usage(evidence.run.path).free
    except OSError:
        free = 1 << 62
    state = evidence.run.path / "last.safetensors"
    needed = max(FREE_BYTES, 2 * state.stat().st_size if state.exists() else 0)
    if evidence.state.get("finished") or not (full or free < needed):
        return None
    said = "the training stopped because nothing more could be written; " if full else "the training is not complete; "
    return Finding(
        "the disk is full",
        "certain" if full else "likely",
        f"{said}{free / 1e6:.0f} MB are free there, a state needs {needed / 1e6:.0f} MB",
        f"gossamer train --resume {shlex.quote(str(evidence.run.path))}   # after making room",
    )


def _stopped(evidence: Evidence) -> Finding | None:
    last = next((line for line in reversed(evidence.log) if line.startswith((STOPPED, "epoch "))), "")
    if evidence.state.get("finished") or not last.startswith(STOPPED):
        return None
    return Finding(
        "the training stopped with an error",
        "certain",
        last.removeprefix(STOPPED),
        f"gossamer train --resume {shlex.quote(str(evidence.run.path))}",
    )


def _killed(evidence: Evidence) -> Finding | None:
    if evidence.training_now or evidence.state.get("finished"):
        return None
    last = evidence.log[-1] if evidence.log else ""
    if last.startswith(("Interrupted", STOPPED, "finished: ")):
        return None
    after = f"after step {evidence.state['step']}" if "step" in evidence.state else "before the first state was saved"
    return Finding(
        "the process was killed",
        "likely",
        f"the log ends {after} without a word: a process that the system ends for its memory, or that is killed, says nothing",
        f"gossamer train --resume {shlex.quote(str(evidence.run.path))}   # with less memory: a smaller --batch in a new run",
    )


# what the data are


def _copies(evidence: Evidence) -> Finding | None:
    copies = evidence.copies
    if copies is None or len(copies.pairs) < max(2, 0.01 * copies.looked_at):
        return None
    first, second = copies.pairs[0]
    return Finding(
        "training images are among the validation images",
        "certain",
        f"{len(copies.pairs)} of {copies.looked_at} validation images have the bytes of a training image, such as {first} and {second}: "
        "the score is too high",
        f"gossamer doctor --data {shlex.quote(evidence.settings.data)}   # lists them; remove them, then train again",
    )


def _missing_class(evidence: Evidence) -> Finding | None:
    train = evidence.per_class("train") or evidence.box_classes
    if not train or len(train) != len(evidence.classes):
        return None
    val = evidence.per_class("val")
    absent = [name for index, name in enumerate(evidence.classes) if not train[index] and (val is None or val[index])]
    if not absent:
        return None
    what = "boxes" if evidence.settings.task == "detect" else "images"
    return Finding(
        "a class has nothing to learn from",
        "certain",
        f"{len(absent)} of {len(evidence.classes)} classes have no training {what}: {', '.join(absent[:5])}",
        f"gossamer doctor --data {shlex.quote(evidence.settings.data)}   # then add images of it, or take the class out",
    )


def _rare_class(evidence: Evidence) -> Finding | None:
    settings, counts = evidence.settings, evidence.per_class("train")
    accuracy, balanced = evidence.last("val_accuracy"), evidence.last("val_balanced_accuracy")
    if not counts or settings.task != "classify" or settings.sampler == "balanced" or settings.class_weights != "none":
        return None
    present = [count for count in counts if count]
    if not present or max(present) < RARE * min(present):
        return None
    name, scores = evidence.classes[counts.index(min(present))], f"top-1 accuracy {accuracy:.1%}"
    if accuracy - balanced >= 0.1:
        scores += f", mean over the classes {balanced:.1%}"
    else:  # where each class has as many validation images, the two are one
        val = evidence.per_class("val") or []
        rare = sum(n for n, count in zip(val, counts, strict=False) if count and RARE * count <= max(present))
        share = rare / sum(val) if sum(val) else 0.0
        # with few steps it may know no more than which classes are frequent: that alone makes the validation loss worse than guessing's
        chance = evidence.chance_loss
        frequent = evidence.last("loss") <= NOTHING_LEARNT * chance and evidence.last("val_loss") >= chance
        knows = accuracy >= (1 - share) / 2 or (share >= MOST_RARE and (frequent or not _at_chance(evidence)))
        if not (share >= MANY_RARE and 1 - accuracy >= share / 2 and knows):
            return None
        scores += f", {share:.1%} of the validation images are of such classes"
    return Finding(
        "a class is drowned by the others",
        "likely",
        f"{name} has {counted(min(present), 'training image')}, the largest class {max(present)}; {scores}",
        _again(evidence, "--sampler balanced"),
    )


def _labels(evidence: Evidence) -> Finding | None:
    losses, chance = evidence.finite("loss"), evidence.chance_loss
    counts, accuracy = evidence.per_class("val"), evidence.last("val_accuracy")
    if not losses or not math.isfinite(chance) or not counts or not math.isfinite(accuracy):
        return None
    guess = 1 / sum(count > 0 for count in counts) if any(counts) else math.nan
    balanced, learnt = evidence.last("val_balanced_accuracy"), losses[-1] <= MEMORISED * chance
    if losses[-1] <= 0.9 * chance and balanced < guess - 3 * _standard_error(evidence, guess):
        return Finding(
            "the labels of training and validation images are shifted",
            "certain",
            f"the network has learnt the training images (loss {losses[-1]:.3g}, {chance:.3g} is guessing) and is right for {balanced:.1%} "
            f"of the validation images, where guessing gives {guess:.1%}: their class numbers mean other classes",
            f"gossamer doctor --data {shlex.quote(evidence.settings.data)}",
        )
    if learnt and _at_chance(evidence):
        return Finding(
            "the labels do not belong to the images",
            "likely",
            f"the network has learnt the training images by heart (loss {losses[-1]:.3g}, {chance:.3g} is guessing), and is right for "
            f"{accuracy:.1%} of the validation images, as guessing is",
            f"gossamer doctor --data {shlex.quote(evidence.settings.data)}",
        )
    usual = (
        evidence.usual_rate / FAR_RATE < (evidence.settings.lr or evidence.usual_rate) < evidence.usual_rate * FAR_RATE
    )
    if (
        len(losses) >= 5
        and usual
        and _learns_nothing(evidence)
        and _at_chance(evidence)
        and not evidence.settings.freeze
    ):
        return Finding(
            "the labels do not belong to the images",
            "possible",
            f"after {evidence.last('epoch'):g} epochs at a usual learning rate the loss is {losses[-1]:.3g}, as guessing gives "
            f"({chance:.3g}), and the accuracy {accuracy:.1%}",
            f"gossamer doctor --data {shlex.quote(evidence.settings.data)}",
        )
    return None


def _colour(evidence: Evidence) -> Finding | None:
    settings = evidence.settings
    if settings.mean is None or settings.std is None or not evidence.set_by_user("mean", "std"):
        return None
    mean, std = np.asarray(settings.mean, float), np.asarray(settings.std, float)
    if evidence.colour is None:
        if ((mean < 0) | (mean > 1)).any() or (std > 1).any() or (std < 0.01).any():
            ways = f"mean {list(settings.mean)}, std {list(settings.std)}"
            return Finding(
                "mean and std do not fit the images",
                "certain",
                f"{ways}: pixels are 0 to 1 when they are normalised, so a mean is between 0 and 1 and a deviation about 0.2",
                _again(evidence, "--mean 0.485 0.456 0.406 --std 0.229 0.224 0.225"),
            )
        return None
    seen_mean, seen_std = evidence.colour
    if len(mean) != len(seen_mean):
        return None
    centre, width = (seen_mean - mean) / std, np.maximum(seen_std, 0.02) / std
    if np.abs(centre).max() <= 2 and width.min() >= 0.2 and width.max() <= 5:
        return None
    return Finding(
        "mean and std do not fit the images",
        "likely" if np.abs(centre).max() <= 4 and width.max() <= 20 and width.min() >= 0.05 else "certain",
        f"normalised, the pixels of the training images have a mean of {np.array2string(centre, precision=3)} and a deviation of "
        f"{np.array2string(width, precision=3)}, where about 0 and 1 are meant; the images have mean {np.array2string(seen_mean, precision=3)} "
        f"and std {np.array2string(seen_std, precision=3)} of 1",
        _again(evidence, "--mean 0.485 0.456 0.406 --std 0.229 0.224 0.225"),
    )


def _ignored(evidence: Evidence) -> Finding | None:
    if not evidence.ignored >= IGNORED:
        return None
    return Finding(
        "nearly every pixel of the masks is ignored",
        "certain",
        f"{evidence.ignored:.1%} of the pixels of the training masks belong to no class (ignore_index {evidence.settings.ignore_index})",
        _again(evidence, "--ignore-index 255") + "   # the value of the masks that means no class",
    )


def _anchors(evidence: Evidence) -> Finding | None:
    sizes = np.asarray(evidence.settings.anchor_sizes, float).reshape(-1, 2)
    boxes = evidence.boxes
    if not len(sizes) or not len(boxes):
        return None
    shared = np.minimum(boxes[:, None, 0], sizes[:, 0]) * np.minimum(boxes[:, None, 1], sizes[:, 1])
    union = boxes.prod(axis=1)[:, None] + sizes.prod(axis=1) - shared
    best = (shared / np.maximum(union, 1e-9)).max(axis=1)
    unmatched = float((best < MATCHED).mean())
    if unmatched <= UNMATCHED:
        return None
    low, middle, high = np.percentile(np.sqrt(boxes.prod(axis=1)), [10, 50, 90])
    return Finding(
        "the anchors do not match the boxes",
        "certain",
        f"{unmatched:.0%} of the training boxes overlap with no anchor by {MATCHED:g} wherever it lies; boxes are {low:.0f} to {high:.0f} "
        f"pixels of the input wide (half of them below {middle:.0f}), anchors {np.sqrt(sizes.prod(axis=1)).min():.0f} to "
        f"{np.sqrt(sizes.prod(axis=1)).max():.0f}",
        f"gossamer train {shlex.quote(evidence.settings.data)} --task detect --anchors fitted --out {shlex.quote(f'{evidence.run.path}_2')}",
    )


# what the settings are


def _rate_high(evidence: Evidence) -> Finding | None:
    settings, usual = evidence.settings, evidence.usual_rate
    rate, losses = settings.lr or usual, evidence.finite("loss")
    if rate < FAR_RATE * usual or not losses:
        return None
    bad = [value for value in evidence.column("val_loss") if not value <= 10 * max(losses[0], 1)]
    rose = len(losses) > 1 and losses[-1] > losses[0]
    if not (_learns_nothing(evidence) or _at_chance(evidence) or rose or (bad and evidence.column("val_loss"))):
        return None
    return Finding(
        "the learning rate is too high",
        "certain" if rate >= 4 * FAR_RATE * usual else "likely",
        f"{rate:g} is {rate / usual:.3g} times the usual {usual:g} of {settings.optimizer} at a batch of {settings.batch}, and the training loss "
        f"went from {losses[0]:.3g} to {losses[-1]:.3g}",
        _again(evidence, f"--lr {usual:g}"),
    )


def _rate_low(evidence: Evidence) -> Finding | None:
    settings, usual = evidence.settings, evidence.usual_rate
    rate, losses, chance = settings.lr or usual, evidence.finite("loss"), evidence.chance_loss
    far = 500.0 if settings.weights else FAR_RATE  # trained weights want a low rate
    if rate > usual / far or not losses or rate <= 0:
        return None
    start = chance if math.isfinite(chance) else losses[0]
    if losses[-1] < 0.8 * start:
        return None
    return Finding(
        "the learning rate is too low",
        "certain" if rate <= usual / (4 * far) else "likely",
        f"{rate:g} is a {usual / rate:.3g}th of the usual {usual:g} of {settings.optimizer} at a batch of {settings.batch}, and the training loss "
        f"came from {start:.3g} to {losses[-1]:.3g} only",
        _again(evidence, f"--lr {usual:g}"),
    )


def _frozen(evidence: Evidence) -> Finding | None:
    settings = evidence.settings
    if not settings.freeze or settings.weights or settings.teacher:
        return None
    note = next(
        (line for line in evidence.log if "parameter tensor" in line and "frozen" in line),
        f"--freeze {settings.freeze}",
    )
    return Finding(
        "layers with random weights are frozen",
        "certain",
        f"{note}, and no trained weights were given: what is frozen stays as it was drawn",
        _again(evidence, "--freeze ''") + "   # or --weights default",
    )


def _small_batch(evidence: Evidence) -> Finding | None:
    settings = evidence.settings
    processes = evidence.run.environment.get("processes")
    each = settings.batch // (processes if isinstance(processes, int) and processes > 0 else 1)
    if each > SMALL_BATCH or settings.norm not in ("", "batch") or not evidence.set_by_user("batch"):
        return None
    if not evidence.batch_norms:  # as LeNet-5, AlexNet, SqueezeNet and the first VGG
        return None
    train, val = evidence.last("loss"), evidence.last("val_loss")
    apart = f"; training loss {train:.3g}, validation loss {val:.3g}" if math.isfinite(train + val) else ""
    return Finding(
        "batch norm on tiny batches",
        "certain" if each <= 2 else "likely",
        f"mean and variance of every layer are those of {counted(each, 'image')}{apart}; more --accumulate does not change that",
        _again(evidence, "--batch 32") + "   # or --norm group",
    )


def _augmentation(evidence: Evidence) -> Finding | None:
    settings = evidence.settings
    strong = []
    if settings.task == "classify" and settings.crop == "random_resized" and min(settings.crop_scale) < 0.05:
        strong.append((f"crops of down to {min(settings.crop_scale):.1%} of the image", "--crop padded"))
    if settings.randaugment and settings.randaugment_magnitude > 15:
        strong.append((f"RandAugment of magnitude {settings.randaugment_magnitude:g}", "--randaugment-magnitude 9"))
    if settings.randaugment > 4:
        strong.append((f"{settings.randaugment} operations of RandAugment on each image", "--randaugment 2"))
    if settings.random_erasing > 0.7:
        strong.append((f"an erased rectangle in {settings.random_erasing:.0%} of the images", "--random-erasing 0.25"))
    if settings.color_jitter > 0.9:
        strong.append((f"colours changed by up to {settings.color_jitter:.0%}", "--color-jitter 0.4"))
    if not strong or not evidence.set_by_user(
        "crop", "crop_scale", "randaugment", "randaugment_magnitude", "random_erasing", "color_jitter"
    ):
        return None
    train, val, chance = evidence.last("loss"), evidence.last("val_loss"), evidence.chance_loss
    held_back = train - evidence.least_loss >= 1.3 * val or (math.isfinite(chance) and train >= 0.7 * chance)
    if not held_back:
        return None
    return Finding(
        "the augmentation leaves too little of the images",
        "likely",
        f"{'; '.join(what for what, _ in strong)}; the training loss ends at {train:.3g}, the validation loss at {val:.3g}",
        _again(evidence, " ".join(flag for _, flag in strong)),
    )


def _emulated(evidence: Evidence) -> Finding | None:
    if not any("bf16 is emulated" in line for line in evidence.log):
        return None
    speed = evidence.last("images_per_second")
    return Finding(
        "bf16 is emulated on this processor",
        "certain",
        f"it has no instructions for bf16, so each operation converts forth and back ({speed:.0f} images/s)",
        _again(evidence, "--precision float32"),
    )


def _loader(evidence: Evidence) -> Finding | None:
    rows = evidence.rows[1:] or evidence.rows  # the first epoch opens files and starts workers
    waiting = sum(float(row.get("data_seconds", 0)) for row in rows)
    busy = waiting + sum(float(row.get("step_seconds", 0)) for row in rows)
    if not busy > 0 or not waiting / busy > LOADER_SHARE:
        return None
    return Finding(
        "the training waits for images",
        "certain",
        f"{waiting / busy:.0%} of the time of training ({significant(waiting)} of {significant(busy)} s); {evidence.last('images_per_second'):.0f} images/s",
        _again(evidence, f"--cache 2G --workers {max(2, (evidence.settings.workers or 0) + 2)}"),
    )


# what the curves show


def _collapsed(evidence: Evidence) -> Finding | None:
    alarms = [
        line for line in evidence.log if "embeddings have collapsed" in line or "embeddings are not finite" in line
    ]
    if not alarms:
        return None
    return Finding(
        "the embeddings have collapsed",
        "certain",
        f"{counted(len(alarms), 'time')} in the log, at last: {alarms[-1]}",
        _again(evidence, f"--lr {(evidence.settings.lr or evidence.usual_rate) / 4:g} --mining semihard"),
    )


def _constant(evidence: Evidence) -> Finding | None:
    counts = evidence.per_class("val")
    if evidence.settings.task != "classify" or not counts or not any(counts):
        return None
    supported = [count for count in counts if count]
    accuracy, f1 = evidence.last("val_accuracy"), evidence.last("val_macro_f1")
    for index, count in enumerate(counts):
        share = count / sum(counts)
        if len(supported) < 2 or not count or abs(accuracy - share) > 1e-6:
            continue
        if abs(f1 - 2 * share / (1 + share) / len(supported)) < 1e-6:
            return Finding(
                "every image gets the same answer",
                "likely",
                f"the score is that of a network that always says {evidence.classes[index]}, or another class as frequent: top-1 accuracy "
                f"{accuracy:.1%}, macro F1 {f1:.3f}",
                _again(evidence, f"--lr {(evidence.settings.lr or evidence.usual_rate) / 4:g} --warmup 2"),
            )
    return None


def _overfit(evidence: Evidence) -> Finding | None:
    values, losses = evidence.finite("val_loss"), evidence.finite("loss")
    if len(values) < 3 or not losses or min(values) <= 0:
        return None
    best = int(np.argmin(values))
    if values[-1] <= OVERFIT * values[best] or losses[-1] >= 0.7 * values[-1]:
        return None
    name = metric_name(_score(evidence))
    score = evidence.last(f"val_{_score(evidence)}")
    return Finding(
        "it learns the training images by heart",
        "likely",
        f"the validation loss was smallest in epoch {evidence.column('epoch')[best]:g} ({values[best]:.3g}) and ended at {values[-1]:.3g}, where the "
        f"training loss is {losses[-1]:.3g}; {name} {score:.1%}",
        _again(
            evidence,
            "--randaugment 2 --mixup 0.2 --early-stop 10"
            if evidence.settings.task == "classify"
            else "--early-stop 10",
        ),
    )


def _underfit(evidence: Evidence) -> Finding | None:
    losses, chance = evidence.finite("loss"), evidence.chance_loss
    values = evidence.finite("val_loss")
    if not losses or not values or not evidence.state.get("finished"):
        return None
    start = chance if math.isfinite(chance) else losses[0]
    if losses[-1] < 0.75 * start or values[-1] < 0.75 * start:
        return None
    steps = int(evidence.last("step")) if math.isfinite(evidence.last("step")) else 0
    settings = evidence.settings
    longer = f"--minutes {settings.minutes * 4:g}" if settings.minutes else f"--epochs {(settings.epochs or 20) * 4:g}"
    return Finding(
        "it has not learnt the training images",
        "possible",
        f"the training loss came from {start:.3g} to {losses[-1]:.3g} in {counted(steps, 'step')}, the validation loss is {values[-1]:.3g}",
        _again(evidence, longer),
    )


def _unreadable(evidence: Evidence) -> Finding | None:
    skipped, images = evidence.run.unreadable(), evidence.facts.get("images")
    total = sum(n for n in images.values() if isinstance(n, int)) if isinstance(images, dict) else 0
    if not total or len(skipped) < max(2, 0.02 * total):
        return None
    return Finding(
        "many images could not be read",
        "certain",
        f"{len(skipped)} of {total}, such as {skipped[0][0]}: {skipped[0][1]}",
        f"gossamer doctor --data {shlex.quote(evidence.settings.data)}",
    )


def _score(evidence: Evidence) -> str:
    """The name of the task's first score in the metrics."""
    names = [name for row in evidence.rows[-1:] for name in row if name.startswith("val_") and name != "val_loss"]
    return names[0].removeprefix("val_") if names else "accuracy"


# in the order in which equally certain ones are named: what stopped it, what the data are, what was set, what the curves show
CAUSES: tuple[Cause, ...] = (
    Cause("the loss is not finite, or the rate too high", "log", _not_finite),
    Cause("the disk is full", "log, free bytes", _no_space),
    Cause("the training stopped with an error", "log", _stopped),
    Cause("mean and std do not fit the images", "settings, pixels of training images", _colour),
    Cause("layers with random weights are frozen", "settings", _frozen),
    Cause("nearly every pixel of the masks is ignored", "masks", _ignored),
    Cause("the anchors do not match the boxes", "settings, boxes", _anchors),
    Cause("a class has nothing to learn from", "images or boxes of each class", _missing_class),
    Cause("the labels of training and validation images are shifted", "losses, scores", _labels),
    Cause("training images are among the validation images", "bytes of images", _copies),
    Cause("the learning rate is too high", "settings, losses", _rate_high),
    Cause("the learning rate is too low", "settings, losses", _rate_low),
    Cause("batch norm on tiny batches", "settings", _small_batch),
    Cause("bf16 is emulated on this processor", "log", _emulated),
    Cause("the embeddings have collapsed", "log", _collapsed),
    Cause("the augmentation leaves too little of the images", "settings, losses", _augmentation),
    Cause("a class is drowned by the others", "images of each class, scores", _rare_class),
    Cause("the training waits for images", "times", _loader),
    Cause("the process was killed", "log, state", _killed),
    Cause("it learns the training images by heart", "losses", _overfit),
    Cause("every image gets the same answer", "scores", _constant),
    Cause("many images could not be read", "list of skipped images", _unreadable),
    Cause("it has not learnt the training images", "losses", _underfit),
)
