"""Layers of an int8 file that stay in floats: what each runtime computes them in, and what the file says of it."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gossamer
from gossamer.cli.main import main
from gossamer.compile.write import compile_bytes
from gossamer.modelfile.metadata import parse_model_file, read_model_file
from gossamer.runtime import compilation, native
from gossamer.runtime.model import open_model
from gossamer.shrink import scoring
from gossamer.shrink.graph import OnnxGraph, OnnxSession
from gossamer.shrink.qdq import LOWEST, QuantisationChoice, quantised_model
from gossamer.shrink.ranges import best_range, in_batches, measure_ranges
from gossamer.shrink.scoring import Scoring, int8_file
from gossamer.shrink.sensitivity import LayerNoise, table
from gossamer.shrink.times import in_turns
from tests.test_quantise import COMPAT, GRAPHS, images
from tests.test_quantise_input import PHOTOS, run_with_data

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
engine = pytest.mark.skipif(not native.LIBRARY.is_file(), reason="the native engine is not built: make engine")
BRIEFLY = functools.partial(in_turns, rounds=1, seconds=0.01)  # in place of two seconds a file: nothing asks how exact
ISAS = ("reference", "portable", "avx2", "avx512", "avx512_vnni", "avx512_bf16", "amx", "neon", "neon_dotprod")


def int8_with_a_float_layer(precision: str = "bfloat16", places: slice = slice(1, 3)) -> bytes:
    """The classifier of the compatibility files in int8, some layers in floats."""
    source = read_model_file(COMPAT / "classify.onnx")
    graph = OnnxGraph(source.data, source.outputs, source.path)
    batch = np.random.default_rng(0).standard_normal((8, *source.onnx.input.shape[1:])).astype(np.float32)
    ranges = {name: best_range(value) for name, value in measure_ranges(graph, in_batches(batch)).items()}
    names = [node.name for node in graph.weighted()[places]]
    return int8_file(
        source, quantised_model(graph, QuantisationChoice(ranges, frozenset(names))), None, names, precision
    )


@engine
@pytest.mark.parametrize("name", GRAPHS)
def test_a_layer_in_floats_is_in_floats_in_every_runtime(name: str) -> None:
    graph, x = OnnxGraph(GRAPHS[name](), ["y"], name), images(12, seed=9)
    ranges = {name: best_range(value) for name, value in measure_ranges(graph, in_batches(images(16))).items()}
    for node in graph.weighted()[1:3]:
        data = quantised_model(graph, QuantisationChoice(ranges, frozenset({node.name})))
        (expected,) = OnnxSession(data, exact=True).run(x)  # as the graph says
        file = parse_model_file(data, "net.onnx")
        for runtime in ("onnxruntime", "native", "reference"):
            actual = np.asarray(open_model(file, runtime).run(x))
            assert np.abs(actual - expected).max() < 1e-3 * np.abs(expected).max(), runtime
        nodes = onnx.load_from_string(data).graph.node
        clips = [one for one in nodes if LOWEST in one.input]
        between = any(f"{node.input[0]}.dequantised" in one.output for one in nodes)
        assert [one.op_type for one in clips] == ["Clip"] * between


@engine
def test_compile_takes_bfloat16_where_the_file_and_the_processor_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file, plain, out = tmp_path / "q.onnx", tmp_path / "p.onnx", tmp_path / "q.goss"
    file.write_bytes(int8_with_a_float_layer())
    plain.write_bytes(int8_with_a_float_layer("float32"))
    said = read_model_file(file).metadata
    assert said is not None and said.provenance["quantised"]["float_layers"]["precision"] == "bfloat16"

    def in_bfloat16(path: Path, *words: str) -> bool:
        """Whether the weights of the layer in floats take half their bytes."""
        assert main(["compile", str(path), "--out", str(out), *words]) == 0
        float32 = len(compile_bytes(read_model_file(path))[0])
        return out.stat().st_size < float32 - 100

    monkeypatch.setattr(compilation, "NATIVE_BFLOAT16", ISAS)
    assert in_bfloat16(file)
    assert "int8 as in the file, the rest bfloat16" in capsys.readouterr().out
    assert main(["verify", str(out)]) == 0
    assert not in_bfloat16(file, "--precision", "fp32")
    assert not in_bfloat16(plain)
    monkeypatch.setattr(compilation, "NATIVE_BFLOAT16", ())
    capsys.readouterr()
    assert not in_bfloat16(file)
    assert "int8 as in the file;" in capsys.readouterr().out
    assert in_bfloat16(file, "--precision", "bf16")


@pytest.mark.parametrize(
    "quantised",
    [None, "int8", {}, {"float_layers": None}, {"float_layers": ["bfloat16"]}, {"float_layers": {"precision": 3}}],
)
def test_what_a_file_says_of_its_layers_may_be_anything(quantised: Any) -> None:
    metadata = type("Metadata", (), {"provenance": {"quantised": quantised}})()
    assert not compilation._wants_bfloat16(type("File", (), {"metadata": metadata})())  # type: ignore[arg-type]
    assert not compilation._wants_bfloat16(type("File", (), {"metadata": None})())  # type: ignore[arg-type]


def test_the_table_shows_what_layers_regain_where_that_was_measured() -> None:
    plain = table([LayerNoise("a", "Conv", 20.0, 0.5)])
    assert "points back" not in plain
    shown = table(
        [LayerNoise("a", "Conv", 20.0, 0.5, regained=1.234, extra_ms=0.05), LayerNoise("b", "Conv", 30.0, 0.1)]
    )
    assert "points back" in shown and "+1.23" in shown and "+0.050" in shown


@engine
@pytest.mark.full
@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_a_fallback_is_scored_as_it_will_run_and_written_down(
    precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "NATIVE_BFLOAT16", ISAS if precision == "bfloat16" else ())
    monkeypatch.setattr(scoring, "in_turns", BRIEFLY)
    run, out = run_with_data(tmp_path), tmp_path / "q.onnx"
    after, scored = Scoring.after, []

    def worse(self: Scoring, graph: Any, choice: Any) -> dict[str, float]:
        """The int8 file has lost what a layer in floats brings back."""
        values = after(self, graph, choice)
        return values if choice.float_layers else {name: value - 0.5 for name, value in values.items()}

    of = Scoring._of

    def noted(self: Scoring, model: Any, what: str) -> dict[str, float]:
        scored.append((model.runtime_name, what))
        return of(self, model, what)

    monkeypatch.setattr(Scoring, "after", worse)
    monkeypatch.setattr(Scoring, "_of", noted)
    result = gossamer.quantize(run, out, images=str(PHOTOS), count=12, max_drop=30.0)
    assert (
        len(result.float_layers) == 1 and ("native", f"scoring int8 with {precision}") in scored
    ) or precision == "float32"
    assert any(line.startswith(f"layers in float: {precision}") for line in result.steps)
    (layer,) = (one for one in result.layers if one.name in result.float_layers)
    assert layer.precision == precision and layer.extra_ms is not None and layer.regained is not None
    metadata = read_model_file(out).metadata
    assert metadata is not None
    known = metadata.provenance["quantised"]["float_layers"]
    assert known == {"names": list(result.float_layers), "precision": precision}
