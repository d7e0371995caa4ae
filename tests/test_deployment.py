"""The deployment half: installed alone it predicts, and it starts quickly."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL
import pytest

import gossamer
from gossamer.cli.main import main
from gossamer.export.convert import to_onnx
from gossamer.export.formats import export
from gossamer.modelfile.metadata import without_metadata
from gossamer.networks import create_model
from gossamer.runtime import native
from gossamer.settings import Settings
from gossamer.training.restore import load_run, torch_forward
from tests.conftest import once

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def model(image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported model file of a run of one epoch; not to be changed."""

    def fill(root: Path) -> None:
        gossamer.train(
            Settings(data=str(image_folder), out=str(root / "run"), net="mobilenet_v2", width=0.25, input="32", epochs=1, batch=8,
                     precision="float32", memory_format="channels_last", workers=0)
        )  # fmt: skip
        export(root / "run", root / "model.onnx")

    return once(tmp_path_factory, "deployment", fill) / "model.onnx"


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a Python that has gossamer's wheel, numpy, pillow and nothing else."""

    def fill(site: Path) -> None:
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
        subprocess.run(
            [*pip, "install", "--no-deps", "--no-build-isolation", "--target", str(site), str(ROOT)], check=True
        )
        for package in (np, PIL):
            folder = Path(package.__file__).parent
            (site / folder.name).symlink_to(folder)
            for libraries in folder.parent.glob(f"{'numpy' if package is np else 'pillow'}.libs"):
                (site / libraries.name).symlink_to(libraries)

    site = once(tmp_path_factory, "bare installation", fill)
    return {"PYTHONPATH": str(site), "PATH": os.environ.get("PATH", ""), "HOME": os.environ.get("HOME", "")}


def python(bare: dict[str, str], *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    # -S leaves out site-packages, and with it everything that is installed beside gossamer
    return subprocess.run(
        [sys.executable, "-S", *map(str, arguments)], env=bare, capture_output=True, text=True, timeout=120
    )


@pytest.mark.full
def test_the_bare_installation_has_nothing_else(bare: dict[str, str]) -> None:
    assert python(bare, "-c", "import numpy, PIL, gossamer").returncode == 0
    for name in ("torch", "onnxruntime", "rich", "yaml", "safetensors"):
        assert python(bare, "-c", f"import {name}").returncode != 0


@pytest.mark.full
def test_predict_and_verify_need_numpy_and_pillow_only(bare: dict[str, str], model: Path, image_folder: Path) -> None:
    images = sorted((image_folder / "val" / "class1").iterdir())[:3]
    done = python(bare, "-m", "gossamer", "predict", model, *images, "--top", "3", "--json")
    assert done.returncode == 0, done.stderr
    predictions = json.loads(done.stdout)["predictions"]
    network = load_run(model.parent / "run")
    batch = np.stack([network.preprocess(path) for path in images])
    logits = torch_forward(network.model)(batch).astype(np.float64)
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    for prediction, expected in zip(predictions, probabilities, strict=True):
        named = dict(zip(prediction["classes"], prediction["scores"], strict=True))
        np.testing.assert_allclose([named[name] for name in network.classes], expected, atol=1e-5)
    assert python(bare, "-m", "gossamer", "verify", model).returncode == 0


@pytest.mark.full
def test_what_needs_more_says_which_extra(bare: dict[str, str], image_folder: Path, model: Path) -> None:
    for arguments, extra in [
        (["train", image_folder], "gossamer[train]"),
        (["verify", model, "--runtime", "onnxruntime"], "gossamer[onnx]"),
        (["verify", model, "--runtime", "openvino"], "gossamer[openvino]"),
        (["report", model.parent / "run"], "gossamer["),
        (["export", model.parent / "run", "--out", "x.onnx"], "gossamer["),
    ]:
        done = python(bare, "-m", "gossamer", *arguments)
        assert done.returncode == 2, (arguments, done.stderr)
        assert extra in done.stderr.splitlines()[-1]
        assert "Traceback" not in done.stderr


@pytest.mark.full
def test_doctor_works_in_the_bare_installation(bare: dict[str, str]) -> None:
    done = python(bare, "-m", "gossamer", "doctor")
    assert done.returncode == 0, done.stderr
    assert "pip install" in done.stdout


def test_importing_gossamer_loads_nothing_but_a_little_of_the_standard_library() -> None:
    """Milliseconds are for benchmarks; what they would come from is named here."""
    code = "import sys; before = set(sys.modules); import gossamer; print(*(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert "gossamer" in loaded
    assert loaded - {"gossamer"} <= set(sys.stdlib_module_names)
    assert not loaded & {"asyncio", "inspect", "logging", "multiprocessing", "ssl", "subprocess", "urllib"}


def test_preprocessing_gives_the_bits_of_training(image_folder: Path, model: Path) -> None:
    """What evaluation feeds the network while training, and what the model file's metadata makes of the same file."""
    from gossamer.data.augment import EvalTransform
    from gossamer.training.restore import preprocess_of

    network = load_run(model.parent / "run")
    metadata = gossamer.load(model).metadata
    assert metadata is not None
    for path in sorted((image_folder / "val").rglob("*.png"))[:4]:
        in_training = EvalTransform(preprocess_of(network.settings))(path.read_bytes())
        mine = preprocess_of(network.settings).normalise(in_training[None])[0]
        assert np.array_equal(mine, metadata.preprocess(path))


class Pictures:
    """As ONNX Runtime's quantiser reads them."""

    def __init__(self, path: Path, images: list[Path]) -> None:
        preprocess = gossamer.load(path).need_metadata().preprocess
        self.left = iter([{"input": preprocess(image)[None]} for image in images])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.left, None)


