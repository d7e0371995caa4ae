"""`gossamer.pick`: which network keeps a budget here; with data the one that scores best on them, trained and exported."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from gossamer.errors import DataError
from gossamer.export.convert import packages
from gossamer.host import machine
from gossamer.host.progress import SILENT, Progress
from gossamer.networks.published import published_top1
from gossamer.networks.registry import traits
from gossamer.selection.choices import NetworkChoice, network_names
from gossamer.selection.counting import Builder
from gossamer.selection.folder import PickFolder
from gossamer.selection.result import (
    FittingNetwork,
    FittingNetworks,
    Picked,
    on_front,
)
from gossamer.selection.search import Search
from gossamer.selection.settings import MINUTES, TRAINED, PickSettings, checked_settings
from gossamer.selection.steps import PickSteps, nothing_fits, size_text
from gossamer.selection.timing import NetworkTimes, title_of
from gossamer.settings import Settings
from gossamer.shrink import graph
from gossamer.tasks.registry import task_of


def pick(
    data: str | os.PathLike[str] | None = None,
    out: str | os.PathLike[str] | None = None,
    *,
    latency: str | None = None,
    size: str | None = None,
    memory: str | None = None,
    runtime: str = "native",
    threads: int = 1,
    precision: str | Sequence[str] = (),
    input: str = "",
    task: str = "classify",
    val: str = "",
    nets: str | Sequence[str] = "*",
    candidates: int = TRAINED,
    minutes: float = MINUTES,
    epochs: float | None = None,
    seed: int = 0,
    progress: Progress = SILENT,
) -> Picked | FittingNetworks:
    """The networks that keep a budget on this machine; with data the one that scores best, trained, exported and verified.

    latency, size, memory: "2ms", "3MB", "8MB"; one at least. latency: of one image in `runtime` (native, onnxruntime or
    openvino) with `threads`; size: of the file; memory: weights and the peak of activations, as counted. precision: float32,
    bf16, int8, several with commas, all by default. input: "3x224x224"; by default the networks' own, or with data that of
    the images and smaller ones. nets: patterns of names. candidates: networks that are trained in the first rung, at most.
    minutes: for all of it; epochs: of a whole training, in place of its share of the minutes, so that trainings are equal
    on every machine. Networks are trained by successive halving, each in a run folder in `out`; validation images decide,
    test images are opened once, at the end. A folder that was begun goes on where it stands.
    Raises InputError for what cannot be used, VerificationError where no network keeps the budget (it names the nearest),
    MissingPackageError, StorageError; KeyboardInterrupt goes through, with everything found so far written.
    """
    settings = checked_settings(
        data, out, latency, size, memory, runtime, threads, precision, input, task, val, nets, candidates, minutes, epochs,
        seed,
    )  # fmt: skip
    if not settings.data:
        return _fitting(settings, progress)
    assert out is not None, "checked"
    PickFolder.check_out(out)
    packages()  # which the last step needs: before an hour of training
    if "int8" in settings.precisions:
        graph.packages()
    channels, wanted = (3, "auto") if settings.shape is None else (settings.shape[0], size_text(settings.shape[1:]))
    asked: dict[str, Any] = {"data": settings.data, "val": val, "task": settings.task, "input": wanted}
    first = Settings(**asked, in_chans=channels, seed=seed)
    progress.say(f"reading {settings.data}")
    opened_data = task_of(settings.task).open_data(first)
    if not len(opened_data.val):
        raise DataError(f"{settings.data}: no validation images", "some that decide", "give --val")
    settings = replace(settings, fingerprint=opened_data.fingerprint)
    for line in (opened_data.how, *opened_data.notes):
        progress.say(line)
    with PickFolder(out) as folder:
        folder.begin(settings, {**machine.describe_machine(), "seed": seed})
        try:
            return PickSteps(folder, settings, first, opened_data, progress).result()
        except KeyboardInterrupt:
            progress.say("interrupted; the same command goes on where it stands")
            raise


def _fitting(settings: PickSettings, progress: Progress) -> FittingNetworks:
    """The networks as they were published that keep the budget."""
    choices = []
    for name in network_names(settings.nets):
        own = traits(name).input if settings.shape is None else settings.shape
        choices.append(NetworkChoice(name, None, (own[1], own[2]), own[0]))
    times = NetworkTimes(settings.runtime, settings.threads)
    seconds = 60 * settings.minutes
    search = Search(settings.budget, settings.precisions, Builder(), times, progress, len(choices) + 1, seconds)
    search.run(choices)
    if not search.fits:
        raise nothing_fits(settings, search)
    rows = []
    for fit in search.fits:
        known = published_top1(fit.choice.net)
        top1, source = (None, "") if known is None else (known.top1, known.source)
        rows += [
            FittingNetwork(fit.choice.net, name, fit.choice.size, use, fit.params, fit.macs, top1, source)
            for name, use in fit.uses.items()
        ]
    rows.sort(key=lambda one: (one.top1 is None, -(one.top1 or 0.0), one.use.ms))
    front = on_front([(one.use.ms, one.top1) for one in rows])
    networks = tuple(replace(one, front=best) for one, best in zip(rows, front, strict=True))
    return FittingNetworks(
        settings.budget, title_of(settings.runtime), settings.threads, machine.describe_machine(), networks,
        tuple(search.dropped), tuple(times.notes),
    )  # fmt: skip
