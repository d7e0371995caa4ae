"""What the stages of a network cost: a chart of two amounts a stage, and the rows of a table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from gossamer.charts.bars import BarPair, paired_bars
from gossamer.charts.svg import Markup
from gossamer.host import text

PLOTTED_STAGES = 16


class StageCost(Protocol):
    """The cost of a stage for one image: multiply-adds, bytes moved, milliseconds (nan where not measured)."""

    @property
    def name(self) -> str: ...
    @property
    def layers(self) -> int: ...
    @property
    def output_shape(self) -> tuple[int, ...]: ...
    @property
    def params(self) -> int: ...
    @property
    def macs(self) -> int: ...
    @property
    def bytes(self) -> int: ...
    @property
    def ms(self) -> float: ...


class StageRow(NamedTuple):
    """A row of the table; cells: each amount with its percentage of the network's."""

    name: str
    layers: int
    output: str
    cells: tuple[tuple[str, str], ...]


def stage_series(rows: Sequence[StageCost]) -> tuple[str, str]:
    """What the two bars of a stage are: the time beside the multiply-adds where it was measured."""
    return ("multiply-adds", "time" if _timed(rows) else "parameters")


def stage_chart(rows: Sequence[StageCost]) -> Markup | None:
    """Two bars a stage, see `stage_series`; None where there are too few stages or too many."""
    rows = [row for row in rows if row.macs or row.params or row.ms > 0]
    if not 1 < len(rows) <= PLOTTED_STAGES:
        return None  # the table of layers shows a network without stages
    series = stage_series(rows)
    timed = series[1] == "time"
    seconds = [_number(row.ms) if timed else row.params for row in rows]
    macs = [row.macs for row in rows]

    def written(value: float, of: float) -> str:
        return f"{text.percent(value / (of or 1))} · {text.si_number(value)}"

    pairs = [
        BarPair(
            row.name,
            first / (sum(macs) or 1),
            written(first, sum(macs)),
            second / (sum(seconds) or 1),
            f"{text.percent(second / (sum(seconds) or 1))} · {text.milliseconds(second)}"
            if timed
            else written(second, sum(seconds)),
        )
        for row, first, second in zip(rows, macs, seconds)
    ]
    return paired_bars("Cost by stage", series, pairs)


def stage_table(rows: Sequence[StageCost]) -> tuple[tuple[str, ...], list[StageRow]]:
    """(heads of the amounts, rows): parameters, MACs, bytes moved and, where measured, milliseconds."""
    timed = _timed(rows)
    totals = [
        sum(row.params for row in rows),
        sum(row.macs for row in rows),
        sum(row.bytes for row in rows),
        sum(_number(row.ms) for row in rows),
    ]

    def cells(row: StageCost) -> tuple[tuple[str, str], ...]:
        amounts = (
            (text.grouped(row.params), row.params),
            (text.si_number(row.macs), row.macs),
            (text.binary_bytes(row.bytes), row.bytes),
            (text.significant(row.ms), _number(row.ms)),
        )
        return tuple(
            (shown, text.points(value / total) if total else text.DASH)
            for (shown, value), total in list(zip(amounts, totals))[: 4 if timed else 3]
        )

    heads = ("parameters", "MACs", "bytes moved", "ms")[: 4 if timed else 3]
    return heads, [StageRow(row.name, row.layers, text.dimensions(row.output_shape[1:]), cells(row)) for row in rows]


def _timed(rows: Sequence[StageCost]) -> bool:
    return any(math.isfinite(row.ms) for row in rows)


def _number(value: float) -> float:
    return value if math.isfinite(value) else 0.0
