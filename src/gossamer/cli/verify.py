"""`gossamer verify`."""

from __future__ import annotations

import argparse

from gossamer.cli.arguments import add_runtime
from gossamer.cli.result import Result
from gossamer.host.progress import Progress

EXAMPLES = ("gossamer verify flowers.onnx",)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="model file")
    add_runtime(parser)


def run(options: argparse.Namespace, progress: Progress) -> Result:
    from gossamer.runtime import verify
    from gossamer.targets import FILES, target_of

    target_of(options.model, FILES)
    result = verify(options.model, runtime=options.runtime)
    return Result(result.text(), result.to_json(), 0 if result.ok else 1)
