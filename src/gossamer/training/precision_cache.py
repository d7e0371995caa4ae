"""Which precision and memory format were the fastest: remembered per machine and network, in the user's cache folder.

Threads are not remembered: which number is the fastest depends on what else the machine does.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gossamer.errors import StorageError
from gossamer.host import machine
from gossamer.host.storage import user_cache, write_text
from gossamer.settings import Settings
from gossamer.training.precision import FORMATS, PRECISIONS, pays_bf16

NAME = "precision.json"  # below `host.storage.user_cache`: XDG_CACHE_HOME/gossamer where that is set
FORMAT = 1
COMPARISON = 2  # how candidates are compared: choices of another way are made anew
MOST = 200  # entries that are kept, the newest
LIMIT = 1 << 20  # bytes: a larger file is none of ours
# variables that change which kernels run
VARIABLES = ("ONEDNN_", "DNNL_", "OMP_", "KMP_", "GOMP_", "MKL_", "ATEN_", "TORCH_", "CUDA_", "CUDNN_")


def key(settings: Settings, model: nn.Module, images: Tensor) -> str:
    """What a choice holds for: this processor and torch, this network on inputs of this shape, and what is left open."""
    here = machine.describe_machine()
    device = torch.cuda.get_device_name(images.device) if images.is_cuda else here["cpu"]
    about: dict[str, Any] = {
        "versions": {name: here["versions"].get(name) for name in ("gossamer", "torch")},
        "device": [images.device.type, device, here["architecture"], here["isa"], here["cores"]],
        "threads": [torch.get_num_threads(), settings.threads],
        "variables": {name: value for name, value in sorted(os.environ.items()) if name.startswith(VARIABLES)},
        "open": [settings.precision, settings.memory_format],
        "images": [list(images.shape), str(images.dtype)],
        "network": repr(model),
        "weights": [[name, list(value.shape)] for name, value in model.state_dict().items()],
        "learns": [name for name, value in model.named_parameters() if value.requires_grad],
        "comparison": COMPARISON,
        "training": [settings.task, settings.loss, settings.optimizer],
    }
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:32]


def recall(name: str, settings: Settings, images: Tensor) -> tuple[tuple[str, str] | None, str]:
    """(precision, memory format) that was kept under the key `name`, or None; and a line where the file is damaged."""
    entries, line = _read()
    entry = entries.get(name)
    if entry is None:
        return None, line
    precision, memory_format = entry
    possible = PRECISIONS if pays_bf16(images.device) else PRECISIONS[:1]
    sound = (
        precision in (possible if settings.precision == "auto" else (settings.precision,))
        and memory_format in (FORMATS if settings.memory_format == "auto" else (settings.memory_format,))
    )  # fmt: skip
    return ((precision, memory_format), line) if sound else (None, _ignored("an entry does not fit its key"))


def keep(name: str, precision: str, memory_format: str) -> str:
    """Keep a choice under the key `name`; a line that says why where it cannot be kept."""
    entries, _ = _read()
    entries.pop(name, None)  # the newest stands last
    entries[name] = [precision, memory_format]
    kept = dict(list(entries.items())[-MOST:])
    try:
        write_text(_path(), json.dumps({"format": FORMAT, "entries": kept}, indent=1))
    except (StorageError, RuntimeError) as error:  # RuntimeError: this user has no home
        return f"the choice is timed again next time: {error}"
    return ""


def _path() -> Path:
    return user_cache() / NAME


def _read() -> tuple[dict[str, list[str]], str]:
    """The entries of the file, none where there is none; and a line where it is damaged."""
    try:
        path = _path()
        if not path.exists():
            return {}, ""
        if path.stat().st_size > LIMIT:
            return {}, _ignored(f"more than {LIMIT} bytes")
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict) or content.get("format") != FORMAT or not _sound(content.get("entries")):
            return {}, _ignored("not what gossamer writes")
        return content["entries"], ""
    except (OSError, ValueError, RuntimeError, RecursionError) as error:
        return {}, _ignored(getattr(error, "strerror", None) or type(error).__name__)


def _sound(entries: Any) -> bool:
    return isinstance(entries, dict) and all(
        isinstance(entry, list) and len(entry) == 2 and all(isinstance(word, str) for word in entry)
        for entry in entries.values()
    )


def _ignored(reason: str) -> str:
    return f"the kept choices of precision are ignored and written anew ({_shown_path()}: {reason})"


def _shown_path() -> str:
    try:
        return str(_path())
    except RuntimeError:
        return NAME
