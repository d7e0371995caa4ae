"""Winograd convolutions: every size of tile, maps that tiles do not fill, and all that follows the sums.

Each agrees with plain loops on every ISA of this machine, and with the same bits for any threads.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from gossamer.compile.write import compile_file
from gossamer.export.traced import onnx_to_time
from gossamer.runtime import native
from tests.isas import PROCESSOR_ISAS, Files, Outputs, compile_each, outputs, same_bits, too_far

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxruntime.quantization")
if not native.LIBRARY.is_file():
    pytest.skip("the native engine is not built: make engine", allow_module_level=True)

# of the spread of the outputs: float32 in another order, bfloat16 rounded elsewhere, two steps of a byte
STEPS = {"float32": 1e-5, "bfloat16": 0.015, "uint8": 2.01 / 255}


class Added(nn.Module):
    """A convolution of which the map itself is added to, then bounded."""

    def __init__(self, c: int, activation: nn.Module) -> None:
        super().__init__()
        self.conv, self.activation = nn.Conv2d(c, c, 3, padding=1), activation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.activation(self.conv(x) + x)
        return out


class Beside(nn.Module):
    """Convolutions side by side in one map, none of them a multiple of a register wide."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.parts = nn.ModuleList([nn.Conv2d(c, 37, 3, padding=1), nn.Conv2d(c, 45, (1, 7), padding=(0, 3))])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([nn.functional.relu(part(x)) for part in self.parts], 1)


# channels, height and width of the input, the Winograd tile, the module
CASES: dict[str, tuple[tuple[int, int, int], tuple[int, int], nn.Module]] = {
    "tiles fill the map": ((32, 20, 28), (6, 6), nn.Conv2d(32, 48, 3, padding=1)),
    "tiles reach over it": ((40, 23, 29), (6, 6), nn.Sequential(nn.Conv2d(40, 30, 3, padding=1), nn.ReLU6())),
    "unpadded": ((33, 27, 19), (6, 6), nn.Conv2d(33, 64, 3)),
    "padded twice": ((32, 13, 14), (6, 6), nn.Conv2d(32, 33, 3, padding=2)),
    "more on one side": ((32, 13, 14), (6, 6), nn.Sequential(nn.ZeroPad2d((0, 2, 1, 0)), nn.Conv2d(32, 32, 3))),
    "added": ((48, 15, 22), (6, 6), Added(48, nn.ReLU())),
    "added, hard swish": ((48, 15, 22), (6, 6), Added(48, nn.Hardswish())),
    "added, sigmoid": ((36, 15, 22), (6, 6), Added(36, nn.Sigmoid())),
    "beside each other": ((40, 21, 21), (6, 6), Beside(40)),
    "a row of tiles": ((64, 3, 40), (6, 6), nn.Conv2d(64, 64, 3, padding=1)),
    "small tiles": ((256, 7, 7), (4, 4), nn.Sequential(nn.Conv2d(256, 250, 3, padding=1), nn.SiLU())),
    "5x5": ((48, 18, 21), (6, 6), nn.Conv2d(48, 40, 5, padding=2)),
    "1x3": ((64, 17, 18), (1, 6), nn.Sequential(nn.Conv2d(64, 56, (1, 3), padding=(0, 1)), nn.ReLU())),
    "3x1": ((64, 18, 17), (6, 1), nn.Sequential(nn.Conv2d(64, 56, (3, 1), padding=(1, 0)), nn.LeakyReLU(0.1))),
    "1x3 of few positions": ((200, 8, 8), (1, 6), nn.Conv2d(200, 200, (1, 3), padding=(0, 1))),
    "3x1 of few positions": ((200, 8, 8), (6, 1), nn.Conv2d(200, 200, (3, 1), padding=(1, 0))),
    "1x7": ((72, 17, 17), (1, 10), nn.Conv2d(72, 48, (1, 7), padding=(0, 3))),
    "7x1": ((72, 17, 17), (10, 1), nn.Conv2d(72, 48, (7, 1), padding=(3, 0))),
    "several in a row": ((24, 30, 30), (6, 6), nn.Sequential(*[nn.Conv2d(24, 24, 3, padding=1) for _ in range(3)])),
}
# where bytes have other tiles than floats: no more integer interpolation points fit into int16, and none for 5x5
BYTES = {"5x5": (0, 0), "1x7": (1, 8), "7x1": (8, 1)}
DIRECT: dict[str, tuple[tuple[int, int, int], nn.Module]] = {
    "stride 2": ((64, 20, 20), nn.Conv2d(64, 64, 3, 2, 1)),
    "dilated": ((64, 20, 20), nn.Conv2d(64, 64, 3, 1, 2, 2)),
    "groups": ((64, 20, 20), nn.Conv2d(64, 64, 3, 1, 1, 1, 2)),
    "of an image": ((3, 20, 20), nn.Conv2d(3, 64, 3, 1, 1)),
    "1x1": ((64, 20, 20), nn.Conv2d(64, 64, 1)),
    "one position": ((64, 3, 3), nn.Conv2d(64, 64, 3)),
}


