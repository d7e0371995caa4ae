"""Fully connected layers of the native engine: weights as the file has them, in floats or bytes, and what opening costs."""

from __future__ import annotations

import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from gossamer.cli.main import main
from gossamer.compile.classifier import in_bytes, last_layers
from gossamer.compile.fuse import fuse
from gossamer.compile.lower import lower
from gossamer.compile.program import FeatureMap, LayerWeights, Operation, Program, ProgramOutput
from gossamer.compile.records import HEADER, OPERATION
from gossamer.compile.write import compile_file, program_bytes
from gossamer.errors import InputError, ModelFileError, UnknownNameError
from gossamer.export.convert import to_onnx
from gossamer.modelfile.metadata import parse_model_file
from gossamer.runtime import native
from tests.exports import randomised
from tests.runs import with_isa

if not native.LIBRARY.is_file():
    pytest.skip("the native engine is not built: make engine", allow_module_level=True)

ISAS = ("reference", "portable", "avx2", "avx512", "avx512_vnni", "avx512_bf16", "amx")
# height, width, channels, outputs of the layer: one position or several, full registers and rests, few and many weights
SIDES = [(1, 1, 64, 32), (1, 1, 37, 11), (3, 5, 19, 7), (1, 1, 600, 500), (2, 3, 101, 450), (1, 1, 3, 1)]
WEIGHTS = [("float32", "float32"), ("float32", "int8"), ("bfloat16", "int8")]  # of the map, of the weights


def case(sides: tuple[int, int, int, int], types: tuple[str, str]) -> tuple[bytes, NDArray[np.float32]]:
    """A network of one such layer behind a copy to a map of the type, SiLU behind it and a second map added; its weights."""
    (h, w, c, n), (kind, held) = sides, types
    rng = np.random.default_rng(c)
    layer = LayerWeights(
        rng.standard_normal((n, c, h, w)).astype(np.float32), rng.standard_normal(n).astype(np.float32)
    )
    if held == "int8":
        layer = in_bytes(layer)
    values = [FeatureMap(h, w, c), FeatureMap(h, w, c, type=kind), FeatureMap(1, 1, n), FeatureMap(1, 1, n)]
    operations = [
        Operation("copy", 0, 1),
        Operation("conv", 1, 2, kernel=(h, w), weights=[layer], act="silu"),
        Operation("conv", 1, 3, other=2, kernel=(h, w), weights=[layer]),
    ]
    data = program_bytes(Program(values, operations, 0, [ProgramOutput("y", (n,), [(3, True)])]))
    weight = layer.weight.astype(np.float32)
    return data, weight if layer.scale is None else weight * layer.scale.reshape(-1, 1, 1, 1)


def expected(sides: tuple[int, int, int, int], types: tuple[str, str], x: NDArray[np.float32]) -> NDArray[np.float64]:
    (_, _, c, n), (_, weight) = sides, case(sides, types)
    rng = np.random.default_rng(c)
    rng.standard_normal(weight.shape)
    sums = np.einsum("nchw,ochw->no", x.astype(np.float64), weight) + rng.standard_normal(n).astype(np.float32)
    return np.asarray(sums + sums / (1 + np.exp(-sums)))


def images(count: int, c: int, h: int, w: int) -> NDArray[np.float32]:
    """Numbers that bfloat16 holds."""
    numbers = np.random.default_rng(1).standard_normal((count, c, h, w)).astype(np.float32)
    return (numbers.view(np.uint32) & 0xFFFF0000).view(np.float32)


RUN = """
import sys, numpy as np
from gossamer.runtime.native import Native
for path in sys.argv[1:]:
    x = np.load(path + ".npy")
    one, three = Native(path, 1)(x), Native(path, 3)(x)
    assert (one == three).all(), path
    np.save(path + ".out.npy", one)
"""


