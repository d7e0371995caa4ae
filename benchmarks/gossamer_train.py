"""The other side of the comparison: `gossamer.train` on the same images, stopped after some seconds.

    python benchmarks/gossamer_train.py DATA --size 224 --batch 32 --seconds 30

Precision, memory format, workers and threads are left to gossamer. Steps are timed from outside, by the progress that
`train` reports to; the first ones do not count. Prints images per second as JSON.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

import gossamer
from gossamer.host.progress import Progress

T = TypeVar("T")
WARMUP_STEPS = 3


class Enough(Exception):
    """The time is up."""


class Stopwatch(Progress):
    """Counts the steps of the training epochs, and ends the training after `seconds`."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.step, self.started, self.elapsed = seconds, 0, 0.0, 0.0
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)

    def track(self, items: Iterable[T], total: int | None = None, what: str = "") -> Iterator[T]:
        if not what.startswith("epoch"):
            yield from items
            return
        for item in items:
            yield item
            self.step += 1
            now = time.perf_counter()
            if self.step == WARMUP_STEPS:
                self.started = now
            self.elapsed = now - self.started
            if self.step > WARMUP_STEPS and self.elapsed >= self.seconds:
                raise Enough


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="folder with train/ and val/")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lr", type=float, default=0.05)
    parser.add_argument("--scale", type=float, nargs=2, default=(0.08, 1.0))
    parser.add_argument("--seconds", type=float, required=True)
    options = parser.parse_args()
    watch = Stopwatch(options.seconds)
    with tempfile.TemporaryDirectory() as folder:
        settings = gossamer.Settings(
            data=options.data,
            out=f"{folder}/run",
            net="mobilenet_v2",
            input=str(options.size),
            batch=options.batch,
            epochs=1000,
            lr=options.lr,
            crop_scale=tuple(options.scale),
            label_smoothing=0.0,
            weight_decay=4e-5,
        )
        try:
            gossamer.train(settings, progress=watch)
        except Enough:
            images = (watch.step - WARMUP_STEPS) * options.batch
            note = next((line for line in watch.lines if line.startswith("precision ")), "")
            print(json.dumps({"images_per_second": images / watch.elapsed, "images": images, "note": note}))


if __name__ == "__main__":
    main()
