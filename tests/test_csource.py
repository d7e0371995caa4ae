"""C source: each kind of operation beside ONNX Runtime, int8 to the last bit, what is written, and what it needs."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import Collection, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gossamer.cli.main import main
from gossamer.csource import compiler
from gossamer.csource.device import FILES, checks_of, network_of
from gossamer.csource.limits import needs_of
from gossamer.csource.network import live_numbers
from gossamer.csource.reference import byte_outputs
from gossamer.csource.source import ram_bytes, table_bytes
from gossamer.errors import VerificationError
from gossamer.modelfile.metadata import parse_model_file, read_model_file
from gossamer.predictions.head import flattened
from gossamer.runtime.model import open_model

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
if compiler.compiler() is None:
    pytest.skip("no C compiler", allow_module_level=True)
from tests.csources import SANITISED, built, input_bytes, outputs_of
from tests.onnxcases import CONV, INPUT, expected, node, noise, save, weight
from tests.test_litert import CASES, one
from tests.test_native_rounding import CHANNELS, NETWORKS, Graph, images

OLD = Path(__file__).parent / "compat" / "0.1"
OTHERS = {
    "max pool of dilation": (one("MaxPool", kernel_shape=[2, 2], dilations=[2, 2]), {}),
    "grouped convolution of one channel a group": (
        [*CONV, node("Conv", ["a", "v"], ["y"], group=4, pads=[1, 1, 1, 1])],
        {"v": weight(12, 2, 3, 3)},
    ),
    "dilated kernel that lies on padding": (
        [node("Conv", ["x", "v"], ["y"], dilations=[2, 2], pads=[0, 0, 7, 7])],
        {"v": weight(5, 3, 8, 8)},
    ),
    "kernel of the map with padding behind it": (
        [node("Conv", ["x", "v"], ["y"], strides=[4, 4], pads=[0, 0, 3, 3])],
        {"v": weight(5, 3, 8, 8)},
    ),
    "sum of a layer and its input": (
        [*CONV, node("Conv", ["a", "v"], ["c"], pads=[1, 1, 1, 1]), node("Add", ["c", "a"], ["y"])],
        {"v": weight(8, 8, 3, 3)},
    ),
}
# places of a resize are numbers in the program, so that two kinds of them show what all would
KINDS = [name for name in (*CASES, *OTHERS) if "asymmetric" not in name and "pytorch_half_pixel" not in name]
QUICK = (
    "convolution of groups",
    "depthwise convolution of stride 2",
    "squeeze and excite",
    "scores",
    "rows of anchors",
)


def tiered(names: Iterable[str], quick: Collection[str]) -> list[Any]:
    """Names as parameters of a test; those that are not quick are of the full tier."""
    return [pytest.param(name, marks=() if name in quick else pytest.mark.full) for name in names]


@pytest.mark.parametrize("name", tiered(KINDS, QUICK))
def test_an_operation_agrees_with_onnx_runtime(name: str, tmp_path: Path) -> None:
    """Compiled with every warning as an error; some are run with sanitizers."""
    nodes, constants = {**CASES, **OTHERS}[name]
    file, x = save(tmp_path / "m.onnx", nodes, constants), noise(INPUT)
    (wanted,) = expected(file, x).values()
    flags = SANITISED if name in QUICK else ()
    network = built(read_model_file(file), tmp_path, "-O0", *flags)
    outputs = outputs_of(network, tmp_path, x, *flags).reshape(wanted.shape)
    np.testing.assert_allclose(outputs, wanted, rtol=0, atol=1e-5 * max(1.0, float(np.abs(wanted).max())))


@pytest.mark.parametrize("name", tiered(NETWORKS, ("silu", "branches")))
def test_int8_is_the_reference_and_onnx_runtime_to_the_last_bit(name: str, tmp_path: Path) -> None:
    build, arguments = NETWORKS[name]
    file, batch = parse_model_file(build(*arguments), "net.onnx"), images(4)
    network = built(file, tmp_path, "-O0", *SANITISED)
    outputs = outputs_of(network, tmp_path, batch, *SANITISED)
    given = input_bytes(network, np.ascontiguousarray(batch.transpose(0, 2, 3, 1)).reshape(len(batch), -1))
    np.testing.assert_array_equal(outputs.view(np.uint32), byte_outputs(network.program, given))
    np.testing.assert_array_equal(outputs, flattened(open_model(file, "onnxruntime").run(batch)))
    source = re.sub(r"/\*.*?\*/", "", (tmp_path / "net.c").read_text(), flags=re.S)
    assert not re.search(r"\b(float|double)\b", source)


@pytest.mark.parametrize(("side", "count"), [(8, 4), (500, 1), (600, 1)])
def test_check_inputs_take_a_mebibyte_at_most(side: int, count: int) -> None:
    """One where one alone takes more."""
    view, any_shape = SimpleNamespace(h=side, w=side, c=3), SimpleNamespace(shape=None)
    network: Any = SimpleNamespace(input=view, program=any_shape, type="float", scale=1.0, zero=0)
    file: Any = SimpleNamespace(metadata=None, path="m.onnx")
    checks = checks_of(file, network, lambda values: np.zeros((len(values), 1), np.float32))
    assert checks.given.shape == (count, 3 * side**2) and len(checks.expected) == count


def test_outputs_are_one_behind_the_other(tmp_path: Path) -> None:
    """Two of one map, one of which another operator reads."""
    nodes = [
        *CONV,
        node("Relu", ["a"], ["r"]),
        node("Identity", ["r"], ["same"]),
        node("GlobalAveragePool", ["r"], ["mean"]),
    ]
    file, x = save(tmp_path / "m.onnx", nodes, outputs=("r", "mean", "same")), noise(INPUT)
    network = built(read_model_file(file), tmp_path)
    outputs = outputs_of(network, tmp_path, x)
    wanted = expected(file, x)
    assert [one.name for one in network.outputs] == list(wanted)
    for output in network.outputs:
        part = outputs[:, output.first : output.first + output.count].reshape(wanted[output.name].shape)
        np.testing.assert_allclose(part, wanted[output.name], atol=1e-5)


@pytest.mark.parametrize("shape", [("N", 8, 8, 3), ("N", 20)])
def test_an_input_that_is_not_channels_first(shape: tuple[Any, ...], tmp_path: Path) -> None:
    if len(shape) == 2:
        nodes, constants = [node("Gemm", ["x", "v"], ["y"])], {"v": weight(20, 4)}
    else:
        turned = node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2])
        nodes, constants = [turned, node("Conv", ["t", "w"], ["y"])], {}
    file, x = save(tmp_path / "m.onnx", nodes, constants, shape), noise(shape)
    network = built(read_model_file(file), tmp_path)
    (wanted,) = expected(file, x).values()
    np.testing.assert_allclose(outputs_of(network, tmp_path, x).reshape(wanted.shape), wanted, atol=1e-5)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the command wrote, of a classifier in float32."""
    folder = tmp_path_factory.mktemp("c") / "device"
    assert (
        main(
            ["export", str(OLD / "classify.onnx"), "--to", "c", "--ram", "64K", "--flash", "64K", "--out", str(folder)]
        )
        == 0
    )
    return folder


