"""The operations of a compiled network as its file has them: what each reads and writes, its multiply-adds, its time."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

HEADER = struct.Struct("<8sII7QIIiIQQI20x")  # FORMAT.md, "The native file"
VALUE = struct.Struct("<6ifi")
OPERATION = struct.Struct("<20i8q2i7fi8x")
KINDS = (
    "convolution",
    "block",
    "max pool",
    "average pool",
    "global average",
    "add",
    "scale",
    "affine",
    "activation",
    "copy",
    "shuffle",
    "multiply",
    "resize",
    "softmax",
    "depth to space",
)
TYPES = ("float32", "bfloat16", "uint8")


@dataclass
class Step:
    """One operation: inputs and outputs as height x width x channels; macs: multiply-adds an image; ms: an image.

    points: down and across, of the squares by which the engine finds the sums with fewer multiplications (Winograd's
    minimal filtering); (0, 0) where each is done.
    """

    name: str
    input: tuple[int, int, int]
    output: tuple[int, int, int]
    type: str
    macs: int
    ms: float = 0.0
    points: tuple[int, int] = (0, 0)


def read_steps(data: bytes) -> list[Step]:
    """The operations of a compiled network that the engine has taken."""
    fields = HEADER.unpack(data[: HEADER.size])
    values_at, operations_at, values, operations = fields[4], fields[5], fields[10], fields[11]
    maps = [VALUE.unpack_from(data, values_at + i * VALUE.size) for i in range(values)]
    return [_step(OPERATION.unpack_from(data, operations_at + i * OPERATION.size), maps) for i in range(operations)]


def _step(op: tuple[int, ...], maps: Sequence[tuple[int, ...]]) -> Step:
    kind, source, other, target, rows, columns = op[:6]
    groups, mid = op[13], op[14]
    c_in, c_out = maps[source][2], maps[target][2]
    positions, places = maps[target][0] * maps[target][1], maps[source][0] * maps[source][1]
    kernel = f"{rows}x{columns}" + (f"/{op[6]}" if op[6] > 1 else "")
    name, macs = KINDS[kind], 0
    if name == "convolution":
        macs = positions * c_out * (c_in // groups) * rows * columns
        name = f"convolution {kernel}" + (f", {groups} groups" if groups > 1 else "")
    elif name == "block":
        expands, projects = op[20] >= 0, op[24] >= 0
        macs = positions * mid * rows * columns + expands * places * c_in * mid + projects * positions * mid * c_out
        parts = ["1x1"] * expands + [f"depthwise {kernel}"] + ["1x1"] * projects
        name = ", ".join(parts)
    elif name.endswith("pool"):
        name = f"{name} {kernel}"
    if other >= 0 and name.startswith(("convolution", "1x1", "depthwise")):
        name += ", add"
    sides = [(h, w, c) for h, w, c, *_ in (maps[source], maps[target])]
    return Step(name, sides[0], sides[1], TYPES[maps[source][5]], macs)


def table(steps: Sequence[Step], isa: str, threads: int) -> str:
    """Lines for people: each operation with its share of the time and its multiply-adds a second."""
    total = sum(step.ms for step in steps) or 1.0
    lines = [
        f"{isa}, {threads} thread{'s' * (threads > 1)}: {total:.3f} ms an image, "
        f"{sum(step.macs for step in steps) / total / 1e6:.1f} GMAC/s",
        f"{'operation':32} {'input':>13} {'output':>13} {'type':8} {'MMACs':>8} {'ms':>8} {'%':>5} {'GMAC/s':>7}",
    ]
    for step in steps:
        pace = f"{step.macs / step.ms / 1e6:.1f}" if step.macs and step.ms else "-"
        source, target = ("x".join(map(str, sides)) for sides in (step.input, step.output))
        name = step.name + (" by {}x{}".format(*step.points) if any(step.points) else "")
        lines.append(
            f"{name:32} {source:>13} {target:>13} {step.type:8} {step.macs / 1e6:8.2f} {step.ms:8.3f} "
            f"{100 * step.ms / total:5.1f} {pace:>7}"
        )
    return "\n".join(lines)
