"""Compiled networks on each ISA of this machine, beside plain loops over the same files, and on several threads."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from gossamer.runtime import native
from tests.runs import EMULATED_AMX, with_isa

Key = TypeVar("Key", bound=Hashable)
Outputs = dict[Key, NDArray[np.float32]]
CODE = """
import sys, numpy as np
from gossamer.runtime.native import Native
for path in sys.argv[1:]:
    images = np.load(path + '.images.npy')
    outputs = Native(path, 1)(images)
    np.save(path + '.npy', outputs)
"""
THREADS = "    assert np.array_equal(Native(path, 3)(images[:1]), outputs[:1]), path\n"


def outputs(files: Mapping[Key, Path], isa: str) -> Outputs[Key]:
    """The outputs of a process forced to the ISA for the images beside each file; skips where the machine lacks it."""
    # this machine's best ISA is tried on several threads by the function below; these two may not be it
    code = CODE + (THREADS if isa in ("amx", EMULATED_AMX) else "")
    with_isa(isa, code, *files.values())
    return {key: np.load(f"{path}.npy") for key, path in files.items()}


def too_far(outputs: Outputs[Key], expected: Outputs[Key], most: Mapping[Key, float]) -> dict[Key, float]:
    """Which differ by more than `most` of the spread of what is expected, and by how much."""
    wrong = {}
    for key, wanted in expected.items():
        difference = float(np.abs(outputs[key] - wanted).max() / (wanted.max() - wanted.min()))
        if not difference < most[key]:
            wrong[key] = difference
    return wrong


def same_bits(file: Path, images: NDArray[np.float32], name: str) -> None:
    """That one and three images have the same outputs to the bit on one, two, three and five threads."""
    wanted = np.asarray(native.Native(file, 1)(images))
    for threads in (2, 3, 5):
        for count in (1, 3):
            outputs = native.Native(file, threads)(images[:count])
            np.testing.assert_array_equal(outputs, wanted[:count], err_msg=f"{name}, {threads} threads")
