"""The four guidelines of ShuffleNetV2 (1807.11164), section 2 and tables 1 to 4, measured on this processor.

G1: equal channels before and behind a 1x1 are fastest at equal MACs. G2: groups cost time at equal MACs. G3: fragments
cost time. G4: element-wise operations cost time. Widths that keep the MACs equal are rounded to a multiple of 12.
"""

from __future__ import annotations

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from gossamer.analysis.cost import cost
from gossamer.blocks.conv import ConvNormAct
from studies.frame import COLOURS, Findings, Row, figure, main
from studies.timing import Time, measure

SIDE, BLOCKS = 28, 6


class Residual(nn.Module):
    """A bottleneck of table 4: with or without ReLU and shortcut."""

    def __init__(self, c: int, *, relu: bool, shortcut: bool) -> None:
        super().__init__()
        act = "relu" if relu else None
        self.layers = nn.Sequential(
            ConvNormAct(c, c // 4, act=act), ConvNormAct(c // 4, c // 4, 3, act=act), ConvNormAct(c // 4, c, act=act)
        )
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x)
        return x + out if self.shortcut else out


class Parallel(nn.Module):
    """A layer in fragments side by side, each on its share of the channels."""

    def __init__(self, c: int, parts: int) -> None:
        super().__init__()
        self.parts = nn.ModuleList(ConvNormAct(c // parts, c // parts) for _ in range(parts))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([part(piece) for part, piece in zip(self.parts, x.chunk(len(self.parts), 1))], 1)


def stack(make: list[nn.Module]) -> nn.Sequential:
    return nn.Sequential(*make)


def candidates() -> list[tuple[str, str, nn.Module, int]]:
    """Guideline, setting, module, input channels; those of a guideline have nearly equal MACs."""
    variants: list[tuple[str, str, nn.Module, int]] = []
    for ratio, c1, c2 in ((1, 120, 120), (2, 84, 168), (6, 48, 288), (12, 36, 432)):
        blocks: list[nn.Module] = []
        for _ in range(BLOCKS):
            blocks += [ConvNormAct(c1, c2), ConvNormAct(c2, c1)]
        variants.append(("G1", f"1:{ratio}", stack(blocks), c1))
    for groups, c in ((1, 120), (2, 168), (4, 240), (8, 336)):
        variants.append(
            ("G2", f"{groups} groups", stack([ConvNormAct(c, c, groups=groups) for _ in range(2 * BLOCKS)]), c)
        )
    variants.append(("G3", "1 fragment", stack([ConvNormAct(120, 120) for _ in range(2 * BLOCKS)]), 120))
    variants.append(("G3", "2 in a row", stack([ConvNormAct(84, 84) for _ in range(4 * BLOCKS)]), 84))
    variants.append(("G3", "4 in a row", stack([ConvNormAct(60, 60) for _ in range(8 * BLOCKS)]), 60))
    variants.append(("G3", "2 side by side", stack([Parallel(168, 2) for _ in range(2 * BLOCKS)]), 168))
    variants.append(("G3", "4 side by side", stack([Parallel(240, 4) for _ in range(2 * BLOCKS)]), 240))
    for relu in (True, False):
        for shortcut in (True, False):
            name = " and ".join(["ReLU"] * relu + ["shortcut"] * shortcut) or "neither"
            variants.append(
                ("G4", name, stack([Residual(192, relu=relu, shortcut=shortcut) for _ in range(BLOCKS)]), 192)
            )
    return variants


def study(quick: bool = False) -> Findings:
    """Milliseconds of every setting beside its MACs, and its time per MAC against the guideline's first."""
    settings = candidates()
    shapes = [(1, c, SIDE // 2 if quick else SIDE, SIDE // 2 if quick else SIDE) for _, _, _, c in settings]
    timed = [(module, shape) for (_, _, module, _), shape in zip(settings, shapes)]
    times = measure(timed, rounds=2 if quick else 20)
    rows: list[Row] = []
    first: dict[str, float] = {}
    for (guideline, name, module, _), shape, time in zip(settings, shapes, times):
        macs = cost(module, shape).macs
        pace = time.median / macs
        first.setdefault(guideline, pace)
        rows.append(
            {
                "guideline": guideline,
                "setting": name,
                "MACs": macs,
                "ms": time.median,
                "ms, quartiles": f"{time.low:.2f}-{time.high:.2f}",
                "time per MAC, against the first": pace / first[guideline],
                "significant": _apart(times, settings, guideline, time),
            }
        )
    return Findings(rows, " ".join(_conclusion(rows, guideline) for guideline in ("G1", "G2", "G3", "G4")))


def _apart(times: list[Time], settings: list[tuple[str, str, nn.Module, int]], guideline: str, time: Time) -> bool:
    """Whether the quartiles of this setting and of the guideline's first do not overlap."""
    base = next(t for t, setting in zip(times, settings) if setting[0] == guideline)
    return time.low > base.high or time.high < base.low


def _conclusion(rows: list[Row], guideline: str) -> str:
    mine = [row for row in rows if row["guideline"] == guideline]
    ratios = [row["time per MAC, against the first"] for row in mine[1:]]
    spread = f"{min(ratios):.2f} to {max(ratios):.2f} times the first's time per MAC"
    if guideline == "G4":  # the first has both: the others should be faster
        seen = all(ratio < 1 for ratio in ratios) and any(row["significant"] for row in mine[1:])
    else:
        seen = all(ratio > 1 for ratio in ratios) and any(row["significant"] for row in mine[1:])
    return f"{guideline}: {spread}, {'seen' if seen else 'not seen here as the paper has it'}."


def draw(findings: Findings) -> Figure:
    """Time per MAC of each setting, one panel per guideline."""
    drawing, axes = figure(4, height=3.2)
    drawing.set_size_inches(15, 3.2)
    for each, guideline, colour in zip(axes, ("G1", "G2", "G3", "G4"), COLOURS):
        rows = [row for row in findings.rows if row["guideline"] == guideline]
        at = range(len(rows))
        each.bar(list(at), [row["time per MAC, against the first"] for row in rows], color=colour)
        each.axhline(1, color="#999999", linewidth=0.8)
        each.set_xticks(list(at), [row["setting"] for row in rows], rotation=30, ha="right", fontsize=8)
        each.set_title(guideline)
    axes[0].set_ylabel("time per MAC, against the first")
    return drawing


if __name__ == "__main__":
    main("guidelines", study, draw)
