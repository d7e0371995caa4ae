"""Export: torch module to ONNX, run folder to verified model file, or to no file at all."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.onnx._internal.exporter._registration import ONNXRegistry

import gossamer.export.onnx as exporting
from gossamer import runtime
from gossamer.cli.main import main
from gossamer.errors import InputError, MissingPackageError, SettingsError, VerificationError
from gossamer.export.convert import OPSET, machine_path, to_onnx
from gossamer.export.formats import FORMATS, Exported, check_from_file, export, format_of
from gossamer.export.samples import build_check_images, noise
from gossamer.images.preprocess import Preprocess
from gossamer.modelfile.compiled import is_compiled
from gossamer.modelfile.metadata import (
    CheckImage,
    ModelMetadata,
    model_file_bytes,
    parse_model_file,
    read_model_file,
    without_metadata,
)
from gossamer.networks import create_model
from gossamer.operators import OPERATORS
from gossamer.predictions.classes import softmax
from gossamer.runtime.model import open_model
from gossamer.runtime.native import LIBRARY
from gossamer.runtime.verification import VerificationResult
from gossamer.runtime.verification import verify as verify_file
from gossamer.settings import Settings
from gossamer.training.loop import train
from gossamer.training.restore import load_run, run_data, torch_forward
from tests.exports import EXPORTED, NETWORKS, randomised
from tests.runs import installed_runtimes

onnx = pytest.importorskip("onnx")


PRE_ACTIVATION = ("densenet121", "preresnet20", "rir18")  # some norms have no convolution before them to fold into


@pytest.fixture(scope="module")
def small() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return randomised(nn.Sequential(*layers, nn.Dropout(0.5), nn.Linear(4, 5)))


@pytest.mark.parametrize("name", NETWORKS)
def test_every_family_has_the_same_outputs_in_torch_and_in_every_runtime(
    name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    network = EXPORTED[name]
    batch = network.images(3)
    expected = torch_forward(network.model())(batch)
    file = read_model_file(network.file(tmp_path_factory))
    left = {node.op for node in file.onnx.nodes} & {"BatchNormalization", "Dropout"}
    assert left == ({"BatchNormalization"} if name in PRE_ACTIVATION else set())
    for which in installed_runtimes():
        outputs = open_model(file, which).run(batch)
        assert np.abs(outputs - expected).max() < 1e-4 * max(1, np.abs(expected).max()), which


@pytest.mark.full
def test_an_export_says_nothing_of_torchvision_where_it_is_not_installed() -> None:
    """Torch's exporter does, in a line an operator. In a process of its own: this one has torch's tables already."""
    code = (
        "import importlib.util as util\n"
        "found = util.find_spec\n"
        "util.find_spec = lambda name, *more: None if name == 'torchvision' else found(name, *more)\n"
        "import logging, torch\n"
        "from gossamer.export.convert import to_onnx\n"
        "print(len(to_onnx(torch.nn.Conv2d(3, 4, 1), (4, 4))))\n"
        "logging.getLogger('torch.onnx._internal.exporter._registration').warning('torchvision is not installed. Told.')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 100 and done.stderr.count("torchvision") == 1 and "Told." in done.stderr


def test_what_is_written_is_a_valid_onnx_model_with_a_free_batch(small: nn.Module) -> None:
    data = to_onnx(small, (8, 9))
    onnx.checker.check_model(onnx.load_from_string(data), full_check=True)
    file = parse_model_file(data).onnx
    assert file.opset == OPSET >= 17 and file.input.name == "input" and file.output.name == "logits"
    assert file.input.shape == ("batch", 3, 8, 9) and file.output.shape == ("batch", 5)
    model = open_model(parse_model_file(data), "reference")
    for n in (1, 2, 5):
        assert model.run(np.zeros((n, 3, 8, 9), np.float32)).shape == (n, 5)


def test_the_same_model_gives_the_same_bytes_whatever_its_memory_format(small: nn.Module) -> None:
    first = to_onnx(small, (8, 8))
    assert to_onnx(small, (8, 8)) == first
    assert to_onnx(small.to(memory_format=torch.channels_last), (8, 8)) == first


@pytest.mark.full
def test_what_the_tests_keep_of_torch_changes_nothing_that_is_written() -> None:
    """Conversion in a process of its own, where torch builds its tables anew, gives the bytes that it gives here."""
    code = """
