"""`gossamer shrink`."""

from __future__ import annotations

import argparse
from typing import Any

from gossamer.cli.arguments import add_which, number, positive
from gossamer.host.progress import Progress

EXAMPLES = (
    "gossamer shrink runs/flowers --max-ms 1.0 --max-mb 1 --max-drop 1 --minutes 90 --out shrunk/",
    "gossamer shrink runs/flowers --max-mb 0.5 --minutes 20 --report --out shrunk/",
)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", help="run folder")
    parser.add_argument("--out", required=True, metavar="DIR", help="the folder to make, or one that was begun")
    limits = parser.add_argument_group("limits, of time or size at least one")
    limits.add_argument("--max-ms", type=number, metavar="MS", help="milliseconds of an image on this machine")
    limits.add_argument("--max-mb", type=number, metavar="MB", help="size of the file, in millions of bytes")
    limits.add_argument(
        "--max-drop",
        type=number,
        default=1.0,
        metavar="POINTS",
        help="points of 100 that the score may be below the run's on its validation images (default %(default)g)",
    )
    parser.add_argument(
        "--minutes", type=number, default=30.0, metavar="N", help="for everything together (default %(default)g)"
    )
    parser.add_argument(
        "--epochs", type=number, metavar="N", help="of each training, in place of its share of the minutes"
    )
    parser.add_argument(
        "--importance", default="taylor", metavar="NAME", help="of channels: taylor (default), norm or bn-scale"
    )
    parser.add_argument(
        "--threads", type=positive, default=1, metavar="N", help="that the milliseconds are of (default %(default)s)"
    )
    parser.add_argument(
        "--no-decompose",
        dest="decompose",
        action="store_false",
        help="do not try smaller layers in place of those of the narrower networks",
    )
    parser.add_argument("--report", action="store_true", help="write report.html into the folder")
    add_which(parser, "the run")


def run(options: argparse.Namespace, progress: Progress) -> Any:
    from gossamer.cli.loading import say_loading
    from gossamer.cli.train import wait_passively
    from gossamer.targets import target_of

    target_of(options.run, ("run",))
    wait_passively()
    say_loading(progress)
    from gossamer.shrink.recipe.recipe import shrink

    return shrink(
        options.run,
        options.out,
        max_ms=options.max_ms,
        max_mb=options.max_mb,
        max_drop=options.max_drop,
        minutes=options.minutes,
        epochs=options.epochs,
        importance=options.importance,
        threads=options.threads,
        which=options.which,
        decompose=options.decompose,
        report=options.report,
        progress=progress,
    )
