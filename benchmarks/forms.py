"""One network in the forms that runtimes take: each is made in a process of its own, once, before anything is timed.

The weights are fresh, but the batch norms hold the statistics of the images, so that activations have the ranges of a
trained network; without that, what a precision costs in accuracy could not be seen. Images are artificial: coarse and
fine noise, no two of the same brightness and contrast. `python forms.py FORM FOLDER NETWORK` makes one form.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.float32]
CALIBRATION, CHECKS = 16, 16  # images that set ranges, and others on which outputs are compared
CALIBRATION_SEED, CHECK_SEED = 1, 2


def images(shape: tuple[int, int, int], count: int, seed: int) -> Images:
    """float32 (count, C, H, W)."""
    rng = np.random.default_rng(seed)
    channels, height, width = shape
    batch = np.empty((count, *shape), np.float32)
    for image in batch:
        side = int(rng.integers(2, 33))
        coarse = rng.standard_normal((channels, -(-height // side), -(-width // side)))
        spread = coarse.repeat(side, 1).repeat(side, 2)[:, :height, :width]
        image[:] = (
            rng.uniform(0.3, 1.2) * spread + 0.2 * rng.standard_normal(shape) + rng.normal(0, 0.5, (channels, 1, 1))
        )
    return batch


def make(job: dict[str, Any]) -> dict[str, Any]:
    """Write one form into the folder of the job; "weights" comes first. Returns the facts of the network, for weights."""
    return FORMS[job["form"]](Path(job["folder"]), job["network"], job["batch"]) or {}


def module(folder: Path, network: str) -> tuple[Any, tuple[int, int, int]]:
    """The torch module, float32 in evaluation mode, and its input (C, H, W)."""
    import torch

    from gossamer.networks import create_model

    saved = torch.load(folder / "weights.pt", weights_only=True)
    model = create_model(network, in_chans=saved["shape"][0])
    model.load_state_dict(saved["weights"])
    return model.eval(), tuple(saved["shape"])


def shape_of(folder: Path) -> tuple[int, int, int]:
    """The input (C, H, W), without torch."""
    checks: Images = np.load(folder / "checks.npy", mmap_mode="r")
    channels, height, width = checks.shape[1:]
    return channels, height, width


def weights(folder: Path, network: str, batch: int) -> dict[str, Any]:
    """The weights, the images to compare on, and their outputs in float32."""
    import torch
    from torch import nn

    from gossamer.analysis.cost import cost
    from gossamer.networks import create_model
    from gossamer.networks.registry import NETWORKS, resolve

    shape = NETWORKS[resolve(network)].input
    torch.manual_seed(0)
    model = create_model(network, in_chans=shape[0]).eval()
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, 0, 0.1)
            part.reset_running_stats()
            part.momentum = None  # the plain mean over the batches
            part.train()
    calibration, checks = images(shape, CALIBRATION, CALIBRATION_SEED), images(shape, CHECKS, CHECK_SEED)
    with torch.no_grad():
        model(torch.from_numpy(calibration))
        outputs = model.eval()(torch.from_numpy(checks)).numpy()
    torch.save({"weights": model.state_dict(), "shape": shape}, folder / "weights.pt")
    np.save(folder / "checks.npy", checks)
    np.save(folder / "outputs.npy", outputs)
    return {"macs": cost(model, (1, *shape)).macs, "input": shape}


def exact(folder: Path, network: str, batch: int) -> None:
    """The outputs of the same weights computed in float64: what outputs in float32 are rounded from."""
    import torch

    model, _ = module(folder, network)
    checks: Images = np.load(folder / "checks.npy")
    with torch.no_grad():
        np.save(folder / "exact.npy", model.double()(torch.from_numpy(checks).double()).numpy())


def onnx(folder: Path, network: str, batch: int) -> None:
    """The file as `gossamer export` writes it: float32, batch norms folded, the batch free."""
    from gossamer.export.convert import to_onnx

    model, shape = module(folder, network)
    (folder / "onnx").write_bytes(to_onnx(model, shape[1:], shape[0]))


def qdq(folder: Path, network: str, batch: int) -> None:
    """int8 by ONNX Runtime's quantiser: weights a scale per channel, activations uint8, ranges from minimum to maximum."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = iter(images(shape_of(folder), CALIBRATION, CALIBRATION_SEED))

        def get_next(self) -> dict[str, Images] | None:
            image = next(self.left, None)
            return None if image is None else {"input": image[None]}

    quantize_static(
        folder / "onnx",
        folder / "qdq",
        Reader(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )


def ncnn(folder: Path, network: str, batch: int) -> None:
    """ncnn.param and ncnn.bin by pnnx, in float32; ncnn takes one image per call."""
    pnnx_files(folder, network, "ncnn", "fp16=0")


def ncnn_default(folder: Path, network: str, batch: int) -> None:
    """The same where pnnx is told nothing of precision: its weights are in float16."""
    pnnx_files(folder, network, "ncnn_default")


def ncnn_of_onnx(folder: Path, network: str, batch: int) -> None:
    """The same as `ncnn` from the ONNX file."""
    (folder / "given.onnx").write_bytes((folder / "onnx").read_bytes())  # pnnx goes by the name
    pnnx_files(folder, network, "ncnn_of_onnx", "fp16=0", source="given.onnx")


def pnnx_files(folder: Path, network: str, name: str, *words: str, source: str = "") -> None:
    """NAME.param and NAME.bin from a file in the folder, or else from the traced module."""
    import pnnx

    if not source:
        import torch

        source = f"{name}.pt"
        with torch.no_grad():  # with gradients a network may take other operators
            torch.jit.trace(module(folder, network)[0], torch.zeros(1, *shape_of(folder))).save(folder / source)
    program = Path(pnnx.EXEC_PATH)
    program.chmod(program.stat().st_mode | 0o111)  # wheels unpacked with --target lose it
    size = ",".join(map(str, (1, *shape_of(folder))))
    files = (f"ncnnparam={name}.param", f"ncnnbin={name}.bin", f"ncnnpy={name}_example.py")
    command = [str(program), source, f"inputshape=[{size}]", *files, *words]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def litert(folder: Path, network: str, batch: int) -> None:
    """A .tflite file in float32, whose batch is fixed."""
    import litert_torch
    import torch

    model, shape = module(folder, network)
    litert_torch.convert(model, (torch.zeros(batch, *shape),)).export(str(folder / f"litert-{batch}"))


def litert_last(folder: Path, network: str, batch: int) -> None:
    """The same for images with the channels last, as LiteRT's own operators have them."""
    import litert_torch
    import torch

    model, (channels, *sides) = module(folder, network)
    last = litert_torch.to_channel_last_io(model, args=[0])
    litert_torch.convert(last, (torch.zeros(batch, *sides, channels),)).export(str(folder / f"litert_last-{batch}"))


def litert_int8(folder: Path, network: str, batch: int) -> None:
    """The same in int8: weights a scale per channel, ranges from minimum to maximum; input and output stay float32."""
    from ai_edge_litert.interpreter import Interpreter
    from ai_edge_quantizer import quantizer, recipe

    float_file = str(folder / f"litert-{batch}")
    signature, names = next(iter(Interpreter(float_file).get_signature_list().items()))
    ranges = images(shape_of(folder), CALIBRATION, CALIBRATION_SEED)
    batches = np.resize(ranges, (-(-CALIBRATION // batch), batch, *ranges.shape[1:]))
    quantization = quantizer.Quantizer(float_file)
    kept: list[dict[str, Any]] = [
        {"regex": ".*", "operation": end, "algorithm_key": "no_quantize", "op_config": {}}
        for end in ("INPUT", "OUTPUT")
    ]
    quantization.load_quantization_recipe(recipe.static_wi8_ai8() + kept)
    calibration = quantization.calibrate({signature: [{names["inputs"][0]: x} for x in batches]})
    quantization.quantize(calibration).export_model(str(folder / f"litert_int8-{batch}"), overwrite=True)


def mnn(folder: Path, network: str, batch: int) -> None:
    """MNN's own file, in float32."""
    import _tools

    files = ("--modelFile", str(folder / "onnx"), "--MNNModel", str(folder / "mnn"))
    _tools.mnnconvert(["mnnconvert", "-f", "ONNX", *files, "--bizCode", "gossamer"])


FORMS: dict[str, Callable[[Path, str, int], Any]] = {
    "weights": weights,
    "exact": exact,
    "onnx": onnx,
    "qdq": qdq,
    "ncnn": ncnn,
    "ncnn_default": ncnn_default,
    "ncnn_of_onnx": ncnn_of_onnx,
    "litert": litert,
    "litert_last": litert_last,
    "litert_int8": litert_int8,
    "mnn": mnn,
}
OF_ONE_BATCH = ("litert", "litert_last", "litert_int8")  # the others serve every batch


if __name__ == "__main__":
    FORMS[sys.argv[1]](Path(sys.argv[2]), sys.argv[3], 1)
