"""A network of fresh weights as ONNX in a second, to be timed and thrown away.

torch's exporter of today takes ten seconds and more a network, which is too much where many are only timed. Its older one
records one call. The operators are the same; the file of a run is written by `gossamer.export.convert` all the same.
"""

from __future__ import annotations

import contextlib
import copy
import io
import warnings
from collections.abc import Iterator

import torch
from torch import nn

from gossamer.compile.lower import lower
from gossamer.errors import InputError
from gossamer.export.convert import BATCH, INPUT, OPSET, OUTPUT, to_onnx
from gossamer.export.fold import fold_norms
from gossamer.modelfile.metadata import parse_model_file


def traced_onnx(
    model: nn.Module, size: tuple[int, int], in_chans: int = 3, outputs: tuple[str, ...] = (OUTPUT,)
) -> bytes:
    """An ONNX model as `to_onnx` gives it, by recording one call; by `to_onnx` itself where that is not possible.

    Raises InputError, MissingPackageError.
    """
    plain = copy.deepcopy(model).cpu().float().eval().requires_grad_(False)
    file = io.BytesIO()
    try:
        fold_norms(plain, (2, in_chans, *size))
        with warnings.catch_warnings(), torch.no_grad(), _nothing_printed():
            warnings.simplefilter("ignore")  # that it is the older one, and what it takes for constant
            torch.onnx.export(
                plain,
                (torch.zeros(2, in_chans, *size),),
                file,  # type: ignore[arg-type]  # the older exporter writes to files that are open
                dynamo=False,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=list(outputs),
                dynamic_axes={name: {0: BATCH} for name in (INPUT, *outputs)},
            )
    except Exception:  # the older one raises anything; `to_onnx` says what is wrong
        return to_onnx(model, size, in_chans, outputs)
    return file.getvalue()


@contextlib.contextmanager
def _nothing_printed() -> Iterator[None]:
    """Where it fails, the older exporter prints the whole graph to standard output, which belongs to the result of a command."""
    name = "_jit_onnx_log"  # there is no public switch: `verbose=False` leaves it on
    log = getattr(torch._C, name, None)
    if log is None:
        yield
        return
    setattr(torch._C, name, lambda *_: None)
    try:
        yield
    finally:
        setattr(torch._C, name, log)


def onnx_to_time(
    model: nn.Module, size: tuple[int, int], in_chans: int = 3, outputs: tuple[str, ...] = (OUTPUT,)
) -> bytes:
    """`traced_onnx` where the native engine can run its form, else `to_onnx`: what a run is exported as is timed then.

    A layer is one operation in both; for networks of convolutions the compiled files are the same to the byte.
    Raises InputError, MissingPackageError.
    """
    recorded = traced_onnx(model, size, in_chans, outputs)
    try:
        lower(parse_model_file(recorded, "the network").graph)
    except InputError:  # a pool over the whole map, for one, is recorded as one of its size
        return to_onnx(model, size, in_chans, outputs)
    return recorded
