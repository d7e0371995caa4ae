"""The operations of a compiled network as its file has them: what each reads and writes, its multiply-adds, its time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gossamer.compile.records import (
    HEADER,
    MAP_TYPES,
    OPERATION,
    OPERATION_BYTES_OF_VERSION_3,
    OPERATION_KINDS,
    VALUE,
    unpack_operation,
)
from gossamer.host.text import dimensions, format_table, thread_count

COLUMNS = ("operation", "input", "output", "type", "MMACs", "ms", "%", "GMAC/s")
WIDTHS = (32, 13, 13, 8, 8, 8, 5, 7)
LONG_NAMES = {"conv": "convolution"}  # of kinds, as the table shows them


@dataclass
class Step:
    """One operation: inputs and outputs as height x width x channels; macs: multiply-adds per image; ms: per image.

    winograd_tile: height and width of the Winograd input tiles by which the engine computes it; (0, 0) for direct sums.
    """

    name: str
    input: tuple[int, int, int]
    output: tuple[int, int, int]
    type: str
    macs: int
    ms: float = 0.0
    winograd_tile: tuple[int, int] = (0, 0)


def read_steps(data: bytes | memoryview) -> list[Step]:
    """The operations of a compiled network that the engine has loaded."""
    header = HEADER.unpack(data)
    maps = [VALUE.unpack(data, header["values"] + i * VALUE.size) for i in range(header["value_count"])]
    version, first = header["version"], header["ops"]
    size = OPERATION_BYTES_OF_VERSION_3 if version == 3 else OPERATION.size
    return [_step(unpack_operation(data, first + i * size, version), maps) for i in range(header["op_count"])]


def _step(op: dict[str, Any], maps: Sequence[dict[str, Any]]) -> Step:
    source, target = maps[op["in"]], maps[op["out"]]
    rows, columns, groups, mid = op["kh"], op["kw"], op["groups"], op["mid"]
    c_in, c_out = source["c"], target["c"]
    positions, places = target["h"] * target["w"], source["h"] * source["w"]
    kernel = f"{rows}x{columns}" + (f"/{op['sh']}" if op["sh"] > 1 else "")
    kind = OPERATION_KINDS[op["kind"]]
    name, macs = LONG_NAMES.get(kind, kind.replace("_", " ")), 0
    if name == "convolution":
        macs = positions * c_out * (c_in // groups) * rows * columns
        name = f"convolution {kernel}" + (f", {groups} groups" if groups > 1 else "")
    elif name == "block":
        expands, projects = op["weight0"] >= 0, op["weight2"] >= 0
        macs = positions * mid * rows * columns + expands * places * c_in * mid + projects * positions * mid * c_out
        parts = ["1x1"] * expands + [f"depthwise {kernel}"] + ["1x1"] * projects
        name = ", ".join(parts)
    elif name.endswith("pool"):
        name = f"{name} {kernel}"
    if op["other"] >= 0 and name.startswith(("convolution", "1x1", "depthwise")):
        name += ", add"
    sides = [(value["h"], value["w"], value["c"]) for value in (source, target)]
    return Step(name, sides[0], sides[1], MAP_TYPES[source["type"]], macs)


def table(steps: Sequence[Step], isa: str, threads: int) -> str:
    """Lines for people: each operation with its percentage of the time and its multiply-adds per second."""
    total = sum(step.ms for step in steps) or 1.0
    rows = [
        (
            step.name + (" by {}x{}".format(*step.winograd_tile) if any(step.winograd_tile) else ""),
            dimensions(step.input),
            dimensions(step.output),
            step.type,
            f"{step.macs / 1e6:.2f}",
            f"{step.ms:.3f}",
            f"{100 * step.ms / total:.1f}",
            f"{step.macs / step.ms / 1e6:.1f}" if step.macs and step.ms else "-",
        )
        for step in steps
    ]
    gmacs = sum(step.macs for step in steps) / total / 1e6
    return "\n".join(
        [
            f"{isa}, {thread_count(threads)}: {total:.3f} ms per image, {gmacs:.1f} GMAC/s",
            *format_table(COLUMNS, rows, left=(0, 3), widths=WIDTHS, gap=" "),
        ]
    )
