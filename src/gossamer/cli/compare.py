"""`gossamer compare`."""

from __future__ import annotations

import argparse
from typing import Any

from gossamer.cli.arguments import check_plot, check_without, input_shape, thread_number
from gossamer.host.progress import Progress

EXAMPLES = (
    "gossamer compare mobilenet_v2 shufflenet_v2_x1_0",
    "gossamer compare runs/flowers runs/other --plot runs.svg",
)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("targets", nargs="*", metavar="NET", help="network, ONNX file or run folder")
    parser.add_argument("--runs", nargs="+", default=[], metavar="RUN", help="more run folders")
    parser.add_argument("--input", default="", metavar="CxHxW", help="e.g. 3x224x224; default each network's own")
    parser.add_argument(
        "--measure",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="measure the latency of each on this machine; default where a run is among them",
    )
    parser.add_argument(
        "--threads", type=thread_number, default=1, metavar="N", help="threads while measuring (default 1)"
    )
    parser.add_argument("--html", default="", metavar="FILE", help="also write them as a page into this file")
    parser.add_argument("--plot", default="", metavar="FILE", help="also draw them into this .svg file")


def run(options: argparse.Namespace, progress: Progress) -> Any:
    from gossamer.targets import COUNTED, check_result, target_of

    check_plot(options.plot)
    kinds = [target_of(target, COUNTED).kind for target in (*options.targets, *options.runs)]  # before torch is loaded
    if not (options.measure or (options.measure is None and "run" in kinds)):
        check_without(options, "--measure", {"threads": 1}, given=False)
    shape = input_shape(options.input)
    for place in filter(None, (options.plot, options.html)):
        check_result(place, *options.targets, *options.runs)
    from gossamer.microscope.compare import compare

    result = compare(
        [*options.targets, *options.runs],
        shape,
        measure=options.measure,
        threads=options.threads,
        progress=progress,
    )
    if options.plot:
        result.plot(options.plot)
    if options.html:
        result.write_html(options.html)
    return result
