"""The images nearest to some images, and all images as points of a plane."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gossamer.data.source import Source
from gossamer.images.preprocess import Preprocess
from gossamer.predictions.neighbours import nearest, unit
from gossamer.report.photos import Photo, photo_of
from gossamer.tasks.embedding.plane import plane
from gossamer.tasks.embedding.scores import EmbeddingScores

SHOWN = 5  # neighbours of an image
WRONG, RIGHT = 6, 4  # images whose nearest is of another identity, and of the same, that are shown
SIDE = 112  # pixels of the longer side
DRAWN = 2000  # points of the plane at most


@dataclass(frozen=True)
class NeighbourImage:
    """An image: its identity as a number, and the cosine of its similarity with the query, 1 of the query itself."""

    name: str
    identity: int
    similarity: float
    photo: Photo


@dataclass(frozen=True)
class Query:
    """An image and those nearest to it, the nearest first."""

    image: NeighbourImage
    nearest: tuple[NeighbourImage, ...]


@dataclass(frozen=True)
class EmbeddingDetails:
    """What only an embedder's report shows. points: (m, 2), at most DRAWN of the images along the two directions of the
    largest variance; labels: (m,) their identities. first: (n,) the image nearest to each."""

    queries: tuple[Query, ...]
    points: NDArray[np.float32]
    labels: NDArray[np.int64]
    first: NDArray[np.int64]


def embedding_details(source: Source, scores: EmbeddingScores, preprocess: Preprocess) -> EmbeddingDetails:
    """The neighbours and the plane; neither where embeddings are not finite or there are fewer than two images."""
    count = len(scores.labels)
    if not scores.finite or count < 2:
        none = np.zeros(0, np.int64)
        return EmbeddingDetails((), np.zeros((0, 2), np.float32), none, none)
    places, similarities = others(scores.embeddings, min(SHOWN, count - 1))
    row = {name: index for index, name in enumerate(source.names)}

    def near(index: int, similarity: float) -> NeighbourImage:
        name = scores.names[index]
        pixels = preprocess.pixels(source.read(row[name]))
        image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).convert("RGB")
        return NeighbourImage(name, int(scores.labels[index]), similarity, photo_of(image, SIDE))

    queries = tuple(
        Query(near(index, 1.0), tuple(map(near, places[index].tolist(), similarities[index].tolist())))
        for index in chosen_queries(scores.labels, places[:, 0], similarities[:, 0])
    )
    drawn = np.linspace(0, count - 1, min(count, DRAWN)).round().astype(np.int64)
    return EmbeddingDetails(queries, plane(scores.embeddings)[drawn], scores.labels[drawn], places[:, 0])


def others(embeddings: NDArray[np.float32], top: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """(places, similarities), both (n, top): the images nearest to each of n, itself left out; top < n."""
    vectors = unit(embeddings)
    places, similarities = nearest(vectors, vectors, top + 1)
    own = places == np.arange(len(vectors))[:, None]
    own[~own.any(axis=1), -1] = True  # so many are equal to it that it is not among them itself: the last goes
    return places[~own].reshape(-1, top), similarities[~own].reshape(-1, top)


def chosen_queries(labels: NDArray[np.int64], first: NDArray[np.int64], similarities: NDArray[np.float32]) -> list[int]:
    """The images to show: those whose nearest is wrong, the most similar first, and some, evenly spread, where it is right.

    labels, first, similarities: (n,), the identity, the nearest image, its similarity. Images without another of their
    identity are left out.
    """
    answerable = np.bincount(labels)[labels] > 1
    right = labels[first] == labels
    wrong = np.flatnonzero(answerable & ~right)
    wrong = wrong[np.argsort(-similarities[wrong], kind="stable")][:WRONG]
    good = np.flatnonzero(answerable & right)
    spread = np.linspace(0, len(good) - 1, min(RIGHT, len(good))).round().astype(np.int64)
    return [*wrong.tolist(), *good[spread].tolist()]
