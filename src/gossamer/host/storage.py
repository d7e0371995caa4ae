"""Atomic writes: to a temporary file beside, fsync, rename.

The temporary file `.NAME.RANDOM.part` is locked while it is written, so that one which nobody has locked is left from a
process that was killed: the next write of NAME removes it, and so does `remove_parts`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

if sys.platform != "win32":
    import fcntl

from gossamer.errors import InputError, StorageError

_REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
    errno.EEXIST: "a part of the path is a file or a link to nothing, not a folder",
    errno.ELOOP: "a part of the path is a loop of links",
    errno.EISDIR: "it is a folder",
    errno.ENAMETOOLONG: "the name is too long",
}


_PART = re.compile(r"\.[a-z0-9_]{8}\.part$")  # as tempfile names them
_TRIES = 20
_MOMENTS = 3  # of 50 ms, in which a lock that is only asked about is free again


def open_regular(path: str | os.PathLike[str]) -> IO[bytes]:
    """A file to read; a folder, pipe or device, which may have no end or never begin, is refused unopened.

    Raises OSError with the reason, as `open` does, also for a path that no file can have.
    """
    return open(open_descriptor(path), "rb")


def read_regular(path: str | os.PathLike[str], limit: int | None = None) -> bytes:
    """All of a file that `open_regular` opens, of `limit` bytes at most. Raises OSError."""
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if limit is not None and size > limit:
            raise OSError(errno.EFBIG, f"{size} bytes")
        return file.read()


def read_unchanged(path: str | os.PathLike[str], limit: int | None = None) -> bytes:
    """As `read_regular`, of a file that nobody writes to meanwhile: half of one content and half of another is neither.

    Raises OSError, also where its size or its time of change is another behind the reading.
    """
    with open_regular(path) as file:
        before = os.fstat(file.fileno())
        if limit is not None and before.st_size > limit:
            raise OSError(errno.EFBIG, f"{before.st_size} bytes")
        content = file.read()
        after = os.fstat(file.fileno())
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns) or len(content) != after.st_size:
        raise OSError(errno.EBUSY, "changed while it was read", os.fspath(path))
    return content


def open_descriptor(path: str | os.PathLike[str]) -> int:
    """As `open_regular`, the number of the open file. Raises OSError."""
    try:
        status = os.stat(path)
    except ValueError as error:  # a null character
        raise OSError(errno.EINVAL, "no path of a file", os.fspath(path)) from error
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, "is a folder, not a file", os.fspath(path))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "is a pipe, socket or device, not a file", os.fspath(path))
    # should a pipe have replaced the file since, O_NONBLOCK lets the open return
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
    return os.open(path, flags)


def check_output(path: str | os.PathLike[str], *inputs: str | os.PathLike[str]) -> None:
    """Refuse, before any work, a place for a result that is a folder, pipe or device, or one of the files that it is made of.

    Raises InputError.
    """
    try:
        ends_as_folder = os.fspath(path).endswith((os.sep, "/"))  # pathlib would drop the slash, and a file be written
        if not os.fspath(path) or ends_as_folder or os.path.isdir(path):
            what = "is a folder" if os.fspath(path) else "the empty path"
            raise InputError(f"{os.fspath(path) or '--out'}: {what}", "the name of a file to write", "give a file name")
        if os.path.exists(path) and not os.path.isfile(path):  # which a file would replace
            what = "is a pipe, socket or device"
            raise InputError(f"{os.fspath(path)}: {what}", "the name of a file to write", "give a file name")
        same = [
            each for each in inputs if os.path.exists(path) and os.path.exists(each) and os.path.samefile(path, each)
        ]
    except (OSError, ValueError):
        return  # whoever writes there says why it cannot be written
    if same:
        raise InputError(
            f"{os.fspath(path)}: would replace the file that it is made from", "another file", "give another name"
        )


def storage_error(path: str | os.PathLike[str], error: OSError) -> StorageError:
    """The one-line error for a failed write to `path`."""
    reason = _REASONS.get(error.errno or 0, error.strerror or str(error))
    return StorageError(
        f"{os.fspath(path)}: could not be written: {reason}; nothing was changed there; free disk space or give another path"
    )


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str], mode: str = "wb") -> Iterator[IO[bytes]]:
    """Open a temporary file beside `path`, which it replaces atomically at the end of the block.

    Raises StorageError where a step fails, and for a pipe or device, which a file would replace; `path` is then unchanged.
    A kill at any moment leaves the complete old file or the complete new one.
    """
    path = Path(path)
    name = ""
    lock = -1
    try:
        _check_path(path)
        if path.exists() and not path.is_file() and not path.is_dir():
            raise OSError(errno.EINVAL, "it is a pipe, socket or device, not a file")
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_parts(path.parent, path.name)
        handle, name = _locked_part(path)
        with os.fdopen(handle, mode) as file:
            if sys.platform != "win32":  # which renames no open file, and has no such locks
                lock = os.dup(
                    handle
                )  # holds the lock until the file has its name: others would take it for one left over
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
        if lock >= 0:
            os.close(lock)


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Replace `path` by `data` atomically. Raises StorageError."""
    with atomic_write(path) as file:
        file.write(data)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Replace `path` by `text` (UTF-8) atomically. Raises StorageError."""
    write_bytes(path, text.encode())


def append_text(path: str | os.PathLike[str], text: str) -> None:
    """Add text to the end of a file, which is created if it is not there. Raises StorageError."""
    # opening a pipe would wait for its reader; O_NONBLOCK, should one have replaced the file since
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
    try:
        _check_path(path)
        if os.path.exists(path) and not os.path.isfile(path):
            raise OSError(errno.EINVAL, "is a folder, pipe, socket or device, not a file")
        with open(os.open(path, flags, 0o666), "a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise storage_error(path, error) from error


@contextlib.contextmanager
def atomic_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A new folder beside `path` to be filled, which becomes `path` atomically at the end of the block, its files synced.

    `path` must not exist, or be an empty folder. Raises StorageError; `path` is then unchanged.
    """
    path = Path(path)
    name = ""
    lock = -1
    try:
        _check_path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_parts(path.parent, path.name)
        name, lock = _locked_folder(path)
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
        if lock >= 0:
            os.close(lock)


