"""Tensors by name from a file: safetensors or a PyTorch checkpoint.

A checkpoint of PyTorch is a pickle, which may run any code; it is read with the loader that builds tensors
only, and a file that asks for more is refused.
"""

from __future__ import annotations

import os
import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gossamer.errors import MissingPackageError, WeightsError
from gossamer.host.storage import open_regular

CONTAINERS = ("state_dict", "model_state_dict", "model")  # keys under which trainers save the weights
WRAPPERS = ("module.", "_orig_mod.")  # prefixed to names by DistributedDataParallel and torch.compile


def read_tensors(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """All tensors of the file by name, on the CPU, without the prefixes of wrappers.

    Of a checkpoint of ours, whose names start with `model.` or `ema.`, the weights, averaged where they can be.
    Raises WeightsError where the file is unreadable, damaged, unsafe or holds none; MissingPackageError where
    safetensors is not installed.
    """
    path = Path(path)
    try:
        with open_regular(path) as file:
            head = file.read(9)
    except OSError as error:
        raise WeightsError(f"{path}: {error.strerror or error}", "a readable file", "check the path") from error
    if head.startswith((b"PK\x03\x04", b"\x80")):
        tensors = _read_pickle(path)
    elif head[8:] == b"{":  # after eight bytes of length, the header of safetensors is JSON
        tensors = _read_safetensors(path)
    else:
        raise WeightsError(f"{path}: is neither safetensors nor a PyTorch checkpoint", "one of these", "give another")
    return {_bare(name): value for name, value in _averaged(tensors).items()}


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        import safetensors
        import safetensors.torch
    except ImportError as error:
        raise MissingPackageError("safetensors", "train", "reading weights") from error
    try:
        tensors: dict[str, Tensor] = safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, OSError, ValueError, KeyError) as error:
        raise WeightsError(
            f"{path}: damaged: {error}", "a complete safetensors file", "fetch or copy it again"
        ) from error
    return tensors


def _read_pickle(path: Path) -> dict[str, Tensor]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # TorchScript archives warn before they are refused
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        wanted = re.search(r"GLOBAL ([\w.]+)", str(error))
        reason = f"asks for {wanted[1]}, which is not a tensor" if wanted else "holds more than tensors, or is damaged"
        raise WeightsError(
            f"{path}: {reason}", "a checkpoint of tensors only", "if it is trusted, convert it to safetensors"
        ) from error
    except Exception as error:  # a damaged pickle raises errors of any kind from inside the loader
        if "TorchScript" in str(error):
            raise WeightsError(f"{path}: is a TorchScript archive", "a state dict", "save its state_dict()") from error
        reason = f"{type(error).__name__}: {str(error)[:160]}"
        raise WeightsError(f"{path}: damaged: {reason}", "a complete PyTorch checkpoint", "fetch it again") from error
    tensors = _tensors_of(content)
    if not tensors:
        allowed = "a state dict, alone or under 'state_dict' or 'model'"
        raise WeightsError(f"{path}: holds no tensors by name", allowed, "save the network's state dict")
    for name, value in tensors.items():
        if value.layout != torch.strided or value.is_quantized or value.is_meta:
            raise WeightsError(f"{path}: {name} is not a dense tensor", "dense tensors", "convert it")
    return tensors


def _tensors_of(content: Any) -> dict[str, Tensor]:
    """The named tensors of what a checkpoint holds, which may lie one level down."""
    if not isinstance(content, Mapping):
        return {}
    for key in CONTAINERS:
        if isinstance(content.get(key), Mapping):
            content = content[key]
            break
    return {str(name): value for name, value in content.items() if isinstance(value, Tensor)}


def _averaged(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Of a checkpoint of ours, the weights: the averaged ones, and the plain ones of which there is no average."""
    plain = _below("model.", tensors)
    averaged = _below("ema.", tensors)
    return {**plain, **averaged} or tensors


def _below(start: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(start): value for name, value in tensors.items() if name.startswith(start)}


def _bare(name: str) -> str:
    while name.startswith(WRAPPERS):
        name = name.removeprefix(WRAPPERS[0]).removeprefix(WRAPPERS[1])
    return name
