"""`gossamer doctor`: the installation, or with --data a dataset."""

from __future__ import annotations

import argparse
from typing import Any

from gossamer.errors import SettingsError
from gossamer.host.progress import Progress

EXAMPLES = (
    "gossamer doctor",
    "gossamer doctor --data signs/ --task detect",
)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", default="", metavar="DIR", help="images to check instead")
    parser.add_argument("--task", default="", help="their task, as for train: also check the boxes, masks or labels")
    parser.add_argument("--heads", default="", help="task multi: the heads, as for train")
    parser.add_argument("--val", default="", help="validation images, where they are in another place")


def run(options: argparse.Namespace, progress: Progress) -> Any:
    if options.data:
        from gossamer.data.check.dataset import check_dataset

        task = options.task or "classify"
        return check_dataset(options.data, task, val=options.val, heads=options.heads, progress=progress)
    for flag in ("task", "val", "heads"):
        if value := getattr(options, flag):
            raise SettingsError(f"--{flag} {value} without --data", "both, or neither", "name the images: --data DIR")
    from gossamer.doctor import doctor

    return doctor(progress)
