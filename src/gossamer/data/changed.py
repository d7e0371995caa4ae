"""What has changed in the data of a run since it began: images added, gone, of other content, with other labels.

A run keeps a line per image: its name, its size in bytes, the time it was written, and a digest of its label or target.
No image is read for it: one of another size has other content, one of the same size that was written again may have.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from gossamer.data.source import Data, shown
from gossamer.host.text import counted


class ImageState(NamedTuple):
    """An image when a run began. time: of its last change, in nanoseconds. target: digest of its label or target."""

    name: str
    size: int
    time: int
    target: str


def image_states(data: Data) -> Iterator[ImageState]:
    """The state of every image of every split, in order; no image is read."""
    for source in data.splits().values():
        stats = source.store.stats(source.rows)
        for index, (size, time) in enumerate(stats):
            if source.targets is None:
                target = source.classes[int(source.labels[index])]
            else:
                target = source.targets.line(int(source.rows[index]))
            digest = hashlib.blake2b(target.encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()
            yield ImageState(source.names[index], size, time, digest)


def changes_since(states: Sequence[ImageState], data: Data) -> list[str]:
    """Notes on the images of `data` that are not as they were, by count and first names; images that are gone or were
    added are noted where the saved split is opened. states: of the images then."""
    then = {state.name: state for state in states}
    gone: list[str] = []
    content: list[str] = []
    written: list[str] = []
    labels: list[str] = []
    both = 0
    for state in image_states(data):
        old = then.get(state.name)
        if old is None:
            continue
        both += 1
        if state.size < 0 <= old.size:
            gone.append(state.name)
        elif state.size != old.size:
            content.append(state.name)
        elif state.time != old.time:
            written.append(state.name)
        if state.target != old.target:
            labels.append(state.name)
    notes = [
        *_note(gone, "image is gone, though still listed", "images are gone, though still listed"),
        *_note(content, "image has other content now, by its size", "images have other content now, by their size"),
        *_note(labels, "image has another label or annotation now", "images have another label or annotation now"),
    ]
    if len(written) == both and both > 1:
        notes.append(
            f"since the run began, all {both} images were written again, with the same sizes: a copy, or new content"
        )
    else:
        may = "written again with the same size: the content may be another"
        notes += _note(written, f"image was {may}", f"images were {may}")
    return notes


def _note(names: Sequence[str], one: str, several: str) -> list[str]:
    return [f"since the run began, {counted(len(names), one, several)}: {shown(names)}"] if names else []
