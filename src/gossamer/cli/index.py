"""`gossamer index`."""

from __future__ import annotations

import argparse

from gossamer.cli.arguments import add_batch, add_runtime
from gossamer.cli.result import Result
from gossamer.host.progress import Progress

EXAMPLES = ("gossamer index people.onnx gallery/ --out people.index",)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="model file of an embedder")
    parser.add_argument("folder", help="images, at best in one folder for each identity")
    parser.add_argument("--out", required=True, metavar="FILE", help="the index to write")
    add_batch(parser, 32)
    add_runtime(parser)


def run(options: argparse.Namespace, progress: Progress) -> Result:
    from gossamer.runtime import load
    from gossamer.runtime.retrieval import index_folder
    from gossamer.targets import FILES, check_result, target_of

    check_result(options.out, options.model)
    target_of(options.model, FILES)
    model = load(options.model, runtime=options.runtime)
    gallery, skipped = index_folder(model, options.folder, options.batch, progress)
    gallery.save(options.out)
    identities = len({label for label in gallery.labels if label})
    lines = [f"{options.out}: {len(gallery)} images, {identities} identities"]
    values = {
        "index": options.out,
        "model": options.model,
        "images": len(gallery),
        "identities": identities,
        "unreadable": [{"source": source, "error": reason} for source, reason in skipped],
    }
    return Result("\n".join([*lines, *(f"skipped: {reason}" for _, reason in skipped)]), values)
