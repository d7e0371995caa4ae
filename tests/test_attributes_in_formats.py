"""Attributes that the compile step rewrites, in what each format writes: as ONNX Runtime computes them, or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gossamer import runtime
from gossamer.csource.device import network_of
from gossamer.errors import GossamerError, InputError
from gossamer.modelfile.metadata import read_model_file
from gossamer.ncnn.write import ncnn_files
from gossamer.runtime import native

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
from gossamer.torch_program.module import module_of  # noqa: E402
from tests.onnxcases import CONV, INPUT, expected, node, noise, save, weight  # noqa: E402
from tests.test_litert import conv, one, pool, resize  # noqa: E402

F = np.float32
INF = float("inf")
TRANSPOSED = {"v": weight(8, 5, 3, 4)}
BYTES = {"s": F(0.5), "z": np.uint8(128)}
CASES: dict[str, tuple[list[Any], dict[str, Any]]] = {
    "convolution of two dilations": conv((5, 8, 3, 2), dilations=[1, 3], pads=[2, 0, 0, 1]),
    "depthwise convolution of two dilations": conv((8, 1, 3, 2), dilations=[2, 1], group=8, pads=[1, 1, 2, 0]),
    "max pool of two dilations": pool("MaxPool", kernel_shape=[2, 3], dilations=[2, 1], pads=[1, 0, 0, 2]),
    "average pool of two dilations": pool("AveragePool", kernel_shape=[2, 3], dilations=[1, 2], pads=[1, 0, 0, 2]),
    "max pool of wide padding": pool("MaxPool", kernel_shape=[3, 3], pads=[2, 2, 2, 2]),
    "max pool of wide padding, stride 2": pool("MaxPool", kernel_shape=[3, 2], strides=[2, 2], pads=[2, 1, 2, 0]),
    "average pool of padding before": pool("AveragePool", kernel_shape=[3, 3], pads=[2, 1, 0, 0]),
    "average pool that counts padding before": pool(
        "AveragePool", kernel_shape=[3, 3], pads=[2, 1, 0, 0], count_include_pad=1
    ),
    "thresholded ReLU": (one("ThresholdedRelu", alpha=0.4), {}),
    "thresholded ReLU below 0": (one("ThresholdedRelu", alpha=-0.3), {}),
    "transposed convolution to a size": (
        [*CONV, node("ConvTranspose", ["a", "v"], ["y"], strides=[2, 2], output_shape=[11, 13])],
        TRANSPOSED,
    ),
    "transposed convolution of SAME": (
        [*CONV, node("ConvTranspose", ["a", "v"], ["y"], strides=[2, 2], auto_pad="SAME_UPPER")],
        TRANSPOSED,
    ),
    "cubic": resize((15, 9), "cubic", "half_pixel"),
    "largest of maps": ([*CONV, node("Neg", ["a"], ["n"]), node("Max", ["a", "n", "a"], ["y"])], {}),
    "clip from below behind a layer": (one("Clip", "low"), {"low": F(0.25)}),
    "clip from above behind a layer": (one("Clip", "", "high"), {"high": F(0.25)}),
    "clip from below": ([*CONV, node("Tanh", ["a"], ["t"]), node("Clip", ["t", "low"], ["y"])], {"low": F(0.25)}),
    "clip to infinity": (one("Clip", "low", "high"), {"low": F(INF), "high": F(INF)}),
    "rounded before its activation": (
        [
            *CONV,
            node("QuantizeLinear", ["a", "s", "z"], ["q"]),
            node("DequantizeLinear", ["q", "s", "z"], ["d"]),
            node("Sigmoid", ["d"], ["y"]),
        ],
        BYTES,
    ),
}
DILATED, INT8 = ("max pool of two dilations", "average pool of two dilations"), "rounded before its activation"
REFUSED = {
    "native": (),
    "litert": DILATED,
    "ncnn": (*DILATED, INT8),
    "torch": (DILATED[1], INT8),
}
PACKAGES = {"litert": "ai_edge_litert", "ncnn": "ncnn"}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("writer", REFUSED)
def test_a_format_computes_as_onnx_runtime_or_refuses(writer: str, name: str, tmp_path: Path) -> None:
    if writer in PACKAGES:
        pytest.importorskip(PACKAGES[writer])
    if writer == "native" and not native.LIBRARY.is_file():
        pytest.skip("the native engine is not built: make engine")
    nodes, constants = CASES[name]
    file, x = save(tmp_path / "m.onnx", nodes, constants, opset=19 if "average" in name else 18), noise(INPUT)
    (wanted,) = expected(file, x).values()
    if writer == "ncnn" and name == "clip to infinity":
        wanted = np.full_like(wanted, 3.4e38)  # its bounds are finite
    if name in REFUSED[writer]:
        with pytest.raises(GossamerError, match=r"dilation|QDQ"):
            _run(file, writer, x)
    else:
        made = _run(file, writer, x)
        assert made.shape == wanted.shape
        np.testing.assert_allclose(made, wanted, rtol=1e-6, atol=2e-5)


def _run(file: Path, writer: str, x: Any) -> Any:
    if writer == "torch":  # of which ExecuTorch and Core ML files are made
        module = module_of(read_model_file(file))
        with torch.no_grad():
            return np.concatenate([module(torch.from_numpy(row[None]))[0].numpy() for row in x])
    return runtime.load(file, runtime=writer, threads=1).run(x)


def test_what_is_rounded_within_an_operation_is_no_network_of_floats(tmp_path: Path) -> None:
    """Its maps are all float32: only the operation says that it rounds."""
    file = read_model_file(save(tmp_path / "m.onnx", *CASES[INT8]))
    for write in (module_of, ncnn_files, network_of):
        with pytest.raises(InputError, match="int8"):
            write(file)
