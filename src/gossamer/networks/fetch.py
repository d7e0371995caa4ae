"""Files from elsewhere, checked by their SHA-256 and kept in a cache folder.

Three variables of the environment change where they come from:
GOSSAMER_OFFLINE=1, or HF_HUB_OFFLINE=1: nothing is fetched; what is not in the cache is an error that names the file.
GOSSAMER_WEIGHTS_MIRROR=http://host/path: takes the place of the scheme and host of every address, the hub's too.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import importlib
import logging
import os
import re
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from gossamer.errors import MissingPackageError, WeightsError
from gossamer.host.progress import SILENT, Progress
from gossamer.host.storage import storage_error, user_cache
from gossamer.host.text import counted

TIMEOUT = 30.0  # seconds without a byte
CHUNK = 1 << 18  # bytes
LIMIT = 4 << 30  # bytes; the weights of a small network are a thousandth of that


def fetch(ref: str, cache_dir: str | os.PathLike[str] | None = None, *, progress: Progress = SILENT) -> Path:
    """The local file that `ref` names, after fetching it where it lies elsewhere.

    ref: a path; `https://host/name#sha256=HEX` (or http), where the digest may be left out if the file's name ends in
    eight or more of its digits, as torchvision's do (name-HEX.pth); `hf://owner/repository/name`, by default its
    model.safetensors, through huggingface_hub and its cache; with `#sha256=HEX` that is the digest, else the hub's
    own is used. An interrupted download resumes where it ended.
    cache_dir: default the user's cache folder.
    Raises WeightsError (no such file, no digest, out of reach, offline, another digest), MissingPackageError,
    StorageError.
    """
    if "://" not in ref:
        path = Path(ref)
        if not path.is_file():
            raise WeightsError(f"{ref}: no such file", "a file, https://... or hf://...", "check the path")
        return path
    address, digest = _split(ref)
    scheme = address.partition("://")[0].lower()
    if scheme not in ("http", "https", "hf"):
        raise WeightsError(f"{ref}: {scheme}:// is not fetched", "a path, https://... or hf://...", "fetch it yourself")
    folder = Path(cache_dir) if cache_dir is not None else user_cache() / "weights"
    if scheme == "hf":
        return _from_hub(address, digest, folder, None if cache_dir is None else folder)
    name = re.sub(r"[^\w.-]", "_", urllib.parse.unquote(address.rpartition("/")[2].partition("?")[0]))
    target = folder / f"{digest[:16]}-{name[-100:]}"
    if offline():
        if not target.is_file():
            raise _missing(address, target)
        return _checked(target, digest, address)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(target.with_name(target.name + ".lock")):
            if not (target.is_file() and sha256(target).startswith(digest)):
                _download(_mirrored(address), digest, target, progress)
    except OSError as error:
        raise storage_error(target, error) from error
    return target


def offline() -> bool:
    """Whether the environment forbids to fetch anything."""
    values = (os.environ.get(name, "") for name in ("GOSSAMER_OFFLINE", "HF_HUB_OFFLINE"))
    return any(value.strip().lower() in ("1", "true", "yes", "on") for value in values)


def sha256(path: Path) -> str:
    """The digest of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _split(ref: str) -> tuple[str, str]:
    """The address and the digest of `ref`, or as much of the digest as is known. Raises WeightsError for none."""
    address, mark, fragment = ref.partition("#")
    digest = fragment.removeprefix("sha256=").lower()
    if not mark:
        if address.lower().startswith("hf://"):
            return address, ""
        if named := re.search(r"-([0-9a-f]{8,64})\.\w+$", address):
            return address, named[1]
    if not fragment.startswith("sha256=") or not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise WeightsError(
            f"{ref}: has no SHA-256 to check it by",
            "#sha256= and 64 hexadecimal digits after the address",
            f"add {address}#sha256=..., from the publisher or from `sha256sum` of a copy that is trusted",
        )
    return address, digest


def _mirror() -> str:
    return os.environ.get("GOSSAMER_WEIGHTS_MIRROR", "").rstrip("/")


def _mirrored(address: str) -> str:
    """`address` at the mirror, where there is one."""
    path = re.sub(r"^\w+://[^/]*", "", address)
    return _mirror() + path if _mirror() else address


def _missing(address: str, target: Path) -> WeightsError:
    return WeightsError(
        f"{address}: not in the cache, and nothing is fetched offline",
        f"the file at {target}",
        "copy it there, give its path, or go online",
    )


def _checked(path: Path, digest: str, address: str) -> Path:
    """`path`, where its SHA-256 begins with `digest`. Raises WeightsError."""
    got = sha256(path)
    if not got.startswith(digest):
        raise WeightsError(
            f"{address}: its SHA-256 is {got}, not {digest}",
            "the file that the digest is of",
            f"check both, and remove {path}",
        )
    return path


