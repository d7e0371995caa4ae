"""LiteRT files: each kind of operation beside ONNX Runtime, the commands on a file, and files that break a rule."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gossamer import runtime
from gossamer.bench.measure import bench
from gossamer.cli.main import main
from gossamer.errors import ModelFileError
from gossamer.export.formats import export_file
from gossamer.litert.graph import Graph
from gossamer.litert.metadata import ENTRY, read_bytes, read_metadata
from gossamer.litert.write import litert_bytes, metadata_bytes, with_digest
from gossamer.modelfile.metadata import read_model_file
from gossamer.targets import target_of

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
from tests.onnxcases import CONV, INPUT, ROW, expected, int64, node, noise, save, weight

OLD = Path(__file__).parent / "compat" / "0.1"
IMAGE = OLD / "classes" / "val" / "class0" / "000.png"
RELU = [node("Relu", ["a"], ["r"])]


def one(op: str, *constants: str, **attributes: Any) -> list[Any]:
    """The convolution, then one operator from its map `a` to the output."""
    return [*CONV, node(op, ["a", *constants], ["y"], **attributes)]


def resize(sizes: tuple[int, int], mode: str, place: str, rounding: str = "floor") -> tuple[list[Any], dict[str, Any]]:
    more = {"mode": mode, "coordinate_transformation_mode": place, "nearest_mode": rounding}
    scales = np.array([1, 1, *(side / 6 for side in sizes)], np.float32)
    return [*CONV, node("Resize", ["a", "", "scales"], ["y"], **more)], {"scales": scales}


def conv(shape: tuple[int, ...], **attributes: Any) -> tuple[list[Any], dict[str, Any]]:
    return [*CONV, node("Conv", ["a", "v"], ["y"], **attributes)], {"v": weight(*shape)}


def pool(op: str, behind_relu: bool = False, **attributes: Any) -> tuple[list[Any], dict[str, Any]]:
    nodes = [*CONV, *RELU, node(op, ["r"], ["y"], **attributes)] if behind_relu else one(op, **attributes)
    return nodes, {}


THREE = {"kernel_shape": [3, 3], "strides": [2, 2]}
CASES: dict[str, tuple[list[Any], dict[str, Any]]] = {
    "convolution of padding on all sides": conv((5, 8, 3, 3), pads=[1, 1, 1, 1], strides=[2, 2]),
    "convolution of padding on one side": conv((5, 8, 3, 3), pads=[2, 0, 0, 1]),
    "convolution that reads no padding behind": conv((5, 8, 3, 3), pads=[0, 0, 1, 1], strides=[2, 2]),
    "convolution of SAME": conv((5, 8, 3, 3), auto_pad="SAME_UPPER"),
    "convolution of groups": conv((6, 4, 3, 3), group=2, pads=[1, 1, 1, 1]),
    "convolution of dilation": conv((5, 8, 3, 3), dilations=[2, 2], pads=[2, 2, 2, 2]),
    "convolution over the whole map": conv((5, 8, 6, 6)),
    "pointwise convolution": conv((5, 8, 1, 1), strides=[2, 2]),
    "depthwise convolution": conv((8, 1, 3, 3), group=8, pads=[1, 1, 1, 1]),
    "depthwise convolution of stride 2": conv((8, 1, 5, 5), group=8, pads=[2, 2, 2, 2], strides=[2, 2]),
    "depthwise convolution of dilation": conv((8, 1, 3, 3), group=8, dilations=[2, 2]),
    "transposed convolution": (
        [*CONV, node("ConvTranspose", ["a", "v"], ["y"], strides=[2, 2], pads=[1, 1, 1, 1])],
        {"v": weight(8, 5, 4, 4)},
    ),
    "transposed convolution of two strides": (
        [*CONV, node("ConvTranspose", ["a", "v"], ["y"], strides=[2, 3])],
        {"v": weight(8, 5, 3, 3)},
    ),
    "max pool": pool("MaxPool", **THREE),
    "max pool with padding": pool("MaxPool", pads=[1, 1, 1, 1], **THREE),
    "max pool with padding behind a ReLU": pool("MaxPool", True, pads=[1, 1, 1, 1], **THREE),
    "max pool that rounds up": pool("MaxPool", ceil_mode=1, **THREE),
    "average pool": pool("AveragePool", **THREE),
    "average pool with padding": pool("AveragePool", pads=[1, 1, 1, 1], **THREE),
    "average pool that counts padding": pool("AveragePool", pads=[1, 1, 1, 1], count_include_pad=1, **THREE),
    "average pool of SAME that counts": pool(
        "AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1
    ),
    "average pool of SAME": pool("AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
    "average pool that rounds up": pool("AveragePool", ceil_mode=1, **THREE),
    "mean": (one("GlobalAveragePool"), {}),
    "largest": (one("GlobalMaxPool"), {}),
    "mean of rows": (one("ReduceMean", axes=[2], keepdims=1), {}),
    **{op: (one(op), {}) for op in "Relu Sigmoid Tanh HardSwish Softplus Abs Exp Softsign".split()},
    "hard sigmoid": (one("HardSigmoid", alpha=1 / 6, beta=0.5), {}),
    "another hard sigmoid": (one("HardSigmoid"), {}),
    "SiLU": ([*CONV, node("Sigmoid", ["a"], ["s"]), node("Mul", ["a", "s"], ["y"])], {}),
    "leaky ReLU": (one("LeakyRelu", alpha=0.1), {}),
    "PReLU": (one("PRelu", "v"), {"v": weight(8, 1, 1)}),
    "ReLU6": (one("Clip", "low", "high"), {"low": np.float32(0), "high": np.float32(6)}),
    "clip to 1": (one("Clip", "low", "high"), {"low": np.float32(-1), "high": np.float32(1)}),
    "clip above": (one("Clip", "", "high"), {"high": np.float32(0.25)}),
    "clip of two bounds": (one("Clip", "low", "high"), {"low": np.float32(-0.5), "high": np.float32(0.75)}),
    "reciprocal": ([*CONV, node("Exp", ["a"], ["e"]), node("Reciprocal", ["e"], ["y"])], {}),
    "logarithm": ([*CONV, node("Exp", ["a"], ["e"]), node("Log", ["e"], ["y"])], {}),
    "batch norm": (
        one("BatchNormalization", "s", "b", "m", "v"),
        {"s": weight(8), "b": weight(8), "m": weight(8), "v": np.abs(weight(8)) + 1},
    ),
    "sum with a ReLU": (
        [*CONV, node("Conv", ["x", "v"], ["c"]), node("Add", ["a", "c"], ["s"]), node("Relu", ["s"], ["y"])],
        {"v": weight(8, 3, 3, 3, scale=0.2)},
    ),
    "squeeze and excite": (
        [
            *CONV,
            node("GlobalAveragePool", ["a"], ["p"]),
            node("Conv", ["p", "v"], ["q"]),
            node("Sigmoid", ["q"], ["g"]),
            node("Mul", ["a", "g"], ["y"]),
        ],
        {"v": weight(8, 8, 1, 1)},
    ),
    "product of maps": ([*CONV, node("Tanh", ["a"], ["t"]), node("Mul", ["a", "t"], ["y"])], {}),
    "softmax of channels": (one("Softmax", axis=1), {}),
    "concat": ([*CONV, *RELU, node("Tanh", ["a"], ["t"]), node("Concat", ["r", "t", "a"], ["y"], axis=1)], {}),
    "concat and pool": (
        [
            *CONV,
            *RELU,
            node("Sigmoid", ["a"], ["t"]),
            node("Concat", ["r", "t"], ["c"], axis=1),
            node("MaxPool", ["c"], ["y"], pads=[1, 1, 1, 1], **THREE),
        ],
        {},
    ),
    "split": (
        [
            *CONV,
            node("Split", ["a", "parts"], ["u", "v"], axis=1),
            node("Relu", ["v"], ["r"]),
            node("Concat", ["r", "u"], ["y"], axis=1),
        ],
        {"parts": int64(3, 5)},
    ),
    "shuffle": (
        [
            *CONV,
            node("Reshape", ["a", "apart"], ["b"]),
            node("Transpose", ["b"], ["c"], perm=[0, 2, 1, 3, 4]),
            node("Reshape", ["c", "whole"], ["d"]),
            node("Conv", ["d", "v"], ["y"]),
        ],
        {"apart": int64(-1, 2, 4, 6, 6), "whole": int64(-1, 8, 6, 6), "v": weight(8, 8, 1, 1)},
    ),
    "depth to space": (one("DepthToSpace", blocksize=2), {}),
    "depth to space of columns, rows, depth": (one("DepthToSpace", blocksize=2, mode="CRD"), {}),
    "space to depth": (one("SpaceToDepth", blocksize=2), {}),
    "padding of a number": (
        one("Pad", "pads", "value"),
        {"pads": int64(0, 0, 1, 2, 0, 0, 2, 1), "value": np.float32(0.5)},
    ),
    "padding by reflection": (one("Pad", "pads", mode="reflect"), {"pads": int64(0, 0, 1, 2, 0, 0, 2, 1)}),
    "classifier": ([*ROW, node("Gemm", ["b", "v", "c"], ["y"], transB=1)], {"v": weight(5, 8), "c": weight(5)}),
    "classifier over a map": (
        [*CONV, node("Flatten", ["a"], ["f"]), node("Gemm", ["f", "v", "c"], ["y"], transB=1)],
        {"v": weight(5, 288), "c": weight(5)},
    ),
    "scores": ([*ROW, node("Softmax", ["b"], ["y"], axis=1)], {}),
    "rows of anchors": (
        [*CONV, node("Transpose", ["a"], ["t"], perm=[0, 2, 3, 1]), node("Reshape", ["t", "rows"], ["y"])],
        {"rows": int64(0, -1, 4)},
    ),
    **{
        f"{mode} {place} to {sides}": resize(sides, mode, place)
        for mode in ("linear", "nearest")
        for place in ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel")
        for sides in ((12, 18), (4, 9))
    },
    "nearest that rounds": resize((9, 10), "nearest", "half_pixel", "round_prefer_ceil"),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with classify.tflite, which the command wrote."""
    pytest.importorskip("ai_edge_litert")
    folder = tmp_path_factory.mktemp("litert")
    assert main(["export", str(OLD / "classify.onnx"), "--to", "litert", "--out", str(folder / "classify.tflite")]) == 0
    return folder