@pytest.mark.parametrize("isa", ISAS)
def test_every_isa_agrees_with_numpy_with_the_same_bits_for_any_threads(isa: str, tmp_path: Path) -> None:
    cases = []
    for sides in SIDES:
        for types in WEIGHTS:
            h, w, c, _ = sides
            path = tmp_path / f"{len(cases)}.goss"
            path.write_bytes(case(sides, types)[0])
            np.save(f"{path}.npy", images(2, c, h, w))
            cases.append((path, expected(sides, types, images(2, c, h, w))))
    with_isa(isa, RUN, *(path for path, _ in cases))
    for path, wanted in cases:
        outputs = np.load(f"{path}.out.npy")
        assert np.abs(outputs - wanted).max() < 1e-5 * np.abs(wanted).max(), path.name


def test_bytes_are_within_half_a_step_and_a_row_of_zeros_stays() -> None:
    weight = np.random.default_rng(0).standard_normal((5, 7, 2, 3)).astype(np.float32)
    weight[2] = 0
    quantised = in_bytes(LayerWeights(weight, np.zeros(5, np.float32)))
    assert quantised.scale is not None and quantised.weight.dtype == np.int8 and quantised.type == "uint8"
    error = np.abs(quantised.weight * quantised.scale.reshape(-1, 1, 1, 1) - weight).max((1, 2, 3))
    assert (error <= quantised.scale * 0.5001).all() and not quantised.weight[2].any()
    assert np.abs(quantised.weight.reshape(5, -1)).max(1).tolist() == [127, 127, 0, 127, 127]


def network(gate: bool = True) -> nn.Module:
    """A gate of small layers in its middle, two fully connected layers at its end."""

    class Gate(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 8, 1), nn.Sigmoid())

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = x * self.body(x)
            return out

    head = [nn.Flatten(), nn.Linear(8 * 16, 40), nn.ReLU(), nn.Linear(40, 10)] if gate else []
    return randomised(nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), Gate(), nn.MaxPool2d(2), *head)).eval()