import sys, torch
from gossamer.export.convert import to_onnx
from gossamer.networks import create_model
torch.manual_seed(0)
sys.stdout.buffer.write(to_onnx(create_model("shufflenet_v2_x0_5", num_classes=5), (32, 32)))
"""
    alone = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, check=True)
    torch.manual_seed(0)
    assert alone.stdout == to_onnx(create_model("shufflenet_v2_x0_5", num_classes=5), (32, 32))
    table = ONNXRegistry.from_torchlib(opset_version=OPSET)
    assert table is not ONNXRegistry.from_torchlib(opset_version=OPSET)  # each export may add functions of its own
    assert hasattr(ONNXRegistry.from_torchlib, "kept")


def test_the_exported_model_is_left_as_it_is(small: nn.Module) -> None:
    small.train()
    before = {name: value.clone() for name, value in small.state_dict().items()}
    to_onnx(small, (8, 8))
    assert small.training and all(torch.equal(value, before[name]) for name, value in small.state_dict().items())


def test_nothing_of_the_machine_is_left_in_the_model(small: nn.Module) -> None:
    data = to_onnx(small, (8, 8))
    model = onnx.load_from_string(data)
    assert machine_path(data) == ""
    for part in (model, model.graph, *model.graph.node, *model.graph.input, *model.graph.initializer):
        assert not part.doc_string and not part.metadata_props
    for text in (b"File ", b".py", b"torch.nn", b"site-packages"):
        assert text not in data


def test_a_path_of_the_machine_is_detected(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert machine_path(b"x" + str(tmp_path / "a").encode()) != ""
    assert machine_path(b"/nowhere/at/all") == ""


class Branching(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3)) if x.sum() > 0 else x.amax((2, 3))


def test_a_model_that_torch_cannot_export_is_one_clear_error() -> None:
    with pytest.raises(InputError, match="Branching cannot be exported to ONNX") as caught:
        to_onnx(Branching(), (8, 8))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


@pytest.mark.parametrize("package", ["onnx", "onnxscript"])
def test_a_missing_package_names_its_extra(package: str, small: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingPackageError, match=r'pip install "gossamer\[train\]"'):
        to_onnx(small, (8, 8))


# check inputs


def test_noise_is_the_published_recurrence() -> None:
    # SplitMix64 from state 0: e220a8397b1dcdaf, 6e789e6aa1b965f4, 06c45d188009454f, f88bb8a8724c81ec, 1b39896a51a8749b
    assert noise((1, 5), 1, block=1, seed=0).ravel().tolist() == [17 * digit for digit in (0xE, 6, 0, 0xF, 1)]


def test_noise_comes_in_blocks() -> None:
    pixels = noise((5, 7), 3, block=2, seed=1)
    assert pixels.shape == (5, 7, 3) and pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels[0::2][:, 0::2][:2, :3], pixels[1::2][:, 1::2][:2, :3])
    assert len(np.unique(noise((32, 32), 1, block=1, seed=0))) == 16
    assert not np.array_equal(pixels, noise((5, 7), 3, block=2, seed=2))


@pytest.mark.parametrize("size,channels", [((16, 24), 3), ((33, 20), 1), ((224, 224), 3)])
def test_check_images_become_pixels_of_the_input_size(size: tuple[int, int], channels: int) -> None:
    preprocess = Preprocess(size=size, channels=channels, mean=(0.5,) * channels, std=(0.25,) * channels)
    images = build_check_images(preprocess)
    assert [image.name for image in images] == ["jpeg", "png"]
    for image in images:
        assert image.pixels.shape == (*size, channels) and image.pixels.std() > 10
        np.testing.assert_array_equal(preprocess.pixels(image.file), image.pixels)
    assert sum(len(image.file) for image in images) < 400_000


# from a run


@pytest.fixture(scope="module")
def run_folder(image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "tiny"
    train(
        Settings(
            data=str(image_folder),
            out=str(out),
            net="mobilenet_v2",
            width=0.25,
            input="32",
            epochs=1,
            batch=8,
            threads=1,
            workers=0,
            precision="float32",
            memory_format="channels_first",
        )
    )
    return out


@pytest.fixture(scope="module")
def exported(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Exported]:
    path = tmp_path_factory.mktemp("exported") / "model.onnx"
    return path, export(run_folder, path, licence="CC-BY-4.0")


@pytest.fixture
def converted(exported: tuple[Path, Exported], monkeypatch: pytest.MonkeyPatch) -> None:
    """Conversion, which takes seconds, gives what it gave for `exported`."""
    graph = without_metadata(exported[0].read_bytes())
    monkeypatch.setattr(exporting, "to_onnx", lambda *arguments: graph)


def test_a_run_becomes_one_file_that_verifies_everywhere(exported: tuple[Path, Exported]) -> None:
    path, report = exported
    assert [item.name for item in path.parent.iterdir()] == ["model.onnx"]
    onnx.checker.check_model(str(path), full_check=True)
    for name in installed_runtimes():
        result = runtime.verify(path, runtime=name)
        assert result.ok and not result.warnings and len(result.outputs) == 4 and len(result.pixels) == 2
    assert report.size == path.stat().st_size and {one.runtime for one in report.verifications} >= {"reference"}
    assert report.comparison.images == report.comparison.available == 36
    assert report.comparison.trained == report.comparison.file
    assert json.loads(json.dumps(report.to_json()))["comparison"]["changed"] == 0
    assert "36 of 36 validation images" in report.text()


def test_the_metadata_say_where_the_model_comes_from_and_no_path(
    exported: tuple[Path, Exported], run_folder: Path, image_folder: Path
) -> None:
    path, report = exported
    data = path.read_bytes()
    metadata = parse_model_file(data).metadata
    assert (
        metadata is not None and metadata.licence == "CC-BY-4.0" and metadata.classes == ("class0", "class1", "class2")
    )
    provenance = metadata.provenance
    assert provenance["network"] == "mobilenet_v2" and provenance["seed"] == 0 and provenance["date"].endswith("Z")
    assert provenance["settings"]["data"] == image_folder.name and provenance["settings"]["width"] == 0.25
    assert provenance["data"]["fingerprint"] == run_data(load_run(run_folder).run).fingerprint
    assert provenance["metrics"]["accuracy"] == report.comparison.trained["accuracy"]
    for secret in (str(image_folder.parent), str(run_folder.parent), str(Path.home()) + "/"):
        assert secret.encode() not in data


def test_the_file_predicts_from_image_files_as_the_trained_model_does(
    exported: tuple[Path, Exported], run_folder: Path
) -> None:
    source = load_run(run_folder)
    images = run_data(source.run).val
    forward = torch_forward(source.model)
    model = runtime.load(exported[0])
    for i in range(0, len(images), 7):
        tensor = source.preprocess(images.read(i))
        logits = forward(tensor[None])[0]
        prediction = model.predict(images.read(i), top=3)
        np.testing.assert_allclose(sorted(softmax(logits))[::-1], prediction.scores, atol=1e-5)
        assert model.metadata is not None
        np.testing.assert_array_equal(model.metadata.preprocess(images.read(i)), tensor)


def test_verify_and_predict_need_numpy_and_pillow_only(exported: tuple[Path, Exported], image_folder: Path) -> None:
    image = next((image_folder / "val" / "class0").iterdir())
    code = (
        "import sys\n"
        "for name in ('torch', 'onnx', 'onnxruntime', 'openvino', 'safetensors', 'yaml', 'rich'): sys.modules[name] = None\n"
        "from gossamer import runtime\n"
        f"result = runtime.verify({str(exported[0])!r})\n"
        f"plain = runtime.verify({str(exported[0])!r}, runtime='reference')\n"
        f"print(result.runtime, result.ok, runtime.load({str(exported[0])!r}).predict({str(image)!r}).classes[0])\n"
        f"print(plain.runtime, plain.ok, "
        f"runtime.load({str(exported[0])!r}, runtime='reference').predict({str(image)!r}).classes[0])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split()[:2] == ["native" if LIBRARY.is_file() else "reference", "True"]
    assert done.stdout.split()[3:5] == ["reference", "True"]  # whether the engine is built or not
    likeliest = runtime.load(exported[0]).predict(image).classes[0]
    assert done.stdout.split()[2] == done.stdout.split()[5] == likeliest


def test_exporting_again_changes_nothing_but_the_date(
    exported: tuple[Path, Exported], converted: None, run_folder: Path, tmp_path: Path
) -> None:
    export(run_folder, tmp_path / "again.onnx", licence="CC-BY-4.0")
    metadata = [read_model_file(path).metadata for path in (exported[0], tmp_path / "again.onnx")]
    values = [metadata.to_json() for metadata in metadata if metadata]
    for value in values:
        del value["provenance"]["date"]
    assert values[0] == values[1]


def test_the_comparison_can_be_limited_and_says_so(converted: None, run_folder: Path, tmp_path: Path) -> None:
    report = export(run_folder, tmp_path / "m.onnx", images_limit=10)
    assert (report.comparison.images, report.comparison.available) == (10, 36)
    labels = run_data(load_run(run_folder).run).val.labels[exporting._spread(36, 10)]
    assert set(labels.tolist()) == {0, 1, 2}


def refuses(run_folder: Path, out: Path, message: str) -> None:
    out.write_bytes(b"an older file")
    with pytest.raises(VerificationError, match=message):
        export(run_folder, out)
    assert out.read_bytes() == b"an older file" and [item.name for item in out.parent.iterdir()] == [out.name]


def with_model(change: Callable[[nn.Module], None]) -> Callable[..., Any]:
    """A `trained` whose model is changed."""

    def changed(folder: Path, which: str) -> Any:
        source = load_run(folder, which)
        change(source.model)
        return source

    return changed


def shift_bias(model: nn.Module) -> None:
    last = [part for part in model.modules() if isinstance(part, nn.Linear)][-1]
    with torch.no_grad():
        last.bias[1] += 0.01


def test_a_file_of_other_outputs_is_not_written(
    converted: None, run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "load_run", with_model(shift_bias))
    refuses(
        run_folder, tmp_path / "m.onnx", r"does not compute what the trained one does: outputs differ by up to 0\.01"
    )


def test_a_model_whose_outputs_are_nan_is_not_written(
    converted: None, run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def poison(model: nn.Module) -> None:
        with torch.no_grad():
            next(model.parameters()).fill_(float("nan"))

    monkeypatch.setattr(exporting, "load_run", with_model(poison))
    refuses(run_folder, tmp_path / "m.onnx", "outputs are not finite; nothing was written")


@pytest.mark.parametrize(("error", "tolerance"), [(1e-4, 6e-3), (4e-3, 1.6e-2), (7e-2, None)])
def test_the_tolerance_grows_with_the_outputs_for_noise(
    run_folder: Path, error: float, tolerance: float | None
) -> None:
    source = load_run(run_folder)
    pixels = [np.zeros((*source.preprocess.size, source.preprocess.channels), np.uint8)]
    outputs = {"logits": np.array([[60.0, -30.0]], np.float32)}
    model: Any = SimpleNamespace(
        runtime_name="a runtime", run=lambda batch: {"logits": outputs["logits"] + np.float32([0, error])}
    )
    if tolerance is None:
        with pytest.raises(VerificationError, match=r"a runtime does not compute .* 0.07 where 0.06 is allowed"):
            exporting._expected(source, lambda batch: outputs, model, pixels, 1e-4)
    else:
        assert exporting._expected(source, lambda batch: outputs, model, pixels, 1e-4)[1] == pytest.approx(
            tolerance, rel=1e-3
        )
        assert exporting._expected(source, lambda batch: outputs, model, pixels, 0.5)[1] == 0.5


def test_a_network_that_amplifies_the_last_bit_may_differ_by_more(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = load_run(run_folder)
    pixels = [np.zeros((*source.preprocess.size, source.preprocess.channels), np.uint8)]
    outputs = {"logits": np.array([[60.0, -30.0]], np.float32)}
    model: Any = SimpleNamespace(
        runtime_name="a runtime", run=lambda batch: {"logits": outputs["logits"] + np.float32(0.07)}
    )
    monkeypatch.setattr(exporting, "_rounding", lambda model, batch: 0.01)
    assert exporting._expected(source, lambda batch: outputs, model, pixels, 0.0)[1] == pytest.approx(0.28, rel=1e-3)
    monkeypatch.setattr(exporting, "_rounding", lambda model, batch: 0.0065)
    with pytest.raises(VerificationError, match=r"by up to 0.07 where 0.065 is allowed"):
        exporting._expected(source, lambda batch: outputs, model, pixels, 0.0)


def test_rounding_is_measured_against_float64() -> None:
    class Cancels(nn.Module):
        """What is lost by adding a large number and taking it away."""

        def __init__(self, large: float) -> None:
            super().__init__()
            self.large = large

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.large - self.large

    batch = np.full((1, 3, 4, 4), 0.3, np.float32)
    assert exporting._rounding(Cancels(0.0), batch) == 0
    assert 0.01 < exporting._rounding(Cancels(1e6), batch) < 0.07


def test_rounding_is_seen_where_one_order_of_sums_is_lucky() -> None:
    class Lucky(nn.Module):
        """Two equal weights: their products cancel to the last bit, in this order."""

        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.full((2,), 1.25))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 1e6 * x * self.weight[0] - 1e6 * x * self.weight[1]

    batch = np.full((1, 3, 4, 4), 0.3, np.float32)
    model = Lucky()
    assert exporting._outputs(model, batch, torch.float32)[0].abs().max() == 0
    assert 0.001 < exporting._rounding(model, batch) < 0.1  # 1e6 * 0.3 * 1.25 * 2^-22 at most
    assert model.weight.dtype == torch.float32 and model.weight.tolist() == [1.25, 1.25]


def test_a_file_that_fails_its_own_checks_is_not_written(
    converted: None, run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = model_file_bytes

    def wrong_outputs(graph: bytes, metadata: ModelMetadata) -> bytes:
        first = replace(metadata.checks[0], outputs=metadata.checks[0].outputs + np.float32(0.005))
        return real(graph, replace(metadata, checks=(first, *metadata.checks[1:])))

    monkeypatch.setattr(exporting, "model_file_bytes", wrong_outputs)
    refuses(run_folder, tmp_path / "m.onnx", "check inputs 0 differ by up to 0.005")


def test_pixels_that_come_out_otherwise_a_second_time_stop_the_export(
    converted: None, run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other_pixels(preprocess: Preprocess) -> tuple[CheckImage, ...]:
        return tuple(replace(image, pixels=255 - image.pixels) for image in build_check_images(preprocess))

    monkeypatch.setattr(exporting, "build_check_images", other_pixels)
    refuses(run_folder, tmp_path / "m.onnx", "the same image gave two results")


def test_a_network_the_reference_cannot_run_is_exported_with_a_note(
    converted: None, run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.delitem(OPERATORS, "Conv")
    report = export(run_folder, tmp_path / "m.onnx")
    assert [one.runtime for one in report.verifications] == ["native" if LIBRARY.is_file() else "onnxruntime"]
    assert "needs onnxruntime or openvino" in report.notes[0] and "no operator Conv" in report.notes[0]


def test_a_run_is_exported_compiled_by_the_suffix_or_by_name(
    converted: None, run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if not LIBRARY.is_file():
        pytest.skip("the engine is not built")
    exported = export(run_folder, tmp_path / "a.goss", images_limit=10)
    assert exported.format == "goss"
    assert [check.runtime for check in exported.verifications] == ["native"]
    assert exported.verifications[0].path == str(tmp_path / "a.goss")
    assert "compiled for the native engine" in exported.text()
    assert any("check inputs" in note for note in exported.notes)
    assert is_compiled(tmp_path / "a.goss")
    assert main(["export", str(run_folder), "--out", str(tmp_path / "b.bin"), "--to", "goss"]) == 0
    assert is_compiled(tmp_path / "b.bin")
    capsys.readouterr()
    for arguments, expected in (
        (["--out", str(tmp_path / "c.mlmodel")], "no export format has this suffix"),
        (["--out", str(tmp_path / "c.onnx"), "--to", "onx"], "did you mean onnx?"),
    ):
        assert main(["export", str(run_folder), *arguments]) == 2
        error = capsys.readouterr().err.strip().splitlines()
        assert len(error) == 1 and expected in error[0] and "onnx" in error[0]
        assert not list(tmp_path.glob("c.*"))


def test_every_export_format_has_its_two_functions_and_a_suffix_of_its_own() -> None:
    assert len({entry.suffix for entry in FORMATS.values()}) == len(FORMATS)
    for name, entry in FORMATS.items():
        module = importlib.import_module(entry.module)
        functions = ("export_run", "export_file") if entry.folder else ("convert", "verify")
        assert all(callable(getattr(module, function)) for function in functions), name
        assert entry.suffix == "/" or format_of(f"x{entry.suffix.upper()}") == name


def test_a_format_made_from_runs_alone_names_those_of_model_files() -> None:
    alone = [name for name, entry in FORMATS.items() if entry.instead and not entry.folder]
    assert alone
    others = ", ".join(name for name, entry in FORMATS.items() if not entry.instead)
    for name in alone:
        with pytest.raises(SettingsError, match=f"formats of model files: {re.escape(others)};"):
            check_from_file("m.onnx", name)


def test_a_compiled_file_that_does_not_verify_is_not_written(
    converted: None, run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not LIBRARY.is_file():
        pytest.skip("the engine is not built")

    def wrong(path: Path, threads: int) -> VerificationResult:
        return replace(verify_file(path, threads=threads), tolerance=-1.0)

    monkeypatch.setattr("gossamer.export.checked.verify_file", wrong)
    with pytest.raises(VerificationError):
        export(run_folder, tmp_path / "a.goss", images_limit=10)
    assert not list(tmp_path.iterdir())
