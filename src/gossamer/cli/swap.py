"""`gossamer swap`."""

from __future__ import annotations

import argparse

from gossamer.cli.result import Result
from gossamer.cli.train import LOADING, trained, wait_passively
from gossamer.host.progress import Progress


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", help="run folder")
    parser.add_argument("--net", required=True, help="the other network")
    parser.add_argument("--out", required=True, help="the run folder to make")
    parser.add_argument("--weights", default="", help="weights to start from, as for train; none: random")


def run(options: argparse.Namespace, progress: Progress) -> Result:
    wait_passively()
    progress.say(LOADING)
    from gossamer.training.rerun import retrain

    run, dropped = retrain(options.run, options.net, options.out, weights=options.weights, progress=progress)
    return trained(run, dropped=dropped)
