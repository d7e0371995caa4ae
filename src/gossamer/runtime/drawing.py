"""Images with the predicted boxes or masks drawn into them, written into a folder. Needs numpy and pillow alone."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol, runtime_checkable

from PIL import Image

from gossamer.errors import InputError, SettingsError
from gossamer.host.storage import write_bytes
from gossamer.images.preprocess import decode
from gossamer.modelfile.metadata import ModelMetadata
from gossamer.predictions.postprocess import Prediction, Several
from gossamer.runtime.predict import find_images

KINDS = ("detect", "segment")  # heads whose predictions lie in the picture
FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG"}
QUALITY = 92  # of JPEG: sharp edges of lines and letters


@runtime_checkable
class Drawn(Protocol):
    """A prediction that can be drawn."""

    def draw(self, picture: Image.Image, classes: tuple[str, ...]) -> Image.Image: ...


def draw_files(
    predictions: Iterable[Prediction], metadata: ModelMetadata, paths: Iterable[str | Path], folder: str | Path
) -> Iterator[Prediction]:
    """The same predictions; each that is without an error has been drawn into `folder` once it comes.

    predictions: of the images of `paths`, as `predict_files` gives them. The drawings keep their names, and their places in
    folders of `paths`; those that are neither JPEG nor PNG get a .png behind. Of several heads, those of boxes and masks are
    drawn, one over the other. Raises SettingsError where no head predicts boxes or masks, InputError where a drawing would replace another or an input image, StorageError.
    """
    heads = [head for kind in reversed(KINDS) for head in metadata.heads if head.kind == kind]  # boxes over masks
    if not heads:
        kinds = ", ".join(head.kind for head in metadata.heads)
        embeds = [head.kind for head in metadata.heads] == ["embed"]
        instead = (
            "for neighbours: gossamer index, then gossamer search INDEX IMAGE --draw" if embeds else "leave --draw out"
        )
        raise SettingsError(f"drawing the predictions of a head of kind {kinds}", " or ".join(KINDS), instead)
    places = drawing_places(paths, Path(folder))

    def drawn() -> Iterator[Prediction]:
        for prediction in predictions:
            if not prediction.error:
                picture = decode(prediction.source, pixel_limit=metadata.preprocess.pixel_limit)
                for head in heads:
                    one = prediction.predictions[head.name] if isinstance(prediction, Several) else prediction
                    if isinstance(one, Drawn):
                        picture = one.draw(picture, head.classes)
                write_bytes(places[prediction.source], encoded(picture, places[prediction.source]))
            yield prediction

    return drawn()


def drawing_places(paths: Iterable[str | Path], folder: Path) -> dict[str, Path]:
    """Where the drawing of each image of `paths` goes, by the image's path. Raises InputError."""
    places: dict[str, Path] = {}
    drawn_from: dict[Path, str] = {}
    for path in map(Path, paths):
        for file, _ in find_images(path):
            name = file.relative_to(path) if path.is_dir() else Path(file.name)
            place = folder / (name if name.suffix.lower() in FORMATS else f"{name}.png")
            if drawn_from.setdefault(place, str(file)) != str(file):
                raise InputError(
                    f"{file} and {drawn_from[place]}: both drawn to {place}",
                    "different names",
                    "draw into separate folders",
                )
            places[str(file)] = place
    inputs = {Path(file).resolve() for file in places}
    for place in places.values():
        if place.resolve() in inputs:
            raise InputError(f"{place}: is an input image", "another folder", "draw elsewhere")
    return places


def encoded(picture: Image.Image, place: Path) -> bytes:
    """The picture in the format that the name of `place` asks for."""
    file = io.BytesIO()
    picture.save(file, FORMATS[place.suffix.lower()], quality=QUALITY)
    return file.getvalue()
