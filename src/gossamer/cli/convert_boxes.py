"""`gossamer convert-boxes`."""

from __future__ import annotations

import argparse
from typing import Any

from gossamer.host.progress import Progress

EXAMPLES = ("gossamer convert-boxes signs/ signs_yolo/ --to yolo",)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("root", help="VOC, COCO or YOLO folder")
    parser.add_argument("out", help="the folder to make")
    parser.add_argument("--to", required=True, choices=("voc", "coco", "yolo"), help="the format to write")


def run(options: argparse.Namespace, progress: Progress) -> Any:
    from gossamer.data.boxes.convert import convert

    return convert(options.root, options.out, options.to)
