"""Networks compiled in each precision and run on each ISA of this machine, beside plain loops over the same files, and on several threads."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
from numpy.typing import NDArray
from torch import nn

from gossamer.compile.write import compile_file
from gossamer.export.traced import onnx_to_time
from gossamer.runtime import native
from tests.runs import EMULATED_AMX, with_isa

PROCESSOR_ISAS = ("portable", "avx2", "avx512", "avx512_vnni", "avx512_bf16", "amx")
# the emulator is built first, which takes half a minute
ISAS = (*PROCESSOR_ISAS, pytest.param(EMULATED_AMX, marks=pytest.mark.full))
Key = TypeVar("Key", bound=Hashable)
Outputs = dict[Key, NDArray[np.float32]]
Files = dict[tuple[str, str], Path]
"""Compiled files by the name of a network and its precision."""
CODE = """
import sys, numpy as np
from gossamer.runtime.native import Native
for path in sys.argv[1:]:
    images = np.load(path + '.images.npy')
    outputs = Native(path, 1)(images)
    np.save(path + '.npy', outputs)
"""
THREADS = "    assert np.array_equal(Native(path, 3)(images[:1]), outputs[:1], equal_nan=True), path\n"


def quantise(onnx: Path, images: NDArray[np.float32], out: Path) -> None:
    """Write the network in int8 (QDQ, a scale per channel), calibrated with images (N, C, H, W)."""
    quantization = pytest.importorskip("onnxruntime.quantization")

    class Reader(quantization.CalibrationDataReader):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            self.left = iter([{"input": image[None]} for image in images])

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            return next(self.left, None)

    quantization.quantize_static(onnx, out, Reader(), quant_format=quantization.QuantFormat.QDQ, per_channel=True)


def compile_each(
    networks: Mapping[str, tuple[nn.Module, NDArray[np.float32]]],
    precisions: Sequence[str],
    folder: Path,
    convert: Callable[..., bytes] = onnx_to_time,
) -> Files:
    """Each network in each precision, compiled beside its images (N, C, H, W); NUMBER.onnx is the number-th in float32.

    convert: `to_onnx` where it matters how the exporter of a run writes an activation.
    """
    files = {}
    for number, (name, (module, images)) in enumerate(networks.items()):
        onnx, quantised = folder / f"{number}.onnx", folder / f"{number}-uint8.onnx"
        onnx.write_bytes(convert(module.eval(), images.shape[2:], images.shape[1]))
        if "uint8" in precisions:
            quantise(onnx, images, quantised)
        for precision in precisions:
            source, floats = (quantised, "float32") if precision == "uint8" else (onnx, precision)
            files[name, precision] = compile_file(source, folder / f"{number}-{precision}.goss", floats)
            np.save(f"{files[name, precision]}.images.npy", images)
    return files


def outputs(files: Mapping[Key, Path], isa: str) -> Outputs[Key]:
    """The outputs of a process forced to the ISA for the images beside each file; skips where the machine lacks it."""
    # this machine's best ISA is tried on several threads by the function below; these two may not be it
    code = CODE + (THREADS if isa in ("amx", EMULATED_AMX) else "")
    with_isa(isa, code, *files.values())
    return {key: np.load(f"{path}.npy") for key, path in files.items()}


def too_far(actual: Outputs[Key], expected: Outputs[Key], most: Mapping[Key, float]) -> dict[Key, float]:
    """Which differ by more than `most` of the spread of what is expected, and by how much."""
    wrong = {}
    for key, wanted in expected.items():
        difference = float(np.abs(actual[key] - wanted).max() / (wanted.max() - wanted.min()))
        if not difference < most[key]:
            wrong[key] = difference
    return wrong


def same_bits(file: Path, images: NDArray[np.float32], name: str) -> None:
    """That one and three images have the same outputs to the bit on one, two, three and five threads."""
    wanted = np.asarray(native.Native(file, 1)(images))
    for threads in (2, 3, 5):
        for count in (1, 3):
            actual = native.Native(file, threads)(images[:count])
            np.testing.assert_array_equal(actual, wanted[:count], err_msg=f"{name}, {threads} threads")
