"""Markdown tables of what benchmarks/engine.py measured: `python benchmarks/table.py FILE...`, files of one machine."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ceiling import highest

Json = dict[str, Any]
OURS = "native"
MEANINGS = """\
Milliseconds per call: median (10 % to 90 %). Ratio: the fastest baseline's time over ours within a round, median over the
rounds (least to greatest); above 1 we are faster. Ceiling: multiply-adds per second of ours, and of the fastest baseline, over
what the same cores do from registers alone. Behind a time in bf16 and int8: images that keep their class in fp32, and
the difference of the outputs over the spread of the fp32 outputs between images."""


def text(result: Json) -> str:
    """The tables, and why a runtime is missing from one."""
    machine, ceiling = result["machine"], result["ceiling"]
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items() if version)
    lines = [f"{machine['cpu']}, {machine['cores']} cores; {packages}; {result['rounds']} rounds in turn", ""]
    for kind, rates in ceiling.items():
        lines.append(
            f"ceiling, {kind}: "
            + ", ".join(
                f"{rate / 1e9:.1f} GMAC/s on {count} thread{'s' * (count != '1')}" for count, rate in rates.items()
            )
        )
    lines += ["", MEANINGS]
    for precision in dict.fromkeys(row["precision"] for row in result["rows"]):
        rows = [row for row in result["rows"] if row["precision"] == precision]
        lines += ["", f"### {precision}", "", *_table(rows, ceiling.get(precision, {}))]
        reasons = dict.fromkeys((row["runtime"], row["problem"]) for row in rows if row["problem"])
        lines += ["", *(f"* {runtime}: {problem}" for runtime, problem in reasons)] if reasons else []
    return "\n".join(lines)


def _table(rows: list[Json], rates: dict[str, float]) -> Iterator[str]:
    measured = {row["runtime"] for row in rows if "median_ms" in row}
    runtimes = [name for name in dict.fromkeys(row["runtime"] for row in rows) if name in measured]
    yield (
        "| "
        + " | ".join(("network", "threads", "batch", *runtimes, f"best baseline / {OURS}", "of the ceiling"))
        + " |"
    )
    yield "|---" * (len(runtimes) + 5) + "|"
    for key in dict.fromkeys((row["network"], row["threads"], row["batch"]) for row in rows):
        group = {row["runtime"]: row for row in rows if (row["network"], row["threads"], row["batch"]) == key}
        cells = [_time(group.get(name, {})) for name in runtimes]
        yield "| " + " | ".join((*map(str, key), *cells, *_compared(group, rates.get(str(key[1]))))) + " |"


def _time(row: Json) -> str:
    if "median_ms" not in row:
        return "-"
    accuracy = "" if row["precision"] == "fp32" else f"; {row['same']:.0%}, {row['difference']:.1%}"
    return f"{row['median_ms']:.2f} ({row['p10_ms']:.2f}-{row['p90_ms']:.2f}){accuracy}"


def _compared(group: dict[str, Json], ceiling: float | None) -> tuple[str, str]:
    """The ratio and the fractions of the ceiling, "-" where there is nothing to compare."""
    ours = group.get(OURS, {})
    baselines = [row for name, row in group.items() if name != OURS and "median_ms" in row]
    best = min(baselines, key=lambda row: row["median_ms"], default=None)
    ratio = of_ceiling = "-"
    if "median_ms" in ours and best:
        ratios = [min(theirs) / mine for mine, *theirs in zip(*(row["round_medians_ms"] for row in (ours, *baselines)))]
        ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f}), {best['runtime']}"
    if ceiling:
        fractions = [
            f"{row['macs'] / row['median_ms'] * 1e3 / ceiling:.0%}"
            for row in (ours, best)
            if row and "median_ms" in row
        ]
        of_ceiling = ", ".join(fractions) or "-"
    return ratio, of_ceiling


def main(paths: list[str]) -> None:
    """Print the tables of all the files together."""
    results = [json.loads(Path(path).read_text(encoding="utf-8")) for path in paths]
    rows = [row for result in results for row in result["rows"]]
    print(text({**results[0], "ceiling": highest(*(result["ceiling"] for result in results)), "rows": rows}))


if __name__ == "__main__":
    main(sys.argv[1:])
