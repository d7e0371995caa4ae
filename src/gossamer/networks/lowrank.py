"""Kernels (out, in, rows, columns) as products of smaller ones: SVD, Tucker-2, CP and the spatial one.

`networks.factors` has their sources and the layers that they become. Everything is in float64.
"""

from __future__ import annotations

import math
from itertools import product

import torch
from torch import Tensor

HOOI_ROUNDS = 25
CP_ROUNDS = 50
SETTLED = 1e-4  # of the energy: rounds end where they gain less
RIDGE = 1e-7  # of the mean of a system's diagonal, so that it can be solved
TINY = 1e-20

Factors = tuple[list[Tensor], Tensor]  # the weights of each layer, and the kernel that they have together


def leading(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The `rank` leading left singular vectors of a matrix as columns, and all squared singular values, descending.

    By the eigenvalues of its product with itself in float64: the smaller side alone counts, and columns are orthonormal.
    """
    values, vectors = torch.linalg.eigh(matrix @ matrix.T)
    return vectors.flip(1)[:, :rank], values.flip(0).clamp_min(0)


def spectrum(matrix: Tensor) -> Tensor:
    smaller = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    values: Tensor = torch.linalg.eigvalsh(smaller @ smaller.T)
    return values.flip(0).clamp_min(0)


def halves(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """(m, rank) and (rank, n) whose product is the nearest of that rank, with the scale in equal parts."""
    if matrix.shape[0] <= matrix.shape[1]:
        basis, values = leading(matrix, rank)
        left, right = basis, basis.T @ matrix
    else:
        basis, values = leading(matrix.T, rank)
        left, right = matrix @ basis, basis.T
    root = values[:rank].sqrt().sqrt()
    root = torch.where(root > 1e-6 * root.max().clamp_min(TINY), root, torch.ones_like(root))
    return (
        (left * root, right / root[:, None])
        if matrix.shape[0] <= matrix.shape[1]
        else (left / root, right * root[:, None])
    )


def solved_system(system: Tensor, right: Tensor) -> Tensor:
    """x of system @ x = right, of a symmetric system that may be singular."""
    ridge = RIDGE * system.diagonal().mean().clamp_min(TINY)
    solution: Tensor = torch.linalg.solve(
        system + ridge * torch.eye(len(system), dtype=system.dtype, device=system.device), right
    )
    return solution


def svd(weight: Tensor, rank: int) -> Factors:
    left, right = halves(weight.reshape(weight.shape[0], -1), rank)
    return [right, left], (left @ right).reshape(weight.shape)


def tucker(weight: Tensor, into_rank: int, out_rank: int) -> Factors:
    out, into = weight.shape[:2]
    left, _ = leading(weight.reshape(out, -1), out_rank)
    right, _ = leading(weight.transpose(0, 1).reshape(into, -1), into_rank)
    total, before = float(weight.square().sum()), 0.0
    for _ in range(HOOI_ROUNDS if (into_rank, out_rank) != (into, out) else 0):
        part = torch.einsum("oiyx,ir->oryx", weight, right).reshape(out, -1)
        left, _ = leading(part, out_rank)
        part = torch.einsum("oiyx,or->iryx", weight, left).reshape(into, -1)
        right, energies = leading(part, into_rank)
        kept = float(energies[:into_rank].sum())
        if kept - before < SETTLED * total:
            break
        before = kept
    core = torch.einsum("oiyx,or,is->rsyx", weight, left, right)
    kernel = torch.einsum("rsyx,or,is->oiyx", core, left, right)
    # orthonormal sides and a core that has all the scale would learn at unequal rates
    scale = max(float(core.square().mean().sqrt()) * math.sqrt(core[0].numel()), TINY) ** (1 / 3)
    return [right.T * scale, core / scale**2, left * scale], kernel


def cp(weight: Tensor, rank: int) -> Factors:
    out, into, rows, columns = weight.shape
    places = rows * columns
    cube = weight.reshape(out, into, places)
    if rank >= min(places * min(out, into), out * into):
        a, b, c = _exact_terms(cube, rank)
    else:
        a, b, c = _terms(cube, rank)
    norms = [part.norm(dim=0).clamp_min(TINY) for part in (a, b, c)]
    scale = (norms[0] * norms[1] * norms[2]) ** (1 / 3)
    a, b, c = (part / norm * scale for part, norm in zip((a, b, c), norms, strict=True))
    kernel = (c @ torch.einsum("ir,pr->rip", a, b).reshape(rank, -1)).reshape(weight.shape)
    return [a.T, b.T.reshape(rank, 1, rows, columns), c], kernel


def _exact_terms(cube: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """Terms (in, rank), (places, rank), (out, rank) whose sum is the cube: of each place a matrix, or of each pair of
    channels a term."""
    out, into, places = cube.shape
    a, b, c = cube.new_zeros(into, rank), cube.new_zeros(places, rank), cube.new_zeros(out, rank)
    if out * into <= places * min(out, into):
        for number, (o, i) in enumerate(product(range(out), range(into))):
            a[i, number], c[o, number], b[:, number] = 1, 1, cube[o, i]
        return a, b, c
    size = min(out, into)
    for place in range(places):
        left, right = halves(cube[:, :, place], size)
        part = slice(place * size, (place + 1) * size)
        a[:, part], b[place, part], c[:, part] = right.T, 1, left
    return a, b, c


def _terms(cube: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """Terms by alternating least squares, from the leading vectors of each axis and random ones of a fixed seed."""
    out, into, places = cube.shape
    draw = torch.Generator().manual_seed(0)

    def first(matrix: Tensor) -> Tensor:
        basis, _ = leading(matrix, min(rank, matrix.shape[0]))
        more = torch.randn(matrix.shape[0], rank - basis.shape[1], generator=draw, dtype=torch.float64)
        return torch.cat([basis, more.to(matrix.device) / math.sqrt(matrix.shape[0])], 1)

    b = first(cube.permute(2, 0, 1).reshape(places, -1))
    c = first(cube.reshape(out, -1))
    total, before = float(cube.square().sum()), math.inf
    a = cube.new_zeros(into, rank)
    for _ in range(CP_ROUNDS):
        through = torch.einsum("oip,or->ipr", cube, c)  # the largest axis first: what is between stays small
        right = torch.einsum("ipr,pr->ir", through, b)
        a = solved_system((b.T @ b) * (c.T @ c), right.T).T
        a, b = a * (size := a.norm(dim=0).clamp_min(TINY)).reciprocal(), b * size
        right = torch.einsum("ipr,ir->pr", through, a)
        b = solved_system((a.T @ a) * (c.T @ c), right.T).T
        b, c = b * (size := b.norm(dim=0).clamp_min(TINY)).reciprocal(), c * size
        right = torch.einsum("opr,pr->or", torch.einsum("oip,ir->opr", cube, a), b)
        c = solved_system((a.T @ a) * (b.T @ b), right.T).T
        lost = total - 2 * float((right * c).sum()) + float(((a.T @ a) * (b.T @ b) * (c.T @ c)).sum())
        if before - lost < SETTLED * total:
            break
        before = lost
    return a, b, c


def spatial(weight: Tensor, rank: int) -> Factors:
    out, into, rows, columns = weight.shape
    left, right = halves(weight.permute(1, 2, 0, 3).reshape(into * rows, out * columns), rank)
    tall = left.T.reshape(rank, into, rows, 1)
    wide = right.reshape(rank, out, columns).transpose(0, 1).reshape(out, rank, 1, columns)
    kernel = (left @ right).reshape(into, rows, out, columns).permute(2, 0, 1, 3)
    return [tall, wide], kernel