@pytest.mark.parametrize("name", CASES)
def test_an_operation_agrees_with_onnx_runtime(name: str, tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    nodes, constants = CASES[name]
    file, x = save(tmp_path / "m.onnx", nodes, constants), noise(INPUT)
    (wanted,) = expected(file, x).values()
    outputs = runtime.load(file, runtime="litert", threads=1).run(x)
    assert outputs.shape == wanted.shape
    np.testing.assert_allclose(outputs, wanted, rtol=0, atol=1e-5 * max(1.0, float(np.abs(wanted).max())))


def test_outputs_keep_their_names_and_shapes(tmp_path: Path) -> None:
    """Two of one map, one of which another operator reads, and the input itself in another layout."""
    pytest.importorskip("ai_edge_litert")
    nodes = [*CONV, *RELU, node("Identity", ["r"], ["same"]), node("GlobalAveragePool", ["r"], ["mean"])]
    file, x = save(tmp_path / "m.onnx", nodes, outputs=("r", "mean", "same")), noise(INPUT)
    outputs = runtime.load(file, runtime="litert").run(x)
    wanted = expected(file, x)
    assert list(outputs) == list(wanted) == ["r", "mean", "same"]
    for name, values in wanted.items():
        np.testing.assert_allclose(outputs[name], values, atol=1e-5)


@pytest.mark.parametrize("shape", [("N", 8, 8, 3), ("N", 20)])
def test_an_input_that_is_not_channels_first(shape: tuple[Any, ...], tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    if len(shape) == 2:
        nodes, constants = [node("Gemm", ["x", "v"], ["y"])], {"v": weight(20, 4)}
    else:
        turned = node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2])
        nodes, constants = [turned, node("Conv", ["t", "w"], ["y"])], {}
    file, out, x = save(tmp_path / "m.onnx", nodes, constants, shape), tmp_path / "m.tflite", noise(shape)
    result = export_file(file, out)
    assert result.loss.largest < 1e-5 and "inputs of noise" in result.text() and result.verifications == ()
    (wanted,) = expected(file, x).values()
    np.testing.assert_allclose(runtime.load(out).run(x), wanted, atol=1e-5)


