"""The time of each operation on this machine, one after the other in the order of the network."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gossamer.analysis.cost import FREE
from gossamer.analysis.graph import Graph
from gossamer.errors import InputError, MissingPackageError
from gossamer.host import machine
from gossamer.runtime.ort import OnnxRuntime, kernel_times, open_session

ROUNDS = 30
WARM = 3
SECONDS = 20.0  # enough rounds are enough, on a slow machine

Times = tuple[float, float, float]  # median and quartiles, in milliseconds


@dataclass(frozen=True)
class Timing:
    """nodes: times of each operation by its number in the graph. network: of the network, called as users call it.
    own: time of what is in no row, views and what the runtime adds, by name. sum_ms: of all medians. cpu: of the
    machine."""

    runtime: str
    threads: int
    rounds: int
    network: Times
    nodes: dict[int, Times] = field(repr=False)
    own: dict[str, float] = field(default_factory=dict)
    cpu: str = ""

    @property
    def sum_ms(self) -> float:
        return sum(times[0] for times in self.nodes.values()) + sum(self.own.values())


def time_module(module: nn.Module, graph: Graph, shape: Sequence[int], threads: int = 1) -> Timing:
    """Run the module once to see each operation's operands, then time the operations in turn, round after round.

    So each finds the caches as in the network: full of what the one before it wrote. Raises InputError where the
    module runs other operations on real tensors than on shapes.
    """
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    with _threads(threads), torch.no_grad():
        module.eval()
        recorder = _Operands({id(x)})
        recorder.watch(module)
        with recorder:
            module(x)
        if len(recorder.calls) != len(graph.nodes):
            raise InputError(
                f"{type(module).__name__} runs {len(recorder.calls)} operations here and {len(graph.nodes)} on shapes",
                "a network whose forward does not depend on the device",
                "leave --measure out",
            )
        network = _measured([lambda: module(x)])[0]
        times = _measured(recorder.calls)
    nodes = {node.index: _quartiles(mine) for node, mine in zip(graph.nodes, times)}
    views = [nodes.pop(node.index)[0] for node in graph.nodes if node.op in FREE]
    return Timing(
        "torch", threads, len(network), _quartiles(network), nodes, {"views": sum(views)} if views else {}, _cpu()
    )


def time_onnx(path: str, graph: Graph, threads: int = 1) -> Timing:
    """Time an ONNX file in ONNX Runtime, by its own profile: fused operators count for the first of their nodes.

    Raises InputError, MissingPackageError.
    """
    import numpy as np

    shape = graph.values[graph.inputs[0]].shape
    image = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    try:
        session = open_session(path, threads)
        network = _measured([lambda: session.run(None, {session.get_inputs()[0].name: image})])[0]
        took = kernel_times(path, image, threads, WARM, ROUNDS)
    except MissingPackageError:
        raise
    except Exception as error:  # onnxruntime's own classes, by no common name
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: {reason}", "a file that ONNX Runtime runs", "leave --measure out") from error
    nodes, own = {}, {}
    # a fused operator has the name of one of its nodes, or of the value that it makes
    places = {graph.values[out].name: node.index for node in graph.nodes for out in node.outputs}
    places |= {node.module: node.index for node in graph.nodes}
    for name, times in took.items():
        at = places.get(name, places.get(name.removesuffix("_nchwc")))
        if at is None:
            own[name] = statistics.median(times)
        else:
            nodes[at] = _quartiles(times)
    return Timing(
        f"onnxruntime {OnnxRuntime.import_package().__version__}",
        threads,
        ROUNDS,
        _quartiles(network),
        nodes,
        own,
        _cpu(),
    )


class _Operands(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch does not type its hook for subclasses
    """Keeps each operation on what depends on the input or the weights, to be called again."""

    def __init__(self, known: set[int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.known = known
        self.kept: list[Any] = []
        self.calls: list[Callable[[], Any]] = []

    def watch(self, module: nn.Module) -> None:
        self.known |= {id(t) for t in (*module.parameters(), *module.buffers())}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        keywords = kwargs or {}
        result = func(*args, **keywords)
        if any(id(t) in self.known for t in tree_leaves((args, keywords)) if isinstance(t, Tensor)):
            results = [t for t in tree_leaves(result) if isinstance(t, Tensor)]
            self.known |= {id(t) for t in results}
            self.kept += results  # an id is unique only among living tensors
            self.calls.append(lambda: func(*args, **keywords))
        return result


def _measured(calls: Sequence[Callable[[], Any]]) -> list[list[float]]:
    """Milliseconds of each call, in rounds of all of them in order."""
    times: list[list[float]] = [[] for _ in calls]
    began = time.perf_counter()
    for number in range(WARM + ROUNDS):
        for call, mine in zip(calls, times):
            start = time.perf_counter_ns()
            call()
            took = time.perf_counter_ns() - start
            if number >= WARM:
                mine.append(took / 1e6)
        if number >= WARM + 4 and time.perf_counter() - began > SECONDS:
            break
    return times


def _cpu() -> str:
    return str(machine.describe_machine().get("cpu") or "")


def _quartiles(times: Sequence[float]) -> Times:
    if len(times) < 2:
        only = times[0] if times else 0.0
        return only, only, only
    low, middle, high = statistics.quantiles(times, n=4, method="inclusive")
    return middle, low, high


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
