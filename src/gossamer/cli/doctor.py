"""`gossamer doctor`: the installation, or with --data a dataset."""

from __future__ import annotations

import argparse
from typing import Any

from gossamer.errors import SettingsError
from gossamer.host.progress import Progress


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", default="", help="images to check instead")
    parser.add_argument("--task", default="", help="their task, as for train: also check the boxes or masks")
    parser.add_argument("--val", default="", help="validation images, where they are in another place")


def run(options: argparse.Namespace, progress: Progress) -> Any:
    if options.data:
        from gossamer.tasks.dataset_check import check_dataset

        return check_dataset(options.data, options.task or "classify", val=options.val, progress=progress)
    if options.task:
        raise SettingsError(f"--task {options.task} without --data", "both, or neither", "name the images: --data DIR")
    from gossamer.doctor import doctor

    return doctor()