def _download(url: str, digest: str, target: Path, progress: Progress) -> None:
    """Fetch `url` into `target` by way of a part file, which stays for the next try where the connection breaks."""
    part = target.with_name(target.name + ".part")
    done = part.stat().st_size if part.is_file() else 0
    if not (done and sha256(part).startswith(digest)):
        with _opened(url, done) as response:
            resumed = response.status == http.client.PARTIAL_CONTENT and _starts_at(response, done)
            if response.status == http.client.PARTIAL_CONTENT and not resumed:
                raise _unreachable(url, "the server sent another part than requested")
            with part.open("ab" if resumed else "wb") as file:
                for chunk in progress.track(_chunks(url, response), what=f"fetching {target.name}"):
                    file.write(chunk)
                    if file.tell() > LIMIT:
                        break
                file.flush()
                os.fsync(file.fileno())
    got = sha256(part)
    if not got.startswith(digest):
        part.unlink()
        raise WeightsError(
            f"{url}: its SHA-256 is {got}, not {digest}",
            "the file that the digest is of",
            "check both; nothing was kept",
        )
    part.replace(target)


def _opened(url: str, start: int) -> Any:
    """The response to a request for `url` from byte `start` on. Raises WeightsError."""
    headers = {"User-Agent": "gossamer"} | ({"Range": f"bytes={start}-"} if start else {})
    try:
        return _opener().open(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE and start:
            return _opened(url, 0)  # the part is longer than the file: begin again
        raise WeightsError(f"{url}: HTTP {error.code} {error.reason}", "an address that exists", "check it") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _unreachable(url, str(getattr(error, "reason", error))) from error


def _opener() -> urllib.request.OpenerDirector:
    """Speaks http and https only, so that no redirect leads to a local file or to ftp."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    return opener


def _chunks(url: str, response: Any) -> Iterator[bytes]:
    """The body of `response`. Raises WeightsError where the connection breaks or ends early."""
    left = int(response.headers.get("Content-Length") or -1)
    expected = left >= 0
    while True:
        try:
            chunk: bytes = response.read(CHUNK)
        except (OSError, http.client.HTTPException) as error:
            raise _unreachable(url, f"the connection broke: {error}") from error
        if not chunk:
            break
        left -= len(chunk)
        yield chunk
    if expected and left > 0:
        raise _unreachable(url, f"the connection ended {counted(left, 'byte')} early")


def _starts_at(response: Any, start: int) -> bool:
    return str(response.headers.get("Content-Range", "")).startswith(f"bytes {start}-")


def _unreachable(url: str, reason: str) -> WeightsError:
    return WeightsError(
        f"{url}: out of reach: {reason}",
        "a server that can be reached, or a local file",
        "run it again to go on where it ended, or fetch the file by other means and give its path",
    )


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One process at a time: those of one training run all ask for the same file."""
    with path.open("ab") as file:
        _lock(file)
        yield


def _lock(file: IO[bytes]) -> None:
    """Wait for the lock of `file`, which ends when it is closed."""
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX)


def _from_hub(address: str, digest: str, folder: Path, cache_dir: Path | None) -> Path:
    """The file of hf://owner/repository/name, by hand in `folder`, or through huggingface_hub and its cache."""
    owner, _, rest = address.partition("://")[2].partition("/")
    repository, _, name = rest.partition("/")
    name = name or "model.safetensors"
    if not owner or not repository:
        raise WeightsError(
            f"{address}: names no file", "hf://owner/repository or hf://owner/repository/name", "fix the address"
        )
    target = folder / re.sub(r"[^\w.-]", "_", f"{owner}--{repository}--{name}")
    if target.is_file():
        return _checked(target, digest, address)
    try:
        import huggingface_hub

        hub: Any = importlib.import_module("huggingface_hub.utils")
    except ImportError as error:
        if offline():
            raise _missing(address, target) from error
        raise MissingPackageError("huggingface_hub", "hub", f"fetching {address}") from error
    shows_bars, verbosity = not hub.are_progress_bars_disabled(), hub.logging.get_verbosity()
    hub.disable_progress_bars()
    hub.logging.set_verbosity(logging.CRITICAL)  # it warns of each retry; what counts is raised
    try:
        path = Path(
            huggingface_hub.hf_hub_download(
                f"{owner}/{repository}",
                name,
                cache_dir=cache_dir,
                endpoint=_mirror() or None,
                local_files_only=offline(),
            )
        )
    except Exception as error:  # its errors have no base of their own, and let those of its HTTP client through
        if offline():
            raise _missing(address, target) from error
        raise _unreachable(address, f"{type(error).__name__}: {str(error)[:160]}") from error
    finally:
        hub.logging.set_verbosity(verbosity)
        if shows_bars:
            hub.enable_progress_bars()
    if not digest:
        # the hub's cache names a large file by its SHA-256, which its server gave
        blob = path.resolve().name
        digest = blob if re.fullmatch(r"[0-9a-f]{64}", blob) else ""
    return _checked(path, digest, address)
