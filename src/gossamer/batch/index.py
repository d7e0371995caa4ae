"""An index of millions of images: embedded by several processes in units of work, then written as one file."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gossamer.batch.fill import Filled, Job, check_numbers, doubtful_lines, failed_lines, filled_folder, open_network
from gossamer.batch.folder import Record
from gossamer.batch.plan import SHARD, scan
from gossamer.batch.rows import VECTORS
from gossamer.errors import DataError, GossamerError, InputError
from gossamer.host.cluster import check_address
from gossamer.host.progress import SILENT, Progress, one_line
from gossamer.host.shown import Report
from gossamer.host.storage import check_output
from gossamer.host.text import counted
from gossamer.predictions.classes import check_top
from gossamer.predictions.gallery import normalised, write_gallery
from gossamer.predictions.limits import OWN
from gossamer.runtime.model import load
from gossamer.runtime.retrieval import KIND, labels_of
from gossamer.runtime.table import AUTO
from gossamer.targets import FILES, target_of

PARTS = ".parts"  # behind the name of the index: the folder of the embeddings, until the index is there
ROWS = 4096  # embeddings in memory at once
SHOWN = 20  # images that were skipped, each with a line; the others are counted

StrPath = str | os.PathLike[str]


@dataclass(frozen=True, repr=False)
class IndexResult(Report):
    """An index that was written. skipped: (key, reason) of images without an embedding; repeated: members of shards with the
    name of an earlier one, passed over; damaged, doubtful: lines on shards, failed: on units whose images are not in it, as `gossamer.predict_many` has them."""

    index: str
    model: str
    images: int
    identities: int
    workers: int
    repeated: int
    skipped: tuple[tuple[str, str], ...]
    damaged: tuple[str, ...]
    doubtful: tuple[str, ...]
    failed: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        """2 where a shard could not be read to its end, or a unit was given up."""
        return 2 if self.damaged or self.failed else 0

    def text(self) -> str:
        """Lines for a person."""
        lines = [f"{one_line(self.index)}: {counted(self.images, 'image')}, {counted(self.identities, 'identity')}"]
        lines += [f"skipped: {one_line(reason)}" for _, reason in self.skipped[:SHOWN]]
        if len(self.skipped) > SHOWN:
            lines.append(f"skipped: {len(self.skipped) - SHOWN} more")
        if self.repeated:
            lines.append(f"passed over: {counted(self.repeated, 'image')} in shards with the name of an earlier one")
        lines += [f"damaged: {one_line(line)}" for line in self.damaged]
        return "\n".join([*lines, *doubtful_lines(self.doubtful), *failed_lines(self.failed)])

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        values = {**asdict(self), **{name: list(getattr(self, name)) for name in ("damaged", "doubtful", "failed")}}
        values["unreadable"] = [{"source": key, "error": reason} for key, reason in values.pop("skipped")]
        return values


class _Row(NamedTuple):
    key: str
    vector: bytes | None
    error: str


def index_many(
    model: StrPath,
    source: StrPath,
    out: StrPath,
    workers: int = 0,
    *,
    batch: int = 32,
    runtime: str = AUTO,
    ray: str = "",
    progress: Progress = SILENT,
) -> IndexResult:
    """Write the index `out` of the images and .tar shards in the folder `source`; called again after a kill, it resumes.

    Names and labels are those of `index_folder`; an image of a shard has the label of its first folder within the shard. The
    bytes are those of `index_folder` where the folder holds no shards. workers, ray: as of `predict_many`. The embeddings lie
    in a folder beside `out` until it is written, and stay there where a unit was given up. Raises InputError, DataError, StorageError, ModelFileError.
    """
    check_numbers(workers)
    check_top(1, batch)
    check_address(ray)
    target_of(model, FILES)
    check_output(out, model)
    root = Path(source)
    if not root.is_dir():
        raise DataError(f"{root}: no folder", "a folder of images, at best one folder for each identity", "check it")
    kinds = [head.kind for head in load(model, runtime=runtime, threads=1).need_metadata().heads]
    if kinds != [KIND]:
        raise InputError(
            f"{os.fspath(model)}: a network for {', '.join(kinds)}",
            f"a network for {KIND}", "export an embedder",
        )  # fmt: skip
    network = open_network(os.fspath(model), runtime, OWN, 1)
    folder = Path(f"{os.fspath(out)}{PARTS}")
    asked = {"batch": batch, "runtime": network.runtime, "format": VECTORS}
    job = Job(folder, os.fspath(model), (str(root),), asked, 1, OWN, batch, VECTORS, workers, 0, ray, align=batch)
    with filled_folder(job, network, scan([root]), progress) as filled:
        progress.say(f"writing {os.fspath(out)}")
        result = _write(out, os.fspath(model), network.sha256, root, filled)
        if not filled.failed:
            filled.folder.remove()
    return result


def _write(out: StrPath, model: str, sha256: str, root: Path, filled: Filled) -> IndexResult:
    """Write the index of what is in a folder."""
    folder = filled.folder.path
    names, labelled, skipped, dim = _names(folder, filled.records, str(root))
    if not names and filled.failed:
        raise GossamerError(f"{os.fspath(out)}: not written, as no unit was answered: {filled.failed[0]}")
    if not names:
        raise DataError(
            f"{root}: none of {counted(len(skipped), 'image')} has an embedding: {skipped[0][1] if skipped else 'there are none'}",
            "readable images", "look at them",
        )  # fmt: skip
    labels = labels_of(labelled)

    def parts() -> Iterator[Any]:
        part: list[bytes] = []
        for row in _rows(folder, filled.records):
            if row.vector is not None:
                part.append(row.vector)
                if len(part) == ROWS:
                    yield _unit(part, dim, names)
                    part = []
        if part:
            yield _unit(part, dim, names)

    write_gallery(out, sha256, dim, names, labels, parts())
    return IndexResult(
        os.fspath(out), model, len(names), len({label for label in labels if label}), filled.workers,
        sum(record["repeated"] for record in filled.records), tuple(skipped),
        tuple(record["damaged"] for record in filled.records if record["damaged"]),
        tuple(record["doubtful"] for record in filled.records if record.get("doubtful")),
        filled.failed,
    )  # fmt: skip


def _names(folder: Path, records: list[Record], root: str) -> tuple[list[str], list[str], list[tuple[str, str]], int]:
    """The names of images with an embedding, the paths that their labels are of, those without, and the length of one."""
    names: list[str] = []
    labelled: list[str] = []
    skipped: list[tuple[str, str]] = []
    dim = 0
    for record in records:
        shard = record["key"] if record.get("kind") == SHARD else ""
        for row in _rows(folder, [record]):
            if row.vector is None:
                if not record["damaged"] or row.key != shard:  # the row of a shard, which is told as such
                    skipped.append((row.key, row.error))
                continue
            dim = dim or len(row.vector) // 4
            names.append(Path(row.key).relative_to(root).as_posix())
            labelled.append(row.key.removeprefix(f"{shard}/") if shard else names[-1])
    return names, labelled, skipped, dim


def _rows(folder: Path, records: list[Record]) -> Iterator[_Row]:
    """The rows of all units, in their order. Raises DataError where a file of them is damaged."""
    for record in records:
        path = folder / record["rows"]
        try:
            with path.open("rb") as file:
                for line in file:
                    values = json.loads(line)
                    vector = None if values["vector"] is None else base64.b64decode(values["vector"], validate=True)
                    yield _Row(values["key"], vector, values["error"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{path}: is damaged: {error}", "what gossamer index wrote", f"remove {folder}, and start it again"
            ) from error


def _unit(part: list[bytes], dim: int, names: list[str]) -> Any:
    values = np.frombuffer(b"".join(part), "<f4").reshape(len(part), dim).astype(np.float32)
    return normalised(values, names)
