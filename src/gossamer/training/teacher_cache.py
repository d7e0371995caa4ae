"""Answers of a teacher kept on disk, by what it saw, for a later epoch or another training.

An answer is found by a digest of the very numbers that the teacher saw, so it is exact whatever the augmentation is. The same numbers
come again in each epoch where nothing is drawn at random, and with random augmentation in another training of the same data,
input and seed, whose draws are the same: another student, another loss. A teacher that always saw one fixed view of an image
would teach less (Beyer et al. 2022, arXiv 2106.05237, section 3), so no answer is ever used for another view.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save
from torch import Tensor

from gossamer.errors import StorageError
from gossamer.host.storage import read_regular, remove_parts, storage_error, user_cache, write_bytes
from gossamer.host.text import counted

VERSION = 1
DIGEST = 16  # bytes
SHARD = 1 << 24  # bytes of answers that are written at once
KEYS = "gossamer.keys"  # of a file: the digests of its rows

Row = dict[str, NDArray[np.float32]]


class TeacherCache:
    """Outputs by name, a row an image. notes: lines for the person, which are taken from it.

    facts: what the outputs depend on beside what the teacher sees: its SHA-256, its precision. limit: bytes of answers, on disk and
    in memory. Raises StorageError where the folder cannot be made.
    """

    def __init__(self, facts: Mapping[str, Any], limit: int, folder: str = "") -> None:
        text = json.dumps({**facts, "version": VERSION}, sort_keys=True, default=str)
        self.key = hashlib.sha256(text.encode()).hexdigest()[:32]
        self.folder, self.limit = Path(folder or user_cache() / "teacher"), limit
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise storage_error(self.folder, error) from error
        remove_parts(self.folder)
        self.rows: dict[bytes, Row] = {}
        self.pending: dict[bytes, Row] = {}
        self.size = self.pending_size = 0
        self.full = False
        self.notes: list[str] = []
        for path in sorted(self.folder.glob(f"{self.key}-*.safetensors")):
            self._read(path)
        self.notes.append(f"teacher cache: {counted(len(self.rows), 'answer')} of earlier trainings in {self.folder}")

    def _read(self, path: Path) -> None:
        """Take the answers of a file; one that is damaged is named and left out, and one that is too many is not opened."""
        try:
            if self.size + path.stat().st_size > self.limit:
                self._fill()
                return
            data = read_regular(path)
            if path.name != self._name(data):
                raise ValueError("its digest is not that of its name")
            arrays = load(data)
            keys = arrays.pop(KEYS)
            fits = keys.dtype == np.uint8 and keys.ndim == 2 and keys.shape[1] == DIGEST
            if (
                not fits
                or not arrays
                or any(len(one) != len(keys) or one.dtype != np.float32 for one in arrays.values())
            ):
                raise ValueError("other arrays than those of a cache")
        except (OSError, KeyError, ValueError, TypeError, SafetensorError) as error:
            self.notes.append(
                f"teacher cache: {path} is left out, it is damaged ({str(error).splitlines()[0][:80]}): remove it"
            )
            return
        self.size += len(data)
        for place, digest in enumerate(keys):
            self.rows[digest.tobytes()] = {name: one[place] for name, one in arrays.items()}

    def _name(self, data: bytes) -> str:
        """What a file of these bytes is called."""
        return f"{self.key}-{hashlib.sha256(data).hexdigest()[:32]}.safetensors"

    def _fill(self) -> None:
        """No more is kept, which is said once."""
        if not self.full:
            self.full = True
            self.notes.append(
                f"teacher cache: full with {counted(len(self.rows), 'answer')}; the others are computed each time"
            )

    def digests(self, images: Tensor) -> list[bytes]:
        """What each image (N, C, H, W) is known by."""
        rows = np.ascontiguousarray(images.detach().float().cpu().contiguous().numpy())
        shape = str(rows.shape[1:]).encode()
        return [hashlib.blake2b(row.tobytes(), digest_size=DIGEST, key=shape[:64]).digest() for row in rows]

    def get(self, digests: Sequence[bytes], device: torch.device) -> dict[str, Tensor] | None:
        """The outputs of a batch where all of it is known: a part alone would be computed in another batch, with other last bits."""
        found = [self.rows.get(digest) for digest in digests]
        known = [row for row in found if row is not None]
        if not known or len(known) < len(found):
            return None
        return {name: torch.from_numpy(np.stack([row[name] for row in known])).to(device) for name in known[0]}

    def put(self, digests: Sequence[bytes], outputs: Mapping[str, Tensor]) -> None:
        """Keep the outputs of a batch, as far as the limit goes."""
        arrays = {name: value.detach().float().cpu().numpy() for name, value in outputs.items()}
        for place, digest in enumerate(digests):
            if self.full or digest in self.rows:
                continue
            row: Row = {name: np.array(one[place]) for name, one in arrays.items()}
            size = sum(one.nbytes for one in row.values()) + DIGEST
            if self.size + self.pending_size + size > self.limit:
                self._fill()
                continue
            self.rows[digest] = self.pending[digest] = row
            self.pending_size += size
        if self.pending_size >= SHARD:
            self.flush()

    def flush(self) -> None:
        """Write what was added; where that cannot be, say so and keep it in memory alone."""
        alike: dict[str, dict[bytes, Row]] = {}
        for digest, row in self.pending.items():
            alike.setdefault(str([(name, one.shape) for name, one in row.items()]), {})[digest] = row
        self.pending, self.pending_size = {}, 0
        for rows in alike.values():
            names = next(iter(rows.values()))
            arrays: dict[str, NDArray[Any]] = {name: np.stack([row[name] for row in rows.values()]) for name in names}
            arrays[KEYS] = np.frombuffer(b"".join(rows), np.uint8).reshape(-1, DIGEST)
            data = save(arrays)
            if self.size + len(data) > self.limit:  # the header of a file takes room too
                self._fill()
                continue
            try:
                write_bytes(self.folder / self._name(data), data)
            except StorageError as error:
                self.full = True
                self.notes.append(f"teacher cache: nothing more is kept: {error}")
                continue
            self.size += len(data)

    def taken_notes(self) -> list[str]:
        """The lines since the last call."""
        notes, self.notes = self.notes, []
        return notes
