"""Expansion, depthwise convolution and projection as one block, which keeps the expanded map in the cache."""

from __future__ import annotations

import dataclasses

from gossamer.compile.branches import merge_branches
from gossamer.compile.program import Operation, Program


def fuse(program: Program) -> Program:
    """The program with parallel linear layers as one, and each depthwise layer fused with the 1x1 convolutions that only it
    reads, or that read only it.
    """
    program = merge_branches(program)
    operations = list(program.operations)
    for one in operations:
        _drop_repeated_rounding(program, one)
    readers = program.readers()
    makers = {one.out: one for one in operations}
    parents, outputs = {value.parent for value in program.values}, program.output_values()

    def alone(value: int) -> bool:
        """Whether one operation reads the value, and nothing sees it as a slice."""
        own_map = program.values[value].parent < 0 and value not in parents
        return own_map and len(readers.get(value, [])) == 1 and value not in outputs

    gone: set[int] = set()
    for block in operations:
        if block.kind != "block" or block.weights[2] is not None:  # a projection that has become a block is done
            continue
        before = makers.get(block.input)
        if (
            before is not None
            and id(before) not in gone
            and _is_pointwise(before)
            and before.other < 0
            and alone(before.out)
        ):
            block.weights[0] = before.weights[0]
            block.acts, block.bounds = (before.act, block.acts[1]), (before.bound, block.bounds[1])
            block.roundings = (before.rounding, block.roundings[1])
            between = program.values[before.out]
            if between.type == "uint8":
                block.expanded = (between.scale, between.zero)
            block.input = before.input
            gone.add(id(before))
        if alone(block.out):
            after = operations[readers[block.out][0]]
            if (
                _is_pointwise(after)
                and after.input == block.out
                and after.other != block.out
                and after.weights[0] is not None
                and after.weights[0].type == program.values[block.out].type
            ):
                # at the place of the projection, where what it adds has been computed
                after.kind, after.kernel, after.stride, after.pads = "block", block.kernel, block.stride, block.pads
                after.mid, after.acts, after.input = block.mid, block.acts, block.input
                after.bounds, after.dilation = block.bounds, block.dilation
                after.roundings, after.expanded = block.roundings, block.expanded
                between = program.values[block.out]
                after.middle = (between.scale, between.zero)
                after.weights = [block.weights[0], block.weights[1], after.weights[0]]
                gone.add(id(block))
                readers = _readers(operations, gone)
    kept = [one for one in operations if id(one) not in gone]
    return _compact(dataclasses.replace(program, operations=kept))


def _drop_repeated_rounding(program: Program, one: Operation) -> None:
    """Leave out the rounding of a sum that the operation's output repeats: of one scale, and a ReLU at most between them."""
    out, alone = program.values[one.out], one.kind == "block" and len(one.weights) == 3 and one.weights[2] is None
    act, rounding = (one.acts[1], one.roundings[1]) if alone else (one.act, one.rounding)
    adds = one.kind in ("conv", "block") and one.other >= 0
    if out.type != "uint8" or rounding.sum != (out.scale, out.zero) or act not in ("none", "relu") or adds:
        return
    rounding = dataclasses.replace(rounding, sum=(0.0, 0))
    if alone:
        one.roundings = (one.roundings[0], rounding)
    else:
        one.rounding = rounding


def _is_pointwise(one: Operation) -> bool:
    plain = one.kernel == (1, 1) and one.stride == (1, 1) and one.pads == (0, 0, 0, 0)
    return one.kind == "conv" and plain and one.groups == 1


def _readers(operations: list[Operation], gone: set[int]) -> dict[int, list[int]]:
    readers: dict[int, list[int]] = {}
    for index, one in enumerate(operations):
        if id(one) not in gone:
            for value in (one.input, one.other):
                if value >= 0:
                    readers.setdefault(value, []).append(index)
    return readers


def _compact(program: Program) -> Program:
    """Without the values that nothing uses any more."""
    used = program.input_values() | program.output_values()
    for one in program.operations:
        used |= {one.input, one.out} | ({one.other} if one.other >= 0 else set())
    used |= {program.values[value].parent for value in used} - {-1}
    order = sorted(used)
    number = {value: place for place, value in enumerate(order)}
    values = [program.values[value] for value in order]
    for value in values:
        if value.parent >= 0:
            value.parent = number[value.parent]
    for one in program.operations:
        one.input, one.out = number[one.input], number[one.out]
        one.other = number[one.other] if one.other >= 0 else -1
    for output in program.outputs:
        output.pieces = [(number[value], last) for value, last in output.pieces]
    inputs = tuple(dataclasses.replace(one, value=number[one.value]) for one in program.inputs)
    return dataclasses.replace(program, values=values, input=number[program.input], inputs=inputs)