def test_what_is_written_needs_no_library_and_the_stated_memory(made: Path, tmp_path: Path) -> None:
    assert sorted(path.name for path in made.iterdir()) == sorted(FILES)
    command = compiler.compiler()
    assert command is not None
    for level in ("-Os", "-O3"):
        target = tmp_path / f"net{level}.o"
        strict = [
            *command,
            *compiler.STRICT,
            "-pedantic",
            level,
            "-fno-pic",
            "-c",
            str(made / "net.c"),
            "-o",
            str(target),
        ]
        subprocess.run(strict, check=True)
        if nm := shutil.which("nm"):
            assert subprocess.run([nm, "-u", str(target)], capture_output=True, text=True, check=True).stdout == ""
    network = network_of(read_model_file(OLD / "classify.onnx"))
    sizes = compiler.elf_sizes((tmp_path / "net-Os.o").read_bytes())
    assert sizes is not None and sizes.ram == ram_bytes(network) and 0 < sizes.code <= 8192
    assert f"#define NET_RAM {sizes.ram}\n" in (made / "net.h").read_text()
    if tool := shutil.which("size"):
        shown = subprocess.run([tool, str(tmp_path / "net-Os.o")], capture_output=True, text=True, check=True).stdout
        assert shown.splitlines()[1].split()[1:3] == ["0", str(sizes.ram)]  # .data, .bss


