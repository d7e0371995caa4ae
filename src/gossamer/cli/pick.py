"""`gossamer pick`."""

from __future__ import annotations

import argparse
from typing import Any

from gossamer.cli.arguments import number, positive, whole_number
from gossamer.host.progress import Progress

EXAMPLES = (
    "gossamer pick --latency 2ms --input 3x224x224",
    "gossamer pick photos/ --latency 2ms --size 3MB --minutes 60 --out runs/picked",
    "gossamer pick photos/ --latency 1ms --precision int8 --nets 'mobilenet*,shufflenet*' --minutes 20 --out runs/picked",
)


ASKED = (
    "latency", "size", "memory", "runtime", "threads", "precision", "input", "task", "val", "nets", "candidates", "minutes",
    "epochs", "seed",
)  # fmt: skip


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "data", nargs="?", help="images, as for train; without them networks are listed with their published accuracy"
    )
    limits = parser.add_argument_group("budget, one at least")
    limits.add_argument("--latency", metavar="MS", help="of one image on this machine, with its unit: 2ms")
    limits.add_argument("--size", metavar="MB", help="of the file: 3MB")
    limits.add_argument("--memory", metavar="MB", help="weights and activations at their peak, as counted: 8MB")
    limits.add_argument(
        "--runtime",
        default="native",
        metavar="NAME",
        help="that is timed: native (default), onnxruntime or openvino",
    )
    limits.add_argument("--threads", type=positive, default=1, metavar="N", help="that it uses (default %(default)s)")
    limits.add_argument(
        "--precision", default="", metavar="NAME,NAME", help="float32, bf16, int8; default all that the runtime has"
    )
    limits.add_argument(
        "--input",
        default="",
        metavar="CxHxW",
        help="e.g. 3x224x224; default by the images and smaller, or the network's own",
    )
    limits.add_argument("--nets", default="*", metavar="PATTERN,PATTERN", help="networks to look at (default all)")
    train = parser.add_argument_group("with data")
    train.add_argument("--out", metavar="DIR", help="the folder to make, or one that was begun")
    train.add_argument("--task", default="classify", metavar="NAME", help="as for train (default %(default)s)")
    train.add_argument(
        "--val", default="", metavar="DATA", help="validation data, where they are not beside the others"
    )
    train.add_argument(
        "--minutes", type=number, default=60.0, metavar="N", help="for everything together (default %(default)g)"
    )
    train.add_argument(
        "--epochs", type=number, metavar="N", help="of a whole training, in place of its share of the minutes"
    )
    train.add_argument(
        "--candidates", type=positive, default=8, metavar="N", help="networks trained at first (default %(default)s)"
    )
    train.add_argument("--seed", type=whole_number, default=0, metavar="N", help="of the split and the trainings")


def run(options: argparse.Namespace, progress: Progress) -> Any:
    from gossamer.cli.loading import say_loading
    from gossamer.cli.train import wait_passively
    from gossamer.selection.settings import checked_settings

    asked = {name: getattr(options, name) for name in ASKED}
    checked_settings(options.data, options.out, **asked)  # before seconds of loading
    wait_passively()
    say_loading(progress)
    from gossamer.selection.pick import pick

    return pick(options.data, options.out, progress=progress, **asked)
