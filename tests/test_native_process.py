"""An open compiled network in its process: the file may change, the process may fork, and loading many values takes linear time."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from gossamer.compile.program import FeatureMap, LayerWeights, Operation, Program, ProgramOutput
from gossamer.compile.write import compile_bytes, compile_file, program_bytes
from gossamer.errors import InputError, ModelFileError
from gossamer.export.convert import to_onnx
from gossamer.modelfile.metadata import parse_model_file
from gossamer.runtime import native

if not native.LIBRARY.is_file():
    pytest.skip("the native engine is not built: make engine", allow_module_level=True)

SIDE = 10


def network(depth: int, seed: int) -> bytes:
    """A compiled network of packed layers, a layer of the weights that stay as they are read, and an affine operation."""
    torch.manual_seed(seed)
    layers: list[nn.Module] = [nn.BatchNorm2d(3, affine=True), nn.ReLU(), nn.Conv2d(3, 32, 3, padding=1)]
    for _ in range(depth):
        layers += [nn.Conv2d(32, 32, 3, padding=1, groups=32), nn.Hardswish(), nn.Conv2d(32, 32, 1), nn.ReLU()]
    layers += [nn.Flatten(), nn.Linear(32 * SIDE * SIDE, 90)]
    file = parse_model_file(to_onnx(nn.Sequential(*layers).eval(), (SIDE, SIDE), 3))
    return compile_bytes(file)[0]


@pytest.fixture(scope="module")
def networks() -> dict[str, bytes]:
    return {"first": network(3, 0), "same layers": network(3, 1), "more layers": network(6, 2)}


def images(count: int = 2) -> NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal((count, 3, SIDE, SIDE)).astype(np.float32)


def overwrite(path: Path, data: bytes) -> None:
    """As `cp` does: into the same file."""
    with path.open("r+b") as file:
        file.write(data)
        file.truncate(len(data))
        file.flush()
        os.fsync(file.fileno())


def replace(path: Path, data: bytes) -> None:
    other = path.with_suffix(".other")
    other.write_bytes(data)
    other.replace(path)


CHANGES: dict[str, Callable[[Path, dict[str, bytes]], None]] = {
    "overwritten, the same layers": lambda path, data: overwrite(path, data["same layers"]),
    "overwritten, more layers": lambda path, data: overwrite(path, data["more layers"]),
    "overwritten by zeros": lambda path, data: overwrite(path, bytes(len(data["first"]))),
    "cut in half": lambda path, data: os.truncate(path, len(data["first"]) // 2),
    "emptied": lambda path, data: os.truncate(path, 0),
    "replaced": lambda path, data: replace(path, data["more layers"]),
    "deleted": lambda path, data: path.unlink(),
}


@pytest.mark.parametrize("isa", ["", "reference"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_changes_while_it_is_open_changes_nothing(
    change: str, isa: str, networks: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOSSAMER_ISA", isa)
    path = tmp_path / "net.goss"
    path.write_bytes(networks["first"])
    shutil.copy(path, tmp_path / "copy.goss")
    wanted, used, unused = native.Native(tmp_path / "copy.goss", 1), native.Native(path, 2), native.Native(path, 1)
    expected, steps = np.asarray(wanted(images())), wanted.steps()
    used(images())
    CHANGES[change](path, networks)
    for engine in (used, unused):
        np.testing.assert_array_equal(engine(images()), expected)
        assert engine.steps() == steps  # of the network that is open
        assert len(engine.profile(1)) == len(steps)


def test_a_file_above_4_gib_is_refused_before_memory_is_taken(networks: dict[str, bytes], tmp_path: Path) -> None:
    path, size = tmp_path / "net.goss", 2**32 + 64
    data = networks["first"]
    path.write_bytes(data[:16] + size.to_bytes(8, "little") + data[24:])
    os.truncate(path, size)  # it takes no space
    with pytest.raises(ModelFileError, match="N3: shorter or longer than it says, or above 4 GiB"):
        native.Native(path, 1)


@pytest.mark.parametrize("kind", ["a folder", "a pipe", "a pipe that nobody writes to"])
def test_a_path_that_is_not_a_file_is_refused(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "net.goss"
    if kind == "a folder":
        path.mkdir()
    else:
        os.mkfifo(path)
    if kind == "a pipe":
        reader = os.open(path, os.O_RDWR)
    with pytest.raises(ModelFileError, match="cannot be opened or read"):
        native.Native(path, 1)
    if kind == "a pipe":
        os.close(reader)


FORK = """
import os, signal, sys, threading, time
import numpy as np
import gossamer
from gossamer.runtime.native import Native
path, threads, x = sys.argv[1], int(sys.argv[2]), np.load(sys.argv[3])

def child():
    if how == 'close':
        model.close()
        return True
    if how == 'end':
        return True
    same = np.array_equal(model(x), wanted) and np.array_equal(model(x), wanted)
    if how == 'fork again':
        same = same and in_child()
    if how == 'open again':
        same = same and np.array_equal(Native(path, threads)(x), wanted)
    if how == 'run and close':
        model.close()
    return same

