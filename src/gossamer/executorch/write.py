"""A program as an ExecuTorch file whose operations run in XNNPACK, and gossamer's metadata beside it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from gossamer.errors import InputError
from gossamer.executorch.metadata import FORMAT, VERSION
from gossamer.executorch.package import import_runtime, package_version, quiet
from gossamer.modelfile.digest_json import with_digest
from gossamer.modelfile.metadata import ModelFile


@dataclass(frozen=True)
class ExecuTorchFiles:
    """The contents of NAME.pte and NAME.json."""

    pte: bytes
    json: bytes


def executorch_files(file: ModelFile) -> ExecuTorchFiles:
    """The ExecuTorch program of an ONNX file, float32, for images one at a time.

    What XNNPACK lacks, ExecuTorch's portable kernels compute. Raises InputError that names the operator and the node which
    ExecuTorch or the compile step lacks, MissingPackageError.
    """
    import_runtime()  # before the work
    import torch

    from gossamer.torch_program.module import module_of

    module = module_of(file)
    example = torch.zeros(1, *module.input_shape)
    with torch.no_grad():
        shapes = [list(one.shape)[1:] for one in module(example)]
    outputs = [{"name": one.name, "shape": shape} for one, shape in zip(module.program.outputs, shapes, strict=True)]
    entry: dict[str, Any] = {
        "input": list(module.input_shape),
        "outputs": outputs,
        "metadata": None if file.metadata is None else file.metadata.to_json(),
    }
    try:
        with quiet():
            from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
            from executorch.exir import to_edge_transform_and_lower

            exported = torch.export.export(module, (example,))
            lowered = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()])
            data = bytes(lowered.to_executorch().buffer)
    except Exception as error:  # torch and ExecuTorch raise anything
        what = (
            f"{file.path}: ExecuTorch {package_version()}: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
        )
        do = "export to another format, or take that layer out of the network"
        raise InputError(what, "operators that ExecuTorch has", do) from error
    return ExecuTorchFiles(data, metadata_bytes(data, entry))


def metadata_bytes(pte: bytes, entry: dict[str, Any]) -> bytes:
    """The JSON file: its own digest, that of the .pte file, and the entries."""
    return with_digest({"format": FORMAT, "version": VERSION, "pte": hashlib.sha256(pte).hexdigest(), **entry})
