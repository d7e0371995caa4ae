"""`gossamer probe`."""

from __future__ import annotations

import argparse
from typing import Any

from gossamer.cli.arguments import add_batch, add_which, check_plot, number, positive, whole_number
from gossamer.host.progress import Progress

NAMES = ("net", "weights", "run", "which", "classifiers", "folds", "val", "input", "batch", "seed", "limit")

EXAMPLES = (
    "gossamer probe photos/ --net mobilenet_v2 --weights default",
    "gossamer probe --run runs/flowers --classifiers linear",
)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", nargs="?", default="", help="images, as for training; default the run's own")
    parser.add_argument("--net", default="mobilenet_v2", metavar="NAME", help="network (default mobilenet_v2)")
    parser.add_argument(
        "--weights", default="", metavar="TEXT", help="its weights: default, a listed set, a file or URL; none: random"
    )
    parser.add_argument("--run", default="", metavar="RUN", help="the network of this run folder instead")
    add_which(parser, "the run")
    parser.add_argument(
        "--classifiers", default="all", metavar="NAMES", help="all, linear, non-linear, or names with commas"
    )
    parser.add_argument("--folds", type=positive, default=5, metavar="N", help="of the cross-validation (default 5)")
    parser.add_argument("--val", default="", help="held-out images, where they are in another place")
    parser.add_argument("--input", default="auto", metavar="HxW", help="input of the network; default by the images")
    add_batch(parser, 64)
    parser.add_argument(
        "--seed", type=whole_number, default=0, metavar="N", help="of the split, the folds and every random draw"
    )
    parser.add_argument(
        "--limit",
        type=number,
        default=60.0,
        metavar="SECONDS",
        help="for all fits of a classifier; where they would take longer, each sees fewer images (default 60)",
    )
    parser.add_argument("--plot", default="", metavar="FILE", help="also draw the accuracies into this .svg file")


def run(options: argparse.Namespace, progress: Progress) -> Any:
    from gossamer.targets import target_of

    check_plot(options.plot)
    target_of(options.run or options.net, ("run",) if options.run else ("network",))  # before torch is loaded
    from gossamer.probe import probe

    result = probe(options.data, **{name: getattr(options, name) for name in NAMES}, progress=progress)
    if options.plot:
        result.plot(options.plot)
    return result