def images(shape: tuple[int, int, int], count: int) -> NDArray[np.float32]:
    """float32 (count, *shape), positive as they are behind a ReLU, so that sums are large beside what they lose."""
    return np.abs(np.random.default_rng(shape[0]).standard_normal((count, *shape))).astype(np.float32)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """Each case in each precision, compiled, beside its images; as ONNX too."""
    networks = {name: (module, images(shape, 2)) for name, (shape, _, module) in CASES.items()}
    return compile_each(networks, list(STEPS), tmp_path_factory.mktemp("winograd"))


@pytest.fixture(scope="module")
def expected(files: Files) -> Outputs[tuple[str, str]]:
    """The outputs of plain loops."""
    return outputs(files, "reference")


@pytest.mark.full
@pytest.mark.parametrize("isa", PROCESSOR_ISAS)
def test_every_isa_agrees_with_plain_loops(isa: str, files: Files, expected: Outputs[tuple[str, str]]) -> None:
    most = {key: STEPS[key[1]] for key in files}
    assert not too_far(outputs(files, isa), expected, most)


@pytest.mark.parametrize("name", CASES)
def test_winograd_tiles_are_used_and_agree_with_onnx_runtime(name: str, files: Files) -> None:
    shape, tile, _ = CASES[name]
    engine, batch = native.Native(files[name, "float32"], 1), images(shape, 2)
    if engine.isa == "avx2":  # registers of other widths choose other tiles, or none for a few cases
        assert tile in [step.winograd_tile for step in engine.steps()]
    assert name != "tiles fill the map" or any(any(step.winograd_tile) for step in engine.steps())
    number = files[name, "float32"].name.split("-")[0]
    session = onnxruntime.InferenceSession(
        str(files[name, "float32"].with_name(f"{number}.onnx")), providers=["CPUExecutionProvider"]
    )
    (wanted,) = session.run(None, {"input": batch})
    assert np.abs(np.asarray(engine(batch)) - wanted).max() < 1e-5 * np.abs(wanted).max()


@pytest.mark.parametrize("name", CASES)
def test_bytes_use_winograd_tiles_where_they_are_widened_for_their_products(name: str, files: Files) -> None:
    """int16, exact, mostly in the same tiles as floats; where bytes are multiplied as they are, sums are direct."""
    engine = native.Native(files[name, "uint8"], 1)
    tile = BYTES.get(name, CASES[name][1]) if engine.isa == "avx2" else (0, 0)
    assert tile in [step.winograd_tile for step in engine.steps()]
    assert any(tile) or not any(any(step.winograd_tile) for step in engine.steps())


@pytest.mark.parametrize(("channels", "tile"), [(128, (6, 6)), (240, (4, 4))])
def test_sums_of_bytes_that_need_more_bits_than_a_tile_leaves_take_smaller_tiles(
    channels: int, tile: tuple[int, int], tmp_path: Path
) -> None:
    """Weights of +-127 and bytes of 0 and 255: sums to 255 * 127 * 9 * channels, of which tiles of 6 leave 26 bits."""
    module, (height, width) = nn.Conv2d(channels, 16, 3, padding=1, bias=False), (20, 28)
    signs = np.ones((16, channels, 3, 3), np.float32)
    signs[1::3], signs[2::3, ::2] = -1, -1
    module.weight.data = torch.from_numpy(signs)
    batch = np.ones((3, channels, height, width), np.float32)
    batch[1], batch[2] = 0, np.random.default_rng(0).integers(0, 2, batch.shape[1:])
    (path,) = compile_each({"extreme": (module, batch)}, ["uint8"], tmp_path).values()
    engine = native.Native(path, 1)
    assert engine.isa != "avx2" or [step.winograd_tile for step in engine.steps()] == [tile]
    expected = module(torch.from_numpy(batch)).detach().numpy()
    assert np.abs(np.asarray(engine(batch)) - expected).max() < 2 / 255 * (expected.max() - expected.min())


@pytest.mark.parametrize("precision", STEPS)
def test_outputs_are_the_same_bits_for_any_threads(precision: str, files: Files) -> None:
    for name, (shape, _, _) in CASES.items():
        same_bits(files[name, precision], images(shape, 3), name)


@pytest.mark.parametrize("name", DIRECT)
def test_what_winograd_does_not_fit_stays_direct(name: str, tmp_path: Path) -> None:
    shape, module = DIRECT[name]
    onnx = tmp_path / "m.onnx"
    onnx.write_bytes(onnx_to_time(module.eval(), shape[1:], shape[0]))
    (step,) = native.Native(compile_file(onnx, tmp_path / "m.goss"), 1).steps()
    assert step.winograd_tile == (0, 0)
