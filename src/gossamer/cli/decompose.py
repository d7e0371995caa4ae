"""`gossamer decompose`."""

from __future__ import annotations

import argparse
from typing import Any

from gossamer.cli.arguments import add_which, number, positive
from gossamer.host.progress import Progress

EXAMPLES = (
    "gossamer decompose runs/flowers --minutes 10 --out runs/decomposed",
    "gossamer decompose runs/flowers --max-drop 1 --ranks score --methods svd spatial --out runs/decomposed",
)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", help="run folder")
    parser.add_argument(
        "--out", required=True, metavar="DIR", help="the run folder to make, where a change is accepted"
    )
    parser.add_argument(
        "--minutes",
        type=number,
        default=10.0,
        metavar="N",
        help="of training, all trials together (default %(default)g)",
    )
    parser.add_argument(
        "--epochs",
        type=number,
        metavar="N",
        help="of the first trial, of the others in proportion, in place of minutes",
    )
    parser.add_argument(
        "--max-drop",
        type=number,
        default=0.5,
        metavar="POINTS",
        help="points of 100 that the run's score may lose on its validation images (default %(default)g)",
    )
    parser.add_argument(
        "--energy",
        type=number,
        default=0.9,
        metavar="PART",
        help="part of the squares of a layer's weights that its ranks keep (default %(default)g)",
    )
    parser.add_argument(
        "--ranks",
        default="energy",
        metavar="HOW",
        help="energy (default), or score: the least ranks that alone lose at most --max-drop before any training",
    )
    parser.add_argument(
        "--methods",
        nargs="+",
        default=("svd", "tucker", "cp", "spatial", "stack"),
        metavar="NAME",
        help="some of svd, tucker, cp, spatial and stack (default all)",
    )
    parser.add_argument("--layers", nargs="+", default=(), metavar="LAYER", help="layers to decompose (default all)")
    parser.add_argument("--keep", nargs="+", default=(), metavar="LAYER", help="layers that stay as they are")
    parser.add_argument(
        "--threads", type=positive, default=1, metavar="N", help="of the engine that times (default %(default)s)"
    )
    add_which(parser, "the run")


def run(options: argparse.Namespace, progress: Progress) -> Any:
    from gossamer.cli.loading import say_loading
    from gossamer.cli.train import wait_passively
    from gossamer.targets import target_of

    target_of(options.run, ("run",))
    wait_passively()
    say_loading(progress)
    from gossamer.shrink.decompose import decompose

    return decompose(
        options.run,
        options.out,
        minutes=options.minutes,
        epochs=options.epochs,
        max_drop=options.max_drop,
        energy=options.energy,
        ranks=options.ranks,
        methods=options.methods,
        layers=options.layers,
        keep=options.keep,
        threads=options.threads,
        which=options.which,
        progress=progress,
    )
