"""`gossamer report`."""

from __future__ import annotations

import argparse

from gossamer.cli.result import Result
from gossamer.host.progress import Progress

EXAMPLES = ("gossamer report runs/flowers",)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", help="run folder")
    parser.add_argument("--out", default=None, metavar="FILE", help="the file; default RUN/report.html")
    parser.add_argument(
        "--model", default=None, metavar="FILE", help="exported model file whose verification is to be shown"
    )


def run(options: argparse.Namespace, progress: Progress) -> Result:
    from gossamer.targets import FILES, target_of

    target_of(options.run, ("run",))
    if options.model is not None:
        target_of(options.model, FILES)
    if options.out is not None:
        from gossamer.targets import check_result

        check_result(options.out, *([] if options.model is None else [options.model]))
    from gossamer.report.page import write_report

    path = write_report(options.run, options.out, model_file=options.model, progress=progress)
    return Result(str(path), {"report": str(path)})
