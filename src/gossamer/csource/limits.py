"""Sizes of memory as people write them, what a network needs of it, and whether that fits."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from gossamer.csource.network import BYTES, Network, live_numbers
from gossamer.csource.source import ram_bytes, table_bytes, weight_bytes
from gossamer.errors import InputError, SettingsError

SIZE = re.compile(r"([0-9]{1,15})(\.[0-9]{1,6})?\s?(B|K|KB|KIB|M|MB|MIB|G|GB|GIB)?", re.I)
UNITS = {"": 1, "B": 1, "K": 2**10, "M": 2**20, "G": 2**30}
MOST_BYTES = 2**40
CODE_ESTIMATE = 8192  # bytes of machine code at -Os, at most: of every kernel together it is less
SHOWN = 5  # layers
MOST_WEIGHTS = 2**28  # bytes: their text is five times as long, and no chip without an operating system has as much


@dataclass(frozen=True)
class Peak:
    """A layer, the bytes that live while it runs, and the share of the arena."""

    layer: str
    place: int
    bytes: int


@dataclass(frozen=True)
class Needs:
    """Bytes. weights: of constant arrays. tables: records of the steps, on a chip of 32 bits, and of preprocessing. code:
    machine code at -Os.

    measured: whether the code was measured with this machine's compiler, or is an estimate. peaks: the layers that need most
    memory, the first first. layers: those with the most bytes of weights.
    """

    type: str
    ram: int
    arena: int
    weights: int
    tables: int
    code: int
    measured: bool
    peaks: tuple[Peak, ...]
    layers: tuple[Peak, ...]

    @property
    def flash(self) -> int:
        """Bytes of constants and code."""
        return self.weights + self.tables + self.code

    def problem(self, ram: int | None, flash: int | None) -> str:
        """What does not fit, "" where all does: 0 is a limit."""
        parts = []
        if ram is not None and self.ram > ram:
            parts.append(f"{size(self.ram)} of RAM where {size(ram)} are there, most of it at {self.peaks[0].layer}")
        if flash is not None and self.flash > flash:
            about = "" if self.measured else ", code as an estimate"
            parts.append(
                f"{size(self.flash)} of flash where {size(flash)} are there ({size(self.weights)} weights{about}), most of it in "
                f"{self.layers[0].layer}"
            )
        return "; ".join(parts)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "type": self.type,
            "ram": self.ram,
            "arena": self.arena,
            "flash": self.flash,
            "weights": self.weights,
            "tables": self.tables,
            "code": self.code,
            "code_measured": self.measured,
            "peaks": [vars(one) for one in self.peaks],
            "largest_layers": [vars(one) for one in self.layers],
        }


def parse_bytes(text: str, option: str) -> int:
    """256K, 1M, 0.5MB, 4096: units of 1024. Raises SettingsError."""
    match = SIZE.fullmatch(text.strip()) if text.isascii() else None
    allowed, do = "a number of bytes, or one with K or M, as 256K or 1.5M", "write it so"
    if match is None:
        raise SettingsError(f"{option} {text[:40]!r}", allowed, do)
    unit = (match[3] or "").upper().rstrip("B").rstrip("I")
    count = float(match[1] + (match[2] or "")) * UNITS[unit]
    if not 1 <= count <= MOST_BYTES or count != int(count):
        raise SettingsError(f"{option} {text[:40]!r}: not a whole number of bytes from 1 to 1024G", allowed, do)
    return int(count)


def size(count: int) -> str:
    """131.2 KiB, 1.25 MiB."""
    return (
        f"{count / 2**20:.2f} MiB"
        if count >= 2**20
        else f"{count / 2**10:.1f} KiB"
        if count >= 2**10
        else f"{count} bytes"
    )


def needs_of(network: Network, code: int | None, pixels: bool = False) -> Needs:
    """What a network needs. code: measured machine code, None for an estimate. pixels: with preprocessing."""
    width = 1 if network.type == BYTES else 4
    live = live_numbers(network)
    by_size = sorted(range(len(live)), key=lambda number: -live[number])
    steps = network.steps
    peaks = tuple(Peak(_text(network, number), number, live[number] * width) for number in by_size[:SHOWN])
    held = [sum(one.nbytes for one in step.constants()) for step in steps]
    heavy = sorted(range(len(held)), key=lambda number: -held[number])
    layers = tuple(Peak(_text(network, number), number, held[number]) for number in heavy[:SHOWN])
    if sum(held) > MOST_WEIGHTS:
        raise InputError(
            f"weights of {size(sum(held))}", f"{size(MOST_WEIGHTS)} at most in C source", "take a smaller network"
        )
    ram = ram_bytes(network)
    arena = ram - (4 * network.output_count if network.type == BYTES else 0)
    return Needs(
        network.type,
        ram,
        arena,
        weight_bytes(network),
        table_bytes(network, pixels),
        CODE_ESTIMATE if code is None else code,
        code is not None,
        peaks,
        layers,
    )


def _text(network: Network, number: int) -> str:
    step = network.steps[number]
    height, width = step.sides if step.sides[0] else (step.out.h, step.out.w)
    sides = f"{height} x {width}"
    return f"layer {number + 1} of {len(network.steps)} ({step.text()}, {sides})"


def refuse_too_large(needs: Needs, ram: int | None, flash: int | None, path: str) -> None:
    """Raises InputError that says what does not fit, and what to change."""
    problem = needs.problem(ram, flash)
    if not problem:
        return
    too_much = ram is not None and needs.ram > ram
    do = "take a smaller input or narrower layers there" if too_much else "prune those layers"
    if needs.type != BYTES:
        do = f"quantise it (a quarter of both), or {do}"
    raise InputError(f"{path}: needs {problem}", "a network that fits", f"{do}; gossamer fit shows what would fit")
