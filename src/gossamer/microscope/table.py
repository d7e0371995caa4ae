"""An inspection as lines of text."""

from __future__ import annotations

from gossamer.analysis.names import layer_path, operator_name
from gossamer.host.text import (
    binary_bytes,
    compact_count,
    counted,
    dimensions,
    fixed,
    format_table,
    significant,
    thread_count,
)
from gossamer.microscope.inspection import Inspection

COLUMNS = ("layer", "what", "output", "params", "MACs", "read", "written", "MAC/B", "field", "live")
MEASURED = ("ms", "quartiles", "% ms", "% MACs", "")


def layer_table(inspection: Inspection) -> str:
    """One line per row, the fractions of each part, the sums with their units, and what was not counted."""
    timing, cost = inspection.timing, inspection.cost
    header = COLUMNS + (MEASURED if timing else ())
    lines = []
    for row in inspection.rows:
        cells = [
            row.name,
            row.what,
            dimensions(row.output_shape[1:]),
            compact_count(row.params),
            compact_count(row.macs),
            binary_bytes(row.read_bytes),
            binary_bytes(row.write_bytes),
            fixed(row.intensity, 1),
            row.field,
            binary_bytes(row.live_bytes),
        ]
        if timing:
            if row.ms is None:
                cells += ["", "", "", "", ""]
            else:
                cells += [
                    f"{row.ms:.3f}",
                    f"{row.ms_low:.3f}-{row.ms_high:.3f}",
                    f"{100 * row.ms / timing.sum_ms:.1f}",
                    f"{100 * (row.macs or 0) / max(1, cost.macs):.1f}",
                    "bottleneck" if inspection.is_bottleneck(row) else "",
                ]
        lines.append(cells)
    out = format_table(header, lines, left=(0, 1, -1) if timing else (0, 1))
    stages = [
        [
            name,
            *(
                f"{100 * value:.1f} %"
                for key in ("params", "macs", "bytes", "ms")
                if (value := fractions[key]) is not None
            ),
        ]
        for name, fractions in inspection.stages.items()
    ]
    out += ["", *format_table(("part", "params", "MACs", "bytes moved", *(("ms",) if timing else ())), stages)]
    out += [
        "",
        f"{inspection.target} at {dimensions(cost.input_shape)}",
        f"parameters    {cost.params:,}" + (f", {cost.unused_params:,} of them unused" if cost.unused_params else ""),
        f"MACs          {cost.macs:,} multiply-adds, {2 * cost.macs:,} FLOPs",
        f"weights       {binary_bytes(cost.weight_bytes)}",
        f"peak memory   {binary_bytes(cost.peak_bytes)} of activations, at {layer_path(cost.peak_layer)}",
    ]
    if inspection.gated_macs:
        out.append(
            f"gates         can leave out up to {inspection.gated_macs:,} of the MACs "
            f"({100 * inspection.gated_macs / max(1, cost.macs):.0f} %); gossamer eval RUN measures how many they do"
        )
    if cost.unknown:
        names = ", ".join(f"{operator_name(name)} ({number})" for name, number in cost.unknown.items())
        out.append(f"not counted   {names}: no formula for these, so the MACs above are too low")
    if inspection.latency:
        out.append(f"latency       {significant(inspection.latency.ms)} ms; {inspection.latency.note}")
    if timing:
        middle, low, high = timing.network
        out.append(
            f"time          {middle:.2f} ms ({low:.2f}-{high:.2f}) in one call, {timing.sum_ms:.2f} ms as the sum of its"
            f" parts; {timing.runtime}, {thread_count(timing.threads)}, {counted(timing.rounds, 'round')}"
        )
        if timing.own:
            out.append(
                f"              {sum(timing.own.values()):.3f} ms of it in views and in operations that the runtime added"
            )
        if any(inspection.is_bottleneck(row) for row in inspection.rows):
            out.append(
                "bottleneck    takes over 3 times its fraction of the multiply-adds, and 2 % of the time or more"
            )
    return "\n".join(out)
