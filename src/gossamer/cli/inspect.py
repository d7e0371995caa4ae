"""`gossamer inspect`."""

from __future__ import annotations

import argparse

from gossamer.cli.arguments import check_without, input_shape, thread_number
from gossamer.cli.result import Result
from gossamer.host.progress import Progress

EXAMPLES = (
    "gossamer inspect mobilenet_v2",
    "gossamer inspect runs/flowers --measure --html flowers.html",
)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("target", help="network, ONNX file or run folder")
    parser.add_argument("--input", default="", metavar="CxHxW", help="e.g. 3x224x224; default the network's own")
    parser.add_argument("--measure", action="store_true", help="also time each layer on this machine")
    parser.add_argument(
        "--threads", type=thread_number, default=1, metavar="N", help="threads while timing (default 1)"
    )
    parser.add_argument("--html", default="", metavar="FILE", help="also draw the network into this file")


def run(options: argparse.Namespace, progress: Progress) -> Result:
    if not options.measure:
        check_without(options, "--measure", {"threads": 1}, given=False)
    from gossamer.targets import COUNTED, check_result, target_of

    target_of(options.target, COUNTED)  # before torch is loaded
    shape = input_shape(options.input)
    if options.html:
        check_result(options.html, options.target)
    from gossamer.microscope.inspection import inspect
    from gossamer.microscope.table import layer_table

    inspection = inspect(options.target, shape, measure=options.measure, threads=options.threads)
    if options.html:
        from gossamer.microscope.page import write_inspection

        write_inspection(inspection, options.html)
        progress.say(f"{options.html}: the network drawn, coloured by {'time' if inspection.timing else 'MACs'}")
    return Result(layer_table(inspection), inspection.to_json())
