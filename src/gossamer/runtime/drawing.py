"""Images with the predictions drawn into them, written into a folder. Needs numpy and pillow alone.

Boxes, masks with a legend, classes, labels and numbers are drawn on the image; embeddings as the image beside the nearest
of the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol, runtime_checkable

from PIL import Image

from gossamer.host.storage import write_bytes
from gossamer.images.preprocess import decode
from gossamer.modelfile.metadata import ModelMetadata
from gossamer.predictions.captions import draw_lines, enlarged
from gossamer.predictions.gallery import Match
from gossamer.predictions.head import OutputHead
from gossamer.predictions.postprocess import Embedding, Prediction, Several, under_head
from gossamer.runtime.contact_sheets import contact_sheet
from gossamer.runtime.drawing_files import drawing_places, encoded
from gossamer.runtime.retrieval import SearchResult

ORDER = ("segment", "detect")  # boxes over masks; then the lines of all others
NEIGHBOURS = 5  # nearest images beside one of an embedder


@runtime_checkable
class Drawn(Protocol):
    """A prediction that is drawn where it is in the image."""

    def draw(self, image: Image.Image, classes: tuple[str, ...]) -> Image.Image: ...


@runtime_checkable
class Written(Protocol):
    """A prediction that is written in the corner of the image."""

    def lines(self) -> list[str]: ...


def draw_files(
    predictions: Iterable[Prediction], metadata: ModelMetadata, paths: Iterable[str | Path], folder: str | Path
) -> Iterator[Prediction]:
    """The same predictions; each that is without an error has been drawn into `folder` once it comes.

    predictions: of the images of `paths`, as `predict_files` gives them. The drawings keep their names, and their places in
    folders of `paths`; those that are neither JPEG nor PNG get a .png behind. Of several heads, masks, boxes and the lines of
    the others are drawn over each other. Of an embedder, each image is drawn beside the most similar of the others, for
    which all predictions are held. Raises InputError where a drawing would replace another or an input image, StorageError.
    """
    places = drawing_places(paths, Path(folder))
    if [head.kind for head in metadata.heads] == ["embed"]:
        return _neighbours(predictions, places)
    return _drawn(predictions, metadata, places)


def _drawn(predictions: Iterable[Prediction], metadata: ModelMetadata, places: dict[str, Path]) -> Iterator[Prediction]:
    for prediction in predictions:
        if not prediction.error:
            image = decode(prediction.source, pixel_limit=metadata.preprocess.pixel_limit)
            page = draw_prediction(image, prediction, metadata.heads)
            write_bytes(places[prediction.source], encoded(page, places[prediction.source]))
        yield prediction


def draw_prediction(image: Image.Image, prediction: Prediction, heads: tuple[OutputHead, ...]) -> Image.Image:
    """The image with what the heads predict: masks, boxes over them, and the lines of the others in the upper left corner.

    image: upright, as `decode` gives it. A small one is enlarged so that text can be read.
    """
    page, lines = enlarged(image), []
    for head in sorted(heads, key=lambda head: ORDER.index(head.kind) if head.kind in ORDER else len(ORDER)):
        part = prediction.predictions[head.name] if isinstance(prediction, Several) else prediction
        if isinstance(part, Drawn):
            page = part.draw(page, head.classes)
        elif isinstance(part, Written):
            lines += [under_head(head.name, part, line) if head.name else line for line in part.lines()]
    draw_lines(page, lines)
    return page


def _neighbours(predictions: Iterable[Prediction], places: dict[str, Path]) -> Iterator[Prediction]:
    """Each image beside the NEIGHBOURS most similar of the others, by the cosine of their embeddings."""
    every = list(predictions)
    good = [one for one in every if isinstance(one, Embedding) and not one.error]
    for one in every:
        if isinstance(one, Embedding) and not one.error:
            others = sorted(
                (Match(other.source, "", float(other.vector @ one.vector)) for other in good if other is not one),
                key=lambda match: -match.similarity,
            )
            result = SearchResult(one.source, tuple(others[:NEIGHBOURS]))
            write_bytes(places[one.source], encoded(contact_sheet(result, None), places[one.source]))
        yield one
