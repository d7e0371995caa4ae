"""What `verify` finds of a file of one runtime before it is there."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Mapping
from pathlib import Path

from gossamer.errors import VerificationError
from gossamer.runtime.verification import VerificationResult
from gossamer.runtime.verification import verify as verify_file


def write_trial(folder: str, suffix: str, data: bytes, beside: Mapping[str, bytes]) -> Path:
    """A file and those beside it in a temporary folder."""
    trial = Path(folder) / f"model{suffix}"
    trial.write_bytes(data)
    for other, contents in beside.items():
        trial.with_suffix(other).write_bytes(contents)
    return trial


def verify_as_file(data: bytes, path: str, suffix: str, beside: Mapping[str, bytes] = {}) -> VerificationResult:
    """The file's own checks, on the runtime that runs its kind; `path` is its name to be. Raises VerificationError.

    On one thread: of a few images the threads of a runtime spend more time waiting for one another, on a busy machine seconds an image.
    """
    with tempfile.TemporaryDirectory() as name:
        trial = write_trial(name, suffix, data, beside)
        verification = dataclasses.replace(verify_file(trial, threads=1), path=path)
    verification.raise_if_failed()
    if verification.warnings:
        raise VerificationError(f"{path}: {verification.warnings[0]}; the same image gave two results on this machine")
    return verification
