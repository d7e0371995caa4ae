"""Inception v3 (1512.00567), section 2 and 5: where the representation is squeezed, and how width and depth are shared out."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator

from gossamer.adviser.rule import Candidate, Change, by_cost, one
from gossamer.adviser.subject import Subject
from gossamer.host.text import counted

STEM = 8  # times smaller than the input: finer maps belong to the stem, which every network of the paper's pools


def squeezed(subject: Subject) -> Iterator[Candidate]:
    """Maps through which all passes: how many times smaller each is than the map before and than one of the two behind.

    Or, without widening again, than the map before alone, halved: a strided layer makes a quarter. The image counts as
    the map before the first layer.
    """
    cuts = subject.cuts
    channels, grid = subject.cost.input_shape[1], subject.input_grid
    before = channels * grid[0] * grid[1] if len(grid) == 2 else 0
    for place, each in enumerate(cuts):
        behind = max((later.size for later in cuts[place + 1 : place + 3]), default=0)
        once = before / 2 if place < len(cuts) - 1 else 0  # the last map is as small as the classifier wants it
        ratio = max(min(before, behind), once) / max(1, each.size)
        yield one(each, ratio, each.macs / subject.macs, f"{each.size:,} values remain of {before:,}")
        before = each.size


def pooled_first(subject: Subject) -> Iterator[Candidate]:
    """Strided pools behind the stem: how many times the map behind the next layer is wider than the pooled map."""
    positions = subject.input_grid[0] * subject.input_grid[1] if len(subject.input_grid) == 2 else 0
    for pool, wider in itertools.pairwise(subject.cuts):
        coarse = pool.grid_out[0] * pool.grid_out[1] * STEM * STEM <= positions * 1.2  # 28 of 224, 35 of 299
        if pool.kind == "pool" and pool.stride > 1 and coarse and wider.grid_out == pool.grid_out:
            yield one(
                wider,
                wider.c_out / max(1, pool.c_out),
                wider.macs / subject.macs,
                f"{pool.c_out} channels are pooled to {pool.grid_out[0]}x{pool.grid_out[1]}, then widened to {wider.c_out}",
            )


def narrowing(subject: Subject) -> Iterator[Candidate]:
    """For each halving of the grid how many times wider the widest map gets, until the coarsest grid."""
    widest: dict[tuple[int, ...], int] = {}
    members = defaultdict(list)
    for each in subject.cuts:
        if each.kind in ("conv", "add", "concat"):
            widest[each.grid_out] = max(widest.get(each.grid_out, 0), each.c_out)
            members[each.grid_out].append(each)
    grids = list(widest)
    coarsest = min(range(len(grids)), key=lambda place: (grids[place][0], place), default=0)
    for fine, coarse in itertools.pairwise(grids[: coarsest + 1]):
        layers = members[coarse]
        yield Candidate(
            by_cost(layers),
            widest[coarse] / widest[fine],
            sum(each.macs for each in layers) / subject.macs,
            f"{widest[coarse]} channels at {coarse[0]}x{coarse[1]}, {widest[fine]} at {fine[0]}x{fine[1]}",
        )


def unreduced(subject: Subject) -> Iterator[Candidate]:
    """Dense convolutions of 3x3 and larger, but the first: the channels that each gathers, times its window over 3x3."""
    for each in subject.layers:
        source = subject.source(each)
        if not each.dense_kernel or -1 in each.layer.inputs or min(each.kernel) == 1:
            continue
        if source is not None and source.pointwise and source.c_in > source.c_out:
            continue  # reduced by a 1x1 before it
        figure = each.c_in * each.kernel[0] * each.kernel[1] / 9
        yield one(
            each,
            figure,
            each.macs / subject.macs,
            f"{each.kernel[0]}x{each.kernel[1]} over {counted(each.c_in, 'channel')}",
        )


def unbalanced(subject: Subject) -> Iterator[Candidate]:
    """For each grid its fraction of the multiply-adds, in networks of three grids and more."""
    grids = defaultdict(list)
    for each in subject.layers:
        if each.macs and each.grid_out not in ((), (1, 1)):
            grids[each.grid_out].append(each)
    if len(grids) < 3:
        return
    for grid, layers in grids.items():
        part = sum(each.macs for each in layers) / subject.macs
        yield Candidate(by_cost(layers), part, part, f"{100 * part:.0f} % of the multiply-adds at {grid[0]}x{grid[1]}")


def padding_only(subject: Subject) -> Iterator[Candidate]:
    """Convolutions larger than 1x1: the map's shorter side over the kernel's longer one."""
    for each in subject.layers:
        if each.kind == "conv" and max(each.kernel) > 1 and len(each.grid_in) == 2 and each.grid_out != ():
            covers = each.grid_out == (1, 1) and all(side == k for side, k in zip(each.grid_in, each.kernel))
            if not covers:  # a kernel of the map's own size without padding is a fully connected layer
                side = min(each.grid_in)
                yield one(
                    each,
                    side / max(each.kernel),
                    each.macs / subject.macs,
                    f"{each.kernel[0]}x{each.kernel[1]} on a map of {each.grid_in[0]}x{each.grid_in[1]}",
                )


def wider(subject: Subject) -> Change:
    return Change(
        "reduce the grid in two branches side by side (blocks.inception.GridReduction), and keep more channels there"
    )


def parallel_reduction(subject: Subject) -> Change:
    return Change("convolve with stride 2 beside the pool and concatenate: blocks.inception.GridReduction")


def wider_late(subject: Subject) -> Change:
    return Change("give the coarser grid at least as many channels as the finer one")


def reduce_first(subject: Subject) -> Change:
    return Change("reduce the channels with a 1x1 before it, to a quarter as in blocks.residual.Bottleneck")


def balance(subject: Subject) -> Change:
    return Change(
        "move blocks to the other grids (repeats, where the network has that argument), or reduce the grid earlier"
    )


def keep_grid(subject: Subject) -> Change:
    from gossamer.networks.registry import traits

    if subject.network and traits(subject.network).takes_small_input and not subject.arguments.get("small_input"):
        return Change(
            "small_input=True keeps the first two strides at 1, or a larger input",
            subject.network,
            {**subject.arguments, "small_input": True},
        )
    return Change("a larger input, or stride 1 in the first layers")