@pytest.mark.skipif(not native.LIBRARY.is_file(), reason="the native engine is not built: make engine")
@pytest.mark.full
def test_a_quantised_file_compiles_with_the_metadata_of_its_original(
    model: Path, image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A quantiser changes the graph under the metadata; the original's brings back preprocessing, classes and check inputs."""
    quantization = pytest.importorskip("onnxruntime.quantization")
    images, few, out = sorted((image_folder / "val" / "class1").iterdir()), tmp_path / "few.onnx", tmp_path / "few.goss"
    quantization.quantize_static(
        model, few, Pictures(model, images), quant_format=quantization.QuantFormat.QDQ, per_channel=True
    )
    assert main(["compile", str(model), "--precision", "int8", "--out", str(out)]) == 2
    assert "compile that with --metadata" in capsys.readouterr().err
    assert main(["compile", str(few), "--out", str(out)]) == 2
    assert "name that one by --metadata" in capsys.readouterr().err and not out.exists()
    assert (
        main(["compile", str(few), "--metadata", str(model), "--images", str(images[0].parent), "--out", str(out)]) == 0
    )
    text = capsys.readouterr().out
    assert "int8 as in the file" in text and "check inputs beside the trained network" in text
    assert main(["verify", str(out)]) == 0
    compiled, original = gossamer.load(out), gossamer.load(model)
    assert compiled.need_metadata().classes == original.need_metadata().classes and compiled.runtime_name == "native"
    batch = np.stack([original.need_metadata().preprocess(image) for image in images])
    difference = np.abs(np.asarray(compiled.run(batch)) - np.asarray(original.run(batch))).max()
    assert 0 < difference < 0.25 * np.ptp(np.asarray(original.run(batch)))
    plain = tmp_path / "plain.onnx"
    plain.write_bytes(without_metadata(model.read_bytes()))
    other = tmp_path / "other.onnx"
    smaller = create_model("mobilenet_v2", num_classes=2, width=0.25).eval()
    other.write_bytes(to_onnx(smaller, (64, 64)))
    for metadata, graph, what in (
        (plain, few, "which has none"),
        (model, other, "input 3x64x64"),
        (tmp_path / "no", few, "check the path"),
    ):
        assert main(["compile", str(graph), "--metadata", str(metadata), "--out", str(tmp_path / "x.goss")]) == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1 and what in lines[0]
