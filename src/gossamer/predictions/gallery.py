"""A gallery: the embeddings of known images in one file, searched for those nearest to others.

The file, all numbers little-endian:

    8 bytes    the mark GOSSGAL and the format, b"GOSSGAL1"
    8 bytes    h, the length of the header
    h bytes    the header, JSON: {"model": the SHA-256 of the embedder's model file, "dim": D,
               "names": [n texts], "labels": [n texts]}
    n * D * 4  the embeddings, float32, each of length 1
    32 bytes   the SHA-256 of all bytes before it

Whatever else a file holds, it is refused by a DataError.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gossamer.errors import DataError, InputError, MissingPackageError, UnknownNameError
from gossamer.host.shown import Brief
from gossamer.host.storage import atomic_write, open_regular
from gossamer.predictions.neighbours import BACKENDS, Index, faiss_index, nearest, unit

MARK = b"GOSSGAL1"
SEAL = 32  # bytes of a SHA-256
FILE_LIMIT = 2**34  # bytes: 8 million embeddings of 512 numbers
LENGTH_TOLERANCE = 1e-3  # of the length of an embedding
_ALLOWED = "a gallery as `gossamer index` writes it"
_DO = "index the images again"
NO_DIRECTION = "the network's outputs are not finite, or all zeros"


class Match(NamedTuple):
    """A gallery image near a query: its name, its identity ("" where none is known), the cosine similarity -1..1."""

    name: str
    label: str
    similarity: float


@dataclass(frozen=True, repr=False)
class Gallery(Brief):
    """Embeddings (n, D) float32 of length 1, with a name and a label (the identity, or "") each.

    model: the SHA-256 of the model file that computed them, in hexadecimal digits. path: the file they came from.
    """

    embeddings: NDArray[np.float32]
    names: tuple[str, ...]
    labels: tuple[str, ...]
    model: str
    path: str = "the gallery"

    @classmethod
    def build(cls, embeddings: NDArray[np.float32], names: Sequence[str], labels: Sequence[str], model: str) -> Gallery:
        """A gallery of raw embeddings (n, D). Raises DataError: none, not as many names, not finite, only zeros."""
        count = len(embeddings)
        if embeddings.ndim != 2 or not embeddings.size or len(names) != count or len(labels) != count:
            raise DataError(
                f"embeddings {embeddings.shape} with {len(names)} names and {len(labels)} labels",
                "one name and one label for each of at least one embedding (n, D)",
                "give such arrays",
            )
        return cls(normalised(embeddings, names), tuple(names), tuple(labels), model)

    def __len__(self) -> int:
        return len(self.names)

    def check_model(self, sha256: str) -> None:
        """Raises DataError unless the gallery is of the model file with this SHA-256."""
        if sha256 != self.model:
            raise DataError(
                f"{self.path}: made by another model file (SHA-256 {self.model[:12]}..., given {sha256[:12]}...)",
                "the model file that made the gallery",
                "give that one, or index the images again with this one",
            )

    def search(self, queries: NDArray[np.float32], top: int = 5, backend: str = "auto") -> list[list[Match]]:
        """The `top` most similar images for each of the raw embeddings (m, D), most similar first.

        Of equal ones, that which stands first in the gallery. backend: "numpy"; "faiss", as exact and on all cores,
        but equal ones come in any order; "auto", faiss where it is installed.
        Raises InputError, DataError for an embedding without a direction, UnknownNameError, MissingPackageError.
        """
        if queries.ndim != 2 or queries.shape[1] != self.embeddings.shape[1]:
            raise InputError(
                f"embeddings {queries.shape} for {self.path}", f"(m, {self.embeddings.shape[1]})", "give such an array"
            )
        if isinstance(top, bool) or not isinstance(top, int) or top < 1:
            raise InputError(f"top {top!r}", "a whole number from 1", "give such a number")
        vectors = normalised(queries, [f"query {index}" for index in range(len(queries))])
        places, values = self._nearest(vectors, min(top, len(self)), backend)
        return [
            [Match(self.names[i], self.labels[i], value) for i, value in zip(row, similarities)]
            for row, similarities in zip(places.tolist(), values.tolist())
        ]

    def _nearest(
        self, vectors: NDArray[np.float32], top: int, backend: str
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """(places, similarities) of the nearest of each of the vectors (m, D), both (m, top)."""
        if backend not in BACKENDS:
            raise UnknownNameError("search backend", backend, BACKENDS)
        if backend != "numpy":
            try:
                values, places = self._faiss.search(vectors, top)
                return places, values
            except MissingPackageError:
                if backend == "faiss":
                    raise
        return nearest(self.embeddings, vectors, top)

    @cached_property
    def _faiss(self) -> Index:
        return faiss_index(self.embeddings)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the file in one step. Raises StorageError."""
        write_gallery(path, self.model, self.embeddings.shape[1], self.names, self.labels, [self.embeddings])

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Gallery:
        """Read a file. Raises DataError, and no other error whatever the file holds."""
        name = os.fspath(path)
        try:
            with open_regular(path) as file:
                size = os.fstat(file.fileno()).st_size
                if size > FILE_LIMIT:
                    raise _refused(name, f"{size} bytes", f"a gallery of at most {FILE_LIMIT} bytes")
                data = file.read()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise DataError(f"{name}: {reason}", "a file that can be read", "check the path") from error
        return _parse(memoryview(data), name)


