"""Heads of detection and segmentation on the native engine: each beside ONNX Runtime, on every ISA of this machine."""

from __future__ import annotations

import importlib.util
import math
import subprocess
import sys
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, max_pool2d, pad

import gossamer
from gossamer.blocks.pool import DilatedAvgPool2d
from gossamer.compile.fuse import fuse
from gossamer.compile.lower import lower
from gossamer.compile.write import compile_file
from gossamer.errors import InputError
from gossamer.modelfile.metadata import parse_model_file
from gossamer.runtime import native
from gossamer.runtime.compilation import compile_model
from tests.exports import randomised
from tests.runs import with_isa

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

if not native.LIBRARY.is_file():
    pytest.skip("the native engine is not built: make engine", allow_module_level=True)

ISAS = ("reference", "portable", "avx2", "avx512", "avx512_vnni", "avx512_bf16", "amx")
SIZE = (20, 26)
Answers = dict[str, NDArray[np.float32]]
Case = tuple[str, list[Any], dict[str, Any]]


class Lraspp(nn.Module):
    """A gate, two strides, an up-sampling between: MobileNetV3's segmentation head."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.deep = nn.Conv2d(3, 21, 3, 2, 1), nn.Conv2d(21, 40, 3, 2, 1)
        self.branch = nn.Sequential(nn.Conv2d(40, 33, 1, bias=False), nn.BatchNorm2d(33), nn.ReLU())
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(40, 33, 1), nn.Sigmoid())
        self.low, self.high = nn.Conv2d(21, 5, 1), nn.Conv2d(33, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        low = self.body(x)
        high = self.deep(low)
        high = self.branch(high) * self.gate(high)
        high = interpolate(high, size=low.shape[-2:], mode="bilinear", align_corners=False)
        out: Tensor = self.low(low) + self.high(high)
        return out


class DeepLab(nn.Module):
    """Dilated depthwise convolutions beside the mean of the map, concatenated."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 24, 3, 2, 1)
        self.branches = nn.ModuleList(
            nn.Sequential(nn.Conv2d(24, 24, 3, padding=rate, dilation=rate, groups=24), nn.ReLU(), nn.Conv2d(24, 18, 1))
            for rate in (2, 6, 12)
        )
        self.pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(24, 18, 1), nn.ReLU())
        self.last = nn.Conv2d(72, 7, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x)
        mean = interpolate(self.pooled(x), size=x.shape[-2:], mode="bilinear", align_corners=False)
        return interpolate(self.last(torch.cat([*(one(x) for one in self.branches), mean], 1)), scale_factor=4)


class Ssd(nn.Module):
    """Rows of boxes and of classes over three levels, the last of one position; two ways to write them."""

    def __init__(self, five_axes: bool = False, scores: bool = False) -> None:
        super().__init__()
        self.five_axes, self.scores = five_axes, scores
        self.body = nn.ModuleList([nn.Conv2d(3, 16, 3, 4, 1), nn.Conv2d(16, 16, 3, 2, 1), nn.Conv2d(16, 16, (3, 4))])
        self.deltas = nn.ModuleList(nn.Conv2d(16, 4 * anchors, 1) for anchors in (3, 6, 2))
        self.logits = nn.ModuleList(nn.Conv2d(16, 5 * anchors, 1) for anchors in (3, 6, 2))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        maps = []
        for layer in self.body:
            x = layer(x)
            maps.append(x)
        logits = self.rows(self.logits, maps, 5)
        return self.rows(self.deltas, maps, 4), logits.softmax(-1) if self.scores else logits

    def rows(self, layers: nn.ModuleList, maps: list[Tensor], each: int) -> Tensor:
        parts = []
        for layer, one in zip(layers, maps):
            out = layer(one)
            n, _, h, w = out.shape
            if self.five_axes:
                out = out.view(n, -1, each, h, w).permute(0, 3, 4, 1, 2)
            else:
                out = out.permute(0, 2, 3, 1)
            parts.append(out.reshape(n, -1, each))
        return torch.cat(parts, 1)


