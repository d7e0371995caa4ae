"""`gossamer swap`."""

from __future__ import annotations

import argparse

from gossamer.cli.loading import say_loading
from gossamer.cli.result import Result
from gossamer.cli.train import trained, wait_passively
from gossamer.host.progress import Progress

EXAMPLES = ("gossamer swap runs/signs --net squeezenet1_1 --out runs/signs_sq",)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", help="run folder")
    parser.add_argument("--net", required=True, metavar="NAME", help="the other network; gossamer list names them")
    parser.add_argument("--out", required=True, metavar="DIR", help="the run folder to make")
    parser.add_argument(
        "--weights", default="", metavar="TEXT", help="weights to start from, as for train; none: random"
    )


def run(options: argparse.Namespace, progress: Progress) -> Result:
    from gossamer.targets import target_of

    target_of(options.run, ("run",))
    target_of(options.net, ("network",))
    wait_passively()
    say_loading(progress)
    from gossamer.training.rerun import retrain

    run, dropped = retrain(options.run, options.net, options.out, weights=options.weights, progress=progress)
    return trained(run, dropped=dropped)
