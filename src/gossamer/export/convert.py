"""From a torch module to the bytes of an ONNX model that say nothing of the machine that made them."""

from __future__ import annotations

import contextlib
import copy
import functools
import gc
import logging
import os
import sys
import sysconfig
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from gossamer.errors import GossamerError, InputError, MissingPackageError
from gossamer.export.fold import fold_norms
from gossamer.export.onetrace import one_trace
from gossamer.runtime.ort import open_session

OPSET = 18
DEFORM_OPSET = 19  # the first with DeformConv
INPUT, OUTPUT, BATCH = "input", "logits", "batch"


def to_onnx(model: nn.Module, size: tuple[int, int], in_chans: int = 3, outputs: tuple[str, ...] = (OUTPUT,)) -> bytes:
    """An ONNX model with `model`'s evaluation-mode function: input (batch, C, H, W) -> outputs (batch, ...), float32.

    outputs: their names, in the order in which the model returns them. The operator set is OPSET; a deformable
    convolution is one DeformConv of set 19 where the installed ONNX Runtime has it, else the arithmetic. Batch norm is folded into convolutions, the batch is free, (H, W) = size. The same model gives the same bytes.
    Raises InputError for a model that torch cannot export, MissingPackageError.
    """
    onnx = packages()
    plain = copy.deepcopy(model).cpu().float().eval()  # a copy: the caller's model stays as it is
    for tensor in (*plain.parameters(), *plain.buffers()):  # channels_last would leave its mark on the graph
        tensor.data = tensor.data.clone(memory_format=torch.contiguous_format)
    plain.requires_grad_(False)
    for module in plain.modules():  # torch would decompose in-place activations, which takes half as long again
        if getattr(module, "inplace", False):
            module.inplace = False  # type: ignore[assignment]
    example = torch.zeros(2, in_chans, *size)  # a batch of 1 would become a constant
    with contextlib.suppress(InputError):  # what only this tracer cannot follow is exported as it is
        fold_norms(plain, (2, in_chans, *size))
    opset = OPSET
    for module in plain.modules():
        if isinstance(module, nn.ReLU6):
            # torch traces its own name through Python, which takes half as long again, to the same node of the file
            module.forward = functools.partial(torch.clamp, min=0.0, max=6.0)  # type: ignore[method-assign]
        if hasattr(module, "as_onnx") and runs_deform_conv():
            module.as_onnx, opset = True, DEFORM_OPSET  # type: ignore[assignment]
    options: dict[str, Any] = {
        "dynamo": True,
        "opset_version": opset,
        "input_names": [INPUT],
        "output_names": list(outputs),
        "dynamic_shapes": ({0: torch.export.Dim.DYNAMIC},),
        "external_data": False,
        "verbose": False,
    }
    try:
        with warnings.catch_warnings(), _no_collection(), _no_word_of_torchvision():
            # torch's exporter makes copies of its own deprecated class; nothing here can change that
            warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
            try:
                with one_trace() as once:
                    program = torch.onnx.export(plain, (example,), **options)
            except torch.onnx.OnnxExporterError:
                if not once:  # both traces have failed
                    raise
                program = torch.onnx.export(plain, (example,), **options)
    except torch.onnx.OnnxExporterError as error:
        reason = _reason(error)
        raise InputError(
            f"{type(model).__name__} cannot be exported to ONNX: {reason}",
            "networks whose forward torch.export can follow",
            "write that part of forward without data-dependent Python",
        ) from error
    assert program is not None
    proto = program.model_proto
    _strip(proto)
    _check_clean(proto)
    onnx.checker.check_model(proto, full_check=True)
    return bytes(proto.SerializeToString(deterministic=True))


@contextlib.contextmanager
def _no_word_of_torchvision() -> Iterator[None]:
    """Leave out torch's lines on operators of torchvision, which no network here has, where that is not installed."""
    log = logging.getLogger("torch.onnx._internal.exporter._registration")

    def others(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith("torchvision is not installed")

    log.addFilter(others)
    try:
        yield
    finally:
        log.removeFilter(others)


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """No garbage collection: torch makes millions of small objects, and looking through them takes a fifth of the export."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@functools.cache
def runs_deform_conv() -> bool:
    """Whether torch can export DeformConv and the installed ONNX Runtime runs it; older ones of either lack it."""
    try:
        import onnx
    except ImportError:
        return False
    if not hasattr(torch.onnx, "ops"):
        return False
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    shapes = {"x": [1, 1, 1, 1], "w": [1, 1, 1, 1], "offset": [1, 2, 1, 1], "y": [1, 1, 1, 1]}
    x, w, offset, y = (helper.make_tensor_value_info(name, kind, shape) for name, shape in shapes.items())
    node = helper.make_node("DeformConv", ["x", "w", "offset"], ["y"], kernel_shape=[1, 1])
    graph = helper.make_graph([node], "probe", [x, w, offset], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", DEFORM_OPSET)], ir_version=9)
    try:
        open_session(model.SerializeToString())
    except Exception:  # no package, or no operator, for which the runtime has no public name
        return False
    return True


def packages() -> ModuleType:
    """onnx. Raises MissingPackageError where what exporting needs is not installed."""
    try:
        import onnx
        import onnxscript  # noqa: F401 (torch's exporter needs it)
    except ImportError as error:
        raise MissingPackageError(str(error.name or "onnx"), "train", "exporting to ONNX") from error
    return onnx


def _strip(proto: Any) -> None:
    """Drop notes, stack traces and inferred shapes, and give the free dimension its name."""
    graph = proto.graph
    for part in (proto, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        part.ClearField("doc_string")
        part.ClearField("metadata_props")
    graph.ClearField("value_info")  # every reader infers it again
    graph.name = "gossamer"
    for i, node in enumerate(graph.node):
        node.name = f"{node.op_type}_{i}"
    for value in (*graph.input, *graph.output):
        first = value.type.tensor_type.shape.dim[0]
        if first.HasField("dim_param"):
            first.dim_param = BATCH


def _check_clean(proto: Any) -> None:
    """Raises GossamerError where a path of this machine is left in the model (its weights are not looked at)."""
    texts = copy.deepcopy(proto)
    for tensor in texts.graph.initializer:
        tensor.ClearField("raw_data")
    path = machine_path(texts.SerializeToString())
    if path:
        raise GossamerError(f"the exported model would tell the path {path}; nothing was written; please report this")


def machine_path(data: bytes) -> str:
    """A folder of this machine that stands in `data`, or ""."""
    folders = {
        Path.cwd(),
        Path.home(),
        Path(sys.prefix),
        Path(tempfile.gettempdir()),
        Path(sysconfig.get_path("stdlib")),
    }
    names = {str(folder) for folder in folders if folder != Path(folder.anchor)}
    return next((name for name in sorted(names) if (name + os.sep).encode() in data), "")


def _reason(error: BaseException) -> str:
    """The first line of the cause: the exporter's own message is pages long."""
    cause = error.__cause__ or error
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return (lines[0] if lines else type(cause).__name__)[:200]
