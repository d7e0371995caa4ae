"""Galleries of image files, and the images in them that are most like others.

`gossamer index` and `gossamer search` are these functions. An image that cannot be read, or whose embedding has no
direction, is skipped with the reason.
"""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gossamer.errors import DataError, ImageError, InputError
from gossamer.host.progress import SILENT, Progress, one_line
from gossamer.host.shown import Brief
from gossamer.host.text import counted
from gossamer.modelfile.metadata import ModelMetadata
from gossamer.predictions.classes import check_top
from gossamer.predictions.gallery import NO_DIRECTION, Gallery, Match, directed
from gossamer.predictions.head import Raw
from gossamer.runtime.predict import find_images

KIND = "embed"
PARTS = ("train", "val", "valid", "validation", "test")  # folders of a data set


class EmbeddingModel(Protocol):
    """What retrieval uses of a loaded model file; `runtime.Model` of an embedder has it."""

    path: str

    @property
    def sha256(self) -> str:
        """Of the file's bytes."""

    def need_metadata(self) -> ModelMetadata:
        """The metadata. Raises ModelFileError for a plain ONNX file."""

    def prepare(self, pixels: NDArray[np.uint8]) -> NDArray[Any]:
        """What `run` takes for pixels (N, H, W, C)."""

    def run(self, batch: NDArray[Any]) -> Raw:
        """Embeddings float32 (N, D) of what `prepare` makes."""


@dataclass(frozen=True, repr=False)
class EmbeddedImage(Brief):
    """The raw embedding (D,) of an image file, or the reason why there is none."""

    path: Path
    embedding: NDArray[np.float32] | None
    error: str = ""


@dataclass(frozen=True, repr=False)
class SearchResult(Brief):
    """The gallery images nearest to an image file, most similar first, or why there are none."""

    source: str
    matches: tuple[Match, ...]
    error: str = ""

    def text(self) -> str:
        """The image on one line, each of its matches on a line below."""
        lines = [f"{match.similarity:8.4f}  {one_line(match.name)}" for match in self.matches]
        return "\n".join([f"{one_line(self.source)}:{' ' + self.error if self.error else ''}", *lines])

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "matches": [match._asdict() for match in self.matches]}


def embed_files(
    model: EmbeddingModel, paths: Iterable[str | os.PathLike[str]], batch: int = 32, progress: Progress = SILENT
) -> Iterator[EmbeddedImage]:
    """The embedding of each image of files and folders, in their order; folders are walked in the order of names.

    Raises ModelFileError for a file without metadata, InputError for a network of another task.
    """
    metadata = model.need_metadata()
    check_top(1, batch)
    kinds = [head.kind for head in metadata.heads]
    if kinds != [KIND]:
        raise InputError(
            f"{model.path}: a network for {', '.join(kinds)}",
            f"a network for {KIND}",
            "export an embedder",
        )
    files = [file for path in paths for file in find_images(Path(path))]

    def embedded() -> Iterator[EmbeddedImage]:
        part: list[tuple[Path, NDArray[np.uint8] | str]] = []
        for done, (file, problem) in enumerate(progress.track(files, len(files), "images"), start=1):
            part.append((file, problem or _pixels(metadata, file)))
            if len(part) == batch or done == len(files):
                yield from _run(model, metadata, part)
                part = []

    return embedded()


def index_folder(
    model: EmbeddingModel, folder: str | os.PathLike[str], batch: int = 32, progress: Progress = SILENT
) -> tuple[Gallery, list[tuple[str, str]]]:
    """The gallery of the images of a folder, and (path, reason) of those that were skipped.

    A name is the path below `folder`; a label is the first folder of that path, as in folders of classes, "" where
    there is none; folders that are parts of a data set (train/, val/, test/) are no identities, those in them are.
    Raises DataError where no image is left, and what `embed_files` raises.
    """
    root = Path(folder)
    if not root.is_dir():
        raise DataError(f"{root}: no folder", "a folder of images, at best one folder for each identity", "check it")
    embeddings, names, skipped = [], [], []
    for image in embed_files(model, [root], batch, progress):
        if image.embedding is None:
            skipped.append((str(image.path), image.error))
        else:
            embeddings.append(image.embedding)
            names.append(image.path.relative_to(root).as_posix())
    if not embeddings:
        raise DataError(
            f"{root}: none of {counted(len(skipped), 'image')} has an embedding: {skipped[0][1]}",
            "readable images",
            "look at them",
        )
    return Gallery.build(np.stack(embeddings), names, labels_of(names), model.sha256), skipped


def labels_of(names: Sequence[str]) -> list[str]:
    """The identity of each image by its path below the folder, as `index_folder` has it."""
    folders = [name.split("/")[:-1] for name in names]
    above = 1 if all(path and path[0] in PARTS for path in folders) else 0  # folders over that of an identity
    return [next(iter(path[above:]), "") for path in folders]


def search_files(
    model: EmbeddingModel,
    gallery: Gallery,
    paths: Iterable[str | os.PathLike[str]],
    top: int = 5,
    batch: int = 32,
    backend: str = "auto",
    progress: Progress = SILENT,
) -> Iterator[SearchResult]:
    """The `top` most similar images of the gallery for each image of files and folders, in their order.

    Raises DataError where the gallery is of another model file, and what `embed_files` and `Gallery.search` raise.
    """
    gallery.check_model(model.sha256)
    check_top(top, batch)
    every = embed_files(model, paths, batch, progress)

    def results() -> Iterator[SearchResult]:
        while part := list(itertools.islice(every, batch)):
            queries = [image.embedding for image in part if image.embedding is not None]
            rows = iter(gallery.search(np.stack(queries), top, backend) if queries else ())
            for image in part:
                yield SearchResult(str(image.path), () if image.error else tuple(next(rows)), image.error)

    return results()


def model_beside(gallery: Gallery) -> str:
    """The path of the gallery's model file, where it is beside the gallery's file. Raises DataError."""
    folder = Path(gallery.path).parent
    for path in sorted(folder.glob("*.onnx")):
        if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == gallery.model:
            return str(path)
    raise DataError(
        f"{gallery.path}: no .onnx file in {folder} made it (SHA-256 {gallery.model[:12]}...)",
        "the model file that made the index, beside it or by --model",
        "name it, or index the images again",
    )


def _pixels(metadata: ModelMetadata, file: Path) -> NDArray[np.uint8] | str:
    """The pixels of an image, or why there are none."""
    try:
        return metadata.preprocess.pixels(file)
    except ImageError as error:
        return str(error)


def _run(
    model: EmbeddingModel, metadata: ModelMetadata, part: list[tuple[Path, NDArray[np.uint8] | str]]
) -> Iterator[EmbeddedImage]:
    """The embeddings of a batch of files, and the reason for those without pixels."""
    pixels = [item for _, item in part if not isinstance(item, str)]
    outputs = np.zeros((0, 1), np.float32)
    if pixels:
        outputs = metadata.heads[0].of(model.run(model.prepare(np.stack(pixels))))["embedding"]
    good = iter(zip(outputs, directed(outputs).tolist()))
    for file, item in part:
        if isinstance(item, str):
            yield EmbeddedImage(file, None, item)
            continue
        embedding, fine = next(good)
        yield (EmbeddedImage(file, embedding) if fine else EmbeddedImage(file, None, NO_DIRECTION))
