"""`gossamer report`."""

from __future__ import annotations

import argparse

from gossamer.cli.result import Result
from gossamer.host.progress import Progress


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", help="run folder")
    parser.add_argument("--out", default=None, help="the file; default RUN/report.html")
    parser.add_argument("--model", default=None, help="exported model file whose verification is to be shown")


def run(options: argparse.Namespace, progress: Progress) -> Result:
    from gossamer.report.page import write_report

    path = write_report(options.run, options.out, model_file=options.model, progress=progress)
    return Result(str(path), {"report": str(path)})
