"""Contact sheets of neighbours: an image and the gallery images nearest to it, side by side. Needs numpy and pillow alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from PIL import Image, ImageDraw, ImageOps

from gossamer.errors import DataError, ImageError
from gossamer.host.storage import write_bytes
from gossamer.images.preprocess import decode
from gossamer.predictions.gallery import Match
from gossamer.runtime.drawing_files import drawing_places, encoded
from gossamer.runtime.retrieval import SearchResult

TILE, GAP, LINE = 160, 8, 14  # pixels: side of an image, between images, height of a line of text
MOST = 24  # neighbours drawn: a JPEG has at most 65535 columns
FIT = TILE // 6  # characters of the default font that fit the width of an image


def draw_neighbours(
    results: Iterable[SearchResult], paths: Iterable[str | Path], gallery: str | Path, folder: str | Path
) -> Iterator[SearchResult]:
    """The same results; each that is without an error has been drawn into `folder` once it comes.

    results: of the images of `paths`, as `search_files` gives them. gallery: the folder that was indexed; an image that
    is no longer there is a tile that says so. Raises DataError where the gallery is no folder, InputError where a
    drawing would replace another or an input image, StorageError.
    """
    root = Path(gallery)
    if not root.is_dir():
        raise DataError(f"{root}: no folder", "the folder that was indexed", "name it with --gallery")
    places = drawing_places(paths, Path(folder))

    def drawn() -> Iterator[SearchResult]:
        for one in results:
            if not one.error:
                write_bytes(places[one.source], encoded(contact_sheet(one, root), places[one.source]))
            yield one

    return drawn()


def contact_sheet(one: SearchResult, gallery: Path | None) -> Image.Image:
    """The image and its first MOST matches in a row: name and similarity below each.

    gallery: the folder that the names of the matches are in; None where they are paths.
    """
    tiles = [_tile(Path(one.source), "query", Path(one.source).name)]
    for match in one.matches[:MOST]:
        if gallery is None:
            tiles.append(_tile(Path(match.name), f"{match.similarity:.4f}", "/".join(Path(match.name).parts[-2:])))
            continue
        # an index is a file from anywhere: a name that leads out of the gallery is not followed
        outside = ".." in Path(match.name).parts or Path(match.name).is_absolute()
        tiles.append(_tile(None if outside else gallery / match.name, f"{match.similarity:.4f}", _label(match)))
    width, height = (TILE + GAP) * len(tiles) + GAP, tiles[0].height + 2 * GAP
    page = Image.new("RGB", (width, height), "white")
    for position, tile in enumerate(tiles):
        page.paste(tile, (GAP + position * (TILE + GAP), GAP))
    ImageDraw.Draw(page).line((TILE + 3 * GAP // 2, GAP, TILE + 3 * GAP // 2, height - GAP), fill="gray")
    return page


def _label(match: Match) -> str:
    return match.name if not match.label or match.name.startswith(match.label) else f"{match.label}: {match.name}"


def _tile(path: Path | None, *lines: str) -> Image.Image:
    """An image with lines of text below; an empty frame where there is none to be read."""
    tile = Image.new("RGB", (TILE, TILE + LINE * len(lines)), "white")
    draw = ImageDraw.Draw(tile)
    image = _read_image(path) if path else None
    if image:
        tile.paste(image, ((TILE - image.width) // 2, (TILE - image.height) // 2))
    else:
        draw.rectangle((0, 0, TILE - 1, TILE - 1), outline="gray")
        draw.text((GAP, TILE // 2), "cannot be read", fill="gray")
    for row, line in enumerate(lines):
        draw.text((0, TILE + row * LINE), line if len(line) <= FIT else f"...{line[3 - FIT :]}", fill="black")
    return tile


def _read_image(path: Path) -> Image.Image | None:
    """The image within a tile's sides, or None where it cannot be read."""
    try:
        return ImageOps.contain(decode(path).convert("RGB"), (TILE, TILE))
    except ImageError:
        return None
