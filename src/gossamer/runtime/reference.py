"""The plain reference runtime: numpy alone, always there, and the oracle of the others. It is slow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gossamer.modelfile.metadata import ModelFile, rule_error
from gossamer.operators import OPERATORS
from gossamer.predictions.head import Raw, raw_of
from gossamer.runtime.table import RUNTIMES

FASTER = RUNTIMES["reference"].advice.removeprefix("slow: ")
FIRST_OPSET = 13  # before it, Softmax, Squeeze and others meant something else


class Reference:
    """Runs the nodes of a graph in their order, one numpy function each."""

    version = np.__version__

    def __init__(self, file: ModelFile, threads: int = 0) -> None:
        """`threads` has no effect: numpy's matrix products follow the environment of their library.

        Raises ModelFileError (rule 8) for an operator or tensor that plain numpy does not know.
        """
        onnx = file.graph
        self.path, self.input, self.outputs, self.nodes = file.path, onnx.input.name, file.outputs, onnx.nodes
        if onnx.opset < FIRST_OPSET:
            raise rule_error(
                8, f"{file.path}: operator set {onnx.opset}; the reference runtime knows {FIRST_OPSET} on", FASTER
            )
        self.tensors: dict[str, NDArray[Any]] = {}
        for name, tensor in onnx.tensors.items():
            if tensor is None:
                raise rule_error(8, f"{file.path}: tensor {name!r} has a type that numpy lacks", FASTER)
            self.tensors[name] = tensor
        unknown = [node for node in self.nodes if node.op not in OPERATORS]
        if unknown:
            kinds = sorted({node.op for node in unknown})
            raise rule_error(
                8,
                f"{file.path}: node {unknown[0].name!r}: the reference runtime has no operator {', '.join(kinds[:5])}",
                FASTER,
            )
        last_use = {name: i for i, node in enumerate(self.nodes) for name in node.inputs}
        last_use.update((name, len(self.nodes)) for name in self.outputs)
        self.dead_after: list[list[str]] = [[] for _ in range(len(self.nodes) + 1)]
        for name, i in last_use.items():
            if name and name not in self.tensors:
                self.dead_after[i].append(name)

    @staticmethod
    def import_package() -> None:
        """Nothing: numpy is imported already."""

    def __call__(self, batch: NDArray[np.float32]) -> Raw:
        """batch (N, C, H, W) -> (N, ...), by name where there are several.

        Raises ModelFileError (rule 8), naming the node that fails.
        """
        return self.run_inputs({self.input: batch})

    def run_inputs(self, batch: Mapping[str, NDArray[np.float32]]) -> Raw:
        """As a call, with each input by its name."""
        values: dict[str, Any] = {**self.tensors, "": None, **batch}
        with np.errstate(all="ignore"):  # infinities and NaN flow on, as in every runtime
            for i, node in enumerate(self.nodes):
                try:
                    result = OPERATORS[node.op](node, *(values[name] for name in node.inputs))
                except Exception as error:  # whatever numpy makes of a graph that does not fit together
                    raise rule_error(8, f"{self.path}: node {node.name!r} ({node.op}): {error}", FASTER) from error
                results = result if isinstance(result, tuple) else (result,)
                values.update((name, np.asarray(value)) for name, value in zip(node.outputs, results) if name)
                for name in self.dead_after[i]:
                    values.pop(name, None)
        try:
            return raw_of(self.outputs, [values[name] for name in self.outputs])
        except KeyError as error:
            raise rule_error(8, f"{self.path}: the reference runtime does not make {error}", FASTER) from error