def test_only_the_layers_at_the_end_are_the_classifier() -> None:
    torch.manual_seed(0)
    program = fuse(lower(parse_model_file(to_onnx(network(), (16, 16))).onnx))
    assert [program.values[one.out].c for one in last_layers(program)] == [10, 40]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_command_says_what_int8_costs(precision: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    (tmp_path / "net.onnx").write_bytes(to_onnx(network(), (16, 16)))
    words = ["compile", str(tmp_path / "net.onnx"), "--precision", precision, "--out"]
    assert main([*words, str(tmp_path / "a.goss")]) == 0
    capsys.readouterr()
    assert main([*words, str(tmp_path / "b.goss"), "--classifier", "int8"]) == 0
    text = capsys.readouterr().out
    assert "last layers in int8" in text and "outputs differ by at most" in text
    saved = (tmp_path / "a.goss").stat().st_size - (tmp_path / "b.goss").stat().st_size
    assert saved > (40 * 128 + 400) * (3 if precision == "fp32" else 1) - 1000
    x = images(4, 3, 16, 16)
    plain, few = (native.Native(tmp_path / name, 1)(x) for name in ("a.goss", "b.goss"))
    difference = np.abs(np.asarray(plain) - few).max()
    assert 0 < difference < 0.03 * np.abs(plain).max()


def test_what_cannot_be_had_is_refused(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(to_onnx(network(gate=False), (16, 16)))
    with pytest.raises(InputError, match="leave --classifier out"):
        compile_file(tmp_path / "net.onnx", tmp_path / "a.goss", classifier="int8")
    with pytest.raises(UnknownNameError, match="classifier"):
        compile_file(tmp_path / "net.onnx", tmp_path / "a.goss", classifier="int4")


def with_checksum(data: bytes) -> bytes:
    return data[:12] + struct.pack("<I", zlib.crc32(data[16:])) + data[16:]


def test_weights_that_their_map_cannot_meet_and_scales_that_are_none_are_refused(tmp_path: Path) -> None:
    data, _ = case((1, 1, 37, 11), ("bfloat16", "int8"))
    header = HEADER.unpack(data)
    at = header["ops"] + OPERATION.size  # of the first convolution
    path = tmp_path / "file.goss"
    scales = OPERATION.unpack(data, at)["scale0"]
    for number in (float("nan"), float("inf"), -1e-3):
        path.write_bytes(
            with_checksum(
                data[: (place := header["weights"] + 4 * (scales + 10))] + struct.pack("<f", number) + data[place + 4 :]
            )
        )
        with pytest.raises(ModelFileError, match="N12"):
            native.Native(path, 1)
    for kind in (0, 3, -1):  # float32 with a map of bfloat16; no types
        path.write_bytes(
            with_checksum(
                data[: (place := at + OPERATION.offset("type0"))] + struct.pack("<i", kind) + data[place + 4 :]
            )
        )
        with pytest.raises(ModelFileError, match="N12" if kind == 0 else "N7"):
            native.Native(path, 1)
    values = [FeatureMap(4, 4, 8, type="bfloat16"), FeatureMap(4, 4, 8)]
    layer = in_bytes(LayerWeights(np.ones((8, 8, 1, 1), np.float32), np.zeros(8, np.float32)))
    path.write_bytes(
        program_bytes(
            Program(
                values, [Operation("conv", 0, 1, weights=[layer])], 0, [ProgramOutput("y", (8, 4, 4), [(1, False)])]
            )
        )
    )
    with pytest.raises(ModelFileError, match="N12"):  # each position meets the weights: tiles take no such pair
        native.Native(path, 1)


def test_the_sum_of_a_file_of_any_length_is_zlib_s(tmp_path: Path) -> None:
    values, path = [FeatureMap(1, 1, 3), FeatureMap(1, 1, 3)], tmp_path / "file.goss"
    program = Program(values, [Operation("copy", 0, 1)], 0, [ProgramOutput("y", (3,), [(1, True)])])
    for length in (*range(140), 2**20 - 1, 2**20, 2**20 + 77):  # around the pieces in which it is computed
        data = program_bytes(program, b'"' + b"x" * length + b'"')
        path.write_bytes(data)
        with pytest.raises(ModelFileError, match="its metadata"):  # which is read when all else is right
            native.Native(path, 1)
        path.unlink()
        path.write_bytes(data[:-2] + b"y" + data[-1:] if length else data[:-1] + b"'")
        with pytest.raises(ModelFileError, match="N4"):
            native.Native(path, 1)
        path.unlink()


MEMORY = """
import sys
import numpy as np
from gossamer.runtime.native import Native
def now(name):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(name))
before = now("VmHWM:")
engine = Native(sys.argv[1], 1)
engine(np.ones((1, *engine.input_shape[1:]), np.float32))
print(now("VmHWM:") - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="the system does not tell a process its memory")
@pytest.mark.parametrize("kernel", [3, 1])
def test_a_process_never_holds_the_weights_twice(kernel: int, tmp_path: Path) -> None:
    """Packed for tiles of a map of 3 x 3, or read in the order of the file."""
    c, count = (256, 8) if kernel == 3 else (512, 18)
    layer = LayerWeights(np.ones((c, c, kernel, kernel), np.float32), np.zeros(c, np.float32))
    pads = (kernel // 2,) * 4
    values = [FeatureMap(kernel, kernel, c) for _ in range(count + 1)]
    operations = [
        Operation("conv", place, place + 1, kernel=(kernel, kernel), pads=pads, weights=[layer])
        for place in range(count)
    ]
    program = Program(values, operations, 0, [ProgramOutput("y", (c, kernel, kernel), [(count, False)])])
    path = tmp_path / "file.goss"
    path.write_bytes(program_bytes(program))
    done = subprocess.run([sys.executable, "-c", MEMORY, str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    size = path.stat().st_size
    assert size > 18e6 and int(done.stdout) < 1.4 * size
