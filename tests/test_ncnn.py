"""ncnn files: each kind of operation beside ONNX Runtime, the commands on a file, and files that break a rule."""

from __future__ import annotations

import json
import random
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gossamer import runtime
from gossamer.bench.measure import bench
from gossamer.cli.main import main
from gossamer.errors import InputError, ModelFileError
from gossamer.export.formats import export_file
from gossamer.modelfile.metadata import read_model_file
from gossamer.ncnn.layers import check_layers
from gossamer.ncnn.metadata import read_network
from gossamer.ncnn.write import NcnnFiles, blob_names, metadata_bytes, ncnn_files
from gossamer.targets import target_of

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
from tests.hostile.make_ncnn import CASES as BROKEN
from tests.onnxcases import CONV, INPUT, expected, int64, node, noise, save, weight
from tests.test_litert import CASES, RELU, one

OLD = Path(__file__).parent / "compat" / "0.1"
HOSTILE = Path(__file__).parent / "hostile" / "ncnn"
IMAGE = OLD / "classes" / "val" / "class0" / "000.png"
SUFFIXES = (".bin", ".json", ".param")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with classify.param and those beside it, which the command wrote."""
    pytest.importorskip("ncnn")
    folder = tmp_path_factory.mktemp("ncnn")
    assert main(["export", str(OLD / "classify.onnx"), "--to", "ncnn", "--out", str(folder / "classify.param")]) == 0
    return folder


@pytest.mark.parametrize("name", CASES)
def test_an_operation_agrees_with_onnx_runtime(name: str, tmp_path: Path) -> None:
    pytest.importorskip("ncnn")
    nodes, constants = CASES[name]
    file, x = save(tmp_path / "m.onnx", nodes, constants), noise(INPUT)
    (wanted,) = expected(file, x).values()
    outputs = runtime.load(file, runtime="ncnn", threads=1).run(x)
    assert outputs.shape == wanted.shape
    np.testing.assert_allclose(outputs, wanted, rtol=0, atol=1e-5 * max(1.0, float(np.abs(wanted).max())))


def test_outputs_keep_their_names_and_shapes(tmp_path: Path) -> None:
    """Two of one map, one of which another operator reads; a name that ncnn cannot read."""
    pytest.importorskip("ncnn")
    nodes = [*CONV, *RELU, node("Identity", ["r"], ["the same"]), node("GlobalAveragePool", ["r"], ["mean"])]
    file, x = save(tmp_path / "m.onnx", nodes, outputs=("r", "mean", "the same")), noise(INPUT)
    outputs, wanted = runtime.load(file, runtime="ncnn").run(x), expected(file, x)
    assert list(outputs) == list(wanted) == ["r", "mean", "the same"]
    for name, values in wanted.items():
        np.testing.assert_allclose(outputs[name], values, atol=1e-5)
    assert blob_names(["x", "y", "b1", "y", "ö", "out0"]) == ["x", "y", "out1", "out2", "out3", "out0"]


@pytest.mark.parametrize("shape", [("N", 8, 8, 3), ("N", 20)])
def test_an_input_that_is_not_channels_first(shape: tuple[Any, ...], tmp_path: Path) -> None:
    pytest.importorskip("ncnn")
    if len(shape) == 2:
        nodes, constants = [node("Gemm", ["x", "v"], ["y"])], {"v": weight(20, 4)}
    else:
        turned = node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2])
        nodes, constants = [turned, node("Conv", ["t", "w"], ["y"])], {}
    file, out, x = save(tmp_path / "m.onnx", nodes, constants, shape), tmp_path / "m.param", noise(shape)
    result = export_file(file, out)
    assert result.loss.largest < 1e-5 and "inputs of noise" in result.text() and result.verifications == ()
    assert result.size == sum(out.with_suffix(suffix).stat().st_size for suffix in SUFFIXES)
    (wanted,) = expected(file, x).values()
    np.testing.assert_allclose(runtime.load(out).run(x), wanted, atol=1e-5)


def test_what_ncnn_lacks_is_named_and_no_file_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("ncnn")
    dilated = save(tmp_path / "d.onnx", one("MaxPool", kernel_shape=[2, 2], dilations=[2, 2], name="pool7"))
    unknown = save(tmp_path / "u.onnx", one("Sin"))
    slope = save(tmp_path / "s.onnx", [*CONV, node("LeakyRelu", ["a"], ["y"], alpha=float("inf"))])
    bytes_in = [
        node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        node("Conv", ["d", "w"], ["y"]),
    ]
    int8 = save(tmp_path / "q.onnx", bytes_in, {"s": np.float32(0.05), "z": np.uint8(128)})
    for file, named in (
        (dilated, "'pool7': a pool of dilation 2"),
        (unknown, "operator Sin"),
        (slope, "the slope inf"),
        (int8, "int8 (QDQ)"),
    ):
        assert main(["export", str(file), "--out", str(tmp_path / "m.param")]) == 2
        error = capsys.readouterr().err.splitlines()
        assert named in error[-1] and not list(tmp_path.glob("m.*"))
    with pytest.raises(ModelFileError, match=r"pool of dilation 2, which ncnn.*rule 8"):
        runtime.load(dilated, runtime="ncnn")


def test_the_commands_take_the_file(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(made / "classify.param")
    assert target_of(file).kind == "ncnn file"
    answers = []
    for words in (["verify", file], ["predict", file, str(IMAGE)], ["eval", file, str(OLD / "classes" / "val")]):
        assert main([*words, "--json"]) == 0
        answers.append(json.loads(capsys.readouterr().out))
    verified, predicted, scored = answers
    assert verified["ok"] and verified["runtime"] == "ncnn" and verified["largest_difference"] < 1e-4
    onnx = runtime.load(OLD / "classify.onnx").predict(str(IMAGE))
    assert predicted["predictions"][0]["classes"][0] == onnx.classes[0]
    assert scored["images"] == 6


@pytest.mark.full
def test_bench_measures_the_file_and_makes_one_for_ncnn(made: Path) -> None:
    rows = bench(
        [str(made / "classify.param"), str(OLD / "classify.onnx")],
        runtimes=["ncnn", "onnxruntime"],
        seconds=0.01,
        rounds=1,
    ).rows
    assert [row.error for row in rows if row.runtime == "ncnn"] == [""] * 2
    assert "an ncnn file (.param) runs with ncnn alone" in rows[1].error


def test_without_the_runtime_one_line_names_the_extra(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ncnn", None)
    for words in (
        ["export", str(OLD / "classify.onnx"), "--out", str(tmp_path / "m.param")],
        ["verify", str(OLD / "classify.onnx"), "--runtime", "ncnn"],
        ["verify", str(made / "classify.param")],
    ):
        assert main(words) == 2
        assert capsys.readouterr().err.splitlines()[-1].endswith('pip install "gossamer[ncnn]"')
    assert list(tmp_path.iterdir()) == []


def test_places_that_are_taken_are_one_line(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = str(OLD / "classify.onnx")
    (tmp_path / "m.bin").write_bytes(b"weights of another network")
    (tmp_path / "file").write_bytes(b"")
    for words, named in (
        (["--out", str(tmp_path / "m.param")], "m.bin: exists"),
        (["--out", str(tmp_path / "m.ncnn"), "--to", "ncnn"], "FILE.param"),
        (["--out", str(tmp_path / "m.tflite"), "--to", "ncnn"], "FILE.param"),
        (["--out", str(tmp_path / "n.param"), "--which", "last"], "--which with a model file"),
    ):
        assert main(["export", model, *words]) == 2
        error = capsys.readouterr().err
        assert named in error and error.count("\n") == 1
    assert main(["export", model, "--out", str(tmp_path / "file" / "m.param")]) == 2
    assert "a part of the path is a file" in capsys.readouterr().err
    assert sorted(one.name for one in tmp_path.iterdir()) == ["file", "m.bin"]
    again = tmp_path / "again"
    shutil.copytree(made, again)
    assert main(["export", model, "--out", str(again / "classify.param")]) == 0  # the whole of an earlier export


def test_the_files_beside_are_none_of_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "settings.yaml").write_text("")
    assert main(["export", str(OLD / "classify.onnx"), "--out", str(tmp_path / "changes.param")]) == 2
    assert "changes.json: is a file of the run" in capsys.readouterr().err
    assert [one.name for one in tmp_path.iterdir()] == ["settings.yaml"]


def test_a_network_that_does_not_agree_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ncnn")
    import gossamer.ncnn.operations as operations

    monkeypatch.setitem(operations.PLAIN, "tanh", "Sigmoid")
    file = save(tmp_path / "m.onnx", [*CONV, node("Tanh", ["a"], ["y"])])
    assert main(["export", str(file), "--out", str(tmp_path / "m.param")]) == 1
    assert [one.name for one in tmp_path.iterdir()] == ["m.onnx"]


@pytest.mark.parametrize("name", [name for name in BROKEN if name != "good"])
def test_a_file_that_breaks_a_rule_is_one_line(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["verify", str(HOSTILE / f"{name}.param")], ["predict", str(HOSTILE / f"{name}.param"), str(IMAGE)]):
        assert main(words) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and f"(rule {int(name[:2])})" in error and name in error


def test_the_hostile_files_are_those_of_their_table() -> None:
    names = {f"{name}{suffix}" for name in BROKEN for suffix in SUFFIXES}
    assert {one.name for one in HOSTILE.iterdir()} == names
    for name, files in BROKEN.items():
        for suffix in SUFFIXES:
            assert (HOSTILE / f"{name}{suffix}").read_bytes() == getattr(files, suffix[1:])


def test_the_small_file_is_good() -> None:
    pytest.importorskip("ncnn")
    x = noise((1, 3, 2, 2))
    factor, offset = (np.arange(3).reshape(3, 1, 1) + first for first in (0, 3))
    model = runtime.load(HOSTILE / "good.param")
    np.testing.assert_allclose(model.run(x), x * factor + offset, rtol=1e-6)
    with pytest.raises(ModelFileError, match=r"an ncnn file \(\.param\) of a plain ONNX file, without preprocessing"):
        model.need_metadata()
    assert "ncnn file without metadata" in repr(model)


@pytest.mark.parametrize("missing", [".bin", ".json"])
def test_the_files_must_be_together(missing: str, tmp_path: Path) -> None:
    for suffix in SUFFIXES:
        if suffix != missing:
            shutil.copy(HOSTILE / f"good{suffix}", tmp_path / f"m{suffix}")
    with pytest.raises(ModelFileError, match=rf"m\{missing}: No such file.*rule 1"):
        read_network(tmp_path / "m.param")


def test_metadata_of_another_network_are_refused(made: Path, tmp_path: Path) -> None:
    """Heads of other outputs, an output of other sides than the layers make: stated where all digests are right."""
    param, weights, card = ((made / f"classify{suffix}").read_bytes() for suffix in (".param", ".bin", ".json"))
    own = json.loads(card)
    entry = {key: own[key] for key in ("input", "input_blob", "outputs", "metadata")}
    longer = [{**entry["outputs"][0], "shape": [own["outputs"][0]["shape"][0] + 1]}]
    for changed, reason in (
        ({"outputs": longer}, "of other sizes than its heads read"),
        ({"outputs": longer, "metadata": None}, "an output 'logits' of"),
        ({"input": [3, 20, 20]}, "preprocessing that does not make an input"),
    ):
        files = NcnnFiles(param, weights, metadata_bytes(param, weights, entry | changed))
        for suffix in SUFFIXES:
            (tmp_path / f"m{suffix}").write_bytes(getattr(files, suffix[1:]))
        with pytest.raises(ModelFileError, match=reason):
            runtime.load(tmp_path / "m.param").run(np.zeros((1, *own["input"]), np.float32))


def test_changed_layers_never_raise_another_error(made: Path, tmp_path: Path) -> None:
    """The text of the layers with right digests: what is read is either refused or has the weights that it says."""
    rng, weights = random.Random(0), (made / "classify.bin").read_bytes()
    text, entry = (made / "classify.param").read_bytes(), json.loads((made / "classify.json").read_bytes())
    stated = {key: entry[key] for key in ("input", "input_blob", "outputs", "metadata")}
    refused = 0
    for _ in range(60):
        changed = bytearray(text)
        for _ in range(rng.randint(1, 3)):
            changed[rng.randrange(len(changed))] = rng.choice(b"0123456789-=., \nabC\xff")
        for suffix, data in zip(SUFFIXES, (weights, metadata_bytes(bytes(changed), weights, stated), bytes(changed))):
            (tmp_path / f"m{suffix}").write_bytes(data)
        try:
            read_network(tmp_path / "m.param")
        except ModelFileError:
            refused += 1
    assert refused > 20


def parted(tmp_path: Path, first: int, sizes: list[int]) -> str:
    """The layers of a file whose map of 8 channels is cut apart; the ReLU of each part is an output."""
    ends = np.cumsum([first, *sizes])
    bounds = {
        f"{name}{number}": int64(end)
        for name, places in (("s", ends[:-1]), ("e", ends[1:]))
        for number, end in enumerate(places)
    }
    nodes = [*CONV]
    for number in range(len(sizes)):
        nodes += [
            node("Slice", ["a", f"s{number}", f"e{number}", "axes"], [f"p{number}"]),
            node("Relu", [f"p{number}"], [f"y{number}"]),
        ]
    names = [f"y{number}" for number in range(len(sizes))]
    path = save(tmp_path / "parted.onnx", nodes, {**bounds, "axes": int64(1)}, outputs=names)
    images = noise(INPUT)
    given = runtime.load(path, runtime="ncnn", threads=1).run(images)
    for name, wanted in expected(path, images).items():
        np.testing.assert_allclose(given[name], wanted, atol=1e-5)
    return ncnn_files(read_model_file(path)).param.decode()


def test_parts_of_all_channels_are_a_slice_and_others_are_cut_out(tmp_path: Path) -> None:
    whole = parted(tmp_path, 0, [3, 5])
    assert " -23300=2,3,5 1=0\n" in whole and "Crop" not in whole and "Split" not in whole
    assert parted(tmp_path, 1, [3, 4]).count("Crop ") == 2, "the first channel is in none"


@pytest.mark.parametrize(
    "params", ["-23300=2,3,4 1=0", "-23300=2,3,6 1=0", "-23300=2,-233,-233 1=0", "-23300=2,8,0 1=0", "-23300=3,3,5 1=0",
               "-23300=2,3,5 1=1", "-23300=2,3,5", "-23300=2,3,5 1=0 2=1", "0=2 1=0", "-23300= 1=0", "-23300=1,8 1=0", ""],
)  # fmt: skip
def test_a_slice_of_other_parts_than_all_channels_is_refused(params: str) -> None:
    text = f"7767517\n3 4\nInput l0 0 1 x 0=2 1=2 2=8\nSlice s0 1 2 x a b{params and ' ' + params}\nConcat l1 2 1 a b y 0=0\n"
    with pytest.raises(ValueError, match="line 4"):
        check_layers(text, 0)


def test_a_slice_of_all_channels_is_read() -> None:
    text = "7767517\n3 4\nInput l0 0 1 x 0=2 1=2 2=8\nSlice s0 1 2 x a b -23300=2,3,5 1=0\nConcat l1 2 1 b a y 0=0\n"
    shapes = check_layers(text, 0)
    assert shapes["a"] == (3, 2, 2) and shapes["b"] == (5, 2, 2) and shapes["y"] == (8, 2, 2)


def test_the_same_model_file_gives_the_same_bytes() -> None:
    file = read_model_file(OLD / "classify.onnx")
    assert ncnn_files(file) == ncnn_files(file)


def test_the_digest_is_that_of_all_three_files(made: Path, tmp_path: Path) -> None:
    """Two networks of the same layers and other weights differ."""
    nodes = [*CONV, node("Conv", ["a", "v"], ["y"])]
    digests = []
    for scale in (0.3, 0.4):
        file = save(tmp_path / f"{scale}.onnx", nodes, {"v": weight(5, 8, 3, 3, scale=scale)})
        export_file(file, tmp_path / f"m{scale}.param")
        digests.append(runtime.load(tmp_path / f"m{scale}.param").sha256)
    assert digests[0] != digests[1]
    assert (tmp_path / "m0.3.param").read_bytes() == (tmp_path / "m0.4.param").read_bytes()


def test_it_is_not_quantised_or_rounded_unasked(made: Path) -> None:
    net = runtime.load(made / "classify.param")._runtime._net  # type: ignore[attr-defined]
    assert not (net.opt.use_fp16_storage or net.opt.use_fp16_arithmetic or net.opt.use_bf16_storage)


def test_input_of_another_shape_is_refused(made: Path) -> None:
    with pytest.raises(InputError, match="an input of"):
        runtime.load(made / "classify.param").run(np.zeros((1, 3, 8, 8), np.float32))
