"""The engine built for 64-bit ARM, run under an emulator, beside ONNX Runtime and the engine of this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from gossamer.compile.write import compile_file
from gossamer.export.traced import onnx_to_time
from gossamer.networks import create_model
from gossamer.runtime import native
from tests.exports import randomised

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")
if not native.LIBRARY.is_file():
    pytest.skip("the native engine is not built: make engine", allow_module_level=True)
COMPILER, EMULATOR = (
    shutil.which("aarch64-linux-gnu-g++"),
    shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static"),
)
if COMPILER is None or EMULATOR is None:
    pytest.skip("no ARM compiler or no emulator: aarch64-linux-gnu-g++, qemu-aarch64", allow_module_level=True)

pytestmark = pytest.mark.full
ENGINE = Path(__file__).resolve().parents[1] / "engine"
NETWORKS = ("mobilenetv1_025", "mobilenetv3_small_050", "shufflenet_v2_x0_5", "squeezenet1_1")
# the processor that is emulated, the ISA requested, the ISA to be used
ISAS = [("max", "", "neon_dotprod"), ("cortex-a53", "", "neon"), ("max", "portable", "portable")]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """engine/test/run.cpp with the engine, linked statically."""
    folder = tmp_path_factory.mktemp("arm")
    environment = {**os.environ, "CXX": str(COMPILER), "CXXFLAGS": "-O1"}
    done = subprocess.run(
        [str(ENGINE / "build.sh"), str(folder / "gossamer.a")], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "warning" not in done.stderr
    sources = [str(ENGINE / "test" / "run.cpp"), str(folder / "gossamer.a")]
    subprocess.run(
        [str(COMPILER), "-std=c++17", "-O1", "-static", "-pthread", *sources, "-o", str(folder / "run")], check=True
    )
    return folder / "run"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, NDArray[np.float32], float]]:
    """Compiled networks by name, with the outputs for `batch` and the relative tolerance of others."""
    folder, compiled = tmp_path_factory.mktemp("files"), {}
    torch.manual_seed(0)
    for name in NETWORKS:
        onnx = folder / f"{name}.onnx"
        onnx.write_bytes(onnx_to_time(randomised(create_model(name, num_classes=10)).eval(), (64, 64)))
        path = compile_file(onnx, folder / f"{name}.goss")
        compiled[name] = (path, onnx_outputs(onnx), 1e-4)
        path = compile_file(onnx, folder / f"{name}-bf16.goss", "bfloat16")
        compiled[f"{name}-bf16"] = (path, native.Native(path, 1)(batch()), 0.02)
        if name != "mobilenetv3_small_050":
            path = compile_file(quantised(onnx), folder / f"{name}-int8.goss")
            compiled[f"{name}-int8"] = (path, native.Native(path, 1)(batch()), 0.05)  # a step of the last map or two
    return compiled


def batch() -> NDArray[np.float32]:
    return np.random.default_rng(1).standard_normal((2, 3, 64, 64)).astype(np.float32)


def onnx_outputs(onnx: Path) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(str(onnx), providers=["CPUExecutionProvider"])
    (out,) = session.run(None, {session.get_inputs()[0].name: batch()})
    return np.asarray(out, np.float32)


def quantised(onnx: Path) -> Path:
    """The file in int8 (QDQ), its ranges from `batch`."""
    from onnxruntime.quantization import CalibrationDataReader, quantize_static

    name = onnxruntime.InferenceSession(str(onnx)).get_inputs()[0].name

    class Images(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = [{name: image[None]} for image in batch()]

        def get_next(self) -> dict[str, Any] | None:
            return self.left.pop() if self.left else None

    out = onnx.with_name(f"{onnx.stem}-qdq.onnx")
    quantize_static(onnx, out, Images(), per_channel=True)
    return out


@pytest.mark.parametrize(("processor", "requested", "isa"), ISAS, ids=[isa for _, _, isa in ISAS])
def test_every_isa_of_arm_agrees_with_this_machine(
    processor: str,
    requested: str,
    isa: str,
    program: Path,
    files: dict[str, tuple[Path, NDArray[np.float32], float]],
    tmp_path: Path,
) -> None:
    batch().tofile(tmp_path / "in")
    environment = {**os.environ, "GOSSAMER_ISA": requested}
    for name, (path, expected, tolerance) in files.items():
        outputs = []
        for threads in ("1", "3"):
            command = [str(EMULATOR), "-cpu", processor, str(program), str(path), str(tmp_path / "in")]
            done = subprocess.run(
                [*command, str(tmp_path / "out"), threads], env=environment, capture_output=True, text=True, timeout=120
            )
            assert done.returncode == 0, f"{name}: {done.stderr}"
            assert done.stdout.split() == [isa]
            outputs.append(np.fromfile(tmp_path / "out", np.float32).reshape(expected.shape))
        np.testing.assert_array_equal(outputs[0], outputs[1])
        assert np.abs(outputs[0] - expected).max() < tolerance * np.abs(expected).max(), name


def test_a_processor_without_dot_products_refuses_them(
    program: Path, files: dict[str, tuple[Path, NDArray[np.float32], float]], tmp_path: Path
) -> None:
    network = str(next(iter(files.values()))[0])
    command = [str(EMULATOR), "-cpu", "cortex-a53", str(program), network, "/dev/null", str(tmp_path / "out")]
    done = subprocess.run(
        command, env={**os.environ, "GOSSAMER_ISA": "neon_dotprod"}, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1 and "that this machine lacks" in done.stderr
