"""The C compiler of this machine: builds what was written, measures it and runs it."""

from __future__ import annotations

import os
import shlex
import shutil
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gossamer.csource.network import BYTES, Network
from gossamer.errors import InputError, VerificationError

NAMES = ("cc", "gcc", "clang")
STRICT = ("-std=c99", "-Wall", "-Wextra", "-Werror", "-ffreestanding")
SECONDS = 300  # of a compilation, and of a run
RUNNER = """#include <stdio.h>
#include "net.h"
int main(void)
{
  while (fread(net_input(), sizeof *net_input(), NET_INPUT_SIZE, stdin) == NET_INPUT_SIZE) {
    net_run();
    fwrite(net_output(), sizeof *net_output(), NET_OUTPUT_SIZE, stdout);
  }
  return 0;
}
"""


@dataclass(frozen=True)
class Measured:
    """Bytes of machine code and of zeroed memory of net.c at -Os."""

    code: int
    ram: int


def compiler() -> list[str] | None:
    """The command of the C compiler: $CC, or the first of NAMES that is there; None for none. Raises InputError."""
    chosen = os.environ.get("CC", "").strip()
    for text in [chosen] if chosen else NAMES:
        try:
            command = shlex.split(text)
        except ValueError as error:
            raise InputError(
                f"CC={text[:80]!r}: {error}", "the command of a C compiler", "set it so, or unset it"
            ) from error
        if command and shutil.which(command[0]):
            return command
        if chosen:
            raise InputError(
                f"CC={chosen[:80]!r}: no such program", "the command of a C compiler", "set it so, or unset it"
            )
    return None


def _run(command: list[str], given: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    """Raises VerificationError where it cannot be run, or takes too long."""
    try:
        return subprocess.run(command, input=given, capture_output=True, timeout=SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise VerificationError(f"{command[0]}: {' '.join(str(error).split())[:200]}; nothing was written") from error


def build(command: list[str], folder: Path, sources: tuple[str, ...], out: str, *flags: str) -> Path:
    """Compile files of a folder. Raises VerificationError with the compiler's first line, InputError where it makes nothing."""
    target = folder / out
    paths = [str(folder / one) for one in sources]
    done = _run([*command, *flags, "-I", str(folder), *paths, "-o", str(target)])
    if done.returncode:
        lines = [line for line in done.stderr.decode("utf-8", "replace").splitlines() if "error" in line]
        reason = (lines or [f"exit {done.returncode}"])[0].replace(str(folder), "")[:200]
        raise VerificationError(
            f"{shlex.join(command)} does not compile the C source: {reason}; nothing was written; please report it"
        )
    if not target.is_file():
        raise InputError(
            f"{shlex.join(command)[:80]}: made no file of the C source",
            "the command of a C compiler",
            "set CC so, or unset it",
        )
    return target


def measure(command: list[str], folder: Path) -> Measured | None:
    """The sizes of net.c compiled at -Os; None where the object file is no ELF file."""
    target = build(command, folder, ("net.c",), "measured.o", *STRICT, "-Os", "-c")
    try:
        return elf_sizes(target.read_bytes())
    finally:
        target.unlink()


def elf_sizes(data: bytes) -> Measured | None:
    """Bytes of the sections of code and of zeroed memory of an ELF file of this byte order; None for another file.

    Source: System V ABI, chapter 4, "Sections": SHF_EXECINSTR, SHT_NOBITS.
    """
    if data[:4] != b"\x7fELF" or data[5] != 1:
        return None
    wide = data[4] == 2
    head = struct.unpack_from("<QIHHHHHH", data, 40) if wide else struct.unpack_from("<IIHHHHHH", data, 32)
    start, size, count = head[0], head[5], head[6]
    code = ram = 0
    for place in range(count):
        at = start + place * size
        if wide:
            _, kind, flags, _, _, length = struct.unpack_from("<IIQQQQ", data, at)
        else:
            _, kind, flags, _, _, length = struct.unpack_from("<IIIIII", data, at)
        if flags & 2:  # SHF_ALLOC
            code += length if flags & 4 else 0
            ram += length if kind == 8 else 0
    return Measured(code, ram)


def check(command: list[str], folder: Path) -> int:
    """What net_check returns, with the folder's net.o. Raises VerificationError."""
    program = build(command, folder, ("net.o", "net_check.c"), "net_check", *STRICT, "-O1")
    return _run([str(program)]).returncode


def run_inputs(command: list[str], folder: Path, network: Network, inputs: NDArray[np.generic]) -> NDArray[np.generic]:
    """Outputs (N, numbers) for inputs (N, numbers), as they are in C: float32, or of bytes the bits of float32 as uint32."""
    (folder / "runner.c").write_text(RUNNER, encoding="utf-8")
    source = "net.o" if (folder / "net.o").exists() else "net.c"
    program = build(command, folder, (source, "runner.c"), "runner", "-std=c99", "-O2")
    done = _run([str(program)], np.ascontiguousarray(inputs).tobytes())
    kind = np.dtype(np.uint32 if network.type == BYTES else np.float32)
    if done.returncode or len(done.stdout) != len(inputs) * network.output_count * kind.itemsize:
        raise VerificationError(
            f"the compiled network stopped with {done.returncode}; nothing was written; please report it"
        )
    return np.frombuffer(done.stdout, kind).reshape(len(inputs), -1)