def test_the_check_finds_what_is_wrong(made: Path, tmp_path: Path) -> None:
    """By the Makefile: 0 as it was written, the number of the first wrong input where a weight is another."""
    if shutil.which("make") is None:
        pytest.skip("no make")
    folder = tmp_path / "device"
    shutil.copytree(made, folder)
    make = ["make", "-s", "-C", str(folder), "CFLAGS=-O1"]
    assert subprocess.run([*make, "check"], capture_output=True).returncode == 0
    text = (folder / "net.c").read_text()
    first = re.search(r"(const float net_offset\[\d+\] = \{\n  )([-0-9.e]+)f", text)
    assert first is not None
    (folder / "net.c").write_text(text.replace(first[0], f"{first[1]}{float(first[2]) + 1!r}f", 1))
    subprocess.run([*make, "net_check"], check=True)
    assert subprocess.run([folder / "net_check"]).returncode == 1


def test_the_metadata_state_the_files_and_their_digests(made: Path) -> None:
    values = json.loads((made / "net.json").read_text())
    stated = values.pop("sha256")
    body = json.dumps(values, ensure_ascii=True, allow_nan=False, sort_keys=True)
    assert stated == hashlib.sha256(body.encode()).hexdigest()
    for name, digest in values["files"].items():
        assert hashlib.sha256((made / name).read_bytes()).hexdigest() == digest
    file = read_model_file(OLD / "classify.onnx")
    assert file.metadata is not None and values["metadata"] == json.loads(json.dumps(file.metadata.to_json()))
    assert values["needs"]["tables"] == table_bytes(network_of(file), pixels=True)
    assert values["input"] == [*file.metadata.preprocess.size, 3] and values["outputs"][0]["name"] == "logits"


def test_without_a_compiler_it_is_written_and_said_to_be_unverified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(compiler, "compiler", lambda: None)
    file = save(tmp_path / "m.onnx", one("Relu"))
    assert main(["export", str(file), "--to", "c", "--out", str(tmp_path / "d")]) == 0
    text = capsys.readouterr().out
    assert "not verified: no C compiler" in text and "an estimate" in text and "verified with" not in text
    assert (tmp_path / "d" / "net.c").is_file()


def test_nothing_is_written_where_the_compiled_source_computes_something_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = save(tmp_path / "m.onnx", one("Relu")), tmp_path / "d"
    with monkeypatch.context() as patch:
        patch.setenv("CC", "cc -Dnet_run=1")
        assert main(["export", str(file), "--to", "c", "--out", str(out)]) == 1
        assert "does not compile" in capsys.readouterr().err.splitlines()[-1]
    run = compiler.run_inputs
    monkeypatch.setattr(compiler, "run_inputs", lambda *given: run(*given) * np.float32(1.01))
    assert main(["export", str(file), "--to", "c", "--out", str(out)]) == 1
    assert "outputs differ in C" in capsys.readouterr().err.splitlines()[-1]
    assert not out.exists() and not list(tmp_path.glob("*.part*")) and not list(tmp_path.glob(".*"))
    with pytest.raises(VerificationError):
        compiler.build(["false"], tmp_path, ("m.onnx",), "m.o")


