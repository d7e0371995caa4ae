"""int8 files of gossamer beside those of ONNX Runtime's quantiser and NNCF: same checkpoint, same images, same runtime.

    python benchmarks/shrink.py --run runs/flowers
    python benchmarks/shrink.py --run runs/flowers --trap 0 --json result.json
    python benchmarks/shrink.py --run runs/flowers --curve picture.svg --minutes 10 --folder SCRATCH

--run: a trained run; its training images calibrate every side and its validation images score them. --trap SEED rescales
every residual stream of the float network by random powers of two from 2^-3 to 2^3 per channel, which changes no output
and is how real networks come. Sides: ours with weights of 8 and of 7 bits, ONNX Runtime's quantize_static by default and per
channel (both after its own pre-processing), NNCF by default, with its slower bias correction and with accuracy control, where it
is installed. Times are of ONNX Runtime, batch 1, one thread, each measurement a process of its own, the files in turn: the
median over the rounds with its extremes. Ours and the float file are timed in the native engine as well, as this processor runs
it and with GOSSAMER_ISA=avx2, where 7 bits are for. --curve draws accuracy against milliseconds of three pipelines that prune and
quantise (pipelines.py), over the --fractions of the run's milliseconds.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import gossamer
from gossamer.host.text import format_table
from gossamer.modelfile.metadata import ModelFile, model_file_bytes, parse_model_file, read_model_file
from gossamer.shrink.calibration import calibration, images_to_read, spread
from gossamer.shrink.channels import channel_sets
from gossamer.shrink.equalise import rescale
from gossamer.shrink.graph import OnnxGraph, OnnxSession
from gossamer.shrink.ranges import in_batches, measure_ranges
from gossamer.shrink.sensitivity import decibels
from gossamer.tasks.registry import task_of
from gossamer.training.evaluate import evaluate
from gossamer.training.restore import run_data

SECONDS = 0.5  # of timed runs in one process

Images = NDArray[np.float32]


def trapped(data: bytes, outputs: Sequence[str], images: Images, seed: int) -> tuple[bytes, int]:
    """The float network with every residual stream rescaled by powers of two, and how many channels that were."""
    graph = OnnxGraph(data, outputs, "the run")
    sets = channel_sets(graph, measure_ranges(graph, in_batches(images[:8])))
    streams = {int(one) for node in graph.nodes if node.op_type == "Add" for one in sets.of.get(node.output[0], ())}
    draw = np.random.default_rng(seed)
    factors = np.exp2(draw.integers(-3, 4, len(sets.pinned))).astype(np.float64)
    chosen = np.isin(np.arange(len(factors)), sorted(streams)) & ~sets.pinned
    factors[~chosen] = 1.0
    for link in sets.links:
        rescale(graph, link.node, link.kind, factors[link.sets], None if link.other is None else factors[link.other])
    return graph.model(), int(chosen.sum())


def by_onnxruntime(source: Path, out: Path, images: Images, per_channel: bool) -> None:
    """ONNX Runtime's own quantiser, after its pre-processing; what is not set is its default."""
    from onnxruntime.quantization import CalibrationDataReader, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    name = OnnxSession(source.read_bytes()).input.name

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
        def __init__(self) -> None:
            self.left = iter(images)

        def get_next(self) -> dict[str, Images] | None:
            image = next(self.left, None)
            return None if image is None else {name: image[None]}

    prepared = source.with_suffix(".prepared.onnx")
    quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
    quantize_static(str(prepared), str(out), Reader(), per_channel=per_channel)


def by_nncf(
    source: Path, out: Path, images: Images, kind: str = "", accuracy: Callable[[bytes], float] | None = None
) -> None:
    """NNCF's post-training quantisation. Its telemetry package is hidden before it is imported.

    kind: "" for its default, "bias correction" for the slower one, "accuracy control" with `accuracy`, the score of a model
    on validation images as a fraction, and at most 1 point lost, its default.
    """
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # NNCF then has a stub that sends nothing
    import nncf
    import onnx

    model = onnx.load(str(source))
    name = OnnxSession(source.read_bytes()).input.name
    dataset = nncf.Dataset(list(images), lambda image: {name: image[None]})
    count = len(images)
    if kind == "accuracy control":
        assert accuracy is not None, "what it controls"
        result = nncf.quantize_with_accuracy_control(
            model,
            dataset,
            nncf.Dataset([0]),
            lambda one, _: (accuracy(one.SerializeToString()), None),
            subset_size=count,
        )
    else:
        result = nncf.quantize(model, dataset, subset_size=count, fast_bias_correction=kind != "bias correction")
    onnx.save(result, str(out))


