"""`gossamer sweep`."""

from __future__ import annotations

import argparse
from typing import Any

from gossamer.cli.arguments import number, positive
from gossamer.host.progress import Progress

EXAMPLES = (
    "gossamer sweep sweep.yaml --minutes 120",
    "gossamer sweep sweep.yaml --minutes 120 --seeds 3 --out runs/widths",
    "gossamer sweep sweep.yaml --minutes 600 --ray auto",
)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", help="YAML: settings of every trial, and grid, choices and ranges of what varies")
    parser.add_argument(
        "--out", default=None, metavar="DIR", help="the folder, new or begun; default runs/ and the name of the file"
    )
    parser.add_argument(
        "--minutes",
        type=number,
        default=None,
        metavar="N",
        help="for all starts together; default no limit, and trainings as long as the file says",
    )
    parser.add_argument(
        "--seeds", type=positive, default=1, metavar="N", help="trainings of each point of the front, for its spread"
    )
    parser.add_argument("--ray", default="", metavar="auto|local|ADDRESS", help="a trial a worker of a Ray cluster")


def run(options: argparse.Namespace, progress: Progress) -> Any:
    from gossamer.cli.loading import say_loading
    from gossamer.cli.train import wait_passively

    progress.say(f"reading {options.file}")
    wait_passively()
    say_loading(progress)
    from gossamer.sweeps.sweep import sweep

    return sweep(
        options.file, options.out, minutes=options.minutes, seeds=options.seeds, ray=options.ray, progress=progress
    )
