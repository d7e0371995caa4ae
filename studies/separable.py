"""Depthwise separable against full 3x3 convolution: MobileNets (1704.04861), section 3.1.

The paper: the multiply-adds fall to 1/N + 1/9 for N output channels. Do the milliseconds follow?
"""

from __future__ import annotations

from matplotlib.figure import Figure

from gossamer.analysis.cost import cost
from gossamer.blocks.conv import ConvNormAct, DepthwiseSeparable
from studies.frame import COLOURS, Findings, figure, main
from studies.timing import measure

PLACES = ((32, 112), (64, 56), (128, 28), (256, 14), (512, 14), (512, 7))


def study(quick: bool = False) -> Findings:
    """MACs and milliseconds of both at the channels and sizes of MobileNet."""
    rows = []
    for channels, side in PLACES[-2:] if quick else PLACES:
        shape = (1, channels, side, side)
        full, separable = ConvNormAct(channels, channels, 3), DepthwiseSeparable(channels, channels)
        times = measure([(full, shape), (separable, shape)], rounds=3 if quick else 15)
        macs = [cost(module, shape).macs for module in (full, separable)]
        rows.append(
            {
                "channels": channels,
                "side": side,
                "full, MACs": macs[0],
                "separable, MACs": macs[1],
                "MACs, times fewer": macs[0] / macs[1],
                "full, ms": times[0].median,
                "separable, ms": times[1].median,
                "ms, times faster": times[0].median / times[1].median,
                "at best": times[0].high / times[1].low,
                "at worst": times[0].low / times[1].high,
            }
        )
    fewer = [row["MACs, times fewer"] for row in rows]
    faster = [row["ms, times faster"] for row in rows]
    conclusion = (
        f"The separable pair has {min(fewer):.1f} to {max(fewer):.1f} times fewer MACs and runs {min(faster):.1f} to "
        f"{max(faster):.1f} times faster (torch, 1 thread): on average {100 * sum(f / m for f, m in zip(faster, fewer)) / len(rows):.0f} % "
        "of the saving on paper arrives."
    )
    return Findings(rows, conclusion)


def draw(findings: Findings) -> Figure:
    """Both ratios over the places."""
    drawing, (axes,) = figure()
    names = [f"{row['channels']}\n{row['side']}x{row['side']}" for row in findings.rows]
    at = range(len(names))
    axes.bar(
        [x - 0.2 for x in at], [row["MACs, times fewer"] for row in findings.rows], 0.4, color=COLOURS[0], label="MACs"
    )
    middle = [row["ms, times faster"] for row in findings.rows]
    whiskers = [
        [max(0, m - row["at worst"]) for m, row in zip(middle, findings.rows)],
        [max(0, row["at best"] - m) for m, row in zip(middle, findings.rows)],
    ]
    axes.bar([x + 0.2 for x in at], middle, 0.4, yerr=whiskers, color=COLOURS[1], label="milliseconds", capsize=3)
    axes.set_xticks(list(at), names)
    axes.set_ylabel("full / separable")
    axes.legend(frameon=False)
    return drawing


if __name__ == "__main__":
    main("separable", study, draw)
