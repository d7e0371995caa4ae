"""Fit each classifier, fold by fold and then on all training images, and score it on images that it has not seen."""

from __future__ import annotations

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
MOST_FOLDS = 20


def probe(
    data: str | Path = "",
    *,
    net: str = "mobilenet_v2",
    weights: str = "",
    run: str | Path = "",
    which: str = "best",
    classifiers: str = "all",
    folds: int = 5,
    val: str = "",
    input: str = "auto",
    batch: int = 64,
    seed: int = 0,
    progress: Progress = SILENT,
) -> ProbeResult:
    """Score classifiers on the features of one network.

    data: as for training. net, weights: the network, and what `create_model` calls pretrained ("" leaves it
    untrained). run: a run folder in their place; its own data where `data` is "". classifiers: all, linear,
    non-linear, or names with commas. folds: of the cross-validation on the training images, fewer where a class has
    fewer. input: HEIGHTxWIDTH of the network's input, or auto.

    Raises DataError, SettingsError, UnknownNameError, WeightsError, RunError, MissingPackageError.
    """
    names = select_classifiers(classifiers)
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
        rows.append(
            measure(name, CLASSIFIERS[name].kind, _maker(name, smallest, train.x.shape[1], seed), train, held, parts)
        )
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
        if not data:
            raise SettingsError("neither data nor a run", "images, or --run RUN", "name one of them")
        target_of(net, ("network",))
        settings = Settings(data=data, val=val, net=net, weights=weights, input=input, seed=seed)
        return of_network(settings, progress)
    if weights or input != "auto":
        raise SettingsError(
            f"--run with {'--weights' if weights else '--input'}", "--run alone: it has its own", "leave one out"
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

    Of all: the largest class of the other folds is the smaller one of this fold, which would put the baseline too low.
    """
    largest = np.bincount(train.y).argmax()
    accuracies = tuple(float((train.y[parts == fold] == largest).mean()) for fold in range(int(parts.max()) + 1))
    return ClassifierScore(MAJORITY, "baseline", accuracies, float((held.y == largest).mean()), 0.0, 0.0)


def measure(
    name: str, kind: str, make: Callable[[], Any], train: Extracted, held: Extracted, parts: Labels
) -> ClassifierScore:
    """One row: a fresh classifier of `make` per fold, then one of all training images for the held-out ones.

    What scikit-learn warns of, such as a fit that did not converge, is in the row's note; where a classifier cannot be fitted
    to these features, the row has the error and no figures.
    """
    accuracies = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            for fold in range(int(parts.max()) + 1):
                inside, outside = parts != fold, parts == fold
                model = make().fit(train.x[inside], train.y[inside])
                accuracies.append(float((model.predict(train.x[outside]) == train.y[outside]).mean()))
            begun = time.perf_counter()
            model = make().fit(train.x, train.y)
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
        note=_note(caught),
    )


def _note(caught: Iterable[warnings.WarningMessage]) -> str:
    """The first line of each different warning."""
    lines = (str(each.message).strip().splitlines() or [""] for each in caught)
    return "; ".join(dict.fromkeys(line[0].strip().rstrip(".:")[:100] for line in lines))
