"""The native engine with corrupt files, for a long time, and from C: nothing crashes, memory does not grow, all outputs are the same."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from gossamer.compile.bfloat16 import convert_to_bfloat16
from gossamer.compile.classifier import in_bytes, last_layers
from gossamer.compile.fuse import fuse
from gossamer.compile.lower import lower
from gossamer.compile.program import Program
from gossamer.compile.write import program_bytes
from gossamer.errors import ModelFileError
from gossamer.export.convert import to_onnx
from gossamer.images.preprocess import Preprocess
from gossamer.modelfile.metadata import parse_model_file
from gossamer.networks import create_model
from gossamer.predictions.classes import softmax
from gossamer.runtime import native
from tests.exports import randomised

pytest.importorskip("onnx")
if not native.LIBRARY.is_file():
    pytest.skip("the native engine is not built: make engine", allow_module_level=True)

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "300"))  # `make fuzz` asks for more
EXTREMES = (-(2**31), -1, 0, 1, 2, 3, 15, 16, 17, 63, 64, 65, 127, 128, 255, 4096, 65535, 65536, 2**28, 2**31 - 1)


class Paths(nn.Module):
    """Concatenation, addition and a gate."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(6, 20, 1),
            nn.ReLU6(),
            nn.Conv2d(20, 20, 3, padding=1, groups=20),
            nn.Hardswish(),
            nn.Conv2d(20, 6, 1),
        )
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(6, 6, 1), nn.Hardsigmoid())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat((x * self.gate(x), x + self.body(x)), 1)


def program(precision: str = "float32", in_bytes_at_the_end: bool = False) -> Program:
    """Every kind of record in a few kilobytes; or with a last layer whose weights are bytes."""
    module = nn.Sequential(
        nn.Conv2d(3, 6, 3, 2, 1),
        nn.ReLU(),
        Paths(),
        nn.ChannelShuffle(3),
        nn.MaxPool2d(2),
        nn.Conv2d(12, 8, 3, padding=1, groups=4),
        *([nn.Flatten(), nn.Linear(32, 5)] if in_bytes_at_the_end else []),
    )
    lowered = fuse(lower(parse_model_file(to_onnx(randomised(module).eval(), (9, 9))).onnx))
    last = last_layers(lowered) if in_bytes_at_the_end else []
    layers = [in_bytes(layer) for one in last if (layer := one.weights[0]) is not None]
    if precision == "bfloat16":
        convert_to_bfloat16(lowered)
    for one, layer in zip(last, layers, strict=True):
        one.weights[0] = layer
    return lowered


WORKER = """
import sys
import numpy as np
from gossamer.errors import ModelFileError
from gossamer.runtime.native import Native
for line in sys.stdin:
    try:
        engine = Native(line.strip(), 2)
        if np.prod(engine.input_shape[1:]) < 1 << 16:
            engine(np.full((1, *engine.input_shape[1:]), 0.5, np.float32))
        print("ran", flush=True)
    except ModelFileError as error:
        print("refused", flush=True)
"""


class Worker:
    """A process that opens and runs files, one after another, as long as it lives."""

    def __init__(self, folder: Path, isa: str) -> None:
        self.path = folder / f"{isa}.goss"
        self.environment = {**os.environ, "GOSSAMER_ISA": isa}
        self.process = self._start()

    def _start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", WORKER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=self.environment,
        )

    def reply(self, data: bytes) -> str:
        """ran, refused, or nothing where the process died of the file."""
        self.path.unlink(missing_ok=True)  # the process may have the one before mapped
        self.path.write_bytes(data)
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(f"{self.path}\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline().strip()
        if not line:  # hypothesis asks again, with less
            self.close()
            self.process = self._start()
        return line

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Worker]]:
    """The best ISA of this machine, and the one for any."""
    folder = tmp_path_factory.mktemp("worker")
    started = [Worker(folder, isa) for isa in ("", "portable")]
    yield started
    for worker in started:
        worker.close()


def with_checksum(data: bytes) -> bytes:
    """The file with the checksum that its bytes have."""
    return data[:12] + struct.pack("<I", zlib.crc32(data[16:])) + data[16:]