depth = 0
def in_child():
    global depth
    pid = os.fork()
    if not pid:
        depth += 1
        signal.alarm(20)  # a child that hangs ends
        sys.exit(0 if (child() if depth == 1 else np.array_equal(model(x), wanted)) else 3)
    return os.waitpid(pid, 0)[1] == 0

for how in sys.argv[4:]:
    model = Native(path, threads)
    wanted = model(x)
    stop = threading.Event()
    def work():
        while not stop.is_set():
            model(x)
    busy = threading.Thread(target=work)
    if how == 'while another thread runs':
        busy.start()
        time.sleep(0.05)
    for _ in range(2):
        assert in_child(), how
    stop.set()
    if busy.ident:
        busy.join()
    assert np.array_equal(model(x), wanted), how
print('done')
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.parametrize("threads", [1, pytest.param(2, marks=pytest.mark.full), 3])
def test_a_child_of_a_fork_runs_closes_and_ends(threads: int, networks: dict[str, bytes], tmp_path: Path) -> None:
    (tmp_path / "net.goss").write_bytes(networks["first"])
    np.save(tmp_path / "images.npy", images(5))
    line = [sys.executable, "-W", "ignore", "-c", FORK, tmp_path / "net.goss", threads, tmp_path / "images.npy"]
    ways = ("run", "run and close", "close", "end", "fork again", "open again", "while another thread runs")
    done = subprocess.run([str(word) for word in (*line, *ways)], capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


def chains(count: int, seed: int) -> tuple[Program, NDArray[np.float32]]:
    """`count` values of various sizes and lives: sums and activations of earlier ones; and the outputs for an input of ones."""
    rng = np.random.default_rng(seed)
    values, operations, numbers = [FeatureMap(1, 1, 3)], [], [np.ones(1)]
    sides = [1, 2, 3]
    rows = {(a, b): np.array([[0, 0]] * b, np.float32) for a in sides for b in sides}
    latest = {1: [0], 2: [], 3: []}
    for number in range(1, count):
        side = int(rng.choice([side for side in sides if latest[side]]))
        source = latest[side][-1 - int(rng.integers(min(40, len(latest[side]))))]
        kind = "resize" if number < 4 or rng.random() < 0.1 else "add"
        target = (number % 3) + 1 if number < 4 else int(rng.choice(sides)) if kind == "resize" else side
        values.append(FeatureMap(target, target, 3))
        if kind == "resize":
            pairs = rows[side, target]
            operations.append(Operation("resize", source, number, weights=[LayerWeights(pairs, pairs)]))
            numbers.append(numbers[source])
        else:
            other = latest[side][-1 - int(rng.integers(min(40, len(latest[side]))))]
            operations.append(Operation("add", source, number, other=other, act="clip", bound=(-9.0, 9.0 + number % 7)))
            numbers.append(np.clip(numbers[source] + numbers[other], -9, 9 + number % 7))
        latest[target].append(number)
    pieces = list(range(count - 30, count))
    shape = (sum(3 * values[value].h ** 2 for value in pieces),)
    program = Program(values, operations, 0, [ProgramOutput("y", shape, [(value, False) for value in pieces])])
    outputs = np.concatenate([np.full(3 * values[value].h ** 2, numbers[value][0]) for value in pieces])
    return program, outputs.astype(np.float32)


@pytest.mark.parametrize("count", [40, 2000, 6000])
def test_values_of_few_and_of_many_share_memory_without_meeting(count: int, tmp_path: Path) -> None:
    """The two ways to place values, on both sides of the number at which the engine changes from one to the other."""
    program, expected = chains(count, count)
    path = tmp_path / "net.goss"
    path.write_bytes(program_bytes(program))
    for threads in (1, 2):
        np.testing.assert_array_equal(native.Native(path, threads)(np.ones((1, 3, 1, 1), np.float32))[0], expected)


@pytest.mark.full
@pytest.mark.parametrize("kept", ["a chain", "all at once"])
def test_200_000_values_load(kept: str, tmp_path: Path) -> None:
    """Comparing all pairs would take minutes: more than the limit of this process."""
    count = 200_000
    last = 50 if kept == "a chain" else 4000
    values = [FeatureMap(1, 1, 1)] * (count + 1)
    operations = [Operation("activation", number, number + 1, act="relu") for number in range(count)]
    pieces = [(count - number * (1 if kept == "a chain" else 50), False) for number in range(last)]
    data = program_bytes(Program(values, operations, 0, [ProgramOutput("y", (last,), pieces)]))
    path = tmp_path / "net.goss"
    path.write_bytes(data)
    code = "import sys, numpy as np; from gossamer.runtime.native import Native\n"
    code += "print(Native(sys.argv[1], 1)(np.full((1, 1, 1, 1), 3, np.float32)).min())"
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=60)
    assert done.stdout == "3.0\n", done.stderr


