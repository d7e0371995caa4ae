"""Large kernels as several small ones: Inception v3 (1512.00567), sections 3.1 and 3.2.

5x5 as two 3x3 saves 28 % of the multiply-adds, 7x7 as three 3x3 45 %, n x n as 1 x n and n x 1 all but 2/n.
"""

from __future__ import annotations

from matplotlib.figure import Figure
from torch import nn

from gossamer.analysis.cost import cost
from gossamer.blocks.conv import ConvNormAct
from gossamer.blocks.factorised import AsymmetricPair, StackedConv
from studies.frame import COLOURS, Findings, figure, main
from studies.timing import measure

CHANNELS, SIDE = 128, 17  # of the paper's 17x17 grid


def study(quick: bool = False) -> Findings:
    """Parameters, MACs and milliseconds of each form of 3x3, 5x5 and 7x7."""
    c = CHANNELS
    forms: list[tuple[str, int, nn.Module]] = []
    for kernel in (3, 7) if quick else (3, 5, 7):
        forms.append((f"{kernel}x{kernel}", kernel, ConvNormAct(c, c, kernel)))
        if kernel > 3:
            forms.append((f"{kernel // 2} of 3x3", kernel, StackedConv(c, c, kernel)))
        forms.append((f"1x{kernel} and {kernel}x1", kernel, AsymmetricPair(c, c, kernel)))
    shape = (1, c, SIDE, SIDE)
    times = measure([(module, shape) for _, _, module in forms], rounds=3 if quick else 20)
    rows, unfactorised = [], {}
    for (name, kernel, module), time in zip(forms, times):
        layer_cost = cost(module, shape)
        unfactorised.setdefault(kernel, (layer_cost.macs, time.median))
        macs, ms = unfactorised[kernel]
        rows.append(
            {
                "stands for": f"{kernel}x{kernel}",
                "form": name,
                "parameters": layer_cost.params,
                "MACs": layer_cost.macs,
                "ms": time.median,
                "ms, quartiles": f"{time.low:.3f}-{time.high:.3f}",
                "of the MACs": layer_cost.macs / macs,
                "of the ms": time.median / ms,
            }
        )
    slower = [f"{row['form']} for {row['stands for']}" for row in rows if row["of the ms"] > 1]
    conclusion = (
        f"Every form has fewer MACs, and {'all are' if not slower else 'not all are'} faster here"
        + (f": slower are {', '.join(slower)}" if slower else "")
        + f". 7x7 as 1x7 and 7x1 keeps {rows[-1]['of the MACs']:.2f} of the MACs and {rows[-1]['of the ms']:.2f} of the time."
    )
    return Findings(rows, conclusion)


def draw(findings: Findings) -> Figure:
    """Share of MACs and of time that each form keeps."""
    drawing, (axes,) = figure()
    rows = [row for row in findings.rows if row["form"] != row["stands for"]]
    at = range(len(rows))
    axes.bar([x - 0.2 for x in at], [row["of the MACs"] for row in rows], 0.4, color=COLOURS[0], label="MACs")
    axes.bar([x + 0.2 for x in at], [row["of the ms"] for row in rows], 0.4, color=COLOURS[1], label="milliseconds")
    axes.set_xticks(list(at), [f"{row['form']}\nfor {row['stands for']}" for row in rows], fontsize=8)
    axes.axhline(1, color="#999999", linewidth=0.8)
    axes.set_ylabel("fraction of the full kernel's")
    axes.legend(frameon=False)
    return drawing


if __name__ == "__main__":
    main("factorise", study, draw)