@pytest.fixture(scope="module")
def seeds() -> list[bytes]:
    torch.manual_seed(0)
    kinds = [(precision, last) for precision in ("float32", "bfloat16") for last in (False, True)]
    return [program_bytes(program(*kind)) for kind in kinds]


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_several_corruptions_at_once_under_a_right_checksum_never_crash(
    data: st.DataObject, seeds: list[bytes], workers: list[Worker]
) -> None:
    """Numbers of header, values and operations: replaced by extremes, by one another, or a little off."""
    file = bytearray(data.draw(st.sampled_from(seeds)))
    (weights,) = struct.unpack_from("<Q", file, 40)
    places = st.integers(4, weights // 4 - 1)
    for _ in range(data.draw(st.integers(1, 5))):
        at, other = 4 * data.draw(places), 4 * data.draw(places)
        (number,) = struct.unpack_from("<i", file, data.draw(st.sampled_from((at, other))))
        number = data.draw(st.sampled_from(EXTREMES) | st.integers(-4, 4).map(lambda step, n=number: n + step))  # type: ignore[misc]
        struct.pack_into("<i", file, at, max(-(2**31), min(2**31 - 1, number)))
    for worker in workers:
        assert worker.reply(with_checksum(bytes(file))) in ("ran", "refused")


def test_the_workers_tell_a_good_file_from_a_bad_one(seeds: list[bytes], workers: list[Worker]) -> None:
    for worker in workers:
        for seed in seeds:
            assert worker.reply(seed) == "ran"
            assert worker.reply(seed[:-1]) == "refused"


def test_files_of_the_fuzzer_are_harmless_now(workers: list[Worker], seeds: list[bytes]) -> None:
    """Every file that `make fuzz` ever left; and that a worker tells a file that runs from one that does not."""
    for worker in workers:
        assert (worker.reply(seeds[0]), worker.reply(seeds[0][:-1])) == ("ran", "refused")
    for path in sorted((ROOT / "tests" / "hostile" / "native").glob("*-*")):
        for worker in workers:
            assert worker.reply(path.read_bytes()) in ("ran", "refused"), path.name


def test_slices_that_share_a_channel_are_refused(tmp_path: Path) -> None:
    """Two halves of a concatenation, one of them moved: as many channels as before, one twice and one never."""
    lowered = program()
    halves = [value for value in lowered.values if value.parent >= 0 and value.first > 0]
    halves[0].first -= 1
    (tmp_path / "file.goss").write_bytes(program_bytes(lowered))
    with pytest.raises(ModelFileError, match="N8"):
        native.Native(tmp_path / "file.goss", 1)


MEMORY = """
import sys
import numpy as np
from gossamer.runtime.native import Native
def resident():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmRSS:"))
engine = Native(sys.argv[1], 2)
image = np.ones((1, *engine.input_shape[1:]), np.float32)
for _ in range(500):
    engine(image)
before = resident()
for _ in range(20_000):
    engine(image)
print(resident() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="the system does not tell a process its memory")
def test_memory_does_not_grow_over_20_000_runs(seeds: list[bytes], tmp_path: Path) -> None:
    (tmp_path / "file.goss").write_bytes(seeds[0])
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path / "file.goss")], capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 512  # KiB: 26 bytes per run would be more


def test_the_example_in_c_builds_as_documented_and_predicts_as_python(tmp_path: Path) -> None:
    """The command of engine/README.md, run in engine/."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    readme = (ROOT / "engine" / "README.md").read_text()
    (line,) = [line.strip() for line in readme.splitlines() if line.strip().startswith("cc ")]
    command = shlex.split(line.replace("$PWD", str(ROOT / "engine")))
    command[-1] = str(tmp_path / command[-1])
    done = subprocess.run(
        [*command, "-Wall", "-Wextra", "-Werror"], cwd=ROOT / "engine", capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    torch.manual_seed(0)
    onnx = to_onnx(randomised(create_model("mobilenetv1_025", num_classes=6)).eval(), (48, 64))
    network = fuse(lower(parse_model_file(onnx).onnx))
    preprocess = Preprocess(size=(48, 64), mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3))
    metadata = json.dumps({"classes": ['"mean": 3'], "preprocess": preprocess.to_json()}).encode()
    (tmp_path / "net.goss").write_bytes(program_bytes(network, metadata))
    (tmp_path / "bare.goss").write_bytes(program_bytes(network))
    noise = np.random.default_rng(0).integers(0, 256, (70, 90, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    pixels = preprocess.pixels(tmp_path / "a.png")
    Image.fromarray(pixels).save(tmp_path / "a.ppm")
    done = subprocess.run([command[-1], "net.goss", "a.ppm"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = [row.split() for row in done.stdout.splitlines()[1:]]
    outputs = np.asarray(native.Native(tmp_path / "bare.goss", 2)(preprocess.normalise(pixels[None]))).reshape(-1)
    expected = softmax(outputs)
    best = np.argsort(-expected)[:3]
    assert [int(place) for place, _ in rows] == best.tolist()
    np.testing.assert_allclose([float(score) for _, score in rows], expected[best], atol=2e-4)
    assert expected[best[0]] > expected[best[2]] + 1e-3  # else the order says nothing
    header, wide = (tmp_path / "a.ppm").read_bytes(), tmp_path / "wide.ppm"  # 16 bits a number
    wide.write_bytes(header.replace(b"\n255\n", b"\n65535\n", 1) + header)
    for name, why in (("a.png", "no PPM of bytes"), ("wide.ppm", "no PPM of bytes"), ("b.ppm", "it cannot be opened")):
        done = subprocess.run([command[-1], "net.goss", name], cwd=tmp_path, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (1, f"{name}: {why}\n")
