"""Atomic writes: to a temporary file beside, fsync, rename."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from gossamer.errors import StorageError

_REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
    errno.EISDIR: "it is a folder",
    errno.ENAMETOOLONG: "the name is too long",
}


def storage_error(path: str | os.PathLike[str], error: OSError) -> StorageError:
    """The one-line error for a failed write to `path`."""
    reason = _REASONS.get(error.errno or 0, error.strerror or str(error))
    return StorageError(
        f"{os.fspath(path)}: could not be written: {reason}; nothing was changed there; free disk space or give another path"
    )


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str], mode: str = "wb") -> Iterator[IO[bytes]]:
    """Open a temporary file beside `path`, which it replaces atomically at the end of the block.

    Raises StorageError where a step fails; `path` is then unchanged.
    A kill at any moment leaves the complete old file or the complete new one.
    """
    path = Path(path)
    name = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        with os.fdopen(handle, mode) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o666 & ~_umask())  # mkstemp makes 0600; a result has the usual permissions
        os.replace(name, path)
        name = ""
        _sync_folder(path.parent)
    except OSError as error:
        raise storage_error(path, error) from error
    finally:
        if name:
            with contextlib.suppress(OSError):
                os.unlink(name)


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Replace `path` by `data` atomically. Raises StorageError."""
    with atomic_write(path) as file:
        file.write(data)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Replace `path` by `text` (UTF-8) atomically. Raises StorageError."""
    write_bytes(path, text.encode())


@contextlib.contextmanager
def atomic_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A new folder beside `path` to be filled, which becomes `path` atomically at the end of the block, its files synced.

    `path` must not exist, or be an empty folder. Raises StorageError; `path` is then unchanged.
    """
    path = Path(path)
    name = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        name = tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        yield Path(name)
        os.chmod(name, 0o777 & ~_umask())
        if hasattr(os, "sync"):
            os.sync()  # once for all files: a sync for each takes minutes where there are many
        if path.is_dir():
            path.rmdir()  # only an empty one goes
        os.rename(name, path)
        name = ""
        _sync_folder(path.parent)
    except OSError as error:
        raise storage_error(path, error) from error
    finally:
        if name:
            shutil.rmtree(name, ignore_errors=True)


def user_cache() -> Path:
    """This user's folder for files that can be downloaded or computed again."""
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "gossamer"


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable; Windows cannot open a folder and needs no such step."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