def measured(
    data: bytes, source: ModelFile, run: gossamer.Run, scored: int, outputs: bool = True
) -> tuple[dict[str, float], list[Any]]:
    """Metrics of a model on the run's validation images, and its outputs on the first of them."""
    assert source.metadata is not None
    session, heads = OnnxSession(data), source.outputs
    images = run_data(run).val
    task = task_of(run.settings.task)(run.classes, run.settings)
    validation = images.select(np.asarray(spread(len(images), scored)))

    def forward(batch: Images) -> Any:
        values = session.run(batch, list(heads))
        return values[0] if len(values) == 1 else dict(zip(heads, values, strict=True))

    metrics = evaluate(forward, validation, source.metadata.preprocess, task.scorer()).scores().metrics
    if not outputs:
        return dict(metrics), []
    pixels = [source.metadata.preprocess.pixels(validation.read(index)) for index in range(min(256, len(validation)))]
    return dict(metrics), session.run(source.metadata.preprocess.normalise(np.stack(pixels)), list(heads))


def time_file(path: str) -> None:
    """Print the median milliseconds of a file; the work of one process."""
    session = OnnxSession(Path(path).read_bytes(), threads=1)
    shape = [1, *(side if isinstance(side, int) else 1 for side in session.input.shape[1:])]
    batch = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    for _ in range(3):
        session.run(batch)
    took, end = [], time.perf_counter() + SECONDS
    while time.perf_counter() < end or len(took) < 5:
        start = time.perf_counter_ns()
        session.run(batch)
        took.append((time.perf_counter_ns() - start) / 1e6)
    print(statistics.median(took))


def time_in_engine(path: str) -> None:
    """Print the median milliseconds of a compiled file; the work of one process."""
    from gossamer.runtime.native import Native

    engine = Native(path, 1)
    batch = np.random.default_rng(0).standard_normal((1, *engine.input_shape[1:])).astype(np.float32)
    took, end = [], time.perf_counter() + SECONDS
    while time.perf_counter() < end or len(took) < 8:
        start = time.perf_counter_ns()
        engine(batch)
        took.append((time.perf_counter_ns() - start) / 1e6)
    print(statistics.median(took[3:]))


def engine_times(files: dict[str, Path], rounds: int) -> tuple[dict[str, dict[str, float]], dict[str, str]]:
    """Milliseconds of files in the engine, in turn: name -> instruction set -> median; and why some were not timed."""
    from gossamer.compile.write import compile_file
    from gossamer.runtime import native

    problems, compiled = {}, {}
    if not native.LIBRARY.is_file():
        return {}, {"native engine": "is not built"}
    for name, path in files.items():
        try:
            compiled[name] = compile_file(path, path.with_suffix(".goss"))
        except gossamer.GossamerError as error:
            problems[f"{name} in the native engine"] = str(error)
    took: dict[str, dict[str, list[float]]] = {name: {"": [], "avx2": []} for name in compiled}
    for _ in range(rounds):
        for isa in ("", "avx2"):
            for name, path in compiled.items():
                words = [sys.executable, __file__, "--time-engine", str(path)]
                environment = {**os.environ, **({"GOSSAMER_ISA": isa} if isa else {})}
                done = subprocess.run(words, capture_output=True, text=True, env=environment)
                if done.returncode:  # a processor without it
                    problems[f"{name}, {isa or 'this processor'}"] = (done.stderr.strip().splitlines() or ["?"])[-1][
                        :200
                    ]
                else:
                    took[name][isa].append(float(done.stdout))
    medians = {name: {isa: statistics.median(ms) for isa, ms in by.items() if ms} for name, by in took.items()}
    return medians, problems


