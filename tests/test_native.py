"""The native engine: every operator and network against ONNX Runtime, any threads, any ISA, and corrupt files."""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
import sys
import threading
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

import gossamer
from gossamer.cli.main import main
from gossamer.compile.fuse import fuse
from gossamer.compile.lower import lower
from gossamer.compile.program import FeatureMap, LayerWeights, Operation, Program, ProgramInput, ProgramOutput
from gossamer.compile.records import HEADER, OPERATION, OUTPUT, PIECE, VALUE
from gossamer.compile.write import compile_file, program_bytes
from gossamer.errors import InputError, ModelFileError
from gossamer.export.convert import to_onnx
from gossamer.modelfile.metadata import parse_model_file
from gossamer.networks import create_model
from gossamer.runtime import native
from tests.exports import EXPORTED, NETWORKS, randomised
from tests.runs import CPU_FLAGS, SOURCES, skip_without, with_isa

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")
if not native.LIBRARY.is_file():
    pytest.skip("the native engine is not built: make engine", allow_module_level=True)

ROOT = Path(__file__).resolve().parents[1]


class Residual(nn.Module):
    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.body(x)
        return x + out


def inverted(
    c: int, mid: int, out: int, kernel: int = 3, stride: int = 1, act: type[nn.Module] = nn.ReLU6
) -> nn.Module:
    depthwise = nn.Conv2d(mid, mid, kernel, stride, kernel // 2, groups=mid)
    return nn.Sequential(nn.Conv2d(c, mid, 1), act(), depthwise, act(), nn.Conv2d(mid, out, 1))


MODULES: list[tuple[str, nn.Module, int]] = [
    ("1x1", nn.Conv2d(5, 7, 1), 5),
    ("3x3 /2", nn.Conv2d(3, 40, 3, 2, 1), 3),
    ("1x7", nn.Conv2d(17, 33, (1, 7), padding=(0, 3)), 17),
    ("11x11 /4", nn.Conv2d(3, 20, 11, 4, 2), 3),
    ("dilated", nn.Conv2d(4, 18, 3, padding=4, dilation=4), 4),
    ("unpadded", nn.Conv2d(4, 65, 5), 4),
    ("grouped", nn.Conv2d(12, 18, 3, padding=1, groups=3), 12),
    ("depthwise", nn.Conv2d(37, 37, 3, padding=1, groups=37), 37),
    ("depthwise 5x5 /2", nn.Conv2d(16, 16, 5, 2, 2, groups=16), 16),
    ("depthwise 7x7", nn.Conv2d(20, 20, 7, padding=3, groups=20), 20),
    ("separable", nn.Sequential(nn.Conv2d(32, 32, 3, 1, 1, groups=32), nn.ReLU(), nn.Conv2d(32, 50, 1), nn.ReLU()), 32),
    ("inverted", inverted(16, 96, 24), 16),
    ("inverted /2", inverted(16, 72, 24, 3, 2), 16),
    ("inverted 5x5", inverted(24, 100, 40, 5, 1, nn.Hardswish), 24),
    ("inverted residual", nn.Sequential(nn.Conv2d(3, 24, 1), Residual(inverted(24, 144, 24))), 3),
    ("residual, relu", nn.Sequential(nn.Conv2d(3, 8, 1), Residual(nn.Conv2d(8, 8, 3, 1, 1)), nn.ReLU()), 3),
    ("max pool", nn.Sequential(nn.Conv2d(3, 19, 1), nn.MaxPool2d(3, 2, 1)), 3),
    ("max pool, up", nn.Sequential(nn.Conv2d(3, 8, 1), nn.MaxPool2d(3, 2, ceil_mode=True)), 3),
    ("average", nn.Sequential(nn.Conv2d(3, 8, 1), nn.AvgPool2d(3, 2, 1)), 3),
    ("average, inside", nn.Sequential(nn.Conv2d(3, 8, 1), nn.AvgPool2d(3, 1, 1, count_include_pad=False)), 3),
    ("norm first", nn.Sequential(nn.BatchNorm2d(9), nn.ReLU(), nn.Conv2d(9, 4, 1)), 9),
    ("silu", nn.Sequential(nn.Conv2d(3, 21, 1), nn.SiLU()), 3),
    ("tanh", nn.Sequential(nn.Conv2d(3, 21, 1), nn.Tanh()), 3),
    ("classifier", nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 11)), 6),
    ("wide classifier", nn.Sequential(nn.AvgPool2d(5), nn.Flatten(), nn.Linear(6 * 4 * 5, 11)), 6),
]