class Several(nn.Module):
    """What else heads are made of, each an output of its own; one is a slice of what others read."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.more = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 12, 1)
        self.classes = nn.Linear(8, 6)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = self.body(x)
        y = torch.cat([x, self.more(x)], 1)
        return (
            y[:, 3:11],
            y.softmax(1),
            self.classes(x.mean((2, 3))),
            x + x.mean((2, 3), keepdim=True),
            (x * 2.5 - 0.5) / torch.linspace(1, 2, 8).view(1, 8, 1, 1),
            x,
        )


class Padded(nn.Module):
    """Padding of its own before what can pad itself, and padding that repeats."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.depthwise = nn.Conv2d(3, 20, 3, 2), nn.Conv2d(20, 20, 3, 2, groups=20)
        self.edge = nn.Sequential(nn.ReplicationPad2d((0, 2, 0, 2)), nn.MaxPool2d(2, 2, dilation=2))
        self.mirror = nn.Sequential(nn.ReflectionPad2d((3, 1, 0, 2)), nn.Conv2d(20, 5, 3))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = self.body(pad(x, (0, 1, 0, 1))).relu()
        average = avg_pool2d(pad(x, (1, 0, 1, 2)), 3, 2)
        return self.depthwise(pad(x, (0, 1, 1, 2))).relu(), self.edge(x), self.mirror(x), average


torch.manual_seed(3)  # a softmax of bytes comes within four to five and a half steps, as the weights happen to be
WIDE_POOL = "dilated maximum"  # with padding that a pool of torch's refuses as its own
MODULES: dict[str, tuple[nn.Module, tuple[str, ...]]] = {
    "lr-aspp": (Lraspp(), ("logits",)),
    "deeplab": (DeepLab(), ("logits",)),
    "ssd": (Ssd(), ("deltas", "logits")),
    "ssd, five axes": (Ssd(five_axes=True), ("deltas", "logits")),
    "ssd, scores": (Ssd(scores=True), ("deltas", "scores")),
    "several": (Several(), tuple("abcdef")),
    "padded": (Padded(), tuple("abcd")),
    WIDE_POOL: (
        nn.Sequential(nn.Conv2d(3, 20, 3, 2), nn.ConstantPad2d(2, -math.inf), nn.MaxPool2d(3, 2, dilation=2)),
        ("map",),
    ),
    "dilated average": (
        nn.Sequential(nn.Conv2d(3, 20, 3, 2, 1), DilatedAvgPool2d(3, padding=2, dilation=2), nn.Conv2d(20, 7, 1)),
        ("logits",),
    ),
}


def noise(shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.float32]:
    return rng.standard_normal(shape).astype(np.float32)


def resize(scales: tuple[float, ...] = (), sizes: tuple[int, ...] = (), **more: Any) -> Case:
    inputs: list[Any] = [None, np.array((1, 1, *scales), np.float32) if scales else None]
    return "Resize", [*inputs, np.array((2, 12, *sizes))] if sizes else inputs, more