def write_gallery(
    path: str | os.PathLike[str],
    model: str,
    dim: int,
    names: Sequence[str],
    labels: Sequence[str],
    parts: Iterable[NDArray[np.float32]],
) -> None:
    """Write a gallery whose embeddings (n, D) of length 1 come part by part. Raises StorageError, DataError where it is too large."""
    header = json.dumps({"model": model, "dim": dim, "names": list(names), "labels": list(labels)}).encode("ascii")
    size = len(MARK) + 8 + len(header) + 4 * dim * len(names) + SEAL
    if size > FILE_LIMIT:
        raise DataError(
            f"{os.fspath(path)}: an index of {size} bytes",
            f"{FILE_LIMIT} bytes at most",
            "make several, or a smaller --dim",
        )
    state = hashlib.sha256()
    with atomic_write(path) as file:

        def write(part: bytes) -> None:
            state.update(part)
            file.write(part)

        for part in (MARK, len(header).to_bytes(8, "little"), header):
            write(part)
        for embeddings in parts:
            write(embeddings.astype("<f4").tobytes())
        file.write(state.digest())


def normalised(embeddings: NDArray[np.float32], names: Sequence[str]) -> NDArray[np.float32]:
    """Embeddings (n, D) divided by their lengths. Raises DataError that names one that has no direction."""
    for index in np.flatnonzero(~directed(embeddings))[:1].tolist():
        raise DataError(
            f"{names[index]}: its embedding is not finite or all zeros", "an embedding with a direction", "leave it out"
        )
    return unit(embeddings)


def directed(embeddings: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which of the embeddings (n, D) are finite and not all zeros: (n,)."""
    return np.asarray(np.isfinite(embeddings).all(axis=1) & embeddings.any(axis=1))


def _parse(data: memoryview, name: str) -> Gallery:
    start = len(MARK) + 8
    if len(data) < start + SEAL or data[: len(MARK)] != MARK:
        kind = "a gallery of another format" if data[: len(MARK) - 1] == MARK[:-1] else "no gallery"
        raise _refused(name, kind)
    body = data[:-SEAL]
    if hashlib.sha256(body).digest() != data[-SEAL:]:
        raise _refused(name, "its checksum does not fit: it was cut off or changed")
    length = int.from_bytes(data[len(MARK) : start], "little")
    if length > len(body) - start:
        raise _refused(name, "its header reaches past the end")
    model, dim, names, labels = _header(bytes(body[start : start + length]), name)
    values = body[start + length :]
    if len(values) != 4 * dim * len(names):
        raise _refused(name, f"{len(values)} bytes of embeddings for {len(names)} of {dim} numbers")
    embeddings = np.frombuffer(values, "<f4").reshape(len(names), dim)
    with np.errstate(over="ignore", invalid="ignore"):
        lengths = np.linalg.norm(embeddings, axis=1)
    if not (np.abs(lengths - 1) <= LENGTH_TOLERANCE).all():
        raise _refused(name, "an embedding that has not the length 1")
    return Gallery(embeddings.astype(np.float32, copy=False), names, labels, model, name)


def _header(data: bytes, name: str) -> tuple[str, int, tuple[str, ...], tuple[str, ...]]:
    """(model, dim, names, labels) of a header. Raises DataError."""
    try:
        facts: Any = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _refused(name, "its header is not JSON") from error
    if not isinstance(facts, dict) or set(facts) != {"model", "dim", "names", "labels"}:
        raise _refused(name, "its header has not the entries model, dim, names and labels")
    model, dim, names, labels = (facts[key] for key in ("model", "dim", "names", "labels"))
    if not isinstance(model, str) or not re.fullmatch("[0-9a-f]{64}", model):
        raise _refused(name, "its model is no SHA-256")
    texts = all(isinstance(rows, list) and all(isinstance(row, str) for row in rows) for rows in (names, labels))
    if not texts or not names or len(names) != len(labels):
        raise _refused(name, "its names and labels are not as many texts each, at least one")
    if isinstance(dim, bool) or not isinstance(dim, int) or dim < 1:
        raise _refused(name, "its dim is no whole number from 1")
    return model, dim, tuple(names), tuple(labels)


def _refused(name: str, reason: str, allowed: str = _ALLOWED) -> DataError:
    return DataError(f"{name}: {reason}", allowed, _DO)