def test_fit_says_where_it_peaks_and_what_would_fit(capsys: pytest.CaptureFixture[str]) -> None:
    target = str(OLD / "classify.onnx")
    assert main(["fit", target, "--ram", "64K", "--flash", "64K", "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    network = network_of(read_model_file(target))
    needs = needs_of(network, values["needs"]["code"])
    assert (
        values["fits"] and values["needs"]["ram"] == ram_bytes(network) and values["needs"]["weights"] == needs.weights
    )
    peak = values["needs"]["peaks"][0]
    assert peak["bytes"] == 4 * max(live_numbers(network)) <= values["needs"]["ram"]
    assert main(["fit", target, "--ram", "20K", "--flash", "40K", "--json"]) == 1
    values = json.loads(capsys.readouterr().out)
    height, width = values["input_that_fits"]
    assert 0 < height < values["input"][0] and height == width and values["layers_over_ram"]
    held = " ".join(values["layers_without_which_flash_fits"])
    assert "conv" in held or "pointwise" in held
    assert main(["fit", target, "--ram", "20K"]) == 1
    text = capsys.readouterr().out
    assert "does not fit: " in text and f"an input of {height} x {width} would fit" in text and "in int8" in text
    assert main(["fit", target]) == 0 and "no limit given" in capsys.readouterr().out


def test_what_does_not_fit_is_not_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for limits, named in ((["--ram", "20K"], "of RAM"), (["--flash", "30K"], "of flash")):
        given = ["export", str(OLD / "classify.onnx"), "--to", "c", *limits, "--out", str(tmp_path / "d")]
        assert main(given) == 2
        error = capsys.readouterr().err.splitlines()[-1]
        assert named in error and "layer" in error and "quantise" in error and not (tmp_path / "d").exists()


def averages() -> bytes:
    """Means with padding that counts and that does not, of windows that reach over the edge."""
    g = Graph()
    stem = g.add("Relu", g.conv("x", CHANNELS, 12))
    left = g.add("AveragePool", stem, kernel_shape=[3, 3], pads=[1] * 4, count_include_pad=1)
    right = g.add("AveragePool", stem, kernel_shape=[3, 3], pads=[1] * 4)
    joined = g.add("Concat", left, right, axis=1)
    return g.quantised(g.conv(g.add("AveragePool", joined, kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1), 24, 8), 8)


def resized(mode: str, sides: int) -> bytes:
    g = Graph()
    stem = g.add("Relu", g.conv("x", CHANNELS, 8, 3))
    g.constants["scales"] = np.array([1, 1, sides, sides], np.float32)
    more = {"mode": mode, "coordinate_transformation_mode": "half_pixel"}
    more |= {"nearest_mode": "floor"} if mode == "nearest" else {}
    return g.quantised(g.conv(g.add("Resize", stem, "", "scales", **more), 8, 8), 8)


def depth_to_space() -> bytes:
    g = Graph()
    return g.quantised(g.conv(g.add("DepthToSpace", g.conv("x", CHANNELS, 12), blocksize=2), 3, 8), 8)


BYTES_CASES = {
    "averages": (averages, ()),
    "linear by 2": (resized, ("linear", 2)),
    "linear by 4": (resized, ("linear", 4)),
    "nearest by 3": (resized, ("nearest", 3)),
    "depth to space": (depth_to_space, ()),
}


@pytest.mark.parametrize("name", tiered(BYTES_CASES, ("averages", "linear by 2")))
def test_other_operations_on_bytes_are_the_reference_to_the_last_bit(name: str, tmp_path: Path) -> None:
    """ONNX Runtime computes some of these in floats, and cuts off where a resize of bytes is rounded here."""
    build, arguments = BYTES_CASES[name]
    file, batch = parse_model_file(build(*arguments), "net.onnx"), images(2)
    network = built(file, tmp_path, "-O0", *SANITISED)
    outputs = outputs_of(network, tmp_path, batch, *SANITISED)
    given = input_bytes(network, np.ascontiguousarray(batch.transpose(0, 2, 3, 1)).reshape(len(batch), -1))
    np.testing.assert_array_equal(outputs.view(np.uint32), byte_outputs(network.program, given))
    runtime = "onnxruntime" if name == "depth to space" else "reference"  # which lacks it
    wanted = flattened(open_model(file, runtime).run(batch))
    assert np.abs(outputs - wanted).max() <= 0.02 * float(np.abs(wanted).max())
