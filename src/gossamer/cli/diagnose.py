"""`gossamer diagnose`."""

from __future__ import annotations

import argparse
from typing import Any

from gossamer.host.progress import Progress

EXAMPLES = ("gossamer diagnose runs/flowers",)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", help="run folder")
    parser.add_argument("--no-data", action="store_true", help="look at the run folder alone, not at the images")


def run(options: argparse.Namespace, progress: Progress) -> Any:
    from gossamer.diagnosis import diagnose
    from gossamer.targets import target_of

    target_of(options.run, ("run",))
    return diagnose(options.run, with_data=not options.no_data)
