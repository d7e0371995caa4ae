"""Pruning beside Torch-Pruning, a narrower network and more training: equal milliseconds, equal minutes, the same loop.

    python benchmarks/prune.py --run runs/flowers --latency 0.5 --minutes 20 --folder pruned --json result.json

--run: a trained run. Sides, all trained with the run as teacher, its settings and --minutes, but where it is said otherwise:

* unpruned: the run itself with the same extra minutes, as a control;
* gossamer: `gossamer prune --latency`;
* gossamer, no teacher: with --no-teacher, so that all of the minutes go into the pruned network;
* gossamer, early: the network trained from the start for a quarter of all the minutes, pruned, and trained for the rest
  without a teacher: the minutes of the run are shared between the two networks;
* torch-pruning magnitude, torch-pruning taylor: its group importances, widths rounded to 8, the least ratio with which the
  network keeps the same milliseconds in the native engine (`pip install torch-pruning`; without it these sides are left out);
* narrower: the widest network of the family that keeps them, trained from the start for the minutes of the run and --minutes,
  without a teacher.

What Torch-Pruning keeps becomes edits as ours, so that one loop trains all sides. Scores are of the best checkpoint on the
run's validation images; milliseconds of the native engine, all sides in turn, one thread. A side that stands in --folder is not
trained again, and a training that was stopped goes on: the same command resumes.
Takes about 6 x --minutes and twice the minutes of the run for each seed, and a few more to choose and measure.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import nn

import gossamer
from gossamer.analysis.cost import cost
from gossamer.data.source import Data
from gossamer.errors import InputError
from gossamer.host.progress import PlainLines, Progress
from gossamer.host.text import format_table
from gossamer.networks.changes import Change, apply_changes, keep_channels
from gossamer.networks.registry import NETWORKS
from gossamer.predictions.head import outputs_of
from gossamer.run import SETTINGS, Run
from gossamer.settings import Settings
from gossamer.shrink.edits import without
from gossamer.shrink.importance import FEW, IMAGES, _batches
from gossamer.shrink.outcome import settings_after
from gossamer.shrink.prune import metrics_of
from gossamer.shrink.times import alternating_ms, compiled
from gossamer.tasks.registry import task_of
from gossamer.training.loop import resume, train
from gossamer.training.network import build_network, changes_of
from gossamer.training.restore import LoadedRun, load_run, same_data

ROUND_TO = 8
HALVINGS = 6  # of the ratio of Torch-Pruning: to 1 / 64
MOST = 0.95  # of the channels
WIDTHS = tuple(part / 100 for part in range(95, 9, -5))  # of the run's width
EARLY = 0.25  # of all minutes, after which the early side is pruned
SIDES = (
    "unpruned", "gossamer", "gossamer, no teacher", "gossamer, early", "torch-pruning magnitude", "torch-pruning taylor", "narrower",
)  # fmt: skip


class Bench:
    """A run, its data, and the milliseconds that every side has to keep."""

    def __init__(self, run: str, latency: float, minutes: float, folder: Path, progress: Progress) -> None:
        self.loaded: LoadedRun = load_run(run)
        self.data: Data = same_data(self.loaded.run)
        self.loaded.task.prepare(self.data)
        self.latency, self.minutes, self.folder, self.progress = latency, minutes, folder, progress
        preprocess = self.loaded.preprocess
        self.shape = (1, preprocess.channels, *preprocess.size)

    def file(self, network: nn.Module) -> bytes:
        """The network for the engine."""
        preprocess = self.loaded.preprocess
        return compiled(network.eval(), preprocess.size, preprocess.channels, outputs_of(self.loaded.task.heads()))

    def keeps(self, network: nn.Module) -> bool:
        """Whether a network is as fast as it has to be, timed in turn with the run's."""
        before, after = alternating_ms([self.file(self.loaded.model), self.file(network)], 1, self.progress, "timing")
        return after <= self.latency * before

    def trained(self, name: str, settings: Settings, changes: Sequence[Change]) -> Run:
        """A training of the side `name`, as far as it has come."""
        out = self.folder / name.replace(" ", "-")
        if (out / SETTINGS).exists():
            return resume(out, progress=self.progress)
        return train(settings.replace(out=str(out)), split_of=self.loaded.run, changes=changes, progress=self.progress)

    def after(self) -> Settings:
        """The settings of a training with the run as teacher."""
        return settings_after(self.loaded.settings, self.loaded.run, "", self.minutes, "best", "narrowed")[0]


def unpruned(bench: Bench) -> Run:
    return bench.trained("unpruned", bench.after(), changes_of(bench.loaded.run))


