"""Inception v3 (1512.00567), section 3: large kernels, and what computes the same window with less."""

from __future__ import annotations

from collections.abc import Iterator

from gossamer.adviser.rule import Candidate, Change, one
from gossamer.adviser.subject import LayerFacts, Subject

MEDIUM = (12, 20)  # rows of the maps on which section 3.2 found n x 1 to work well
SUCCESSORS = {"googlenet_paper": "googlenet", "squeezenet1_0": "squeezenet1_1"}  # the same with smaller kernels


def _large(subject: Subject) -> Iterator[LayerFacts]:
    """Dense square kernels of 5x5 and larger that move over their map, but the first layer's."""
    for each in subject.layers:
        square = len(each.kernel) == 2 and each.kernel[0] == each.kernel[1] >= 5
        if each.dense_kernel and square and -1 not in each.layer.inputs and each.grid_out not in ((), (1, 1)):
            yield each


def stacked_cost(c_in: int, c_out: int, kernel: int) -> int:
    """Multiply-adds a position of (kernel - 1) / 2 convolutions of 3x3; between them as many channels as the narrower end."""
    middle, count = min(c_in, c_out), (kernel - 1) // 2
    return 9 * (c_in * middle + (count - 2) * middle * middle + middle * c_out)


def stackable(subject: Subject) -> Iterator[Candidate]:
    """Large kernels off the medium maps: the fraction of their multiply-adds that stacked 3x3 save."""
    for each in _large(subject):
        if not MEDIUM[0] <= each.grid_out[0] <= MEDIUM[1] and each.kernel[0] % 2:
            direct = each.kernel[0] ** 2 * each.c_in * each.c_out
            saved = 1 - stacked_cost(each.c_in, each.c_out, each.kernel[0]) / direct
            yield one(each, saved, each.macs / subject.macs, _saving(each, saved))


def splittable(subject: Subject) -> Iterator[Candidate]:
    """Large kernels on medium maps: the fraction of their multiply-adds that 1 x n and n x 1 save."""
    for each in _large(subject):
        if MEDIUM[0] <= each.grid_out[0] <= MEDIUM[1]:
            n, middle = each.kernel[0], min(each.c_in, each.c_out)
            saved = 1 - n * middle * (each.c_in + each.c_out) / (n * n * each.c_in * each.c_out)
            yield one(each, saved, each.macs / subject.macs, _saving(each, saved))


def split_early(subject: Subject) -> Iterator[Candidate]:
    """1 x n and n x 1: the rows of their maps."""
    for each in subject.layers:
        if each.dense_kernel and len(each.kernel) == 2 and min(each.kernel) == 1 and each.grid_out:
            yield one(
                each,
                min(each.grid_out),
                each.macs / subject.macs,
                f"{each.kernel[0]}x{each.kernel[1]} at {each.grid_out[0]}x{each.grid_out[1]}",
            )


def first_kernel(subject: Subject) -> Iterator[Candidate]:
    """The convolution that reads the image: the longer side of its kernel."""
    for each in subject.layers:
        if each.dense_kernel and each.layer.inputs == (-1,) and each.grid_out not in ((), (1, 1)):
            k = each.kernel
            yield one(each, max(k), each.macs / subject.macs, f"{k[0]}x{k[1]} /{each.stride} to {each.c_out} channels")


def _saving(each: LayerFacts, saved: float) -> str:
    return (
        f"{each.kernel[0]}x{each.kernel[1]} of {each.c_in} to {each.c_out} channels; it would save {100 * saved:.0f} %"
    )


def stack(subject: Subject) -> Change:
    if subject.network == "googlenet_paper":
        return Change("3x3 in the place of 5x5: the network googlenet", "googlenet", dict(subject.arguments))
    return Change("3x3 convolutions in a row, two for 5x5 and three for 7x7: blocks.factorised.StackedConv")


def split(subject: Subject) -> Change:
    return Change("1 x n and n x 1 in a row: blocks.factorised.AsymmetricPair")


def square(subject: Subject) -> Change:
    return Change("3x3 on this map, and 1 x n with n x 1 only on maps of 12 to 20 rows")


def smaller_first(subject: Subject) -> Change:
    if subject.network == "squeezenet1_0":
        return Change(
            "3x3 and pools further in front: the network squeezenet1_1", "squeezenet1_1", dict(subject.arguments)
        )
    return Change("a 3x3 of the same stride, or three 3x3 as in the stem of Inception v3")
