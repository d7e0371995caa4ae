"""`gossamer list`."""

from __future__ import annotations

import argparse
from typing import Any

from gossamer.cli.result import Result
from gossamer.host.progress import Progress


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pattern", nargs="?", default="*", help="e.g. 'mobilenet*', or 'timm:*mobilenet*'")
    parser.add_argument("--max-params", default="", metavar="N", help="only networks of at most N parameters: 3M")
    parser.add_argument("--max-macs", default="", metavar="N", help="only networks of at most N MACs: 300M, 1.5G")
    parser.add_argument(
        "--weights", action="store_true", help="network, set, published top-1 in %%, preprocessing, licence, source"
    )


def run(options: argparse.Namespace, progress: Progress) -> Result:
    from gossamer.networks import listing
    from gossamer.settings import parse_count

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
    lines = [
        f"{row['network']:{_widest(rows, 'network')}}  {row['name']:{_widest(rows, 'name')}}  "
        f"{'-' if row['top1'] is None else format(row['top1'], '.3f'):>6}  {row['preprocessing']:36}  "
        f"{row['licence']:{_widest(rows, 'licence')}}  {row['source']}"
        for row in rows
    ]
    return Result("\n".join(lines), rows)


def _costs(rows: list[dict[str, Any]]) -> Result:
    width = max((len(row["name"]) for row in rows), default=4)
    lines = [f"{'name':{width}}  params (M)   MACs (M)  input"]
    lines += [
        f"{row['name']:{width}}  {row['params'] / 1e6:10.3f}  {row['macs'] / 1e6:9.1f}  {row['input']}" for row in rows
    ]
    return Result("\n".join(lines), rows)


def _widest(rows: list[dict[str, Any]], column: str) -> int:
    return max((len(row[column]) for row in rows), default=0)