def times(files: dict[str, Path], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each file in each round, the files in turn, each measurement in a process of its own."""
    result: dict[str, list[float]] = {name: [] for name in files}
    for _ in range(rounds):
        for name, path in files.items():
            words = [sys.executable, __file__, "--time", str(path)]
            done = subprocess.run(words, capture_output=True, text=True, check=True)
            result[name].append(float(done.stdout))
    return result


def compare(run_folder: str, count: int, scored: int, rounds: int, trap: int | None, folder: Path) -> dict[str, Any]:
    """All sides of a run. Files are written into `folder`."""
    from gossamer.export.formats import export

    run = gossamer.Run.open(run_folder)
    exported = folder / "exported.onnx"
    export(run_folder, exported)
    source = read_model_file(exported)
    assert source.metadata is not None
    preprocess, train = source.metadata.preprocess, run_data(run).train
    chosen = spread(len(train), count)
    photos = folder / "images"
    photos.mkdir()
    for place, index in enumerate(chosen):  # the encoded images, as every side decodes them
        (photos / f"{place:06}{Path(train.names[index]).suffix or '.png'}").write_bytes(train.read(index))
    seen = calibration([images_to_read(train)[index] for index in chosen], preprocess, count, [])
    images = np.concatenate([seen.used, seen.held])
    plain, streams = OnnxGraph(source.data, source.outputs, "the run").model(), 0
    if trap is not None:
        plain, streams = trapped(source.data, source.outputs, images, trap)
    files = {"float": folder / "float.onnx"}
    files["float"].write_bytes(plain)
    ours = folder / "source.onnx"
    ours.write_bytes(model_file_bytes(plain, source.metadata))
    score = task_of(run.settings.task).score

    def accuracy(data: bytes) -> float:
        return measured(data, parse_model_file(ours.read_bytes(), "float"), run, scored, outputs=False)[0][score]

    sides: dict[str, Callable[[Path], Any]] = {
        "gossamer": lambda out: gossamer.quantize(ours, out, images=[str(photos)], count=max(8, len(chosen))),
        "gossamer 7 bits": lambda out: gossamer.quantize(
            ours, out, images=[str(photos)], count=max(8, len(chosen)), weight_bits=7
        ),
        "onnxruntime": lambda out: by_onnxruntime(files["float"], out, images, False),
        "onnxruntime per channel": lambda out: by_onnxruntime(files["float"], out, images, True),
        "nncf": lambda out: by_nncf(files["float"], out, images),
        "nncf bias correction": lambda out: by_nncf(files["float"], out, images, "bias correction"),
        "nncf accuracy control": lambda out: by_nncf(files["float"], out, images, "accuracy control", accuracy),
    }
    problems, seconds = {}, {}
    for name, quantise in sides.items():
        out, started = folder / f"{name.replace(' ', '-')}.onnx", time.perf_counter()
        try:
            quantise(out)
        except ImportError as error:
            problems[name] = f"{error.name} is not installed"
            continue
        except Exception as error:  # a peer may raise anything; ours must not
            if name.startswith("gossamer"):
                raise
            problems[name] = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            continue
        files[name], seconds[name] = out, time.perf_counter() - started
    took = times(files, rounds)
    own = {"float": ours, **{name: path for name, path in files.items() if name.startswith("gossamer")}}
    in_engine, more = engine_times(own, rounds)
    problems |= more
    rows = []
    expected: list[Any] = []
    for name, path in files.items():
        metrics, outputs = measured(path.read_bytes(), parse_model_file(ours.read_bytes(), "float"), run, scored)
        expected = expected or outputs
        classes = run.settings.task == "classify"
        rows.append(
            {
                "side": name,
                "score": metrics[score],
                "agreement": float((expected[0].argmax(1) == outputs[0].argmax(1)).mean()) if classes else None,
                "decibels": decibels(expected, outputs),
                "bytes": path.stat().st_size,
                "ms": statistics.median(took[name]),
                "ms_of_rounds": took[name],
                "engine_ms": in_engine.get(name, {}),
                "seconds": seconds.get(name, 0.0),
            }
        )
    images_used = {"calibrated_on": len(images), "metric": score, "trap": trap, "rescaled_channels": streams}
    return {"run": run_folder, **images_used, "problems": problems, "rows": rows}


def text(result: dict[str, Any]) -> str:
    """The table for people."""
    rows = [
        (
            row["side"],
            f"{row['score']:.4f}",
            "-" if row["agreement"] is None else f"{row['agreement']:.1%}",
            f"{row['decibels']:.1f}",
            f"{row['bytes'] / 1e6:.2f}",
            f"{row['ms']:.3f} ({min(row['ms_of_rounds']):.3f} to {max(row['ms_of_rounds']):.3f})",
            *(f"{row['engine_ms'][isa]:.3f}" if isa in row["engine_ms"] else "-" for isa in ("", "avx2")),
            f"{row['seconds']:.0f}",
        )
        for row in result["rows"]
    ]
    header = ("side", result["metric"], "agrees", "dB", "MB", "ms (extremes)", "engine ms", "avx2 ms", "s to make")
    lines = [f"{result['run']}, {result['calibrated_on']} images to calibrate with"]
    if result["trap"] is not None:
        lines.append(f"trap {result['trap']}: {result['rescaled_channels']} channels of residual streams are rescaled")
    problems = [f"{name}: {reason}" for name, reason in result["problems"].items()]
    return "\n".join([*lines, *format_table(header, rows), *problems])


def draw_curves(options: argparse.Namespace) -> int:
    """The picture of the three pipelines, and its table."""
    import pipelines
    from gossamer.charts.chart_file import check_chart_path, write_chart
    from gossamer.host.progress import PlainLines

    check_chart_path(options.curve)
    if not options.folder:
        raise SystemExit("--curve without --folder: the trainings have to lie somewhere")
    folder = Path(options.folder)
    folder.mkdir(parents=True, exist_ok=True)
    result = pipelines.curves(
        options.run, options.fractions, options.minutes, options.count, options.scored, options.rounds, folder, PlainLines(sys.stderr)
    )  # fmt: skip
    write_chart(options.curve, pipelines.picture(result))
    print(pipelines.text(result))
    if options.json:
        Path(options.json).write_text(json.dumps(result, indent=1), encoding="utf-8")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--run", help="a trained run")
    parser.add_argument("--count", type=int, default=128, help="images to calibrate with (default 128)")
    parser.add_argument("--scored", type=int, default=2000, help="validation images at most (default 2000)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of timing (default 5)")
    parser.add_argument("--trap", type=int, metavar="SEED", help="rescale the residual streams by powers of two")
    parser.add_argument("--json", metavar="FILE", help="write the result there")
    parser.add_argument("--time", metavar="FILE", help=argparse.SUPPRESS)
    parser.add_argument("--time-engine", metavar="FILE", help=argparse.SUPPRESS)
    parser.add_argument("--time-openvino", metavar="FILE", help=argparse.SUPPRESS)
    parser.add_argument("--curve", metavar="SVG", help="draw three pipelines that prune and quantise")
    parser.add_argument(
        "--fractions", type=float, nargs="+", default=[1, 0.7, 0.5, 0.35], help="of the run's milliseconds"
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="of each training of --curve (default 10)")
    parser.add_argument("--folder", help="where the trainings of --curve lie; what was begun goes on")
    options = parser.parse_args(arguments)
    if options.time_openvino:
        from pipelines import time_in_openvino

        time_in_openvino(options.time_openvino)
        return 0
    if options.time:
        time_file(options.time)
        return 0
    if options.time_engine:
        time_in_engine(options.time_engine)
        return 0
    if not options.run:
        parser.error("--run is needed")
    if options.curve:
        return draw_curves(options)
    with tempfile.TemporaryDirectory() as folder:
        result = compare(options.run, options.count, options.scored, options.rounds, options.trap, Path(folder))
    print(text(result))
    if options.json:
        Path(options.json).write_text(json.dumps(result, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
