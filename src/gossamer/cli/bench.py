"""`gossamer bench`."""

from __future__ import annotations

import argparse
from typing import Any

from gossamer.cli.arguments import add_batch, check_plot, check_without, number, thread_counts
from gossamer.host.progress import Progress

EXAMPLES = (
    "gossamer bench flowers.onnx --threads 1,2",
    "gossamer bench flowers.onnx --runtimes all --plot latency.svg",
    "gossamer bench mobilenet_v2 shufflenet_v2_x1_0 --plot latency.svg",
)


def arguments(parser: argparse.ArgumentParser) -> None:
    from gossamer.runtime.table import RUNTIMES

    parser.add_argument("targets", nargs="+", help="model file, run folder or network name")
    parser.add_argument("--threads", default="1", metavar="N,N", help="numbers of threads, e.g. 1,2 (default 1)")
    add_batch(parser, 1)
    parser.add_argument(
        "--runtimes",
        default="",
        metavar="NAME,NAME",
        help=f"of torch, torch.compile, {', '.join(RUNTIMES)}, with commas; default all that are installed but "
        "reference; all: these, each with the file made for it, verified before",
    )
    parser.add_argument(
        "--seconds",
        type=number,
        default=1.0,
        metavar="S",
        help="time for each of a candidate's rounds; more is steadier (default 1)",
    )
    parser.add_argument("--profile", action="store_true", help="time each operation of compiled networks instead")
    parser.add_argument("--plot", default="", metavar="FILE", help="also draw the latencies into this .svg file")


def run(options: argparse.Namespace, progress: Progress) -> Any:
    counts = thread_counts(options.threads)
    if options.profile:
        check_without(options, "--profile", {"runtimes": "", "batch": 1, "seconds": 1.0, "plot": ""}, given=True)
        from gossamer.bench.profile import profile

        return profile(options.targets, counts)
    from gossamer.bench import bench
    from gossamer.bench.saving import save_in_runs

    check_plot(options.plot)
    result = bench(
        options.targets,
        runtimes=options.runtimes.split(",") if options.runtimes else None,
        threads=counts,
        batch=options.batch,
        seconds=options.seconds,
        progress=progress,
    )
    if options.plot:
        result.plot(options.plot)
    save_in_runs(result, options.targets)
    return result
