"""From what a user names to what the rules read: a network by name, a run folder, an ONNX file, a module."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from gossamer.adviser.data_facts import DataFacts, check_data, facts_of_run
from gossamer.adviser.subject import Subject, Weights, decode
from gossamer.analysis.cost import cost
from gossamer.analysis.graph import Graph, trace
from gossamer.analysis.layers import layers_of
from gossamer.errors import InputError
from gossamer.host import machine
from gossamer.microscope.inspection import network_by_name, network_of_run
from gossamer.targets import COUNTED, target_of


def subject_of(
    target: str | Path | nn.Module,
    input_shape: Sequence[int] | None,
    arguments: dict[str, Any],
    data: str | Path | DataFacts | None = None,
) -> Subject:
    """What the rules read of a target. data: see `review`. Raises what `gossamer.adviser.review.review` raises."""
    if isinstance(data, DataFacts):
        return replace(subject_of(target, input_shape, arguments), data=data)
    shape = None if input_shape is None else (1, *input_shape)
    if isinstance(target, nn.Module):
        check_data("module", type(target).__name__, data)
        graph = trace(target, shape or (1, 3, 224, 224))
        real = not any(parameter.is_meta for parameter in target.parameters())
        return _subject(type(target).__name__, "module", graph, trained=real, read=_reader(target))
    name = str(target)
    kind = target_of(target, COUNTED).kind
    check_data(kind, name, data)
    if arguments and kind != "network":
        raise InputError(
            f"{name} with {', '.join(arguments)}", "arguments for a network by its name alone", "leave them out"
        )
    if kind == "model file":
        from gossamer.microscope.onnxgraph import read_graph

        return _subject(name, kind, read_graph(name, shape), trained=True, read=_file_reader(name))
    if kind == "run":
        module, own = network_of_run(Path(name))
        network, values, settings = _made_of(Path(name))
        facts = None
        if data is not None:
            from gossamer.training.restore import preprocess_of

            facts = facts_of_run(name, str(data), preprocess_of(settings), module)
        graph = trace(module, shape or own)
        subject = _subject(name, kind, graph, network, values, True, _reader(module), settings)
        return replace(subject, data=facts)
    from gossamer.networks.registry import NETWORKS, resolve

    module, own = network_by_name(name, arguments)
    network = resolve(name) if not name.startswith("timm:") else ""
    return _subject(name, kind, trace(module, shape or own), network if network in NETWORKS else "", arguments)


def _subject(
    name: str,
    kind: str,
    graph: Graph,
    network: str = "",
    arguments: dict[str, Any] | None = None,
    trained: bool = False,
    read: Callable[[str], Weights | None] = lambda name: None,
    settings: Any = None,
) -> Subject:
    costs = cost(graph)
    layers = decode(graph, layers_of(graph, costs))
    if not any(each.kind in ("conv", "linear") for each in layers):
        raise InputError(f"{name}: no convolution and no linear layer", "a network of some", "give another target")
    return Subject(name, kind, graph, costs, layers, network, arguments or {}, trained, read, lanes(), settings)


@functools.cache
def lanes() -> int:
    """float32 numbers in a vector register of this machine; 8 where the system does not tell."""
    sets = machine.describe_machine()["isa"]
    if sets is None:
        return 8
    return 16 if "avx512f" in sets else 8 if "avx2" in sets else 4


def _made_of(folder: Path) -> tuple[str, dict[str, Any], Any]:
    """The network of a run and its arguments for `create_model`, with fresh weights; "" where it is no plain classifier."""
    from gossamer.networks.registry import ALIASES, NETWORKS
    from gossamer.run import Run
    from gossamer.tasks.backbone import arguments

    run = Run.open(folder)
    settings = run.settings
    network = ALIASES.get(settings.net, settings.net)
    if settings.task != "classify" or settings.frames or network not in NETWORKS or run.changes() is not None:
        return "", {}, settings
    values = {key: value for key, value in arguments(settings).items() if value is not None}
    return network, {**values, "num_classes": len(run.classes)}, settings


def _reader(module: nn.Module) -> Callable[[str], Weights | None]:
    """Reads parameters and buffers by name; None for those that are on the meta device."""
    tensors = dict(module.named_parameters(remove_duplicate=False)) | dict(module.named_buffers(remove_duplicate=False))

    def read(name: str) -> Weights | None:
        tensor = tensors.get(name)
        return None if tensor is None or tensor.is_meta else tensor.detach().float().cpu().numpy()

    return read


def _file_reader(path: str) -> Callable[[str], Weights | None]:
    """Reads the initializers of an ONNX file by name; None for those that are no floats, or whose data cannot be read."""

    @functools.cache
    def tensors() -> dict[str, Any]:
        import onnx

        return {tensor.name: tensor for tensor in onnx.load(path).graph.initializer}

    def read(name: str) -> Weights | None:
        from onnx import TensorProto, numpy_helper

        tensor = tensors().get(name)
        if tensor is None or tensor.data_type not in (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE):
            return None
        try:
            return np.asarray(numpy_helper.to_array(tensor), np.float32)
        except (TypeError, ValueError):  # fewer data than its shape needs: this weight is not judged
            return None

    return read
