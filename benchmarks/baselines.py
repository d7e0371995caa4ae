"""The native engine and its baselines, each at its best settings: `python baselines.py` is a worker as gossamer.bench has them.

Beside the requests of its base class it serves these:

    {"do": "make", "form": .., "folder": .., "network": .., "batch": n}    -> what forms.py says of it
    {"do": "check"}                 -> {"same": fraction of images of the same class, "difference": relative}, against float32

A loader gives the ways to run a network; the worker measures the fastest.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import forms
from forms import Images
from gossamer.bench import worker

Json = dict[str, Any]


def native(job: Json) -> Callable[[], worker.Loaded]:
    from gossamer.compile.write import compile_file
    from gossamer.runtime.native import Native

    def opened(precision: str) -> worker.Forward:
        source, compiled = "qdq" if job["precision"] == "int8" else "onnx", folder / f"native-{precision}-{os.getpid()}"
        return Native(compile_file(folder / source, compiled, precision), job["threads"])

    folder = Path(job["target"])
    return lambda: (_by_floats(job, opened, "float32", "bfloat16"), forms.shape_of(folder), Native.version)


def onnxruntime(job: Json) -> Callable[[], worker.Loaded]:
    import onnxruntime

    folder = Path(job["target"])

    def opened() -> worker.Forward:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = job["threads"], 1
        options.log_severity_level = 4
        options.add_free_dimension_override_by_name("batch", job["batch"])
        source = folder / ("qdq" if job["precision"] == "int8" else "onnx")
        session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        return lambda batch: session.run(None, {"input": batch})[0]

    return lambda: ({"fixed batch": opened}, forms.shape_of(folder), onnxruntime.__version__)


def openvino(job: Json) -> Callable[[], worker.Loaded]:
    from gossamer.openvino.runtime import OpenVino

    package, folder = OpenVino.import_package(), Path(job["target"])

    def opened(floats: str) -> worker.Forward:
        core = package.Core()
        model = core.read_model((folder / ("qdq" if job["precision"] == "int8" else "onnx")).read_bytes())
        model.reshape([job["batch"], *forms.shape_of(folder)])
        settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": str(job["threads"])}
        compiled = core.compile_model(model, "CPU", {**settings, "INFERENCE_PRECISION_HINT": floats})
        request = compiled.create_infer_request()

        def forward(batch: Images) -> Images:
            request.infer([batch], share_inputs=True)
            return np.array(request.get_output_tensor(0).data)

        return forward

    return lambda: (
        _by_floats(job, opened, "f32", "bf16"),
        forms.shape_of(folder),
        str(package.__version__).split("-")[0],
    )


def _by_floats(job: Json, opened: Callable[[str], worker.Forward], fp32: str, bf16: str) -> worker.Ways:
    """What is left in floating point: as the precision says; for int8 both are tried."""
    tried = {"fp32": [fp32], "bf16": [bf16], "int8": [fp32, bf16]}[job["precision"]]
    return {f"floats in {name}": partial(opened, name) for name in tried}


def torch(job: Json) -> Callable[[], worker.Loaded]:
    import torch

    def load() -> worker.Loaded:
        torch.set_num_threads(job["threads"])
        plain, shape = forms.module(Path(job["target"]), job["network"])
        kind = {"fp32": torch.float32, "bf16": torch.bfloat16}[job["precision"]]

        def opened(layout: torch.memory_format, compiled: bool) -> worker.Forward:
            model: Any = copy.deepcopy(plain).to(kind, memory_format=layout)
            if compiled:
                model = torch.compile(model)

            def forward(batch: Images) -> Images:
                with torch.no_grad():
                    return model(torch.from_numpy(batch).to(kind, memory_format=layout)).float().numpy()  # type: ignore[no-any-return]

            return forward

        if job["runtime"] == "torch.compile":
            import torch._inductor.config as inductor

            inductor.freezing = True  # weights are constants
            # layouts are chosen anew with frozen weights; the layout passed is that of the input
            return {"inductor, weights frozen": partial(opened, torch.channels_last, True)}, shape, torch.__version__
        layouts = {"channels_last": torch.channels_last, "channels_first": torch.contiguous_format}
        return {name: partial(opened, layout, False) for name, layout in layouts.items()}, shape, torch.__version__

    return load


def ncnn(job: Json) -> Callable[[], worker.Loaded]:
    import ncnn

    folder = Path(job["target"])

    def opened() -> worker.Forward:
        net = ncnn.Net()
        net.opt.num_threads, net.opt.use_vulkan_compute = job["threads"], False
        net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
        net.opt.use_bf16_packed = net.opt.use_bf16_storage = job["precision"] == "bf16"
        if net.load_param(str(folder / "ncnn.param")) or net.load_model(str(folder / "ncnn.bin")):
            raise ValueError("ncnn does not read the file that pnnx made")

        def one(image: Images) -> Images:
            extractor = net.create_extractor()
            extractor.input("in0", ncnn.Mat(image))
            return np.array(extractor.extract("out0")[1])

        return lambda batch: np.stack([one(image) for image in batch])

    return lambda: ({"image by image": opened}, forms.shape_of(folder), ncnn.__version__)


def litert(job: Json) -> Callable[[], worker.Loaded]:
    from ai_edge_litert.interpreter import Interpreter

    from gossamer.host import machine

    form = BASELINES["litert"].forms[job["precision"]]

    def opened() -> worker.Forward:
        file = Path(job["target"]) / f"{form}-{job['batch']}"
        interpreter = Interpreter(str(file), num_threads=job["threads"])  # XNNPACK is its default
        interpreter.allocate_tensors()
        (source,), (out,) = interpreter.get_input_details(), interpreter.get_output_details()

        def forward(batch: Images) -> Images:
            interpreter.set_tensor(source["index"], batch)
            interpreter.invoke()
            return interpreter.get_tensor(out["index"])  # type: ignore[no-any-return]

        return forward

    version = machine.versions(["ai-edge-litert"])["ai-edge-litert"] or "?"
    return lambda: ({"XNNPACK": opened}, forms.shape_of(Path(job["target"])), version)


def mnn(job: Json) -> Callable[[], worker.Loaded]:
    import MNN.expr
    import MNN.nn

    folder = Path(job["target"])

    def opened() -> worker.Forward:
        settings = {"backend": "CPU", "numThread": job["threads"], "precision": "normal"}
        manager = MNN.nn.create_runtime_manager((settings,))
        net = MNN.nn.load_module_from_file(str(folder / "mnn"), ["input"], ["logits"], runtime_manager=manager)

        def forward(batch: Images) -> Images:
            source = MNN.expr.placeholder(list(batch.shape), MNN.expr.NCHW)
            source.write(batch)
            return np.array(net.forward([source])[0].read())

        return forward

    return lambda: ({"": opened}, forms.shape_of(folder), MNN.version())


class Baseline(NamedTuple):
    """A runtime: the packages it and its files need, the form that it takes in each precision, and why not in others."""

    packages: tuple[str, ...]
    load: Callable[[Json], Callable[[], worker.Loaded]]
    forms: dict[str, str]
    lacks: dict[str, str]


ONNX = {"fp32": "onnx", "bf16": "onnx", "int8": "qdq"}
MODULE = {"fp32": "weights", "bf16": "weights"}
NO_INT8 = {"int8": "takes no QDQ file; needs a module quantised by torchao"}
BASELINES = {
    "native": Baseline(("numpy",), native, ONNX, {}),
    "onnxruntime": Baseline(
        ("onnxruntime",),
        onnxruntime,
        {"fp32": "onnx", "int8": "qdq"},
        {"bf16": "its fast bfloat16 products are for arm64 alone"},
    ),
    "openvino": Baseline(("openvino",), openvino, ONNX, {}),
    "torch": Baseline(("torch",), torch, MODULE, NO_INT8),
    "torch.compile": Baseline(("torch",), torch, MODULE, NO_INT8),
    "ncnn": Baseline(
        ("ncnn", "pnnx"),
        ncnn,
        {"fp32": "ncnn", "bf16": "ncnn"},
        {"int8": "its package does not bring the quantiser (ncnn2table, ncnn2int8)"},
    ),
    "litert": Baseline(
        ("ai-edge-litert", "litert-torch", "ai-edge-quantizer"),
        litert,
        {"fp32": "litert", "int8": "litert_int8"},
        {"bf16": "no tool at hand makes a bfloat16 file for it"},
    ),
    "mnn": Baseline(
        ("MNN",),
        mnn,
        {"fp32": "mnn"},
        {"bf16": "its package ignores the setting low_bf16 here", "int8": "its quantiser wants image files"},
    ),
}


class BaselineWorker(worker.Worker):
    """Answers the requests of the benchmark, and those two above."""

    def reply(self, job: Json) -> Json:
        if job["do"] == "make":
            return forms.make(job)
        if job["do"] == "check":
            return self.check()
        if job["do"] == "open":
            self.folder = Path(job["target"])
        return super().reply(job)

    def check(self) -> Json:
        """How far the outputs are from those in float32.

        difference: its root mean square, over the spread of the float32 outputs between images.
        """
        assert self.forward is not None, "open comes first"
        checks: Images = np.load(self.folder / "checks.npy")
        expected: Images = np.load(self.folder / "outputs.npy")
        size = len(self.batch)
        order = np.resize(np.arange(len(checks)), -(-len(checks) // size) * size)
        outputs = np.concatenate([self.forward(checks[part]).copy() for part in order.reshape(-1, size)])[: len(checks)]
        if not np.isfinite(outputs).all():
            raise ValueError("outputs that are not finite")
        spread = np.sqrt(np.square(expected - expected.mean(0)).mean())
        difference = np.sqrt(np.square(outputs.reshape(expected.shape) - expected).mean()) / spread
        return {"same": float((outputs.argmax(-1) == expected.argmax(-1)).mean()), "difference": float(difference)}


if __name__ == "__main__":
    worker.LOADERS.update({name: baseline.load for name, baseline in BASELINES.items()})
    worker.main(BaselineWorker)
