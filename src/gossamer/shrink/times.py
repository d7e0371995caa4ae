"""Milliseconds against width, measured in the native engine: a table per operation of the compiled network.

The network is compiled once. Each operation with weights (a convolution, or a block of an expansion, a depthwise
convolution and a projection that the engine runs as one) is then run alone with one of its channel groups narrowed to
each candidate. Two groups that meet in an operation change its time together as they change its multiply-adds; the
pruned network is measured as a whole afterwards. What was measured is kept in the user's cache, by machine, engine and
threads.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from gossamer.compile.fuse import fuse
from gossamer.compile.lower import lower
from gossamer.compile.program import FeatureMap, LayerWeights, Operation, Program, ProgramOutput
from gossamer.compile.write import compile_bytes, program_bytes
from gossamer.errors import InputError, MissingPackageError, StorageError
from gossamer.export.traced import onnx_to_time
from gossamer.host import machine
from gossamer.host.progress import Progress
from gossamer.host.storage import user_cache, write_text
from gossamer.host.text import counted
from gossamer.modelfile.metadata import parse_model_file
from gossamer.runtime import native
from gossamer.shrink.blocks import Block, add_block
from gossamer.shrink.widths import CostModel, Layer, Numbers, narrowed, product_tables

NAME = "widths.json"  # below `host.storage.user_cache`
FORMAT = 1
MOST = 50_000  # times that are kept, the newest
LIMIT = 32 << 20  # bytes: a larger file is none of ours
RUNS = 8  # of an operation, after ten to warm up
TURNS = 2  # of which the faster counts: what else runs on the machine only ever adds
ROUNDS = 6  # of the whole networks, in turn
ROUND_SECONDS = 0.3
LEAST_RUNS = 5


@dataclasses.dataclass
class Unit:
    """An operation of the compiled network: its values, its milliseconds, and the layer of each of its weights."""

    operation: Operation
    source: FeatureMap
    target: FeatureMap
    layers: tuple[Layer | None, ...]
    ms: float
    feeders: set[int]  # of an operation without weights: the groups of the channels that it reads


def check_engine() -> None:
    """Raises MissingPackageError where the engine is not built."""
    try:
        native.library()
    except MissingPackageError as error:
        raise MissingPackageError(
            "the native engine",
            "",
            "a limit in milliseconds",
            "build it with `make engine` in a clone, or give --macs or --size in place of --latency",
        ) from error


def compiled(network: nn.Module, size: tuple[int, int], channels: int, outputs: tuple[str, ...]) -> bytes:
    """The network for the native engine, in float32. Raises InputError for an operator that the engine lacks."""
    return compile_bytes(parse_model_file(onnx_to_time(network, size, channels, outputs), "the network"))[0]


def alternating_ms(files: Sequence[bytes], threads: int, progress: Progress, what: str) -> list[float]:
    """The milliseconds per image of compiled networks, run in turn: see `in_turns`."""
    with tempfile.TemporaryDirectory(prefix="gossamer-prune-") as folder:
        engines = []
        for number, data in enumerate(files):
            path = Path(folder) / f"{number}.goss"
            path.write_bytes(data)
            engines.append(native.Native(path, threads))
        images = np.random.default_rng(0).standard_normal((1, *engines[0].input_shape[1:])).astype(np.float32)
        result = in_turns([partial(engine, images) for engine in engines], progress, what)
        for engine in engines:
            engine.close()
    return result


def in_turns(
    calls: Sequence[Callable[[], object]],
    progress: Progress,
    what: str,
    rounds: int = ROUNDS,
    seconds: float = ROUND_SECONDS,
) -> list[float]:
    """The milliseconds of each call, made in turn with the others: of each the fastest. seconds: of a call in each round.

    What else the machine does slows all of them, and only ever adds: with it the median says more of the others.
    """
    times: list[list[float]] = [[] for _ in calls]
    for turn in progress.track(range(rounds + 1), rounds + 1, what):
        order = range(len(calls)) if turn % 2 == 0 else reversed(range(len(calls)))
        for number in order:
            end, count = time.perf_counter() + (seconds if turn else 0), 0
            while count < LEAST_RUNS or time.perf_counter() < end:
                start = time.perf_counter()
                calls[number]()
                if turn:  # the first one warms up
                    times[number].append((time.perf_counter() - start) * 1e3)
                count += 1
    return [min(one) for one in times]


def time_model(
    network: nn.Module,
    size: tuple[int, int],
    channels: int,
    outputs: tuple[str, ...],
    layers: Sequence[Layer],
    options: Sequence[Sequence[int]],
    threads: int,
    progress: Progress,
    blocks: Sequence[Block] = (),
) -> tuple[CostModel, list[str]]:
    """Milliseconds of an image as tables over the candidates `options`, and lines on what was measured.

    blocks: residual blocks that may go, a choice each behind those of the groups.

    Raises InputError for a network that the engine cannot run, MissingPackageError where it is not built.
    """
    notes: list[str] = []
    units = _units(network, size, channels, outputs, layers, threads)
    known, line = _read()
    notes += [line] if line else []
    entries: dict[str, float] = dict(known.get(machine_key(threads), {}))
    model = CostModel(sum(unit.ms for unit in units), [np.zeros(len(one)) for one in options])
    measured = 0
    in_blocks: dict[int, list[Any]] = {}  # block -> its milliseconds, and what each group saves of them
    with tempfile.TemporaryDirectory(prefix="gossamer-prune-") as folder:
        for unit in progress.track(units, len(units), "timing operations at their widths"):
            before = [table.copy() for table in model.unary]
            measured += _add(unit, model, options, entries, Path(folder) / "operation.goss", threads)
            for number, block in enumerate(blocks):
                if unit.layers and all(layer is not None and layer.weight in block.parameters for layer in unit.layers):
                    tables = in_blocks.setdefault(number, [0.0, [np.zeros(len(one)) for one in options]])
                    tables[0] += unit.ms
                    tables[1] = [
                        total + now - past for total, now, past in zip(tables[1], model.unary, before, strict=True)
                    ]
    for number in range(len(blocks)):
        total, saved = in_blocks.get(number, (0.0, []))
        add_block(model, total, saved)
    if measured:
        line = _keep(known, machine_key(threads), entries)
        notes += [line] if line else []
    notes.append(f"{counted(len(units), 'operation')}, {counted(measured, 'width')} timed, the others known")
    return model, notes


def _units(
    network: nn.Module,
    size: tuple[int, int],
    channels: int,
    outputs: tuple[str, ...],
    layers: Sequence[Layer],
    threads: int,
) -> list[Unit]:
    """The operations of the compiled network with their times at full width.

    A copy of the network whose weights are the numbers of their layers says which operation holds which layer.
    """
    numbered = copy.deepcopy(network).eval()
    parameters = dict(numbered.named_parameters())
    with torch.no_grad():
        for module in numbered.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_var is not None:
                assert module.running_mean is not None
                module.running_mean.zero_()
                module.running_var.fill_(1 - module.eps)
                if module.affine:
                    module.weight.fill_(1)
                    module.bias.zero_()
        for number, layer in enumerate(layers):
            parameters[layer.weight].fill_(number + 2)
    file = parse_model_file(onnx_to_time(numbered, size, channels, outputs), "the network")
    program = fuse(lower(file.graph))
    units: list[Unit] = []
    feeders: dict[int, set[int]] = {}  # value -> groups of its channels
    draw = np.random.default_rng(0)
    for operation in program.operations:
        layer_of_each = tuple(_layer(weights, layers) for weights in operation.weights)
        own = [layer for layer in layer_of_each if layer is not None]
        read = set().union(
            *(feeders.get(program.root(value), set()) for value in (operation.input, operation.other) if value >= 0)
        )
        root = program.root(operation.out)
        feeders[root] = feeders.get(root, set()) | (set(own[-1].output_of) if own else read)
        units.append(
            Unit(operation, program.values[operation.input], program.values[operation.out], layer_of_each, 0.0, read)
        )
        for weights in operation.weights:
            if weights is not None and weights.weight.dtype == np.float32:
                weights.weight = (0.1 * draw.standard_normal(weights.weight.shape)).astype(np.float32)
    with tempfile.TemporaryDirectory(prefix="gossamer-prune-") as folder:
        times = _profile(program_bytes(program), Path(folder) / "network.goss", threads, TURNS + 1)
    if len(times) != len(units):
        raise InputError(
            "a network whose operations the engine splits", "one step an operation", "give --macs or --size instead"
        )
    for unit, ms in zip(units, times, strict=True):
        unit.ms = ms
    return units


def _layer(weights: LayerWeights | None, layers: Sequence[Layer]) -> Layer | None:
    """The layer whose number all the weights are; None for others."""
    if weights is None or weights.weight.dtype != np.float32 or not weights.weight.size:
        return None
    number = round(float(weights.weight.reshape(-1)[0])) - 2
    alike = bool((np.abs(weights.weight - (number + 2)) < 0.01).all())
    return layers[number] if alike and 0 <= number < len(layers) else None


def _profile(data: bytes, path: Path, threads: int, turns: int) -> list[float]:
    """The milliseconds of each operation of a compiled network, the least of a few turns."""
    path.write_bytes(data)
    engine = native.Native(path, threads)
    try:
        return [min(ms) for ms in zip(*([step.ms for step in engine.profile(RUNS)] for _ in range(turns)))]
    finally:
        engine.close()


def _add(
    unit: Unit, model: CostModel, options: Sequence[Sequence[int]], entries: dict[str, float], path: Path, threads: int
) -> int:
    """Add what an operation saves at the candidates of its groups; how many were timed for it."""
    own = [layer for layer in unit.layers if layer is not None]
    groups = sorted(set().union(*(layer.groups for layer in own)))
    if not own:  # pools, sums and the like: in proportion to their channels
        for g in unit.feeders:
            left = np.asarray(options[g], np.float64) / options[g][0] - 1
            model.unary[g] += unit.ms * left / max(1, len(unit.feeders))
        return 0
    measured = 0

    def ms(g: int, k: int) -> float:
        nonlocal measured
        narrow = _narrow(unit, g, k, options)
        key = _signature(narrow)
        if key not in entries:
            entries[key] = _profile(program_bytes(narrow), path, threads, TURNS)[0]
            measured += 1
        return entries[key]

    factors, joint = product_tables(own, options, lambda layer: layer.positions * layer.taps)
    total = sum(layer.positions * layer.taps * layer.input * layer.output for layer in own)
    saved: dict[int, Numbers] = {}
    for g in groups:
        full = ms(g, 0)
        saved[g] = unit.ms * (np.asarray([ms(g, k) for k in range(len(options[g]))]) / full - 1)
        saved[g] = np.maximum(saved[g], -unit.ms)
        model.unary[g] = model.unary[g] + saved[g]
    for g, h in combinations(groups, 2):
        if (g, h) in joint:  # as the multiply-adds change together, so does the time
            expected = np.outer(factors[g], factors[h])
            ratio = np.divide(joint[g, h] * total, expected, out=np.zeros_like(expected), where=expected != 0)
            model.add_pair(g, h, np.outer(saved[g], saved[h]) / max(unit.ms, 1e-9) * ratio)
    return measured


def _narrow(unit: Unit, g: int, k: int, options: Sequence[Sequence[int]]) -> Program:
    """A network of the one operation, one group of which is at its candidate k."""
    weights: list[LayerWeights | None] = []
    sides: list[tuple[int, int] | None] = []
    draw = np.random.default_rng(1)
    for layer, one in zip(unit.layers, unit.operation.weights, strict=True):
        if one is None or layer is None:
            weights.append(one)
            sides.append(None)
            continue
        taken = [table.get(g) for table in narrowed(layer, options)]
        output = layer.output + (0 if taken[0] is None else int(taken[0][k]))
        source = layer.input + (0 if taken[1] is None else int(taken[1][k]))
        shape = list(one.weight.shape)
        shape[0] = output
        if len(shape) > 1:
            shape[1] = max(1, shape[1] * source // layer.input)
        weights.append(
            LayerWeights((0.1 * draw.standard_normal(shape)).astype(np.float32), np.zeros(output, np.float32))
        )
        sides.append((output, shape[1] if len(shape) > 1 else 1))
    known = [side for side in sides if side is not None]
    operation = dataclasses.replace(unit.operation, input=0, out=1, weights=weights)
    depthwise = sides[1] if operation.kind == "block" else None
    first_is_depthwise = operation.kind == "block" and operation.weights[0] is None
    c_in = known[0][0] if first_is_depthwise else known[0][1] * operation.groups
    source_map = FeatureMap(unit.source.h, unit.source.w, c_in)
    target_map = FeatureMap(unit.target.h, unit.target.w, known[-1][0])
    if depthwise is not None:
        operation.mid = depthwise[0]
    operation.other = -1
    if unit.operation.other >= 0 and source_map == target_map:
        operation.other = 0
    shape_out = (target_map.c, target_map.h, target_map.w)
    return Program([source_map, target_map], [operation], 0, [ProgramOutput("y", shape_out, [(1, False)])])


def _signature(program: Program) -> str:
    """What the time of a network of one operation depends on, but for the machine."""
    operation = program.operations[0]
    about = {name: value for name, value in vars(operation).items() if name != "weights"}
    shapes = [None if one is None else list(one.weight.shape) for one in operation.weights]
    maps = [[value.h, value.w, value.c] for value in program.values]
    text = json.dumps([about, shapes, maps], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def machine_key(threads: int) -> str:
    """The machine, the engine and the threads that times belong to."""
    here = machine.describe_machine()
    digest = native.LIBRARY.with_name(native.LIBRARY.name + ".digest")
    if digest.is_file():
        engine = digest.read_text().strip()
    else:
        engine = hashlib.sha256(native.LIBRARY.read_bytes()).hexdigest() if native.LIBRARY.is_file() else "not built"
    about = [here["cpu"], here["architecture"], here["isa"], here["cores"], threads, engine]
    about.append(os.environ.get("GOSSAMER_ISA", ""))
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()[:24]


def _read() -> tuple[dict[str, dict[str, float]], str]:
    return read_times(NAME)


def read_times(name: str) -> tuple[dict[str, dict[str, float]], str]:
    """The times by machine and operation that were kept, none where there are none; and a line where they are damaged.

    name: of the file in the user's cache.
    """
    try:
        path = user_cache() / name
        if not path.exists():
            return {}, ""
        if path.stat().st_size > LIMIT:
            return {}, _ignored(name, f"more than {LIMIT} bytes")
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RuntimeError, RecursionError) as error:
        return {}, _ignored(name, getattr(error, "strerror", None) or type(error).__name__)
    if not isinstance(content, dict) or content.get("format") != FORMAT or not _sound(content.get("machines")):
        return {}, _ignored(name, "not what gossamer writes")
    machines: dict[str, dict[str, float]] = content["machines"]
    return machines, ""


def _sound(machines: Any) -> bool:
    return isinstance(machines, dict) and all(
        isinstance(times, dict) and all(isinstance(ms, float) and 0 < ms < 1e6 for ms in times.values())  # NaN is not
        for times in machines.values()
    )


def _ignored(name: str, reason: str) -> str:
    return f"the kept times are ignored and measured anew ({name} in the user's cache: {reason})"


def _keep(machines: dict[str, dict[str, float]], key: str, entries: dict[str, float]) -> str:
    return keep_times(machines, key, entries, NAME)


def keep_times(machines: dict[str, dict[str, float]], key: str, entries: dict[str, float], name: str) -> str:
    """Keep the times of this machine, the newest of all; a line that says why where they cannot be kept."""
    kept: dict[str, dict[str, float]] = {}
    left = MOST
    for machine_name, times in [(key, entries), *((n, t) for n, t in reversed(machines.items()) if n != key)]:
        if left > 0:
            kept[machine_name] = dict(list(times.items())[-left:])
            left -= len(kept[machine_name])
    try:
        ordered = dict(reversed(kept.items()))  # the newest stands last
        write_text(user_cache() / name, json.dumps({"format": FORMAT, "machines": ordered}))
    except (StorageError, RuntimeError) as error:  # RuntimeError: this user has no home
        return f"what was timed is timed again next time: {error}"
    return ""