def test_what_litert_lacks_is_named_and_no_file_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("ai_edge_litert")
    dilated = save(tmp_path / "d.onnx", one("MaxPool", kernel_shape=[2, 2], dilations=[2, 2]))
    unknown = save(tmp_path / "u.onnx", one("Sin"))
    for file, named in ((dilated, "max pool of dilation 2"), (unknown, "operator Sin")):
        assert main(["export", str(file), "--out", str(tmp_path / "m.tflite")]) == 2
        error = capsys.readouterr().err.splitlines()
        assert named in error[-1] and not (tmp_path / "m.tflite").exists()
    with pytest.raises(ModelFileError, match=r"max pool of dilation 2, which LiteRT.*rule 8"):
        runtime.load(dilated, runtime="litert")


def test_the_commands_take_the_file(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(made / "classify.tflite")
    assert target_of(file).kind == "LiteRT file"
    for words in (
        ["verify", file, "--json"],
        ["predict", file, str(IMAGE), "--json"],
        ["eval", file, str(OLD / "classes" / "val"), "--json"],
    ):
        assert main(words) == 0
    verified, predicted, scored = (json.loads(line) for line in _objects(capsys.readouterr().out))
    assert verified["ok"] and verified["runtime"] == "litert" and verified["largest_difference"] < 1e-4
    onnx = runtime.load(OLD / "classify.onnx").predict(str(IMAGE))
    assert predicted["predictions"][0]["classes"][0] == onnx.classes[0]
    assert scored["images"] == 6


def _objects(text: str) -> list[str]:
    """The concatenated JSON objects of a text."""
    decoder, at, found = json.JSONDecoder(), 0, []
    while at < len(text.rstrip()):
        _, end = decoder.raw_decode(text, at)
        found.append(text[at:end])
        at = end + len(text[end:]) - len(text[end:].lstrip())
    return found


def test_the_interpreter_says_nothing_on_standard_error(made: Path, capfd: pytest.CaptureFixture[str]) -> None:
    runtime.load(made / "classify.tflite")
    assert capfd.readouterr() == ("", "")


@pytest.mark.full
def test_bench_measures_the_file_and_makes_one_for_litert(made: Path) -> None:
    rows = bench(
        [str(made / "classify.tflite"), str(OLD / "classify.onnx")],
        runtimes=["litert", "onnxruntime"],
        seconds=0.01,
        rounds=1,
    ).rows
    assert [row.error for row in rows if row.runtime == "litert"] == [""] * 2
    assert "a LiteRT file (.tflite) runs with litert alone" in rows[1].error


def test_without_the_runtime_one_line_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    for words in (
        ["export", str(OLD / "classify.onnx"), "--out", str(tmp_path / "m.tflite")],
        ["verify", str(OLD / "classify.onnx"), "--runtime", "litert"],
    ):
        assert main(words) == 2
        assert capsys.readouterr().err.splitlines()[-1].endswith('pip install "gossamer[litert]"')
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_export_of_a_model_file_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = str(OLD / "classify.onnx")
    for words, named in (
        (["--out", str(tmp_path / "m.onnx")], "copy the file"),
        (["--out", str(tmp_path / "m.goss")], "gossamer compile FILE"),
        (["--out", str(tmp_path / "m.tflite"), "--which", "last"], "--which with a model file"),
        (["--out", str(tmp_path / "m.bin")], "no export format has this suffix"),
        (["--out", str(tmp_path), "--to", "litert"], tmp_path.name),
    ):
        assert main(["export", model, *words]) == 2
        error = capsys.readouterr().err
        assert named in error and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_does_not_agree_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ai_edge_litert")
    import gossamer.litert.operations as operations

    monkeypatch.setitem(operations.PLAIN, "relu", "RELU6")
    monkeypatch.setitem(operations.FUSED, "relu", 3)
    file = save(
        tmp_path / "m.onnx",
        [*CONV, node("Mul", ["a", "ten"], ["b"]), node("Relu", ["b"], ["y"])],
        {"ten": np.float32(100)},
    )
    assert main(["export", str(file), "--out", str(tmp_path / "m.tflite")]) == 1
    assert not (tmp_path / "m.tflite").exists()


# files that break a rule


def small(entries: dict[str, bytes], op: str = "RELU") -> bytes:
    """A file of one operator over (1, 2, 2, 3)."""
    graph = Graph()
    given = graph.tensor((1, 2, 2, 3), "x")
    return graph.encoded([given], [graph.add(op, [given], (1, 2, 2, 3))], entries)


def stated(**changed: Any) -> dict[str, bytes]:
    entry: dict[str, Any] = {"version": 1, "input": [3, 2, 2], "channels_last": True, "metadata": None}
    return {ENTRY: metadata_bytes(entry | changed)}


def of(data: bytes) -> dict[str, Any]:
    """What a file states."""
    text = data[data.index(b'{"sha256": "') :]
    return dict(json.JSONDecoder().raw_decode(text.decode("utf-8", "replace"))[0])


GOOD = with_digest(small(stated()))
WRONG: dict[str, tuple[int, bytes]] = {
    "empty": (1, b""),
    "of seven bytes": (1, GOOD[:7]),
    "an ONNX file": (1, (OLD / "classify.onnx").read_bytes()),
    "cut off": (2, GOOD[: len(GOOD) // 2]),
    "cut off behind its header": (2, GOOD[:8]),
    "of another exporter": (3, small({})),
    "of another exporter's metadata": (3, small({"min_runtime_version": b"1.5.0"})),
    "one bit flipped": (4, GOOD[:-9] + bytes([GOOD[-9] ^ 1]) + GOOD[-8:]),
    "a byte more": (4, GOOD + b"\0"),
    "metadata too short": (4, small({ENTRY: b"{}"})),
    "a later version": (5, with_digest(small(stated(version=2)))),
    "no input": (5, with_digest(small(stated(input=[])))),
    "an input of text": (5, with_digest(small(stated(input=["3", 2, 2])))),
    "a layout of text": (5, with_digest(small(stated(channels_last="yes")))),
    "metadata of text": (5, with_digest(small(stated(metadata="none")))),
    "metadata without a key": (5, with_digest(small(stated(metadata={"task": "classify"})))),
    "another input": (6, with_digest(small(stated(input=[3, 4, 2])))),
    "an unknown operator": (6, b""),  # made where it is read
}


def test_the_small_file_is_good(tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    (tmp_path / "m.tflite").write_bytes(GOOD)
    x = noise((1, 3, 2, 2))
    np.testing.assert_array_equal(runtime.load(tmp_path / "m.tflite").run(x), np.maximum(x, 0).transpose(0, 2, 3, 1))


@pytest.mark.parametrize("name", WRONG)
def test_a_file_that_breaks_a_rule_is_one_line(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rule, data = WRONG[name]
    if rule == 6:
        pytest.importorskip("ai_edge_litert")
    if name == "an unknown operator":
        data = unknown_operator()
    file = tmp_path / "m.tflite"
    file.write_bytes(data)
    for words in (["verify", str(file)], ["predict", str(file), str(IMAGE)]):
        assert main(words) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and f"(rule {rule})" in error and "m.tflite" in error


def unknown_operator() -> bytes:
    """The good file with an operator of a number that no runtime has."""
    from gossamer.litert import flat

    known = flat.OPERATORS["RELU"]
    flat.OPERATORS["RELU"] = (9999, "")
    try:
        return with_digest(small(stated()))
    finally:
        flat.OPERATORS["RELU"] = known


def test_metadata_of_another_network_are_refused(made: Path, tmp_path: Path) -> None:
    """Heads of other outputs, an input of another size: stated in a file whose digest is right."""
    own = of((made / "classify.tflite").read_bytes())
    file = tmp_path / "m.tflite"
    file.write_bytes(with_digest(small(stated(metadata=own["metadata"]))))
    with pytest.raises(ModelFileError, match="preprocessing that does not make an input"):
        runtime.load(file)
    graph, sides = Graph(), own["input"]
    given = graph.tensor((1, *sides[1:], sides[0]), "input")
    out = graph.add("MEAN", [given, graph.row(1, 2)], (1, 1, 1, sides[0]), keep_dims=True)
    outputs = [graph.reshape(out, (1, sides[0])), given]
    file.write_bytes(with_digest(graph.encoded([given], outputs, stated(input=sides, metadata=own["metadata"]))))
    with pytest.raises(ModelFileError, match="of other sizes than its heads read"):
        runtime.load(file)


def test_changed_bytes_never_raise_another_error(made: Path) -> None:
    rng, data = random.Random(0), (made / "classify.tflite").read_bytes()
    read_metadata(data, "good")
    for _ in range(300):
        changed = bytearray(data)
        for _ in range(rng.randint(1, 4)):
            place = rng.choice((rng.randrange(len(data)), rng.randrange(200), len(data) - 1 - rng.randrange(4000)))
            changed[place] = rng.randrange(256)
        del changed[rng.choice((len(data), rng.randrange(len(data)))) :]
        if bytes(changed) != data:
            with pytest.raises(ModelFileError):
                read_metadata(bytes(changed), "changed")


def test_the_same_model_file_gives_the_same_bytes() -> None:
    pytest.importorskip("flatbuffers")
    file = read_model_file(OLD / "classify.onnx")
    assert litert_bytes(file) == litert_bytes(file)


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="No such file"):
        read_bytes(tmp_path / "none.tflite")