def ours(bench: Bench) -> Run:
    return pruned(bench, "gossamer", bench.loaded.run, bench.minutes, True)


def untaught(bench: Bench) -> Run:
    return pruned(bench, "gossamer-no-teacher", bench.loaded.run, bench.minutes, False)


def early(bench: Bench) -> Run:
    total = minutes_of(bench.loaded.run) + bench.minutes
    settings = bench.loaded.settings.replace(minutes=EARLY * total, epochs=None, eval_every=None)
    return pruned(bench, "gossamer-early", bench.trained("early parent", settings, ()), (1 - EARLY) * total, False)


def pruned(bench: Bench, name: str, run: Run, minutes: float, teacher: bool) -> Run:
    """What `gossamer prune` makes of a run, as far as it has come."""
    out = bench.folder / name
    if (out / SETTINGS).exists():
        return resume(out, progress=bench.progress)
    return gossamer.prune(
        run.path, out, latency=bench.latency, minutes=minutes, teacher=teacher, progress=bench.progress
    ).run


def minutes_of(run: Run) -> float:
    """How long a run was trained."""
    return float(run.clock().get("seconds") or 0) / 60


def by_torch_pruning(kind: str) -> Callable[[Bench], Run]:
    """kind: magnitude or taylor."""

    def side(bench: Bench) -> Run:
        name = f"torch-pruning {kind}"
        if (bench.folder / name.replace(" ", "-") / SETTINGS).exists():
            return bench.trained(name, bench.after(), ())
        low, high = 0.0, MOST
        best: tuple[Change, ...] | None = None
        for _ in range(HALVINGS):
            ratio = (low + high) / 2
            changes = torch_pruning_changes(bench, kind, ratio)
            if bench.keeps(without(bench.loaded.model, changes)):
                best, high = changes, ratio
            else:
                low = ratio
        if best is None:
            raise InputError(f"{name}: at most {MOST:g} of the channels removed", "the milliseconds kept", "allow more")
        return bench.trained(name, bench.after(), (*changes_of(bench.loaded.run), *best))

    return side


