"""An inspection as lines of text."""

from __future__ import annotations

from gossamer.microscope.inspection import Inspection

COLUMNS = ("layer", "what", "output", "params", "MACs", "read", "written", "MAC/B", "field", "live")
MEASURED = ("ms", "quartiles", "% ms", "% MACs", "")


def count(number: float | None) -> str:
    """Such as 3.50M; ? where it is unknown."""
    if number is None:
        return "?"
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= limit:
            return f"{number / limit:.2f}{unit}"
    return f"{number:g}"


def size(number: int) -> str:
    """Such as 1.20 MiB."""
    for limit, unit in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if number >= limit:
            return f"{number / limit:.2f} {unit}"
    return f"{number} B"


def table(found: Inspection) -> str:
    """A line a row, the shares of each part, the sums with their units, and what was not counted."""
    timing, whole = found.timing, found.cost
    header = COLUMNS + (MEASURED if timing else ())
    lines = []
    for row in found.rows:
        cells = [
            row.name,
            row.what,
            "x".join(map(str, row.output_shape[1:])),
            count(row.params),
            count(row.macs),
            size(row.read_bytes),
            size(row.write_bytes),
            "?" if row.intensity is None else f"{row.intensity:.1f}",
            row.field,
            size(row.live_bytes),
        ]
        if timing:
            if row.ms is None:
                cells += ["", "", "", "", ""]
            else:
                cells += [
                    f"{row.ms:.3f}",
                    f"{row.ms_low:.3f}-{row.ms_high:.3f}",
                    f"{100 * row.ms / timing.sum_ms:.1f}",
                    f"{100 * (row.macs or 0) / max(1, whole.macs):.1f}",
                    "dear" if found.dear(row) else "",
                ]
        lines.append(cells)
    out = aligned(header, lines, left=2)
    stages = [
        [
            name,
            *(f"{100 * value:.1f} %" for key in ("params", "macs", "bytes", "ms") if (value := share[key]) is not None),
        ]
        for name, share in found.stages.items()
    ]
    out += ["", *aligned(("part", "params", "MACs", "bytes moved", *(("ms",) if timing else ())), stages, left=1)]
    out += [
        "",
        f"{found.target} at {'x'.join(map(str, whole.input_shape))}",
        f"parameters    {whole.params:,}"
        + (f", {whole.unused_params:,} of them unused" if whole.unused_params else ""),
        f"MACs          {whole.macs:,} multiply-adds, {2 * whole.macs:,} FLOPs",
        f"weights       {size(whole.weight_bytes)}",
        f"peak memory   {size(whole.peak_bytes)} of activations, at {whole.peak_layer}",
    ]
    if whole.unknown:
        names = ", ".join(f"{name} ({number})" for name, number in whole.unknown.items())
        out.append(f"not counted   {names}: no formula for these, so the MACs above are too low")
    if timing:
        middle, low, high = timing.whole
        out.append(
            f"time          {middle:.2f} ms ({low:.2f}-{high:.2f}) in one call, {timing.sum_ms:.2f} ms as the sum of its"
            f" parts; {timing.runtime}, {timing.threads} thread{'s' if timing.threads > 1 else ''}, {timing.rounds} rounds"
        )
        if timing.own:
            out.append(
                f"              {sum(timing.own.values()):.3f} ms of it in views and in operations that the runtime added"
            )
        if any(found.dear(row) for row in found.rows):
            out.append("dear          takes over 3 times its share of the multiply-adds, and 2 % of the time or more")
    return "\n".join(out)


def aligned(header: tuple[str, ...], rows: list[list[str]], left: int) -> list[str]:
    """Rows of cells under a header: the first `left` columns to the left, numbers to the right."""
    widths = [max(len(cells[n]) for cells in (header, *rows)) for n in range(len(header))]
    return [
        "  ".join(
            cell.ljust(width) if n < left or (n == len(header) - 1 and not header[n]) else cell.rjust(width)
            for n, (cell, width) in enumerate(zip(cells, widths))
        ).rstrip()
        for cells in (list(header), *rows)
    ]
