"""The widths that keep the most importance under limits: a multiple-choice knapsack with costs of pairs, by HiGHS."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gossamer.errors import MissingPackageError
from gossamer.shrink.widths import CostModel, Numbers

SECONDS = 30.0  # of the solver
GAP = 1e-3  # of the objective: widths are measured afterwards all the same


def narrowest(options: Sequence[Sequence[int]]) -> list[int]:
    """The choice of the last candidate of each group."""
    return [len(one) - 1 for one in options]


def check_solver() -> None:
    """Raises MissingPackageError where SciPy is not installed."""
    try:
        import scipy.optimize  # noqa: F401
    except ImportError as error:
        raise MissingPackageError("scipy", "shrink", "choosing widths") from error


def choose_widths(importance: Sequence[Numbers], costs: Sequence[tuple[CostModel, float]]) -> list[int] | None:
    """The candidate of each group: most importance kept, each cost at most its limit. None where no choice is found.

    importance: for each group, of each candidate the sum over the channels that it keeps. costs: (cost, limit) pairs.
    A binary variable a candidate; for two groups that meet in a layer, continuous ones a pair of candidates, which add up
    to the binary ones along both sides and are so their product. Raises MissingPackageError without SciPy.
    """
    check_solver()
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import coo_array

    counts = [len(one) for one in importance]
    first = np.concatenate([[0], np.cumsum(counts)])
    met = sorted({pair for cost, _ in costs for pair, table in cost.pairs.items() if table.any()})
    start, total = {}, int(first[-1])
    for g, h in met:
        start[g, h] = total
        total += counts[g] * counts[h]
    rows: list[tuple[Numbers, Numbers]] = []  # columns, values
    low, high = [], []

    def add(columns: Sequence[int] | Numbers, values: Sequence[float] | Numbers, least: float, most: float) -> None:
        rows.append((np.asarray(columns), np.asarray(values, np.float64)))
        low.append(least)
        high.append(most)

    for g, count in enumerate(counts):
        add(np.arange(first[g], first[g] + count), np.ones(count), 1, 1)
    for g, h in met:
        at = start[g, h] + np.arange(counts[g] * counts[h]).reshape(counts[g], counts[h])
        for k in range(counts[g]):
            add([*at[k], int(first[g]) + k], [*np.ones(counts[h]), -1.0], 0, 0)
        for k in range(counts[h]):
            add([*at[:, k], int(first[h]) + k], [*np.ones(counts[g]), -1.0], 0, 0)
    for cost, limit in costs:
        columns = [np.arange(first[g], first[g + 1]) for g in range(len(counts))]
        values = [np.asarray(table, np.float64) for table in cost.unary]
        for (g, h), table in cost.pairs.items():
            if (g, h) in start:
                columns.append(start[g, h] + np.arange(table.size))
                values.append(table.reshape(-1))
        scale = abs(cost.base) or 1.0
        add(np.concatenate(columns), np.concatenate(values) / scale, -np.inf, (limit - cost.base) / scale)
    place = np.repeat(np.arange(len(rows)), [len(columns) for columns, _ in rows])
    matrix = coo_array(
        (np.concatenate([values for _, values in rows]), (place, np.concatenate([columns for columns, _ in rows]))),
        shape=(len(rows), total),
    ).tocsr()
    worth = np.concatenate(list(importance))
    objective = np.zeros(total)
    objective[: len(worth)] = -worth / (np.abs(worth).max() or 1.0)
    result = milp(
        objective,
        constraints=LinearConstraint(matrix, low, high),
        integrality=np.concatenate([np.ones(len(worth)), np.zeros(total - len(worth))]),
        bounds=Bounds(0, 1),
        options={"time_limit": SECONDS, "mip_rel_gap": GAP},
    )
    if result.x is not None:
        chosen = [int(np.argmax(result.x[first[g] : first[g + 1]])) for g in range(len(counts))]
        if _holds(chosen, costs):
            return chosen
    return _greedy(importance, costs)


def _holds(choice: Sequence[int], costs: Sequence[tuple[CostModel, float]]) -> bool:
    return all(cost.of(choice) <= limit * (1 + 1e-6) for cost, limit in costs)


def _greedy(importance: Sequence[Numbers], costs: Sequence[tuple[CostModel, float]]) -> list[int] | None:
    """Where the solver finds nothing in its time: one candidate narrower at a time, the least importance for what it saves."""
    choice = [0] * len(importance)
    while not _holds(choice, costs):
        now = [cost.of(choice) for cost, _ in costs]
        best, best_rate = -1, np.inf
        for g, worth in enumerate(importance):
            if choice[g] + 1 >= len(worth):
                continue
            trial = [*choice[:g], choice[g] + 1, *choice[g + 1 :]]
            saved = sum(
                max(0.0, before - cost.of(trial)) / limit
                for before, (cost, limit) in zip(now, costs, strict=True)
                if before > limit
            )
            rate = float(worth[choice[g]] - worth[choice[g] + 1]) / max(saved, 1e-12)
            if rate < best_rate:
                best, best_rate = g, rate
        if best < 0:
            return None
        choice[best] += 1
    return choice
