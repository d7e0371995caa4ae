"""Kernels of 5x5 and 7x7 as stacks of 3x3: a kernel of 3 + step * (k - 1) is a 3x3 one and a k x k one whose places are
`step` apart.

They are fitted by alternating least squares on the kernel; with enough channels between them (`full_two`) they are exact.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product

import torch
from torch import Tensor
from torch.nn import functional

from gossamer.networks.lowrank import SETTLED, Factors, halves, solved_system

ROUNDS = 12

Pair = tuple[int, int]
Ranks = tuple[int, ...]


def stack(weight: Tensor, ranks: Ranks, step: int, ring: int) -> Factors:
    side = 3 if len(ranks) == 1 else 5
    first, second = _two(weight, ranks[0], step, side)
    if len(ranks) == 1:
        kernel = _together(first, second, step)
        inner = slice(ring, kernel.shape[2] - ring)
        return [first, second], kernel[:, :, inner, inner]
    (second, third), kernel = stack(second, ranks[1:], 1, 0)
    return [first, second, third], _together(first, kernel, step)


def _shifts(step: int) -> tuple[int, ...]:
    """The places in a row of three that reach, with all those of a second row at steps, every place of both."""
    return (0, 2) if step == 1 else (0, 1, 2)


def _sums(step: int, side: int) -> tuple[int, ...]:
    """The places in a row of `side` at steps that reach, with all three of a first row, every place of both."""
    return (0, 3, 4) if side == 5 else (0, 2) if step == 1 else (0, 1, 2)


def full_two(out: int, into: int, step: int, side: int) -> int:
    """The channels between two layers that have every kernel: a shifted copy of each input, or a shifted sum for each output."""
    return min(into * len(_shifts(step)) ** 2, out * len(_sums(step, side)) ** 2)


def _owners(firsts: Sequence[Pair], seconds: Sequence[Pair], step: int) -> list[tuple[Pair, Pair]]:
    """Each place of the kernel of both layers once, as a place in the first and one in the second."""
    owners: dict[Pair, tuple[Pair, Pair]] = {}
    for a, b in product(firsts, seconds):
        owners.setdefault((a[0] + step * b[0], a[1] + step * b[1]), (a, b))
    return list(owners.values())


def _square(places: Sequence[int]) -> list[Pair]:
    return [(row, column) for row in places for column in places]


def _together(first: Tensor, second: Tensor, step: int) -> Tensor:
    """The kernel of two layers, (out, in, size, size)."""
    return functional.conv_transpose2d(second, first, stride=step)


def _two(weight: Tensor, rank: int, step: int, side: int) -> tuple[Tensor, Tensor]:
    """(rank, in, 3, 3) and (out, rank, side, side) whose kernel together is near `weight`."""
    out, into = weight.shape[:2]
    full = full_two(out, into, step, side)
    if rank >= full and full == out * len(_sums(step, side)) ** 2:
        return _shifted_sums(weight, rank, step, side)
    shifts = _square(_shifts(step))
    spread = weight.new_zeros(into, len(shifts), out, side, side)  # each place of the kernel in the row of one shift
    for a, b in _owners(shifts, _square(range(side)), step):
        spread[:, shifts.index(a), :, b[0], b[1]] = weight[:, :, a[0] + step * b[0], a[1] + step * b[1]].T
    rows = spread.reshape(into * len(shifts), -1)
    exact = rank >= full
    left, right = (torch.eye(len(rows), dtype=rows.dtype, device=rows.device), rows) if exact else halves(rows, rank)
    count = left.shape[1]
    first, second = weight.new_zeros(rank, into, 3, 3), weight.new_zeros(out, rank, side, side)
    for number, (y, x) in enumerate(shifts):
        first[:count, :, y, x] = left.reshape(into, len(shifts), count)[:, number].T
    second[:, :count] = right.reshape(count, out, side, side).transpose(0, 1)
    return (first, second) if exact else _fitted(weight, first, second, step)


def _shifted_sums(weight: Tensor, rank: int, step: int, side: int) -> tuple[Tensor, Tensor]:
    """The first layer sums for each output and each place of the second, which only shifts: every kernel, exactly."""
    out, into = weight.shape[:2]
    first, second = weight.new_zeros(rank, into, 3, 3), weight.new_zeros(out, rank, side, side)
    places = _square(_sums(step, side))
    for a, b in _owners(_square(range(3)), places, step):
        part = slice(places.index(b) * out, (places.index(b) + 1) * out)
        first[part, :, a[0], a[1]] = weight[:, :, a[0] + step * b[0], a[1] + step * b[1]]
    for number, (y, x) in enumerate(places):
        second[range(out), range(number * out, (number + 1) * out), y, x] = 1
    return first, second


def _fitted(weight: Tensor, first: Tensor, second: Tensor, step: int) -> tuple[Tensor, Tensor]:
    """The two layers after rounds of least squares, each in turn with the other held."""
    out, into, size, _ = weight.shape
    rank, side = first.shape[0], second.shape[2]
    total, before = float(weight.square().sum()), math.inf
    for _ in range(ROUNDS):
        design = _unfolded(second, step, size, 3)  # (out, rank * 9, places)
        matrix = design.permute(0, 2, 1).reshape(out * size * size, -1)
        right = weight.permute(0, 2, 3, 1).reshape(out * size * size, into)
        solved = solved_system(matrix.T @ matrix, matrix.T @ right)
        first = solved.reshape(rank, 3, 3, into).permute(0, 3, 1, 2).contiguous()
        turned = _strided(first, step, size, side)  # (in, rank * side * side, places)
        matrix = turned.permute(0, 2, 1).reshape(into * size * size, -1)
        right = weight.permute(1, 2, 3, 0).reshape(into * size * size, out)
        solved = solved_system(matrix.T @ matrix, matrix.T @ right)
        second = solved.reshape(rank, side, side, out).permute(3, 0, 1, 2).contiguous()
        lost = float((weight - _together(first, second, step)).square().sum())
        if before - lost < SETTLED * total:
            break
        before = lost
    return first, second


def _unfolded(second: Tensor, step: int, size: int, side: int) -> Tensor:
    """What each number of the first layer (rank, 3, 3) adds to the kernel: (out, rank * 9, size * size)."""
    out, rank, k, _ = second.shape
    result = second.new_zeros(out, rank, side, side, size, size)
    for y, x in product(range(side), repeat=2):
        result[:, :, y, x, y : y + step * (k - 1) + 1 : step, x : x + step * (k - 1) + 1 : step] = second
    return result.reshape(out, rank * side * side, size * size)


def _strided(first: Tensor, step: int, size: int, side: int) -> Tensor:
    """What each number of the second layer (rank, side, side) adds to the kernel: (in, rank * side * side, size * size)."""
    rank, into = first.shape[:2]
    result = first.new_zeros(into, rank, side, side, size, size)
    for y, x in product(range(side), repeat=2):
        result[:, :, y, x, step * y : step * y + 3, step * x : step * x + 3] = first.transpose(0, 1)
    return result.reshape(into, rank * side * side, size * size)
