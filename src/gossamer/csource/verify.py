"""The C source compiled and run on this machine, before it is where the user wants it."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gossamer.csource import compiler
from gossamer.csource.device import Checks, c_inputs, pixels_of, preprocess_of, tolerance_of
from gossamer.csource.limits import size
from gossamer.csource.network import BYTES, Network
from gossamer.csource.source import net_c, net_h, ram_bytes
from gossamer.errors import VerificationError
from gossamer.host.text import counted
from gossamer.modelfile.metadata import ModelFile

NO_COMPILER = "not verified: no C compiler on this machine ($CC, cc, gcc or clang); on another one: make check"


@dataclass(frozen=True)
class Ran:
    """What the compiled source gave for the check inputs, as float32 (N, numbers), and the largest difference from what is expected."""

    outputs: NDArray[np.float32]
    largest: float
    compiler: str


def measured_code(file: ModelFile, network: Network, command: list[str] | None) -> int | None:
    """Bytes of machine code of the network of a file at -Os by this machine's compiler; None where that is not known.

    Raises VerificationError where the source does not compile, or has other memory than stated, InputError where $CC makes nothing.
    """
    if command is None:
        return None
    preprocess, table = pixels_of(file, network)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "net.h").write_text(net_h(network, preprocess), encoding="utf-8")
        (folder / "net.c").write_text(net_c(network, preprocess, table), encoding="utf-8")
        found = compiler.measure(command, folder)
    if found is not None and found.ram != ram_bytes(network):
        stated = size(ram_bytes(network))
        raise VerificationError(f"the compiled network has {size(found.ram)} of memory, not {stated}; please report it")
    return None if found is None else found.code


def run_checks(
    file: ModelFile, network: Network, checks: Checks, texts: dict[str, str], command: list[str], path: str
) -> Ran:
    """Compile and run the files in a folder of their own. Raises VerificationError where an output is wrong."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file_name, text in texts.items():
            (folder / file_name).write_text(text, encoding="utf-8")
        compiler.build(command, folder, ("net.c",), "net.o", *compiler.STRICT, "-O2", "-c")
        failed = compiler.check(command, folder)
        outputs = compiler.run_inputs(
            command, folder, network, c_inputs(network, preprocess_of(file, network), checks.given)
        )
    if failed:
        raise VerificationError(
            f"{path}: check input {failed} has other outputs in C; nothing was written; please report it"
        )
    if network.type == BYTES and not np.array_equal(outputs, checks.expected):
        differ = int((outputs != checks.expected).sum())
        raise VerificationError(
            f"{path}: {counted(differ, 'output differs', 'outputs differ')} in C from the int8 reference; nothing was written; please report it"
        )
    actual, expected = _floats(outputs), _floats(checks.expected)
    differing = ~((actual == expected) | (np.isnan(actual) & np.isnan(expected)))
    largest = float(np.abs(actual[differing].astype(np.float64) - expected[differing]).max(initial=0))
    if network.type != BYTES and not largest <= tolerance_of(network, checks):
        raise VerificationError(
            f"{path}: outputs differ in C by up to {largest:.3g}; nothing was written; please report it"
        )
    return Ran(actual, largest, command[0])


def _floats(values: NDArray[Any]) -> NDArray[np.float32]:
    made: NDArray[np.float32] = np.ascontiguousarray(values).view(np.float32)
    return made
