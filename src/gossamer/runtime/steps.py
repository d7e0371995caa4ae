"""The operations of a compiled network as its file has them: what each reads and writes, its multiply-adds, its time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gossamer.compile.records import HEADER, MAP_TYPES, OPERATION, OPERATION_KINDS, VALUE

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


def read_steps(data: bytes) -> list[Step]:
    """The operations of a compiled network that the engine has loaded."""
    header = HEADER.unpack(data)
    maps = [VALUE.unpack(data, header["values"] + i * VALUE.size) for i in range(header["value_count"])]
    operations = range(header["op_count"])
    return [_step(OPERATION.unpack(data, header["ops"] + i * OPERATION.size), maps) for i in operations]


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
    """Lines for people: each operation with its percentage of the time and its multiply-adds a second."""
    total = sum(step.ms for step in steps) or 1.0
    lines = [
        f"{isa}, {threads} thread{'s' * (threads > 1)}: {total:.3f} ms per image, "
        f"{sum(step.macs for step in steps) / total / 1e6:.1f} GMAC/s",
        f"{'operation':32} {'input':>13} {'output':>13} {'type':8} {'MMACs':>8} {'ms':>8} {'%':>5} {'GMAC/s':>7}",
    ]
    for step in steps:
        pace = f"{step.macs / step.ms / 1e6:.1f}" if step.macs and step.ms else "-"
        source, target = ("x".join(map(str, sides)) for sides in (step.input, step.output))
        name = step.name + (" by {}x{}".format(*step.winograd_tile) if any(step.winograd_tile) else "")
        lines.append(
            f"{name:32} {source:>13} {target:>13} {step.type:8} {step.macs / 1e6:8.2f} {step.ms:8.3f} "
            f"{100 * step.ms / total:5.1f} {pace:>7}"
        )
    return "\n".join(lines)
