"""Which channels of a network go: importance against what widths cost, and the result measured as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from gossamer.analysis.channels import ChannelGroup, channel_groups
from gossamer.analysis.cost import cost
from gossamer.analysis.graph import Graph, trace
from gossamer.data.source import Data
from gossamer.errors import InputError, SettingsError, VerificationError
from gossamer.host.progress import Progress
from gossamer.host.text import counted
from gossamer.networks.changes import Change
from gossamer.predictions.head import outputs_of
from gossamer.shrink.blocks import WHOLE, Block, add_blocks, droppable, drops
from gossamer.shrink.edits import check_removal, removable, removal, without
from gossamer.shrink.importance import channel_importance
from gossamer.shrink.limits import WHAT, Limit, shown
from gossamer.shrink.solve import choose_widths, narrowest
from gossamer.shrink.times import alternating_ms, compiled, time_model
from gossamer.shrink.widths import CostModel, Layer, Numbers, fitting, layers_of, mac_model, size_model
from gossamer.training.restore import LoadedRun

ATTEMPTS = 5  # at a measured limit: solve, measure the whole, correct, solve again
CLOSE = 0.93  # of a limit in milliseconds: nearer is not sought
MARGIN = 0.985  # below a limit that a measurement was above
FLOOR = 1e-4  # of a group's mean importance, added to each channel: of channels that do nothing, more is not worse


@dataclass(frozen=True)
class Staircase:
    """The milliseconds of the network by the channels that one layer keeps, all others at full width, as the table has it.

    chosen: how many it keeps.
    """

    layer: str
    channels: tuple[int, ...]
    ms: tuple[float, ...]
    chosen: int


@dataclass(frozen=True)
class NarrowNetwork:
    """The edits that make a network keep its limits, and what it takes before and after them; see `prune.Pruned`.

    staircase: a table a group of channels, where a limit is of milliseconds.
    """

    changes: tuple[Change, ...]
    ms: tuple[float, float] | None
    macs: tuple[int, int]
    bytes: tuple[int, int]
    widths: tuple[tuple[str, int, int], ...]
    steps: tuple[str, ...]
    dropped: tuple[str, ...] = ()
    staircase: tuple[Staircase, ...] = ()


@dataclass
class _Problem:
    """A network, its channel groups with the importance of their channels, and what it costs at their widths."""

    loaded: LoadedRun
    groups: tuple[ChannelGroup, ...]
    options: list[tuple[int, ...]]
    layers: tuple[Layer, ...]
    importance: list[Numbers]  # of the channels of each group, then of each block
    costs: dict[str, CostModel]
    blocks: tuple[Block, ...] = ()

    @property
    def shape(self) -> tuple[int, int, int, int]:
        preprocess = self.loaded.preprocess
        return (1, preprocess.channels, *preprocess.size)

    def compiled(self, network: nn.Module) -> bytes:
        preprocess = self.loaded.preprocess
        return compiled(network, preprocess.size, preprocess.channels, outputs_of(self.loaded.task.heads()))

    def worth(self) -> list[Numbers]:
        """Of each candidate of each group, and of each block, the importance that it keeps."""
        result = []
        options = [*self.options, *([WHOLE] * len(self.blocks))]
        for values, kept in zip(self.importance, options, strict=True):
            ordered = np.sort(values + FLOOR * values.mean() + 1e-30)[::-1]
            result.append(np.concatenate([[0.0], np.cumsum(ordered)])[list(kept)])
        return result

    def removed(self, choice: Sequence[int]) -> list[list[int]]:
        """The numbers of the channels of each group that go, the least important ones."""
        count = len(self.groups)
        return [
            sorted(np.argsort(values, kind="stable")[: kept[0] - kept[k]].tolist())
            for values, kept, k in zip(self.importance[:count], self.options, choice[:count], strict=True)
        ]

    def dropped(self, choice: Sequence[int]) -> tuple[str, ...]:
        """The blocks that go as a whole."""
        return tuple(change.layer for change in drops(self.blocks, choice[len(self.groups) :]))

    def changes(self, choice: Sequence[int]) -> tuple[Change, ...]:
        """The edits: the blocks first, then the channels of what is left."""
        gone = self.dropped(choice)
        channels = removal(self.loaded.model, self.groups, self.removed(choice), gone)
        return (*drops(self.blocks, choice[len(self.groups) :]), *channels)

    def narrowest(self) -> list[int]:
        """The least of everything. The tables have the channels of a block that goes at full width."""
        inner = {number for block in self.blocks for number in block.inner}
        least = narrowest(self.options)
        return [*(0 if number in inner else k for number, k in enumerate(least)), *([1] * len(self.blocks))]


def narrow_network(
    loaded: LoadedRun,
    data: Data,
    limits: Sequence[Limit],
    importance: str,
    threads: int,
    progress: Progress,
    drop_blocks: bool = True,
) -> NarrowNetwork:
    """The edits with which the network of a run keeps `limits`, at the least loss of importance.

    drop_blocks: whether residual blocks with an identity shortcut may go as a whole.

    Raises InputError for a network without removable channels or a limit that is met already, VerificationError where the
    limits cannot be reached, and what tracing, exporting and measuring raise.
    """
    model, preprocess = loaded.model, loaded.preprocess
    graph = trace(model, (1, preprocess.channels, *preprocess.size))
    groups = removable(model, channel_groups(graph, strict=False))
    layers = layers_of(graph, groups)
    sizes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    options = fitting(groups, sizes, layers)
    blocks = droppable(model, (1, preprocess.channels, *preprocess.size), groups) if drop_blocks else ()
    if not blocks and not any(len(one) > 1 for one in options):
        raise InputError(
            f"{loaded.run.path}: no channels that can be removed", "a network with wider layers", "prune another run"
        )
    macs = cost(graph).macs
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    costs = {"macs": mac_model(layers, options, macs), "size": size_model(layers, groups, options, shapes)}
    add_blocks(costs, layers, groups, options, blocks, shapes)
    for limit in limits:
        if limit.kind in costs:
            _check_unmet(limit, costs[limit.kind].base)
    steps = [
        f"{counted(sum(group.size for group in groups), 'removable channel')} in {counted(len(groups), 'group')}, "
        f"{sum(len(one) for one in options)} widths to choose from"
        + (f"; {len(blocks)} residual blocks that may go as a whole" if blocks else "")
    ]
    progress.say(steps[0])
    values = channel_importance(importance, model, groups, loaded.task, data, preprocess, progress, blocks)
    problem = _Problem(loaded, groups, options, layers, values, costs, blocks)
    choice, ms, times = _reached(problem, graph, limits, threads, steps, progress)
    changes, dropped = problem.changes(choice), problem.dropped(choice)
    narrow = without(model, changes)
    check_removal(model, narrow, groups, problem.removed(choice), _noise(problem), dropped)
    if dropped:
        steps.append(f"blocks that go as a whole: {', '.join(dropped)}")
    after = cost(narrow, problem.shape)
    return NarrowNetwork(
        changes=changes,
        ms=ms,
        macs=(macs, after.macs),
        bytes=(round(costs["size"].base), 4 * after.params),
        widths=_widths(model, narrow, layers),
        dropped=dropped,
        steps=tuple(steps),
        staircase=() if times is None else _staircases(groups, options, choice, times),
    )


def _staircases(
    groups: Sequence[ChannelGroup], options: Sequence[Sequence[int]], choice: Sequence[int], times: CostModel
) -> tuple[Staircase, ...]:
    """The measured table of each group with a choice."""
    result = []
    for number, (group, kept) in enumerate(zip(groups, options, strict=True)):
        if len(kept) < 2:
            continue
        layer = next((name for name, axis in group.axes if axis == 0), group.axes[0][0])
        ms = tuple(float(times.base + change) for change in times.unary[number])
        result.append(Staircase(layer.removesuffix(".weight"), tuple(kept), ms, kept[choice[number]]))
    return tuple(result)


def _check_unmet(limit: Limit, now: float) -> None:
    """Raises SettingsError where the network keeps the limit as it is."""
    if now <= limit.of(now):
        raise SettingsError(
            f"a {WHAT[limit.kind]} limit of {shown(limit.kind, limit.of(now))}, which the run keeps as it is "
            f"({shown(limit.kind, now)})",
            f"less than {shown(limit.kind, now)}",
            "give a lower limit",
        )


def _reached(
    problem: _Problem, graph: Graph, limits: Sequence[Limit], threads: int, steps: list[str], progress: Progress
) -> tuple[list[int], tuple[float, float] | None, CostModel | None]:
    """The candidates that keep the limits; where one of them is of time, the milliseconds before and after, and their table."""
    exact = [(problem.costs[one.kind], one.of(problem.costs[one.kind].base)) for one in limits if one.kind != "latency"]
    names = [one.kind for one in limits if one.kind != "latency"]
    for kind, (model, most) in zip(names, exact, strict=True):
        least = model.of(problem.narrowest())
        if least > most:
            raise _unreachable(kind, most, least)
    timed = next((one for one in limits if one.kind == "latency"), None)
    if timed is None:
        progress.say("choosing widths")
        choice = choose_widths(problem.worth(), exact)
        if choice is None:
            kind, (model, most) = names[0], exact[0]
            raise _unreachable(kind, most, model.of(problem.narrowest()))
        steps.extend(
            f"{WHAT[kind]}: {shown(kind, model.of(choice))}, at most {shown(kind, most)}"
            for kind, (model, most) in zip(names, exact, strict=True)
        )
        return choice, None, None
    return _measured(problem, timed, exact, threads, steps, progress)


def _measured(
    problem: _Problem,
    limit: Limit,
    exact: Sequence[tuple[CostModel, float]],
    threads: int,
    steps: list[str],
    progress: Progress,
) -> tuple[list[int], tuple[float, float], CostModel]:
    """Choose widths by the table of times, measure the whole network beside the original, correct the limit, and again."""
    model = problem.loaded.model
    preprocess = problem.loaded.preprocess
    progress.say("compiling the network for the native engine")
    original = problem.compiled(model)
    (now,) = alternating_ms([original], threads, progress, "timing the network")
    _check_unmet(limit, now)
    table, notes = time_model(
        model,
        preprocess.size,
        preprocess.channels,
        outputs_of(problem.loaded.task.heads()),
        problem.layers,
        problem.options,
        threads,
        progress,
        problem.blocks,
    )
    steps.extend(notes)
    target = limit.of(now) / now * table.base  # on the scale of the table
    worth = problem.worth()
    best: tuple[float, list[int], tuple[float, float]] | None = None
    nearest: tuple[float, float] | None = None  # (ms, limit) of the nearest that was measured
    tried: set[tuple[int, ...]] = set()
    for attempt in range(1, ATTEMPTS + 1):
        choice = choose_widths(worth, [(table, target), *exact])
        if choice is None:
            choice = problem.narrowest()
        if tuple(choice) in tried:
            break
        tried.add(tuple(choice))
        narrow = without(model, problem.changes(choice))
        before, after = alternating_ms(
            [original, problem.compiled(narrow)], threads, progress, "timing the narrower network"
        )
        most = limit.of(before)
        line = f"attempt {attempt}: {after:.3f} ms in turn with {before:.3f} ms of the original, at most {most:.3f} ms"
        steps.append(line)
        progress.say(line)
        if nearest is None or after / most < nearest[0] / nearest[1]:
            nearest = (after, most)
        kept = sum(float(one[k]) for one, k in zip(worth, choice, strict=True))
        if after <= most and (best is None or kept > best[0]):
            best = (kept, choice, (before, after))
        if CLOSE * most <= after <= most or choice == problem.narrowest():
            break
        predicted = table.of(choice)
        target = predicted * most / after * (MARGIN if after > most else 1.0)
    if best is None:
        assert nearest is not None, "one attempt is made"
        raise _unreachable("latency", nearest[1], nearest[0])
    return best[1], best[2], table


def _unreachable(kind: str, most: float, nearest: float) -> VerificationError:
    return VerificationError(
        f"a {WHAT[kind]} limit of {shown(kind, most)} cannot be reached by narrower layers: the nearest is "
        f"{shown(kind, nearest)}, {_above(nearest, most)}; nothing was written; give a higher limit"
    )


def _above(nearest: float, most: float) -> str:
    """How far the nearest is above a limit."""
    ratio = nearest / most
    return f"{100 * (ratio - 1):.0f}% above" if ratio < 10 else f"{ratio:.3g} times it"


def _noise(problem: _Problem) -> torch.Tensor:
    return torch.randn(2, *problem.shape[1:], generator=torch.Generator().manual_seed(0))


def _widths(model: nn.Module, narrow: nn.Module, layers: Sequence[Layer]) -> tuple[tuple[str, int, int], ...]:
    """Of each layer with fewer output channels its name and how many it has before and after."""
    before, after = dict(model.named_parameters()), dict(narrow.named_parameters())
    pairs = (
        (layer.weight, before[layer.weight].shape[0], after[layer.weight].shape[0])
        for layer in layers
        if layer.weight in after  # else its block is gone
    )
    return tuple((name.removesuffix(".weight"), wide, left) for name, wide, left in pairs if left < wide)