def compiled(model: nn.Module, folder: Path, size: tuple[int, int], channels: int = 3) -> tuple[Path, Path]:
    """The model as an ONNX file and compiled."""
    onnx, out = folder / "net.onnx", folder / "net.goss"
    onnx.write_bytes(to_onnx(randomised(model).eval(), size, channels))
    compile_file(onnx, out)
    return onnx, out


def onnx_outputs(onnx: Path, batch: NDArray[np.float32]) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(str(onnx), providers=["CPUExecutionProvider"])
    (out,) = session.run(None, {session.get_inputs()[0].name: batch})
    return np.asarray(out)


def noise(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize(("name", "module", "channels"), MODULES, ids=[name for name, _, _ in MODULES])
def test_an_operator_agrees_with_onnx_runtime(name: str, module: nn.Module, channels: int, tmp_path: Path) -> None:
    onnx, out = compiled(module, tmp_path, (20, 25), channels)
    batch = noise(3, channels, 20, 25)
    expected, outputs = onnx_outputs(onnx, batch), native.Native(out, 1)(batch)
    assert np.abs(outputs - expected).max() < 1e-5 * max(1, np.abs(expected).max())


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_agrees_with_onnx_runtime_on_any_number_of_threads(
    name: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    compile_file(EXPORTED[name].file(tmp_path_factory), tmp_path / "net.goss")
    check_threads(EXPORTED[name].file(tmp_path_factory), tmp_path / "net.goss", EXPORTED[name].images(2))


def test_a_network_on_larger_maps_agrees_with_onnx_runtime_on_any_number_of_threads(tmp_path: Path) -> None:
    torch.manual_seed(0)
    onnx, out = compiled(create_model("mobilenetv1_025", num_classes=10), tmp_path, (64, 96))
    check_threads(onnx, out, noise(2, 3, 64, 96))


def check_threads(onnx: Path, out: Path, batch: NDArray[np.float32]) -> None:
    """The compiled file agrees with ONNX Runtime, and gives the same bits on one, two and three threads."""
    expected, one = onnx_outputs(onnx, batch), native.Native(out, 1)(batch)
    assert np.abs(one - expected).max() < 1e-4 * np.abs(expected).max()
    for threads in (2, 3):
        np.testing.assert_array_equal(native.Native(out, threads)(batch), one)


@pytest.mark.parametrize(("channels", "between", "kernel", "stride"), [(8, 20, 5, 1), (16, 37, 3, 1), (24, 72, 5, 2)])
def test_threads_share_the_channels_of_a_small_block_without_projection(
    channels: int, between: int, kernel: int, stride: int, tmp_path: Path
) -> None:
    """Channels that fill no register, and fewer chunks of them than threads, among them."""
    torch.manual_seed(0)
    expand, depthwise = (
        nn.Conv2d(channels, between, 1),
        nn.Conv2d(between, between, kernel, stride, kernel // 2, groups=between),
    )
    onnx, out = compiled(nn.Sequential(expand, nn.ReLU(), depthwise, nn.ReLU()), tmp_path, (7, 7), channels)
    batch = noise(1, channels, 7, 7)
    expected, one = onnx_outputs(onnx, batch), native.Native(out, 1)(batch)
    assert [step.name for step in native.Native(out, 1).steps()] == [
        f"1x1, depthwise {kernel}x{kernel}" + "/2" * (stride == 2)
    ]
    assert np.abs(one - expected).max() < 1e-5 * max(1, np.abs(expected).max())
    for threads in (2, 3, 5):
        np.testing.assert_array_equal(native.Native(out, threads)(batch), one)


@pytest.fixture(scope="module")
def mobilenet(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """mobilenetv2_035 of 64 x 64 pixels and 10 classes as an ONNX file and compiled; not to be changed."""
    torch.manual_seed(0)
    return compiled(create_model("mobilenetv2_035", num_classes=10), tmp_path_factory.mktemp("mobilenet"), (64, 64))


@pytest.mark.parametrize("isa", ["reference", "portable", *CPU_FLAGS])
def test_every_isa_of_this_machine_agrees(isa: str, mobilenet: tuple[Path, Path], tmp_path: Path) -> None:
    onnx, out = mobilenet
    batch = noise(1, 3, 64, 64)
    np.save(tmp_path / "batch.npy", batch)
    code = (
        "import sys, numpy as np\nfrom gossamer.runtime.native import Native\n"
        "engine = Native(sys.argv[1], 2)\nprint(engine.isa)\n"
        "np.save(sys.argv[3], engine(np.load(sys.argv[2])))"
    )
    printed = with_isa(isa, code, out, tmp_path / "batch.npy", tmp_path / "out.npy")
    assert printed.split() == [isa]
    expected = onnx_outputs(onnx, batch)
    assert np.abs(np.load(tmp_path / "out.npy") - expected).max() < 1e-4 * np.abs(expected).max()


def test_an_unknown_isa_is_refused(mobilenet: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOSSAMER_ISA", "sse9")
    with pytest.raises(InputError, match="GOSSAMER_ISA names an instruction set other than reference, portable"):
        native.Native(mobilenet[1], 1)


def test_an_isa_that_the_library_lacks_fails_where_the_processor_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The helper of these tests skips only where the processor lacks it."""
    refused = "GOSSAMER_ISA names an instruction set"
    monkeypatch.setattr("tests.runs.flags", lambda: CPU_FLAGS["avx512_vnni"])
    for isa in ("reference", "avx2", "avx512", "avx512_vnni"):
        with pytest.raises(AssertionError, match=f"refuses {isa}, which this machine has"):
            skip_without(isa, refused)
    for isa in ("avx512_bf16", "amx"):
        with pytest.raises(pytest.skip.Exception):
            skip_without(isa, refused)


def test_callers_on_several_threads_get_their_own_outputs(tmp_path: Path) -> None:
    onnx, out = compiled(create_model("mobilenetv1_025", num_classes=5), tmp_path, (64, 64))
    engine, batches = native.Native(out, 1), [noise(1, 3, 64, 64) * scale for scale in (1, 2, 3, 4)]
    expected = [onnx_outputs(onnx, batch) for batch in batches]
    outputs: list[Any] = [None] * len(batches)

    def call(index: int) -> None:
        for _ in range(20):
            outputs[index] = engine(batches[index])

    threads = [threading.Thread(target=call, args=(index,)) for index in range(len(batches))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one, wanted in zip(outputs, expected):
        np.testing.assert_allclose(one, wanted, atol=1e-4 * np.abs(wanted).max())


@pytest.mark.full
def test_depthwise_layers_and_their_neighbours_become_blocks() -> None:
    onnx = parse_model_file(to_onnx(create_model("mobilenet_v2").eval(), (64, 64))).onnx
    kinds = [one.kind for one in fuse(lower(onnx)).operations]
    assert kinds == ["conv", *["block"] * 17, "conv", "global_average", "conv"]
    onnx = parse_model_file(to_onnx(create_model("mobilenet_v1").eval(), (64, 64))).onnx
    assert [one.kind for one in fuse(lower(onnx)).operations].count("block") == 13


def test_run_allocates_nothing(mobilenet: tuple[Path, Path]) -> None:
    code = """
import ctypes, sys, numpy as np
from gossamer.runtime.native import Native
engine = Native(sys.argv[1], 2)
batch, out = np.zeros((1, 3, 64, 64), np.float32), np.zeros((1, 10), np.float32)
libc = ctypes.CDLL(None)
class Info(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()]
libc.mallinfo2.restype = Info
with engine._session() as session:
    call = (session, batch.ctypes.data, 1, out.ctypes.data)
    for _ in range(3):
        engine._engine.gossamer_run(*call)
    counts = set()
    for _ in range(50):
        before = libc.mallinfo2()
        engine._engine.gossamer_run(*call)
        after = libc.mallinfo2()
        counts.add((after.uordblks - before.uordblks, after.hblkhd - before.hblkhd))
print(min(counts), max(abs(hblkhd) for _, hblkhd in counts))
"""
    done = subprocess.run([sys.executable, "-c", code, str(mobilenet[1])], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["(0,", "0)", "0"], done.stdout


class Sine(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sin(x)


def test_an_operator_that_the_engine_lacks_is_named(tmp_path: Path) -> None:
    onnx = tmp_path / "net.onnx"
    onnx.write_bytes(to_onnx(nn.Sequential(nn.Conv2d(3, 4, 1), Sine()).eval(), (8, 8)))
    with pytest.raises(
        InputError, match=r"operator Sin: .*no such operator; allowed: operators Abs, Add, .*ONNX Runtime"
    ):
        compile_file(onnx, tmp_path / "net.goss")
    assert not (tmp_path / "net.goss").exists()


def test_the_command_compiles_and_the_file_predicts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnx, _ = compiled(create_model("mobilenetv1_025", num_classes=5), tmp_path, (32, 32))
    assert main(["compile", str(onnx), "--out", str(tmp_path / "a.goss")]) == 0
    text = capsys.readouterr().out
    assert re.match(rf"{re.escape(str(tmp_path / 'a.goss'))}: \d\.\d\d MB, float32; ", text), text
    assert re.search(r"^\d+ check inputs beside .*: outputs differ by at most \S+", text, re.MULTILINE), text
    model = gossamer.load(tmp_path / "a.goss", threads=2)
    assert model.runtime_name == "native" and model.metadata is None
    batch = noise(4, 3, 32, 32)
    np.testing.assert_allclose(model.run(batch), onnx_outputs(onnx, batch), atol=1e-4)
    with pytest.raises(InputError, match="an input of"):
        model.run(noise(1, 3, 32, 40))
    at_once = gossamer.load(onnx, runtime="native")  # compiled as it is loaded
    np.testing.assert_array_equal(at_once.run(batch), model.run(batch))
    assert gossamer.load(onnx).runtime_name == "native"
    with pytest.raises(InputError, match="leave --runtime out"):
        gossamer.load(tmp_path / "a.goss", runtime="onnxruntime")


# corrupt files


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    winograd = nn.Conv2d(24, 24, 3, padding=1)  # by minimal filtering
    body = (nn.Conv2d(3, 24, 3, 2, 1), nn.ReLU6(), Residual(inverted(24, 48, 24)))
    module = nn.Sequential(*body, winograd, nn.Conv2d(24, 4, 1))
    onnx = parse_model_file(to_onnx(randomised(module).eval(), (16, 16))).onnx
    return program_bytes(fuse(lower(onnx)))


@pytest.fixture(scope="module")
def heads() -> bytes:
    """Every kind of operation that stands behind a backbone, two outputs, one of them of two maps."""
    rng = np.random.default_rng(0)
    pairs = np.stack([np.array([0, 1, 2, 3, 3, 4]), np.full(6, 0.25)], 1).astype(np.float32)

    def layer(*shape: int) -> LayerWeights:
        return LayerWeights(rng.standard_normal(shape).astype(np.float32), np.zeros(shape[0], np.float32))

    sides = [(8, 8, 3), (8, 8, 24), (8, 8, 24), (6, 6, 24), (12, 12, 6), (12, 12, 6), (1, 1, 6), (12, 12, 6)]
    operations = [
        Operation("conv", 0, 1, kernel=(3, 3), pads=(1, 1, 1, 1), weights=[layer(24, 3, 3, 3)]),
        Operation(
            "block",
            1,
            2,
            kernel=(3, 3),
            pads=(4, 4, 4, 4),
            dilation=4,
            mid=24,
            weights=[None, layer(24, 1, 3, 3), layer(24, 24)],
        ),
        Operation("resize", 2, 3, weights=[LayerWeights(pairs, pairs)]),
        Operation("depth_to_space", 3, 4, stride=(2, 2), groups=2),
        Operation("softmax", 4, 5, groups=2),
        Operation("global_average", 4, 6),
        Operation("add", 4, 7, other=6),
    ]
    outputs = [
        ProgramOutput("rows", ((144 + 1) * 3, 2), [(5, True), (6, True)]),
        ProgramOutput("map", (6, 12, 12), [(7, False)]),
    ]
    return program_bytes(Program([FeatureMap(*side) for side in sides], operations, 0, outputs))


@pytest.fixture(scope="module")
def inputs() -> bytes:
    """Two inputs of different sides."""
    maps = [FeatureMap(4, 4, 2), FeatureMap(1, 1, 2), FeatureMap(4, 4, 2)]
    given = (ProgramInput("image", (2, 4, 4), 0), ProgramInput("gate", (2,), 1))
    output = ProgramOutput("y", (2, 4, 4), [(2, False)])
    return program_bytes(Program(maps, [Operation("scale", 0, 2, other=1)], 0, [output], inputs=given))


def refused(data: bytes, folder: Path) -> int:
    """The code of the error with which a file is refused; 0 where it is loaded, and then it must run."""
    path = folder / "file.goss"
    path.write_bytes(data)
    try:
        engine = native.Native(path, 1)
    except ModelFileError as error:
        return error.rule + native.FIRST  # the engine's code
    engine(np.zeros((1, *engine.input_shape[1:]), np.float32))
    return 0


def with_checksum(data: bytes) -> bytes:
    """The file with the checksum that its bytes have."""
    return data[:12] + struct.pack("<I", zlib.crc32(data[16:])) + data[16:]


def test_a_file_that_ends_early_or_is_another_is_refused(small: bytes, tmp_path: Path) -> None:
    assert refused(small, tmp_path) == 0
    assert refused(b"", tmp_path) == 3
    assert refused(b"GOSSAMES" + small[8:], tmp_path) == 4
    assert refused(small[:8] + b"\x63" + small[9:], tmp_path) == 5
    for length in (1, 100, 128, len(small) // 2, len(small) - 1):
        assert refused(small[:length], tmp_path) in (4, 6)
    assert refused(small + b"\0", tmp_path) == 6


def test_a_flipped_bit_is_detected(small: bytes, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for at in rng.integers(16, len(small), 60):
        changed = bytearray(small)
        changed[at] ^= 1 << int(rng.integers(8))
        assert refused(bytes(changed), tmp_path) in (6, 7)


def test_records_that_are_corrupt_under_a_right_checksum_never_reach_memory(small: bytes, tmp_path: Path) -> None:
    """Every number of every record is replaced by extremes: the file is refused, or runs within its memory."""
    header = HEADER.unpack(small)
    operations_at, operation_count = header["ops"], header["op_count"]
    codes = set()
    for start, count, record, ints in (
        (header["values"], header["value_count"], VALUE.size, 5),
        (operations_at, operation_count, OPERATION.size, 20),
    ):
        for index in range(count):
            for place in range(ints):
                for number in (-1, 0, 1, 3, 65, 2**16, 2**31 - 1, -(2**31)):
                    at = start + index * record + 4 * place
                    codes.add(
                        refused(with_checksum(small[:at] + struct.pack("<i", number) + small[at + 4 :]), tmp_path)
                    )
    for index in range(operation_count):
        for place in range(8):
            for number in (-2, -1, 16, 2**20, 2**62, -(2**63)):
                at = operations_at + index * OPERATION.size + OPERATION.offset("weight0") + 8 * place
                codes.add(refused(with_checksum(small[:at] + struct.pack("<q", number) + small[at + 8 :]), tmp_path))
    assert codes >= {9, 10, 11, 12, 13}


def test_outputs_and_heads_that_are_corrupt_never_reach_memory(heads: bytes, tmp_path: Path) -> None:
    assert refused(heads, tmp_path) == 0
    header = HEADER.unpack(heads)
    operations_at, operation_count = header["ops"], header["op_count"]
    outputs_at, pieces_at = header["outputs"], header["pieces"]
    names = [b"\0" + heads[outputs_at + 1 : outputs_at + 64], b"x" * 64, heads[outputs_at + 96 : outputs_at + 160]]
    for name in names:  # none, one that does not end, that of the other output
        assert refused(with_checksum(heads[:outputs_at] + name + heads[outputs_at + 64 :]), tmp_path) == 14
    codes = set()
    for start, count, size, skip, ints in (
        (operations_at, operation_count, OPERATION.size, 0, 20),
        (outputs_at, 2, OUTPUT.size, 64, 7),
        (pieces_at, 3, PIECE.size, 0, 2),
    ):
        for index in range(count):
            for place in range(ints):
                for number in (-1, 0, 1, 2, 5, 2**16, 2**31 - 1, -(2**31)):
                    at = start + index * size + skip + 4 * place
                    codes.add(
                        refused(with_checksum(heads[:at] + struct.pack("<i", number) + heads[at + 4 :]), tmp_path)
                    )
    assert codes >= {0, 10, 11, 12, 13, 14}


def test_a_resize_that_reads_outside_its_map_is_refused(heads: bytes, tmp_path: Path) -> None:
    header = HEADER.unpack(heads)
    resize = OPERATION.unpack(heads, header["ops"] + 2 * OPERATION.size)
    for table in (resize["weight0"], resize["bias0"]):
        for place in range(12):
            for number in (-1.0, -1e-3, 8.0, 1e30, float("inf"), float("nan")):
                at = header["weights"] + 4 * (table + place)
                assert refused(with_checksum(heads[:at] + struct.pack("<f", number) + heads[at + 4 :]), tmp_path) == 13


def test_a_corrupt_header_is_refused(small: bytes, tmp_path: Path) -> None:
    """By the engine, or where the metadata lies by what reads the metadata."""
    for at in range(24, 72, 8):
        for number in (1, 64 * 10**6, 2**63, 2**64 - 64):
            assert refused(with_checksum(small[:at] + struct.pack("<Q", number) + small[at + 8 :]), tmp_path) in (
                0,
                *range(8, 15),
            )


@pytest.mark.full
def test_the_engine_is_free_of_memory_errors(small: bytes, heads: bytes, inputs: bytes, tmp_path: Path) -> None:
    """The same corruptions under AddressSanitizer and UndefinedBehaviorSanitizer, in a program of its own."""
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    if compiler is None:
        pytest.skip("no C++ compiler")
    program = tmp_path / "corrupt"
    sources = [str(ROOT / "engine" / "src" / f"{name}.cpp") for name in SOURCES]
    flags = (
        "-std=c++17 -O1 -g1 -fsanitize=address,undefined -fno-sanitize-recover=all -DGOSSAMER_PORTABLE_ONLY -pthread"
    )
    built = subprocess.run(
        [compiler, *flags.split(), str(ROOT / "engine" / "test" / "corrupt.cpp"), *sources, "-o", str(program)],
        capture_output=True,
        text=True,
    )
    if built.returncode and "cannot find" in built.stderr:
        pytest.skip("no sanitizers")
    assert built.returncode == 0, built.stderr
    for name, data in (("small", small), ("heads", heads), ("inputs", inputs)):
        (tmp_path / f"{name}.goss").write_bytes(data)
        done = subprocess.run(
            [str(program), str(tmp_path / f"{name}.goss"), str(tmp_path / "corrupt.goss")],
            capture_output=True,
            text=True,
            timeout=250,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        assert int(done.stdout.split()[0]) > 1000
