"""`gossamer prune`."""

from __future__ import annotations

import argparse
from typing import Any

from gossamer.cli.arguments import add_which, number, positive
from gossamer.host.progress import Progress

EXAMPLES = (
    "gossamer prune runs/flowers --latency 0.5 --minutes 20 --out runs/pruned",
    "gossamer prune runs/flowers --macs 100M --size 2MB --minutes 20 --out runs/pruned",
)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", help="run folder")
    parser.add_argument("--out", required=True, metavar="DIR", help="the run folder to make")
    limits = parser.add_argument_group("limits, at least one: a fraction of what the network takes now, or a number")
    limits.add_argument("--latency", metavar="LIMIT", help="0.5 or 1.2ms: measured in the native engine here")
    limits.add_argument("--macs", metavar="LIMIT", help="0.5 or 100M: multiply-adds of an image")
    limits.add_argument("--size", metavar="LIMIT", help="0.5 or 2MB: parameters in float32")
    parser.add_argument(
        "--minutes", type=number, default=20.0, metavar="N", help="of training afterwards (default %(default)g)"
    )
    parser.add_argument(
        "--importance",
        default="taylor",
        metavar="NAME",
        help="taylor (default): of the loss on training images; norm: of the weights; bn-scale: of batch norms",
    )
    parser.add_argument(
        "--threads", type=positive, default=1, metavar="N", help="of the engine for --latency (default %(default)s)"
    )
    parser.add_argument(
        "--keep-blocks",
        dest="drop_blocks",
        action="store_false",
        help="remove channels alone; by default residual blocks may go as a whole",
    )
    parser.add_argument(
        "--no-teacher",
        dest="teacher",
        action="store_false",
        help="train on the labels alone; by default the run teaches, which takes part of the minutes",
    )
    add_which(parser, "the run")


def run(options: argparse.Namespace, progress: Progress) -> Any:
    from gossamer.cli.loading import say_loading
    from gossamer.cli.train import wait_passively
    from gossamer.targets import target_of

    target_of(options.run, ("run",))
    wait_passively()
    say_loading(progress)
    from gossamer.shrink.prune import prune

    return prune(
        options.run,
        options.out,
        latency=options.latency,
        macs=options.macs,
        size=options.size,
        minutes=options.minutes,
        importance=options.importance,
        threads=options.threads,
        which=options.which,
        drop_blocks=options.drop_blocks,
        teacher=options.teacher,
        progress=progress,
    )
