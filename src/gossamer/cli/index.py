"""`gossamer index`."""

from __future__ import annotations

import argparse

from gossamer.cli.arguments import add_batch, add_runtime, positive
from gossamer.cli.result import Result
from gossamer.host.progress import Progress
from gossamer.host.text import counted

TYPE_CHECKING = False  # as typing has it, whose import the help need not wait for
if TYPE_CHECKING:
    from gossamer.batch.index import IndexResult

EXAMPLES = (
    "gossamer index people.onnx gallery/ --out people.index",
    "gossamer index people.onnx shards/ --out people.index --workers 2",
)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="model file of an embedder")
    parser.add_argument(
        "folder", help="images, at best in one folder for each identity; with --workers also .tar shards"
    )
    parser.add_argument("--out", required=True, metavar="FILE", help="the index to write")
    add_batch(parser, 32)
    add_runtime(parser)
    parser.add_argument(
        "--workers", type=positive, default=None, metavar="N", help="processes, for many images; resumed after a kill"
    )
    parser.add_argument(
        "--ray", default="", metavar="auto|local|ADDRESS", help="the workers are those of a Ray cluster"
    )


def run(options: argparse.Namespace, progress: Progress) -> Result | IndexResult:
    if options.workers or options.ray:
        from gossamer.batch.index import index_many

        return index_many(
            options.model,
            options.folder,
            options.out,
            options.workers or 0,
            batch=options.batch,
            runtime=options.runtime,
            ray=options.ray,
            progress=progress,
        )
    from gossamer.runtime import load
    from gossamer.runtime.retrieval import index_folder
    from gossamer.targets import FILES, check_result, target_of

    check_result(options.out, options.model)
    target_of(options.model, FILES)
    model = load(options.model, runtime=options.runtime)
    gallery, skipped = index_folder(model, options.folder, options.batch, progress)
    gallery.save(options.out)
    identities = len({label for label in gallery.labels if label})
    lines = [f"{options.out}: {counted(len(gallery), 'image')}, {counted(identities, 'identity')}"]
    values = {
        "index": options.out,
        "model": options.model,
        "images": len(gallery),
        "identities": identities,
        "unreadable": [{"source": source, "error": reason} for source, reason in skipped],
    }
    return Result("\n".join([*lines, *(f"skipped: {reason}" for _, reason in skipped)]), values)
