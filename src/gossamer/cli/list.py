"""`gossamer list`."""

from __future__ import annotations

import argparse
from typing import Any

from gossamer.cli.arguments import check_without
from gossamer.cli.result import Result
from gossamer.host.progress import Progress
from gossamer.host.text import format_table

EXAMPLES = (
    "gossamer list 'mobilenet*'",
    "gossamer list --max-params 3M --max-macs 300M",
    "gossamer list mobilenet_v2 --weights",
)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pattern", nargs="?", default="*", help="e.g. 'mobilenet*', or 'timm:*mobilenet*' for timm's")
    parser.add_argument("--max-params", default="", metavar="N", help="only networks of at most N parameters: 3M")
    parser.add_argument("--max-macs", default="", metavar="N", help="only networks of at most N MACs: 300M, 1.5G")
    parser.add_argument(
        "--weights", action="store_true", help="the published weights: top-1 in %%, preprocessing, licence, source"
    )


def run(options: argparse.Namespace, progress: Progress) -> Result:
    from gossamer.networks import listing
    from gossamer.settings.parse import parse_count

    if options.weights:
        check_without(options, "--weights", {"max_params": "", "max_macs": ""}, given=True)
        return _weights(listing.weight_rows(options.pattern))
    rows = listing.network_rows(
        options.pattern,
        max_params=parse_count(options.max_params, "--max-params") if options.max_params else None,
        max_macs=parse_count(options.max_macs, "--max-macs") if options.max_macs else None,
    )
    header = ("network", "also called", "params (M)", "MACs (M)", "input")
    cells = [
        (
            row["name"],
            ", ".join(row["aliases"]),
            "?" if row["params"] is None else f"{row['params'] / 1e6:.3f}",
            "?" if row["macs"] is None else f"{row['macs'] / 1e6:.1f}",
            row["input"] or "?",
        )
        for row in rows
    ]
    return Result("\n".join(format_table(header, cells, left=(0, 1, -1))), rows)


def _weights(rows: list[dict[str, Any]]) -> Result:
    header = ("network", "weights", "top-1 (%)", "preprocessing", "licence", "source")
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
    return Result("\n".join(format_table(header, cells, left=(0, 1, 3, 4, 5))), rows)
