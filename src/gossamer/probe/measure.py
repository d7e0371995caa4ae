"""Fit each classifier, fold by fold and then on all training images, and score it on images that it has not seen."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gossamer.errors import DataError, SettingsError
from gossamer.host.progress import SILENT, Progress
from gossamer.probe.classifiers import CLASSIFIERS, pipeline, select_classifiers
from gossamer.probe.features import Extracted, Frozen, extract, of_network, of_run
from gossamer.probe.result import MAJORITY, ClassifierScore, ProbeResult
from gossamer.settings import Settings
from gossamer.targets import target_of

Labels = NDArray[np.int64]
NET = "mobilenet_v2"  # where nothing is named
MOST_FOLDS = 20
LIMIT = 60.0  # seconds for all fits of a classifier
TRIAL = 400  # images of the fit that tells how long the others will take
GROWTH = 1.5  # the time of a fit grows with this power of its images: between 1 and the 2 of kernels


def probe(
    data: str | Path = "",
    *,
    net: str = NET,
    weights: str = "",
    run: str | Path = "",
    which: str = "best",
    classifiers: str = "all",
    folds: int = 5,
    val: str = "",
    input: str = "auto",
    batch: int = 64,
    seed: int = 0,
    limit: float = LIMIT,
    progress: Progress = SILENT,
) -> ProbeResult:
    """Score classifiers on the features of one network.

    data: as for training. net, weights: the network, and what `create_model` calls pretrained ("" leaves it
    untrained). run: a run folder in their place; its own data where `data` is "". classifiers: all, linear,
    non-linear, or names with commas. folds: of the cross-validation on the training images, fewer where a class has
    fewer. input: HEIGHTxWIDTH of the network's input, or auto. limit: seconds that all fits of a classifier may take
    together, about; where they would take longer, each sees fewer images or there are fewer folds, which the row says.

    Raises DataError, SettingsError, UnknownNameError, WeightsError, RunError, MissingPackageError.
    """
    names = select_classifiers(classifiers)
    if not (math.isfinite(limit) and limit > 0):
        raise SettingsError(f"limit: {limit}", "seconds above 0", "give such a number")
    if not 2 <= folds <= MOST_FOLDS:
        raise SettingsError(f"folds: {folds}", f"2 to {MOST_FOLDS}", "give such a number")
    pipeline(names[0], 2, 1, seed)  # says at once whether scikit-learn is there
    network = _network(str(data), net, weights, run, which, val, input, seed, progress)
    if network.warning:
        progress.say(network.warning)
    train = extract(network, network.data.train, batch, "training images", progress)
    held = extract(network, network.data.val, batch, "held-out images", progress)
    parts = fold_numbers(train.y, folds, seed)
    smallest = len(parts) - int(np.bincount(parts).max())
    rows = [majority_baseline(train, held, parts)]
    for name in progress.track(names, len(names), "classifiers"):
        make = _maker(name, smallest, train.x.shape[1], seed)
        rows.append(measure_classifier(name, CLASSIFIERS[name].kind, make, train, held, parts, limit=limit, seed=seed))
        progress.say(rows[-1].line())
    return ProbeResult(
        network=network.name,
        weights=str(run) or weights,
        trained=network.trained,
        warning=network.warning,
        data=network.data.how,
        input=(network.preprocess.channels, *network.preprocess.size),
        features=train.x.shape[1],
        classes=network.data.classes,
        train_images=len(train.y),
        held_images=len(held.y),
        folds=int(parts.max()) + 1,
        seed=seed,
        feature_ms=1000 * (train.seconds + held.seconds) / (len(train.y) + len(held.y)),
        rows=tuple(rows),
        notes=(*network.data.notes, *network.notes),
        unreadable=(*train.unreadable, *held.unreadable),
    )


def _network(
    data: str, net: str, weights: str, run: str | Path, which: str, val: str, input: str, seed: int, progress: Progress
) -> Frozen:
    if not run:
        if which != "best":
            raise SettingsError(f"the {which} weights without a run", "--run RUN with --which", "leave --which out")
        if not data:
            raise SettingsError("neither data nor a run", "images, or --run RUN", "name one of them")
        target_of(net, ("network",))
        settings = Settings(data=data, val=val, net=net, weights=weights, input=input, seed=seed)
        return of_network(settings, progress)
    if weights or input != "auto" or net != NET:
        raise SettingsError(
            f"--run with {'--weights' if weights else '--input' if input != 'auto' else '--net'}",
            "--run alone: it has its own",
            "leave one out",
        )
    target_of(run, ("run",))
    return of_run(run, which, data, val, seed)


def _maker(name: str, images: int, features: int, seed: int) -> Callable[[], Any]:
    return lambda: pipeline(name, images, features, seed)


def fold_numbers(labels: Labels, folds: int, seed: int) -> Labels:
    """The fold of each image: (n,) -> (n,) numbers from 0.

    The images of a class are dealt out in turn, in random order, so that the folds differ by one image of it at most.
    As many folds as the smallest class has images, `folds` at most and 2 at least; a class of one image is trained on
    in all folds but one. Raises DataError where fewer than two classes have two images.
    """
    counts = np.bincount(labels)
    if (counts >= 2).sum() < 2:
        raise DataError(
            f"{int((counts >= 2).sum())} classes with two readable training images",
            "two or more such classes",
            "add images",
        )
    folds = max(2, min(folds, int(counts[counts > 0].min())))
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    numbers = np.empty(len(labels), np.int64)
    numbers[by_class] = np.arange(len(labels)) % folds
    return numbers


def majority_baseline(train: Extracted, held: Extracted, parts: Labels) -> ClassifierScore:
    """The row of always naming the class that has most of all training images.

    Of all: the largest class of the other folds is the smaller one of this fold, which would make the baseline too low.
    """
    largest = np.bincount(train.y).argmax()
    accuracies = tuple(float((train.y[parts == fold] == largest).mean()) for fold in range(int(parts.max()) + 1))
    return ClassifierScore(MAJORITY, "baseline", accuracies, float((held.y == largest).mean()), 0.0, 0.0)


def measure_classifier(
    name: str,
    kind: str,
    make: Callable[[], Any],
    train: Extracted,
    held: Extracted,
    parts: Labels,
    *,
    limit: float = LIMIT,
    seed: int = 0,
) -> ClassifierScore:
    """One row: a fresh classifier of `make` per fold, then one of all training images for the held-out ones.

    limit: seconds for all of these fits, about. Where a fit on a few images tells that they would take longer, each sees as
    many images as there is time for, drawn with `seed` and each class by its share; where the time is used up all the
    same, the rest of the folds is left out. Both are in the row's note, as is what scikit-learn warned of, such as a fit
    that did not converge. Where a classifier cannot be fitted to these features, the row has the error and no figures.
    """
    accuracies, folds = [], int(parts.max()) + 1
    began = time.perf_counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            most, notes = _images_in_time(make, train, folds, limit, seed)
            for fold in range(folds):
                started = time.perf_counter()
                inside, outside = _some_of(np.flatnonzero(parts != fold), train.y, most, seed), parts == fold
                model = make().fit(train.x[inside], train.y[inside])
                accuracies.append(float((model.predict(train.x[outside]) == train.y[outside]).mean()))
                now = time.perf_counter()
                # another fold and the last fit, each as long as this one
                if fold + 1 < folds and now - began + 2 * (now - started) > limit:
                    notes.append(f"{fold + 1} of {folds} folds: {limit:g} s were used up")
                    break
            begun = time.perf_counter()
            inside = _some_of(np.arange(len(train.y)), train.y, most, seed)
            model = make().fit(train.x[inside], train.y[inside])
            fitted = time.perf_counter()
            predicted = model.predict(held.x)
            done = time.perf_counter()
        except (ValueError, ArithmeticError) as error:  # LinAlgError is a ValueError
            return ClassifierScore(name, kind, error=" ".join(str(error).split())[:200])
    return ClassifierScore(
        name,
        kind,
        fold_accuracies=tuple(accuracies),
        held_accuracy=float((predicted == held.y).mean()),
        fit_seconds=fitted - begun,
        predict_us=1e6 * (done - fitted) / len(held.y),
        note="; ".join(part for part in (*notes, _note(caught)) if part),
    )


def _images_in_time(
    make: Callable[[], Any], train: Extracted, folds: int, limit: float, seed: int
) -> tuple[int, list[str]]:
    """How many images a fit may see so that all fits take `limit` seconds, and a note where these are not all."""
    images = len(train.y)
    if images <= 2 * TRIAL:
        return images, []
    few = _some_of(np.arange(images), train.y, TRIAL, seed)
    begun = time.perf_counter()
    make().fit(train.x[few], train.y[few])
    one = time.perf_counter() - begun
    left = max(limit - one, limit / 2)
    most = int(len(few) * (left / (folds + 1) / max(one, 1e-6)) ** (1 / GROWTH))
    if most >= images:
        return images, []
    most = max(most, len(few))
    return most, [f"each fit saw {most} of {images} images at most, so that all take about {limit:g} s"]


def _some_of(indices: Labels, labels: Labels, most: int, seed: int) -> Labels:
    """`most` of the images `indices`, or all where they are no more: of each class its share, one at least."""
    if len(indices) <= most:
        return indices
    shuffled = np.random.default_rng(seed).permutation(indices)
    chosen = []
    for label in np.unique(labels[indices]):
        of_class = shuffled[labels[shuffled] == label]
        chosen.append(of_class[: max(1, round(len(of_class) * most / len(indices)))])
    return np.sort(np.concatenate(chosen))


def _note(caught: Iterable[warnings.WarningMessage]) -> str:
    """The first line of each different warning."""
    lines = (str(each.message).strip().splitlines() or [""] for each in caught)
    return "; ".join(dict.fromkeys(line[0].strip().rstrip(".:")[:100] for line in lines))
