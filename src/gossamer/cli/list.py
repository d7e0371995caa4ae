"""`gossamer list`."""

from __future__ import annotations

import argparse
from typing import Any

from gossamer.cli.result import Result
from gossamer.host.progress import Progress
from gossamer.host.text import format_table


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pattern", nargs="?", default="*", help="e.g. 'mobilenet*', or 'timm:*mobilenet*'")
    parser.add_argument("--max-params", default="", metavar="N", help="only networks of at most N parameters: 3M")
    parser.add_argument("--max-macs", default="", metavar="N", help="only networks of at most N MACs: 300M, 1.5G")
    parser.add_argument(
        "--weights", action="store_true", help="network, set, published top-1 in %%, preprocessing, licence, source"
    )


def run(options: argparse.Namespace, progress: Progress) -> Result:
    from gossamer.networks import listing
    from gossamer.settings.parse import parse_count

    if options.weights:
        return _weights(listing.weight_rows(options.pattern))
    if options.max_params or options.max_macs:
        return _costs(
            listing.network_costs(
                options.pattern,
                max_params=parse_count(options.max_params) if options.max_params else None,
                max_macs=parse_count(options.max_macs) if options.max_macs else None,
                progress=progress,
            )
        )
    names = listing.network_names(options.pattern)
    return Result("\n".join(names), names)


def _weights(rows: list[dict[str, Any]]) -> Result:
    cells = [
        (
            row["network"],
            row["name"],
            "-" if row["top1"] is None else f"{row['top1']:.3f}",
            row["preprocessing"],
            row["licence"],
            row["source"],
        )
        for row in rows
    ]
    lines = format_table(None, cells, left=(0, 1, 3, 4, 5), widths=(0, 0, 6, 36, 0, 0))
    return Result("\n".join(lines), rows)


def _costs(rows: list[dict[str, Any]]) -> Result:
    header = ("name", "params (M)", "MACs (M)", "input")
    cells = [(row["name"], f"{row['params'] / 1e6:.3f}", f"{row['macs'] / 1e6:.1f}", row["input"]) for row in rows]
    return Result("\n".join(format_table(header, cells, left=(0, -1), widths=(0, 0, 9, 0))), rows)
