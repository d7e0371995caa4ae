"""ONNX files of several inputs: compiled, run on arrays by name in every runtime, refused by name elsewhere."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import gossamer
from gossamer.cli.main import main
from gossamer.compile.records import HEADER, INPUT
from gossamer.compile.write import PRECISIONS, compile_file
from gossamer.errors import InputError, ModelFileError
from gossamer.modelfile.metadata import read_model_file
from gossamer.predictions.head import flattened
from gossamer.runtime import native
from gossamer.runtime.compilation import compile_model
from gossamer.runtime.interface import noise
from tests.onnxcases import int64, node, weight
from tests.test_native import with_checksum

Shapes = dict[str, tuple[Any, ...]]
IMAGE: tuple[Any, ...] = ("N", 3, 12, 12)

# name -> (inputs, nodes): networks as they are published
NETWORKS: dict[str, tuple[Shapes, list[Any]]] = {
    "siamese": (
        {"left": IMAGE, "right": IMAGE},
        [
            *(node("Conv", [name, "w"], [f"{name}1"], pads=[1, 1, 1, 1]) for name in ("left", "right")),
            *(node("Relu", [f"{name}1"], [f"{name}2"]) for name in ("left", "right")),
            *(node("GlobalAveragePool", [f"{name}2"], [f"{name}3"]) for name in ("left", "right")),
            node("Sub", ["left3", "right3"], ["difference"]),
            node("Abs", ["difference"], ["distance"]),
            node("Flatten", ["distance"], ["y"]),
        ],
    ),
    "rgb and depth": (
        {"rgb": IMAGE, "depth": ("N", 1, 6, 6)},
        [
            node("Resize", ["depth", "", "scales"], ["large"], mode="nearest"),
            node("Concat", ["rgb", "large"], ["four"], axis=1),
            node("Conv", ["four", "w4"], ["y"], pads=[1, 1, 1, 1], strides=[2, 2]),
        ],
    ),
    "image and numbers": (
        {"image": IMAGE, "numbers": ("N", 5)},
        [
            node("Conv", ["image", "w"], ["a"]),
            node("GlobalAveragePool", ["a"], ["b"]),
            node("Flatten", ["b"], ["c"]),
            node("Concat", ["c", "numbers"], ["d"], axis=1),
            node("Gemm", ["d", "dense"], ["y"]),
        ],
    ),
    "gate for each channel": (
        {"image": IMAGE, "gate": ("N", 8, 1, 1)},
        [node("Conv", ["image", "w"], ["a"]), node("Sigmoid", ["gate"], ["b"]), node("Mul", ["a", "b"], ["y"])],
    ),
    "channels last": (
        {"first": ("N", 12, 12, 3), "second": ("N", 12, 12, 3)},
        [
            node("Transpose", ["first"], ["a"], perm=[0, 3, 1, 2]),
            node("Transpose", ["second"], ["b"], perm=[0, 3, 1, 2]),
            node("Add", ["a", "b"], ["c"]),
            node("Conv", ["c", "w"], ["y"]),
        ],
    ),
    "one is not read": ({"unread": ("N", 7), "image": IMAGE}, [node("Conv", ["image", "w"], ["y"])]),
    "an output is of one alone": (
        {"image": IMAGE, "other": IMAGE},
        [node("Conv", ["image", "w"], ["y"]), node("Relu", ["other"], ["z"])],
    ),
}


def save(path: Path, shapes: Shapes, nodes: Sequence[Any], types: Sequence[int] = ()) -> Path:
    constants = {
        "w": weight(8, 3, 3, 3),
        "w4": weight(6, 4, 3, 3),
        "dense": weight(13, 4),
        "scales": np.array([1, 1, 2, 2], np.float32),
        "minus": int64(-1),
    }
    kinds = types or [TensorProto.FLOAT] * len(shapes)
    used = {name for one in nodes for name in one.input}
    outputs = ["y", "z"] if any("z" in one.output for one in nodes) else ["y"]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "several",
        [value(name, kind, list(shape)) for (name, shape), kind in zip(shapes.items(), kinds, strict=True)],
        [value(name, TensorProto.FLOAT, ["N", None, *([None] * 2)]) for name in outputs],
        [numpy_helper.from_array(one, name) for name, one in constants.items() if name in used],
    )
    for one in graph.output:  # of any rank: left to whoever runs it
        del one.type.tensor_type.shape.dim[
            2 if any(n.op_type in ("Flatten", "Gemm") and one.name in n.output for n in nodes) else 4 :
        ]
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def file_of(name: str, folder: Path) -> Path:
    return save(folder / "several.onnx", *NETWORKS[name])


def batch_of(shapes: Shapes, count: int) -> Mapping[str, Any]:
    given = noise({name: (None, *shape[1:]) for name, shape in shapes.items()}, count)
    assert isinstance(given, Mapping)
    return given


def expected(path: Path, batch: Mapping[str, Any]) -> Any:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    rows = [one.reshape(len(one), -1) for one in session.run(None, dict(batch))]
    return np.concatenate(rows, axis=1)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_engine_answers_as_onnx_runtime_does(name: str, tmp_path: Path) -> None:
    path = file_of(name, tmp_path)
    compiled = compile_file(path, tmp_path / "several.goss")
    batch = batch_of(NETWORKS[name][0], 5)
    wanted = expected(path, batch)
    for threads in (1, 2):  # five images: two threads take four of them one each
        engine = native.Native(compiled, threads)
        assert list(engine.input_shapes) == list(NETWORKS[name][0]) and engine.input_shape == ()
        np.testing.assert_allclose(flattened(engine.run_inputs(batch)), wanted, rtol=1e-4, atol=1e-5)
    model = gossamer.load(compiled)
    np.testing.assert_array_equal(flattened(model.run(batch)), flattened(engine.run_inputs(batch)))
    assert model.input_shapes == {n: (None, *shape[1:]) for n, shape in NETWORKS[name][0].items()}


@pytest.mark.parametrize("runtime", ["native", "onnxruntime", "openvino", "reference"])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_runtime_of_an_onnx_file_takes_arrays_by_name(name: str, runtime: str, tmp_path: Path) -> None:
    if runtime == "openvino":
        pytest.importorskip("openvino")
    path = file_of(name, tmp_path)
    batch = batch_of(NETWORKS[name][0], 3)
    answers = flattened(gossamer.load(path, runtime=runtime).run(batch))
    np.testing.assert_allclose(answers, expected(path, batch), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_compiling_compares_with_every_input_and_says_how_far(precision: str, tmp_path: Path) -> None:
    for name in ("siamese", "rgb and depth"):
        done = compile_model(file_of(name, tmp_path), tmp_path / f"{precision}.goss", precision)
        assert done.checks.inputs == 8 and done.checks.scale > 0
        assert done.checks.largest <= (1e-5 if precision == "float32" else 0.05) * done.checks.scale
        assert (tmp_path / f"{precision}.goss").is_file()


def test_open_sides_are_set_for_every_input_that_has_them(tmp_path: Path) -> None:
    shapes: Shapes = {"a": ("N", 3, "h", "w"), "b": ("N", 3, "h", "w"), "gate": ("N", 3, 1, 1)}
    nodes = [node("Add", ["a", "b"], ["c"]), node("Mul", ["c", "gate"], ["d"]), node("Conv", ["d", "w"], ["y"])]
    path = save(tmp_path / "open.onnx", shapes, nodes)
    with pytest.raises(InputError, match=r"input 'a' of Nx3xhxw.*--input"):
        compile_model(path, tmp_path / "open.goss")
    compile_model(path, tmp_path / "open.goss", input_size=(9, 11))
    shapes = {"a": ("N", 3, 9, 11), "b": ("N", 3, 9, 11), "gate": ("N", 3, 1, 1)}
    batch = batch_of(shapes, 2)
    answers = gossamer.load(tmp_path / "open.goss").run(batch)
    np.testing.assert_allclose(flattened(answers), expected(path, batch), rtol=1e-4, atol=1e-5)


def command(capsys: pytest.CaptureFixture[str], *words: str | Path, code: int = 0) -> str:
    """What a command prints; it exits with `code`."""
    assert main([str(word) for word in words]) == code
    return "".join(capsys.readouterr())


def test_the_command_compiles_and_the_others_refuse_by_name(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path, compiled = file_of("siamese", tmp_path), tmp_path / "siamese.goss"
    assert "8 check inputs" in command(capsys, "compile", path, "--out", compiled)
    for words in (("predict", path, tmp_path), ("predict", compiled, tmp_path), ("verify", path), ("verify", compiled)):
        assert "without preprocessing" in command(capsys, *words, code=2)
    for kind in ("c", "litert"):
        said = command(capsys, "export", path, "--to", kind, "--out", tmp_path / f"{kind}.out", code=2)
        assert "2 inputs: left" in said and "(rule 7)" in said
        assert not (tmp_path / f"{kind}.out").exists()


@pytest.mark.full
def test_both_files_are_timed(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path, compiled = file_of("rgb and depth", tmp_path), tmp_path / "depth.goss"
    command(capsys, "compile", path, "--out", compiled)
    said = command(capsys, "bench", path, compiled, "--runtimes", "native", "--threads", "1", "--seconds", "0.01")
    assert said.count("inputs 1x3x12x12 and 1x1x6x6") == 2
    assert "several.onnx" in said and "depth.goss" in said
    assert "convolution 3x3" in command(capsys, "bench", compiled, "--profile", "--threads", "1")


@pytest.mark.parametrize("kind", ["onnx", "goss"])
def test_arrays_that_do_not_fit_are_refused(kind: str, tmp_path: Path) -> None:
    path = file_of("rgb and depth", tmp_path)
    model = gossamer.load(path if kind == "onnx" else compile_file(path, tmp_path / "a.goss"))
    good = dict(batch_of(NETWORKS["rgb and depth"][0], 2))
    for wrong, said in (
        (good["rgb"], "ndarray.*for each of rgb, depth"),
        ({"rgb": good["rgb"]}, "inputs rgb.*for each of rgb, depth"),
        ({**good, "more": good["rgb"]}, "for each of rgb, depth"),
        ({**good, "depth": good["rgb"]}, r"input 'depth' of float32 \(2, 3, 12, 12\)"),
        ({**good, "depth": good["depth"][:1]}, "batches of rgb 2, depth 1"),
        ({**good, "depth": good["depth"].astype(np.float64)}, "input 'depth' of float64"),
    ):
        with pytest.raises(InputError, match=said):
            model.run(wrong)


def test_inputs_of_other_types_and_batches_are_refused(tmp_path: Path) -> None:
    shapes, nodes = NETWORKS["siamese"]
    path = save(tmp_path / "a.onnx", shapes, nodes, [TensorProto.FLOAT, TensorProto.INT64])
    with pytest.raises(ModelFileError, match=r"right \(type 7.*rule 7"):
        read_model_file(path, several_inputs=True)
    path = save(tmp_path / "b.onnx", {"left": (1, 3, 12, 12), "right": (2, 3, 12, 12)}, nodes)
    with pytest.raises(InputError, match="inputs of different batches: left"):
        compile_file(path, tmp_path / "b.goss")
    path = save(tmp_path / "c.onnx", {"left": IMAGE, "right": ()}, nodes)
    with pytest.raises(InputError, match=r"input 'right' of one number|inputs of different batches"):
        compile_file(path, tmp_path / "c.goss")
    with pytest.raises(ModelFileError, match=r"2 inputs: left.*gossamer.load"):
        read_model_file(file_of("siamese", tmp_path))


def test_a_file_of_one_input_stays_of_the_version_before(tmp_path: Path) -> None:
    path = save(tmp_path / "one.onnx", {"image": IMAGE}, [node("Conv", ["image", "w"], ["y"])])
    header = HEADER.unpack(compile_file(path, tmp_path / "one.goss").read_bytes())
    assert (header["version"], header["input_count"], header["inputs"]) == (4, 0, 0)


def test_inputs_that_are_corrupt_never_reach_memory(tmp_path: Path) -> None:
    """Every number of the table of inputs, and of the header's, replaced by extremes: refused, or run within its memory."""
    good = compile_file(file_of("rgb and depth", tmp_path), tmp_path / "good.goss").read_bytes()
    header, path = HEADER.unpack(good), tmp_path / "bad.goss"
    assert header["version"] == 5 and INPUT.unpack(good, header["inputs"])["sides"] == (3, 12, 12, 0)
    first = header["inputs"]

    def code(data: bytes) -> int:
        path.write_bytes(with_checksum(data))
        try:
            engine = native.Native(path, 1)
        except ModelFileError as error:
            return error.rule
        engine.run(noise(engine.input_shapes, 1))
        return 0

    assert code(good) == 0
    names = [
        b"\0" * 64,
        b"x" * 64,
        good[first + 96 : first + 160],
    ]  # none, one that does not end, that of the other input
    assert [code(good[:first] + name + good[first + 64 :]) for name in names] == [13, 13, 13]
    places = [first + 96 * index + 64 + 4 * place for index in range(2) for place in range(6)]
    found = {}
    for at in (*places, HEADER.offset("input"), HEADER.offset("input_count")):
        for number in (-1, 0, 1, 2, 5, 144, 2**16, 2**31 - 1, -(2**31)):
            found[at, number] = code(good[:at] + struct.pack("<i", number) + good[at + 4 :])
    assert set(found.values()) >= {0, 5, 8, 13}
    assert found[HEADER.offset("input_count"), 2**16] == 5
    for offset in (1, 64 * 10**6, 2**63, len(good) - 64):
        assert code(good[: HEADER.offset("inputs")] + struct.pack("<Q", offset) + good[HEADER.offset("inputs") + 8 :])
    both = INPUT.unpack(good, first)["value"]
    assert code(good[: first + 96 + 84] + struct.pack("<i", both) + good[first + 96 + 88 :]) in (8, 13)