def test_weights_that_several_layers_share_are_read_by_all(tmp_path: Path) -> None:
    """Memory of weights is returned once nothing reads them again, not before."""
    c, rng = 160, np.random.default_rng(0)
    layer = LayerWeights((rng.standard_normal((c, c, 3, 3)) / 40).astype(np.float32), np.zeros(c, np.float32))
    values = [FeatureMap(6, 6, c) for _ in range(5)]
    operations = [
        Operation("conv", place, place + 1, kernel=(3, 3), pads=(1, 1, 1, 1), act="relu", weights=[layer])
        for place in range(4)
    ]
    data = bytearray(program_bytes(Program(values, operations, 0, [ProgramOutput("y", (c, 6, 6), [(4, False)])])))
    path, x = tmp_path / "net.goss", rng.standard_normal((1, c, 6, 6)).astype(np.float32)
    path.write_bytes(data)
    expected = native.Native(path, 1)(x)
    from gossamer.compile.records import HEADER, OPERATION
    from tests.test_native import with_checksum

    header = HEADER.unpack(bytes(data))
    first = header["ops"] + OPERATION.offset("weight0")
    for number, shift in ((1, 0), (2, 0), (3, 0)):  # the first one's; its page is then in use to the end
        at = first + number * OPERATION.size
        data[at : at + 16] = data[first + shift : first + shift + 16]
    path.write_bytes(with_checksum(bytes(data)))
    np.testing.assert_array_equal(native.Native(path, 1)(x), expected)


@pytest.mark.parametrize("extra", [0, 1])
def test_a_sum_of_bytes_fits_into_int32_or_is_refused(extra: int, tmp_path: Path) -> None:
    """65793 products of 255 and -128 are the most."""
    h, w, c = 3, 7, 3133  # 65793 numbers
    weight = np.full((5, c + extra, h, w), -128, np.int8)
    weight[1], weight[2], weight[3] = 127, 0, -1
    layer = LayerWeights(weight, np.zeros(5, np.float32), np.ones(5, np.float32))
    values = [FeatureMap(h, w, c + extra, type="uint8"), FeatureMap(1, 1, 5)]
    operations = [Operation("conv", 0, 1, kernel=(h, w), weights=[layer])]
    path = tmp_path / "net.goss"
    path.write_bytes(program_bytes(Program(values, operations, 0, [ProgramOutput("y", (5,), [(1, True)])])))
    if extra:
        with pytest.raises(ModelFileError, match=r"N12: .*does not fit into int32"):
            native.Native(path, 1)
        return
    outputs = native.Native(path, 1)(np.full((1, c, h, w), 255, np.float32))[0]
    expected = 255.0 * np.array([-128, 127, 0, -1, -128]) * 65793
    np.testing.assert_allclose(outputs, expected, rtol=1e-6)


def test_a_layer_of_more_bytes_is_compiled_to_floats(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    c, h = 7400, 3  # 66600 products
    weight = np.random.default_rng(0).integers(-128, 128, (4, c, h, h)).astype(np.int8)
    initializers = {"s": np.float32(0.02), "z": np.uint8(3), "ws": np.float32(0.01), "wz": np.int8(0), "w": weight}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["a"]),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["v"]),
        helper.make_node("Conv", ["a", "v"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", c, h, h])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4, 1, 1])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in initializers.items()],
    )
    path = tmp_path / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    x = np.random.default_rng(1).random((1, c, h, h), np.float32) * 5
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {"x": x})
    outputs = native.Native(compile_file(path, tmp_path / "net.goss"), 1)(x)
    np.testing.assert_allclose(outputs, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


PROCESSOR_FLAGS = {
    "avx2": {"avx2", "fma"},
    "avx512": {"avx2", "fma", "avx512f", "avx512vl", "avx512dq", "avx512bw"},
    "avx512_vnni": {"avx512f", "avx512vl", "avx512dq", "avx512bw", "avx512_vnni"},
    "avx512_bf16": {"avx512f", "avx512vl", "avx512dq", "avx512bw", "avx512_vnni", "avx512_bf16"},
}


@pytest.mark.skipif(platform.machine() != "x86_64" or not Path("/proc/cpuinfo").is_file(), reason="x86-64 Linux alone")
def test_the_isas_are_those_that_the_system_lists(
    networks: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine asks the processor, and the system lists what it found and lets be used: neither has more."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    flags = set(next(line for line in lines if line.startswith("flags")).split())
    path = tmp_path / "net.goss"
    path.write_bytes(networks["first"])
    for isa, needed in PROCESSOR_FLAGS.items():
        monkeypatch.setenv("GOSSAMER_ISA", isa)
        if needed <= flags:
            assert native.Native(path, 1)(images()).shape == (2, 90)
        else:
            with pytest.raises(InputError, match="this machine lacks"):
                native.Native(path, 1)