def torch_pruning_changes(bench: Bench, kind: str, ratio: float) -> tuple[Change, ...]:
    """What Torch-Pruning removes at a ratio, as edits; checked against the network that it leaves."""
    import copy

    import torch_pruning

    network = copy.deepcopy(bench.loaded.model).eval()
    for parameter in network.parameters():
        parameter.requires_grad_(True)
    images = torch.zeros(bench.shape)
    last = [one for one in network.modules() if isinstance(one, nn.Linear)][-1:]
    if kind == "taylor":
        gradients(bench, network)
    importances = torch_pruning.importance
    importance = importances.GroupTaylorImportance() if kind == "taylor" else importances.GroupMagnitudeImportance(p=2)
    pruner = torch_pruning.pruner.BasePruner(
        network, images, importance=importance, pruning_ratio=ratio, ignored_layers=last, round_to=ROUND_TO
    )
    names = {id(module): name for name, module in network.named_modules()}
    kept: dict[tuple[str, int], list[int]] = {}
    for group in pruner.step(interactive=True):
        for dependency, indices in group:
            module, into = dependency.target.module, dependency.handler.__name__.endswith("in_channels")
            if not isinstance(module, (nn.Conv2d, nn.Linear, nn.modules.batchnorm._BatchNorm)):
                continue
            axis = (
                1 if into and not isinstance(module, nn.modules.batchnorm._BatchNorm) and not depthwise(module) else 0
            )
            key = (names[id(module)], axis)
            if key not in kept:
                count = module.weight.shape[axis]
                assert isinstance(count, int), "a number of channels"
                kept[key] = list(range(count))
            gone = set(indices)
            kept[key] = [one for place, one in enumerate(kept[key]) if place not in gone]
        group.prune()
    changes = tuple(keep_channels(name, axis, indices) for (name, axis), indices in kept.items())
    same = copy.deepcopy(bench.loaded.model).eval()
    apply_changes(same, changes)
    with torch.no_grad():
        noise = torch.randn(bench.shape, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(same(noise), network.eval()(noise), rtol=1e-3, atol=1e-4)
    return changes


def depthwise(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d) and module.groups == module.in_channels == module.out_channels > 1


def gradients(bench: Bench, network: nn.Module) -> None:
    """The gradients of the loss on as many training images as our importance reads."""
    settings, task = bench.loaded.settings, bench.loaded.task
    steps = max(1, min(IMAGES, len(bench.data.train)) // FEW)
    network.zero_grad()
    batches = _batches(settings, task, bench.data, bench.loaded.preprocess, FEW, steps)
    for images, targets in islice(batches, steps):
        torch.autograd.backward(task.loss(network(images), targets, images).mean() / steps)


def narrower(bench: Bench) -> Run:
    loaded = bench.loaded
    settings = loaded.settings.replace(minutes=minutes_of(loaded.run) + bench.minutes, epochs=None, eval_every=None)
    if (bench.folder / "narrower" / SETTINGS).exists():
        return bench.trained("narrower", settings, ())
    entry = NETWORKS.get(settings.net)
    full = settings.width or (float(entry.arguments.get("width", 1.0)) if entry else 1.0)
    for part in WIDTHS:
        narrow = settings.replace(width=round(full * part, 4))
        network = build_network(task_of(settings.task)(loaded.classes, narrow))
        if bench.keeps(network):
            return bench.trained("narrower", narrow, ())
    raise InputError(
        f"{settings.net}: no width of {WIDTHS[-1]:g} or more of its own", "one that is fast enough", "allow more"
    )


MAKERS: dict[str, Callable[[Bench], Run]] = {
    "unpruned": unpruned,
    "gossamer": ours,
    "gossamer, no teacher": untaught,
    "gossamer, early": early,
    "torch-pruning magnitude": by_torch_pruning("magnitude"),
    "torch-pruning taylor": by_torch_pruning("taylor"),
    "narrower": narrower,
}


def compare(
    run: str, latency: float, minutes: float, folder: Path, sides: Sequence[str], progress: Progress
) -> dict[str, Any]:
    """All sides of a run, trained and measured."""
    bench = Bench(run, latency, minutes, folder, progress)
    runs: dict[str, Run] = {"the run": bench.loaded.run}
    problems = {}
    for name in sides:
        progress.say(f"side: {name}")
        try:
            runs[name] = MAKERS[name](bench)
        except ModuleNotFoundError as error:
            problems[name] = f"{error.name} is not installed"
        except Exception as error:  # a peer may raise anything; ours must not
            if name.startswith("gossamer"):
                raise
            problems[name] = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    loaded = {name: load_run(one.path) for name, one in runs.items()}
    took = alternating_ms([bench.file(one.model) for one in loaded.values()], 1, progress, "timing all sides in turn")
    score = bench.loaded.task.score
    rows = []
    for (name, one), ms in zip(loaded.items(), took, strict=True):
        counted = cost(one.model, bench.shape)
        rows.append(
            {
                "side": name,
                "score": metrics_of(one.run, "best").get(score),
                "ms": ms,
                "macs": counted.macs,
                "parameters": counted.params,
                "minutes": minutes_of(one.run),
                "epochs": len(one.run.metrics()),
            }
        )
    return {
        "run": run, "latency": latency, "minutes": minutes, "metric": score, "seed": bench.loaded.settings.seed,
        "problems": problems, "rows": rows,
    }  # fmt: skip


def text(result: dict[str, Any]) -> str:
    """The table for people."""
    first = result["rows"][0]["ms"]
    rows = [
        (
            row["side"],
            "-" if row["score"] is None else f"{row['score']:.4f}",
            f"{row['ms']:.3f} ({row['ms'] / first:.2f}x)",
            f"{row['macs'] / 1e6:.1f}",
            f"{row['parameters'] / 1e6:.3f}",
            f"{row['minutes']:.1f}",
            str(row["epochs"]),
        )
        for row in result["rows"]
    ]
    header = ("side", result["metric"], "ms", "M MACs", "M parameters", "minutes", "epochs")
    problems = [f"{name}: {reason}" for name, reason in result["problems"].items()]
    lead = f"{result['run']}: {result['latency']:g}x the milliseconds, {result['minutes']:g} minutes"
    return "\n".join([lead, *format_table(header, rows), *problems])


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--run", required=True, help="a trained run")
    parser.add_argument("--latency", type=float, default=0.5, help="fraction of its milliseconds (default 0.5)")
    parser.add_argument("--minutes", type=float, default=20.0, help="of each training (default 20)")
    parser.add_argument("--folder", required=True, help="where the trainings lie; one that was begun goes on")
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=SIDES, help="default all")
    parser.add_argument("--json", metavar="FILE", help="write the result there")
    options = parser.parse_args(arguments)
    folder = Path(options.folder)
    folder.mkdir(parents=True, exist_ok=True)
    result = compare(options.run, options.latency, options.minutes, folder, options.sides, PlainLines(sys.stderr))
    print(text(result))
    if options.json:
        Path(options.json).write_text(json.dumps(result, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