def lock_file(path: str | os.PathLike[str]) -> int:
    """Lock the file `path` for this process, and make it where there is none; the handle, until whose closing the lock is held.

    A lock of a file that its last holder has removed meanwhile is none: the next process would lock another file of that
    name. Who only asks whether it is locked holds it for a moment, which is waited for. On a file system without locks
    nothing is locked. Raises BlockingIOError where another process holds it, OSError.
    """
    busy = 0
    for _ in range(_TRIES):
        handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)
        if sys.platform == "win32":
            return handle
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            busy += 1
            if busy > _MOMENTS:
                raise
            time.sleep(0.05)
            continue
        except OSError:  # a file system without locks
            return handle
        with contextlib.suppress(FileNotFoundError):
            if os.stat(path).st_ino == os.fstat(handle).st_ino:
                return handle
        os.close(handle)
    raise OSError(errno.EBUSY, "its lock is removed as soon as it is made")


def remove_parts(folder: str | os.PathLike[str], name: str = "") -> list[str]:
    """Remove the temporary files and folders in `folder` that a killed process has left; their names.

    name: of the file that they were to become; "" for any. What a process is writing stays.
    """
    if sys.platform == "win32":
        return []
    removed = []
    with contextlib.suppress(OSError):
        for entry in sorted(os.listdir(folder)):
            if not (entry.startswith(f".{name}.") if name else entry.startswith(".")) or not _PART.search(entry):
                continue
            place = Path(folder, entry)
            with contextlib.suppress(OSError):
                handle = os.open(place, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises where somebody writes it
                    shutil.rmtree(place) if place.is_dir() else place.unlink()
                    removed.append(entry)
                finally:
                    os.close(handle)
    return removed


def _check_path(path: str | os.PathLike[str]) -> None:
    """Raises OSError for what no path can have, of which the system's functions raise a ValueError."""
    if "\0" in os.fspath(path):
        raise OSError(errno.EINVAL, "no path of a file")


def _locked_part(path: Path) -> tuple[int, str]:
    """A new temporary file beside `path`, open and locked, and its name."""
    for _ in range(_TRIES):
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        if _is_locked(handle, name):
            return handle, name
        os.close(handle)
    raise OSError(errno.EBUSY, "temporary files are removed as soon as they are made")


def _locked_folder(path: Path) -> tuple[str, int]:
    """A new temporary folder beside `path`, and the handle of its lock, -1 where the system has none."""
    for _ in range(_TRIES):
        name = tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        if sys.platform == "win32":
            return name, -1
        handle = os.open(name, os.O_RDONLY)
        if _is_locked(handle, name):
            return name, handle
        os.close(handle)
    raise OSError(errno.EBUSY, "temporary folders are removed as soon as they are made")


def _is_locked(handle: int, name: str) -> bool:
    """Whether the file was locked before another process took it for one that is left over."""
    if sys.platform == "win32":
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False  # being removed
    except OSError:
        return True  # a file system without locks, where none can be taken to remove it, either
    try:
        return os.stat(name).st_ino == os.fstat(handle).st_ino
    except FileNotFoundError:
        return False


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
