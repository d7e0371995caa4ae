"""`gossamer search`."""

from __future__ import annotations

import argparse
from pathlib import Path

from gossamer.cli.arguments import add_batch, add_runtime, positive
from gossamer.cli.result import Result
from gossamer.errors import SettingsError
from gossamer.host.progress import Progress

EXAMPLES = (
    "gossamer search people.index a.jpg --top 5",
    "gossamer search people.index a.jpg --draw neighbours/ --gallery gallery/",
)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("index", help="file that `gossamer index` wrote")
    parser.add_argument("images", nargs="+", help="images or folders")
    parser.add_argument(
        "--model", default="", metavar="FILE", help="model file that made it; default the one beside the index"
    )
    parser.add_argument("--top", type=positive, default=5, metavar="N", help="images to find for each (default 5)")
    parser.add_argument(
        "--backend",
        default="auto",
        metavar="auto|numpy|faiss",
        help="auto (default), numpy or faiss; auto is faiss where it is installed",
    )
    parser.add_argument(
        "--draw", default="", metavar="FOLDER", help="also draw each image and its neighbours into this folder"
    )
    parser.add_argument("--gallery", default="", metavar="FOLDER", help="for --draw: the folder that was indexed")
    add_batch(parser, 32)
    add_runtime(parser)


def run(options: argparse.Namespace, progress: Progress) -> Result:
    from gossamer.predictions.gallery import Gallery
    from gossamer.runtime import load
    from gossamer.runtime.retrieval import model_beside, search_files
    from gossamer.targets import FILES, is_folder, is_there, target_of

    if (
        not is_there(Path(options.index))
        or is_folder(Path(options.index))
        or options.index.endswith((".onnx", ".goss"))
    ):
        target_of(options.index, ("index",))  # what any other file lacks, the gallery says
    if options.model:
        target_of(options.model, FILES)
    gallery = Gallery.load(options.index)
    model = load(options.model or model_beside(gallery), runtime=options.runtime)
    if bool(options.draw) != bool(options.gallery):
        raise SettingsError(
            "one of --draw and --gallery",
            "both: the folder for the contact sheets, and the folder that was indexed",
            "name both",
        )
    results = search_files(
        model, gallery, options.images, options.top, options.batch, options.backend, progress=progress
    )
    if options.draw:
        from gossamer.runtime.contact_sheets import draw_neighbours

        results = draw_neighbours(results, options.images, options.gallery, options.draw)
    queries = list(results)
    values = {"index": options.index, "model": model.path, "queries": [query.to_json() for query in queries]}
    exit_code = 0 if any(not query.error for query in queries) else 2
    return Result("\n".join(query.text() for query in queries), values, exit_code)
