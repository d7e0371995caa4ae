"""`gossamer review`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from gossamer.cli.arguments import check_without, input_shape, thread_number
from gossamer.host.progress import Progress

if TYPE_CHECKING:
    from gossamer.adviser.review import Review

EXAMPLES = (
    "gossamer review mobilenet_v2",
    "gossamer review runs/flowers --measure --html review.html",
    "gossamer review runs/flowers --data",
)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("target", help="network, ONNX file or run folder")
    parser.add_argument("--input", default="", metavar="CxHxW", help="e.g. 3x224x224; default the network's own")
    parser.add_argument("--measure", action="store_true", help="also build and time the proposed changes here")
    parser.add_argument(
        "--threads", type=thread_number, default=1, metavar="N", help="threads while timing (default 1)"
    )
    parser.add_argument(
        "--data",
        nargs="?",
        const="",
        metavar="DIR",
        help="of a run: also compare the network with its training images, here or where they lay when it was trained",
    )
    parser.add_argument(
        "--html", default="", metavar="FILE", help="also draw the network with the findings in this file"
    )


def run(options: argparse.Namespace, progress: Progress) -> Review:
    if not options.measure:
        check_without(options, "--measure", {"threads": 1}, given=False)
    from gossamer.targets import COUNTED, check_result, target_of

    target_of(options.target, COUNTED)  # before torch is loaded
    shape = input_shape(options.input)
    if options.html:
        check_result(options.html, options.target)
    from gossamer.adviser.review import review

    result = review(
        options.target,
        shape,
        measure=options.measure,
        threads=options.threads,
        data=options.data,
        progress=progress,
    )
    if options.html:
        from gossamer.adviser.page import write_review

        write_review(result, options.html)
        progress.say(f"{options.html}: the network drawn, with the findings in place")
    return result