def transposed(out: int, kernel: tuple[int, int], **more: Any) -> Case:
    shape = (12, out // int(more.get("group", 1)), *kernel)
    rng = np.random.default_rng(0)
    return "ConvTranspose", [noise(shape, rng), noise((out,), rng)], {"kernel_shape": kernel, **more}


def convolution(shape: tuple[int, ...], **more: Any) -> Case:
    rng = np.random.default_rng(0)
    return "Conv", [noise(shape, rng), noise(shape[:1], rng)], {"kernel_shape": shape[2:], **more}


# an operator behind a map of 12 channels, with what it reads beside the map and its attributes
CASES: dict[str, Case] = {
    **{
        f"resize {name}, {mode} {place}": resize(**sides, mode=mode, coordinate_transformation_mode=place)
        for name, sides in {
            "x2": {"scales": (2.0, 2.0)},
            "x2.3": {"scales": (2.3, 1.7)},
            "down": {"sizes": (7, 3)},
            "to one": {"sizes": (1, 1)},
            "free": {"sizes": (23, 31)},
        }.items()
        for mode, place in [
            ("linear", "half_pixel"),
            ("linear", "pytorch_half_pixel"),
            ("linear", "align_corners"),
            ("linear", "asymmetric"),
            ("nearest", "half_pixel"),
            ("nearest", "asymmetric"),
            ("nearest", "align_corners"),
        ]
    },
    **{
        f"resize nearest {rounding}": resize(sizes=(17, 31), mode="nearest", nearest_mode=rounding)
        for rounding in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
    },
    "transposed 2x2 /2": transposed(18, (2, 2), strides=(2, 2)),
    "transposed 3x3 /2": transposed(18, (3, 3), strides=(2, 2), pads=(1, 1, 1, 1), output_padding=(1, 1)),
    "transposed 4x4 /2": transposed(5, (4, 4), strides=(2, 2), pads=(1, 1, 1, 1)),
    "transposed 3x3": transposed(18, (3, 3)),
    "transposed 3x2 /3x1": transposed(18, (3, 2), strides=(3, 1), pads=(2, 0, 0, 1)),
    "transposed 2x2 /3": transposed(18, (2, 2), strides=(3, 3), output_padding=(2, 1)),
    "transposed, cropped": transposed(18, (5, 5), strides=(3, 3), pads=(4, 4, 4, 4)),
    "transposed, groups": transposed(18, (4, 4), strides=(3, 3), pads=(1, 1, 1, 1), group=3),
    "transposed depthwise": transposed(12, (4, 4), strides=(2, 2), pads=(1, 1, 1, 1), group=12),
    "transposed, dilated": transposed(18, (3, 3), strides=(2, 2), pads=(2, 2, 2, 2), dilations=(2, 2)),
    "depthwise, dilated": convolution((12, 1, 3, 3), group=12, dilations=(4, 4), pads=(4, 4, 4, 4)),
    "depthwise 5x5 /2, dilated": convolution(
        (12, 1, 5, 5), group=12, dilations=(3, 3), pads=(6, 6, 6, 6), strides=(2, 2)
    ),
    "depthwise, dilated past the map": convolution((12, 1, 3, 3), group=12, dilations=(18, 18), pads=(18, 18, 18, 18)),
    "depth to space": ("DepthToSpace", [], {"blocksize": 2, "mode": "DCR"}),
    "pixel shuffle": ("DepthToSpace", [], {"blocksize": 2, "mode": "CRD"}),
    "softmax": ("Softmax", [], {"axis": 1}),
    "average, up": ("AveragePool", [], {"kernel_shape": (3, 3), "strides": (2, 2), "ceil_mode": 1}),
    "max pool, up, none behind": ("MaxPool", [], {"kernel_shape": (1, 1), "strides": (2, 2), "ceil_mode": 1}),
    "max pool, dilated": ("MaxPool", [], {"kernel_shape": (3, 3), "dilations": (2, 2), "pads": (2, 2, 2, 2)}),
    "max pool /2, dilated, up": (
        "MaxPool",
        [],
        {"kernel_shape": (3, 2), "dilations": (3, 3), "pads": (1, 0, 2, 1), "strides": (2, 2), "ceil_mode": 1},
    ),
    **{
        f"average, dilated, {'with' if counts else 'without'} padding": (
            "AveragePool",
            [],
            {"kernel_shape": (3, 3), "dilations": (2, 2), "pads": (2, 2, 1, 2), "count_include_pad": counts},
        )
        for counts in (0, 1)
    },
    **{
        f"convolution {way}": convolution((18, 12, 3, 4), auto_pad=way, strides=(2, 3))
        for way in ("SAME_UPPER", "SAME_LOWER", "VALID")
    },
    "max pool SAME_UPPER": ("MaxPool", [], {"kernel_shape": (3, 2), "strides": (2, 2), "auto_pad": "SAME_UPPER"}),
    "average SAME_LOWER": ("AveragePool", [], {"kernel_shape": (3, 4), "strides": (2, 3), "auto_pad": "SAME_LOWER"}),
    "plus over channels": ("Add", [np.linspace(-1, 1, 12, dtype=np.float32).reshape(1, 12, 1, 1)], {}),
    "minus": ("Sub", [np.float32(0.3)], {}),
    "over channels": ("Div", [np.linspace(1, 2, 12, dtype=np.float32).reshape(12, 1, 1)], {}),
}
FILES = (*MODULES, *CASES)


def images(count: int) -> NDArray[np.float32]:
    return noise((count, 3, *SIZE), np.random.default_rng(1))


def graph(case: Case, path: Path) -> Path:
    """A convolution, the operator and a ReLU, which the engine may take into what stands before it."""
    kind, operands, attributes = case
    rng, constants = np.random.default_rng(2), {}
    constants["weight"], constants["bias"] = noise((12, 3, 3, 3), rng), noise((12,), rng)
    names = ["map"]
    for place, values in enumerate(operands):
        names.append("" if values is None else f"constant{place}")
        if values is not None:
            constants[names[-1]] = values
    nodes = [
        helper.make_node("Conv", ["input", "weight", "bias"], ["map"], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node(kind, names, ["out"], **attributes),
        helper.make_node("Relu", ["out"], ["y"]),
    ]
    free = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", "c", "h", "w"])
    input_info = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, *SIZE])
    tensors = [numpy_helper.from_array(np.asarray(values), name) for name, values in constants.items()]
    head = helper.make_graph(nodes, "head", [input_info], [free], tensors)
    model = helper.make_model(head, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    path.write_bytes(model.SerializeToString())
    return path


def exported(module: nn.Module, names: tuple[str, ...], path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning)
        program = torch.onnx.export(
            randomised(module).eval(),
            (torch.zeros(2, 3, *SIZE),),
            dynamo=True,
            opset_version=18,
            input_names=["input"],
            output_names=list(names),
            dynamic_shapes=({0: torch.export.Dim.DYNAMIC},),
            external_data=False,
            verbose=False,
        )
    assert program is not None
    path.write_bytes(program.model_proto.SerializeToString())
    return path


@cache
def onnx_outputs(onnx: Path) -> Answers:
    """Of ONNX Runtime, to two images; without saturated sums of bytes, on whichever processor."""
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.x64quantprecision", "1")
    batch, session = images(2), onnxruntime.InferenceSession(str(onnx), options, providers=["CPUExecutionProvider"])
    return {
        one.name: value for one, value in zip(session.get_outputs(), session.run(None, {"input": batch}), strict=True)
    }


def native_outputs(engine: native.Native, batch: NDArray[np.float32]) -> Answers:
    outputs = engine(batch)
    return outputs if isinstance(outputs, dict) else {engine.outputs[0].name: outputs}


def agree(outputs: Answers, expected: Answers) -> None:
    assert list(outputs) == list(expected)
    for name, wanted in expected.items():
        assert outputs[name].shape == wanted.shape
        assert np.abs(outputs[name] - wanted).max() < 1e-4 * max(1e-3, np.abs(wanted).max()), name


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    return tmp_path_factory.mktemp("heads")


def compiled(name: str, folder: Path) -> tuple[Path, Path]:
    """A file of FILES as ONNX and compiled, once."""
    onnx = folder / f"{FILES.index(name)}.onnx"
    out = onnx.with_suffix(".goss")
    if not out.exists():
        if name in MODULES:
            exported(*MODULES[name], onnx)
        else:
            graph(CASES[name], onnx)
        compile_file(onnx, out)
    return onnx, out


@pytest.mark.parametrize("name", FILES)
def test_a_head_agrees_with_onnx_runtime(name: str, folder: Path) -> None:
    onnx, out = compiled(name, folder)
    agree(native_outputs(native.Native(out, 1), images(2)), onnx_outputs(onnx))


@pytest.mark.parametrize("name", FILES)
def test_outputs_are_the_same_bits_for_any_threads_and_batch(name: str, folder: Path) -> None:
    _, out = compiled(name, folder)
    batch = images(7)
    expected = native_outputs(native.Native(out, 1), batch)
    for threads in (2, 3):
        engine = native.Native(out, threads)
        for count in (1, 2, 7):
            for output, values in native_outputs(engine, batch[:count]).items():
                np.testing.assert_array_equal(values, expected[output][:count])


@pytest.mark.parametrize("isa", ISAS)
def test_every_isa_of_this_machine_agrees_on_heads(isa: str, folder: Path) -> None:
    files = [compiled(name, folder) for name in FILES]
    batch, images_at = images(2), folder / "batch.npy"
    np.save(images_at, batch)
    code = (
        "import sys, numpy as np\nfrom gossamer.runtime.native import Native\n"
        "batch = np.load(sys.argv[1])\n"
        "for path in sys.argv[2:]:\n"
        "    outputs = Native(path, 2)(batch)\n"
        "    np.savez(path + '.npz', **outputs if isinstance(outputs, dict) else {'': outputs})\n"
    )
    with_isa(isa, code, images_at, *(out for _, out in files))
    for onnx, out in files:
        expected = onnx_outputs(onnx)
        with np.load(f"{out}.npz") as outputs:
            agree({name or next(iter(expected)): outputs[name] for name in outputs.files}, expected)


def test_rows_cost_no_operation_and_outputs_have_the_file_s_names_and_shapes(folder: Path) -> None:
    onnx, out = compiled("ssd", folder)
    kinds = [one.kind for one in fuse(lower(parse_model_file(onnx.read_bytes()).onnx)).operations]
    assert kinds == ["conv"] * 9
    outputs = native.Native(out, 1).outputs
    rows = 5 * 7 * 3 + 3 * 4 * 6 + 2
    assert [(one.name, one.shape, one.first) for one in outputs] == [
        ("deltas", (rows, 4), 0),
        ("logits", (rows, 5), rows * 4),
    ]


def test_a_dilated_depthwise_convolution_is_a_block_with_its_neighbours(folder: Path) -> None:
    onnx, _ = compiled("deeplab", folder)
    kinds = [one.kind for one in fuse(lower(parse_model_file(onnx.read_bytes()).onnx)).operations]
    assert kinds.count("block") == 3 and kinds.count("conv") == 3  # the body, the pooled branch, the last


def test_padding_before_what_pads_itself_costs_no_operation(folder: Path) -> None:
    onnx, _ = compiled("padded", folder)
    file = parse_model_file(onnx.read_bytes()).onnx
    assert sum(node.op == "Pad" for node in file.nodes) >= 3  # the exporter may fuse it into a convolution itself
    kinds = [one.kind for one in fuse(lower(file)).operations]
    assert sorted(kinds) == sorted(["conv", "block", "resize", "max_pool", "resize", "conv", "average_pool"])
    onnx, _ = compiled(WIDE_POOL, folder)
    assert [one.kind for one in fuse(lower(parse_model_file(onnx.read_bytes()).onnx)).operations] == [
        "conv",
        "max_pool",
    ]


def test_padding_that_its_reader_cannot_take_is_a_map_of_its_own_or_refused_by_name(tmp_path: Path) -> None:
    class Around(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return pad(x, (1, 1, 1, 1)).relu()

    class Least(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return max_pool2d(pad(x, (1, 1, 1, 1)), 3)

    class Cut(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return avg_pool2d(pad(x, (-1, 1, 1, 1)), 3)

    onnx = exported(Least(), ("y",), tmp_path / "pad.onnx")
    with pytest.raises(InputError, match=r"operator Pad: .*0 around a map.*; allowed: other forms of Pad; "):
        compile_file(onnx, tmp_path / "pad.goss")
    for module in (Around(), Cut()):  # which are a map of their own
        onnx = exported(module, ("y",), tmp_path / "pad.onnx")
        compile_file(onnx, tmp_path / "pad.goss")
        batch = np.random.default_rng(0).standard_normal((2, 3, *SIZE)).astype(np.float32)
        session = onnxruntime.InferenceSession(str(onnx), providers=["CPUExecutionProvider"])
        (wanted,) = session.run(None, {session.get_inputs()[0].name: batch})
        actual = np.asarray(native.Native(tmp_path / "pad.goss", 1)(batch))
        assert actual.shape == wanted.shape
        assert np.abs(actual - wanted).max() < 1e-5


def test_rows_that_something_else_reads_are_refused_by_name(tmp_path: Path) -> None:
    class Rows(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            rows = [one.permute(0, 2, 3, 1).reshape(x.shape[0], -1, 3) for one in (x, x[:, :, ::2])]
            return torch.cat(rows, 1).permute(0, 2, 1)

    class Mixed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x * 2).permute(0, 3, 1, 2)

    for module, message in (
        (Rows(), "rows of several maps, which only an output may be"),
        (Mixed(), "an output 'y' of 1 map,"),
    ):
        onnx = exported(module, ("y",), tmp_path / "rows.onnx")
        with pytest.raises(InputError, match=message):
            compile_file(onnx, tmp_path / "rows.goss")


def test_outputs_stay_float32_in_bfloat16_files(folder: Path) -> None:
    onnx, _ = compiled("several", folder)
    out = folder / "half.goss"
    compile_file(onnx, out, "bfloat16")
    for name, wanted in onnx_outputs(onnx).items():
        values = native_outputs(native.Native(out, 1), images(2))[name]
        assert np.abs(values - wanted).max() < 0.05 * np.abs(wanted).max(), name


@pytest.mark.parametrize("runtime", ["native", "onnxruntime", "openvino", "reference"])
def test_every_runtime_gives_all_outputs_by_name(runtime: str, folder: Path) -> None:
    if runtime == "openvino" and importlib.util.find_spec("openvino") is None:
        pytest.skip("openvino is not installed")
    onnx, _ = compiled("ssd", folder)
    model = gossamer.load(onnx, runtime=runtime)
    outputs = model.run(images(2))
    assert isinstance(outputs, dict) and list(outputs) == ["deltas", "logits"]
    agree(outputs, onnx_outputs(onnx))


def test_compiling_says_what_changed_over_all_outputs_and_speaks_of_no_class(folder: Path) -> None:
    onnx, _ = compiled("ssd", folder)
    done = compile_model(onnx, folder / "ssd.goss")
    assert done.checks.inputs == 8 and done.checks.largest < 1e-4 * done.checks.scale
    assert done.checks.same_class is None and "class" not in done.text()


QUANTISED = [name for name in MODULES if name != WIDE_POOL]  # the quantiser cannot count to infinity


@pytest.mark.parametrize("name", [*QUANTISED, "transposed 4x4 /2", "depthwise, dilated", "pixel shuffle", "softmax"])
def test_a_quantised_head_agrees_within_a_few_steps(name: str, folder: Path) -> None:
    """As onnxruntime's quantiser writes it, rows and resizes rounded to bytes too; a step is a byte's."""
    quantization = pytest.importorskip("onnxruntime.quantization")
    onnx, _ = compiled(name, folder)
    data = iter([{"input": images(2)}])

    class Reader(quantization.CalibrationDataReader):  # type: ignore[name-defined, misc]
        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            return next(data, None)

    few = folder / f"{FILES.index(name)}_bytes.onnx"
    quantization.quantize_static(onnx, few, Reader(), quant_format=quantization.QuantFormat.QDQ)
    compile_file(few, few.with_suffix(".goss"))
    outputs = native_outputs(native.Native(few.with_suffix(".goss"), 2), images(2))
    for output, wanted in onnx_outputs(few).items():
        assert np.abs(outputs[output] - wanted).max() < 5 / 255 * (wanted.max() - wanted.min()), output


def test_run_allocates_nothing_with_an_image_a_thread(folder: Path) -> None:
    code = """
import ctypes, sys, numpy as np
from gossamer.runtime.native import Native
libc = ctypes.CDLL(None)
class Info(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()]
libc.mallinfo2.restype = Info
for path in sys.argv[1:]:
    engine = Native(path, 2)
    batch = np.zeros((5, *engine.input_shape[1:]), np.float32)
    out = np.zeros((5, engine.numbers), np.float32)
    counts = set()
    with engine._session() as session:
        for run in range(20):
            before = libc.mallinfo2()
            assert engine._engine.gossamer_run(session, batch.ctypes.data, 5, out.ctypes.data) == 0
            after = libc.mallinfo2()
            if run > 2:
                counts.add((after.uordblks - before.uordblks, after.hblkhd - before.hblkhd))
    print(min(counts))
"""
    paths = [str(compiled(name, folder)[1]) for name in MODULES]
    done = subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.splitlines()) == {"(0, 0)"}, done.stdout
