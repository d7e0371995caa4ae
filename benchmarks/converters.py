"""Our LiteRT and ncnn files beside those of the field's converters: differences, bytes, seconds to convert, latency in the same runtime.

    python benchmarks/converters.py --rows rows.jsonl --models FOLDER [NETWORK ...] [--converters gossamer,onnx2tf,..]
                                    [--litert-torch PYTHON] [--onnx2tf PYTHON] [--pnnx PYTHON]
    python benchmarks/converters.py --rows rows.jsonl --models FOLDER [NETWORK ...] --time [--rounds 7] [--seconds 0.5]
    python benchmarks/converters.py --rows rows.jsonl --table

Each converter is a command of its own, in the environment whose python is given, since their packages want other versions than
ours; one without is left out. All have the same weights, those of `forms.py`: litert-torch and pnnx the torch module, pnnx once
more and onnx2tf and we the ONNX file. The difference is that of 16 images from ONNX Runtime, and from the same weights in float64,
over the largest output. Latencies: milliseconds of the processor, one thread of one runtime (ai-edge-litert, ncnn in float32), each
file in a new process in each round, in turn; --core pins all of them. What --rows has is not measured again.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from forms import Images
from gossamer.bench import worker
from gossamer.bench.process import Failed, Process

Json = dict[str, Any]
OURS, FORMATS = "gossamer", ("litert", "ncnn")
HERE = Path(__file__).resolve()
WITHIN = 1.02  # of the best: neither slower nor larger
# less exact: the mean error of 16 images, whose own is drawn anew by every order of sums, is known to 1 / sqrt(2 * 16); and
# below the rounding of one float32 there is nothing to be less exact in
KNOWN_TO, ROUNDING = 1.18, 2.0**-24
MOST_SHIFT = 100_000  # bytes: larger ones have pages of their own, which move nothing
LIMIT = 1800.0  # seconds of a conversion
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class Converter(NamedTuple):
    """command: of a folder with the network's forms and its name, by the environment's python. files: what it writes there."""

    name: str
    format: str
    environment: str  # the option that names its python; "" is ours
    command: Callable[[str, str], list[str]]  # of the python and the network, run in the folder
    files: tuple[str, ...]


def _form(name: str) -> Callable[[str, str], list[str]]:
    return lambda python, network: [python, str(HERE.with_name("forms.py")), name, ".", network]


def _export(to: str, out: str) -> Callable[[str, str], list[str]]:
    return lambda python, _: [python, "-m", "gossamer", "export", "net.onnx", "--to", to, "--out", out]


def _onnx2tf(python: str, _: str) -> list[str]:
    return [str(Path(python).with_name("onnx2tf")), "-i", "net.onnx", "-o", "onnx2tf", "-b", "1"]


CONVERTERS = (
    Converter(OURS, "litert", "", _export("litert", "ours.tflite"), ("ours.tflite",)),
    Converter("litert-torch", "litert", "litert_torch", _form("litert_last"), ("litert_last-1",)),
    Converter("litert-torch-plain", "litert", "litert_torch", _form("litert"), ("litert-1",)),
    Converter("onnx2tf", "litert", "onnx2tf", _onnx2tf, ("onnx2tf/net_float32.tflite",)),
    Converter(OURS, "ncnn", "", _export("ncnn", "ours.param"), ("ours.param", "ours.bin", "ours.json")),
    Converter("pnnx", "ncnn", "pnnx", _form("ncnn"), ("ncnn.param", "ncnn.bin")),
    Converter("pnnx-of-onnx", "ncnn", "pnnx", _form("ncnn_of_onnx"), ("ncnn_of_onnx.param", "ncnn_of_onnx.bin")),
    Converter("pnnx-float16", "ncnn", "pnnx", _form("ncnn_default"), ("ncnn_default.param", "ncnn_default.bin")),
)
OTHER_NUMBERS = ("pnnx-float16",)  # shown, but not what ours is compared with


def prepare(folder: Path, network: str) -> None:
    """What all converters start from, and the outputs to compare theirs with."""
    folder.mkdir(parents=True, exist_ok=True)
    for form, file in (("weights", "weights.pt"), ("exact", "exact.npy"), ("onnx", "onnx")):
        if not (folder / file).exists():
            run([sys.executable, str(HERE.with_name("forms.py")), form, ".", network], folder)
    if not (folder / "expected.npy").exists():
        import onnxruntime

        (folder / "net.onnx").write_bytes((folder / "onnx").read_bytes())
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(str(folder / "onnx"), options, providers=["CPUExecutionProvider"])
        checks: Images = np.load(folder / "checks.npy")
        np.save(folder / "expected.npy", np.concatenate([session.run(None, {"input": one[None]})[0] for one in checks]))


def run(command: list[str], folder: Path) -> tuple[float, float]:
    """Seconds and processor seconds of a command. Raises Failed with its last words."""
    home = os.pathsep.join(filter(None, (str(HERE.parents[1] / "src"), os.environ.get("PYTHONPATH"))))
    programs = os.pathsep.join((str(Path(command[0]).parent), os.environ.get("PATH", "")))  # onnx2tf calls onnxsim
    environment = {**os.environ, **dict.fromkeys(THREADS, "1"), "PYTHONPATH": home, "PATH": programs}
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    try:
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=LIMIT)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Failed(f"{type(error).__name__}: {error}"[:300]) from error
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        words = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise Failed(f"exit code {done.returncode}: {words[-1][:300] if words else ''}")
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def converted(one: Converter, python: str, folder: Path, network: str) -> Json:
    """A row: one file of a network by one converter."""
    row: Json = {"network": network, "format": one.format, "by": one.name}
    for name in one.files:
        (folder / name).unlink(missing_ok=True)
    try:
        seconds, processor = run(one.command(python, network), folder)
        row |= {"seconds": seconds, "processor_seconds": processor}
        row["bytes"] = sum((folder / name).stat().st_size for name in one.files)
        with Process(1, [sys.executable, str(HERE), "--worker"]) as process:
            process.ask(_opening(one, folder), LIMIT)
            out = folder / "outputs_of_one.npy"
            process.ask({"do": "outputs", "out": str(out)}, LIMIT)
        return row | differences(*(np.load(folder / f"{name}.npy") for name in ("outputs_of_one", "expected", "exact")))
    except (Failed, OSError) as error:
        return row | {"problem": str(error)}


def differences(outputs: Images, expected: Images, exact: Images) -> Json:
    """difference, error: the largest from ONNX Runtime and from float64, over the largest output. Raises Failed.

    mean_error: the root of the mean square of those from float64, which one unlucky output does not make.
    """
    if outputs.shape != expected.shape:
        raise Failed(f"outputs of {outputs.shape}, not {expected.shape}")
    wide, scale = outputs.astype(np.float64), float(np.abs(exact).max())
    far = np.abs(wide - exact)
    return {
        "difference": float(np.abs(wide - expected).max()) / scale,
        "error": float(far.max()) / scale,
        "mean_error": float(np.sqrt(np.square(far).mean())) / scale,
    }


def _opening(one: Converter, folder: Path) -> Json:
    files = [str(folder / name) for name in one.files[:2]]  # without our card, which the runtime does not read
    return {"do": "open", "format": one.format, "files": files, "checks": str(folder / "checks.npy")}


def timed(network: str, form: str, names: list[str], folder: Path, options: argparse.Namespace) -> Json:
    """A row: the milliseconds of the files of one format, round by round: of the clock and of the processor.

    Every round has processes of its own, whose memory is laid out anew: the same file took up to 10 % longer in one than in another.
    """
    converters = {one.name: one for one in CONVERTERS if one.format == form and one.name in names}
    rounds: dict[str, list[list[float]]] = {name: [] for name in converters}
    shifts = np.random.default_rng(0)
    for number in range(options.rounds):
        for name in converters if number % 2 == 0 else reversed(converters):
            with Process(1, [sys.executable, str(HERE), "--worker"]) as process:
                shift = int(shifts.integers(MOST_SHIFT))
                process.ask({**_opening(converters[name], folder), "shift": shift}, LIMIT)
                reply = process.ask({"do": "measure", "seconds": options.seconds}, LIMIT)
            rounds[name].append([reply["ms"], reply["processor_ms"]])
    return {"network": network, "format": form, "rounds": rounds}


class FileWorker(worker.Worker):
    """Runs one file: `python converters.py --worker`, a JSON line a request as in gossamer.bench.worker.

    {"do": "open", "format": .., "files": [..], "checks": path, "shift": bytes} -> {}; {"do": "outputs", "out": path} -> {};
    {"do": "measure", "seconds": s} -> {"ms", "processor_ms"}, medians of single images
    """

    def reply(self, job: Json) -> Json:
        return {"open": self.open, "outputs": self.outputs, "measure": self.measure}[job["do"]](job)

    def open(self, job: Json) -> Json:
        self.shift = b"\1" * job.get("shift", 0)  # in front of what the runtime keeps
        self.call, shape = {"litert": open_litert, "ncnn": open_ncnn}[job["format"]](*job["files"])
        self.checks: Images = np.load(job["checks"])
        if shape is not None and shape[1:] != self.checks.shape[1:]:  # its images have their channels last
            self.checks = np.ascontiguousarray(self.checks.transpose(0, 2, 3, 1))
        return {}

    def outputs(self, job: Json) -> Json:
        np.save(job["out"], np.concatenate([self.call(one[None]).reshape(1, -1) for one in self.checks]))
        return {}

    def measure(self, job: Json) -> Json:
        image = self.checks[:1]
        clock: list[int] = []
        processor: list[int] = []
        end = time.perf_counter() + job["seconds"]
        while len(clock) < 5 or time.perf_counter() < end:
            first, began = time.perf_counter_ns(), time.process_time_ns()
            self.call(image)
            processor.append(time.process_time_ns() - began)
            clock.append(time.perf_counter_ns() - first)
        return {"ms": statistics.median(clock[2:]) / 1e6, "processor_ms": statistics.median(processor[2:]) / 1e6}


def open_litert(path: str) -> tuple[Callable[[Images], Images], tuple[int, ...]]:
    """What runs one image in a .tflite file, and the shape that the file gives its input."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(path, num_threads=1)  # XNNPACK is its default
    interpreter.allocate_tensors()
    (source,), (out,) = interpreter.get_input_details(), interpreter.get_output_details()

    def call(image: Images) -> Images:
        interpreter.set_tensor(source["index"], image)
        interpreter.invoke()
        made: Images = interpreter.get_tensor(out["index"])
        return made

    return call, tuple(int(side) for side in source["shape"])


def open_ncnn(param: str, weights: str) -> tuple[Callable[[Images], Images], tuple[int, ...] | None]:
    """What runs one image, (1, channels, rows, columns), in an ncnn network, in float32."""
    import ncnn

    from gossamer.ncnn.runtime import OFF

    given, made = ends(Path(param).read_text())
    net = ncnn.Net()
    for option in OFF:
        if hasattr(net.opt, option):
            setattr(net.opt, option, False)
    net.opt.num_threads = 1
    if net.load_param(param) or net.load_model(weights):
        raise ValueError(f"ncnn does not read {param}")

    def call(image: Images) -> Images:
        extractor = net.create_extractor()
        extractor.input(given, ncnn.Mat(image[0]).clone())
        return np.array(extractor.extract(made)[1])

    return call, None


def ends(text: str) -> tuple[str, str]:
    """The names of the input and of the output of a .param file: the blob of its first layer, and that which no layer reads."""
    read: set[str] = set()
    made: list[str] = []
    for line in text.splitlines()[2:]:
        words = line.split()
        inputs, outputs = int(words[2]), int(words[3])
        read |= set(words[4 : 4 + inputs])
        made += words[4 + inputs : 4 + inputs + outputs]
    (last,) = [name for name in made if name not in read]
    return made[0], last


def ratios(row: Json) -> dict[str, list[float]]:
    """Time of the processor of every other file over ours, by round."""
    ours = [one[1] for one in row["rounds"][OURS]]
    return {
        name: [one[1] / mine for one, mine in zip(rounds, ours, strict=True)]
        for name, rounds in row["rounds"].items()
        if name != OURS
    }


def table(rows: list[Json]) -> str:
    """The rows as Markdown, a table a format, and what ours is behind in."""
    forms = [form for form in FORMATS if any(row["format"] == form for row in rows)]
    return "\n\n".join(part for form in forms for part in _tables(rows, form))


def _tables(rows: list[Json], form: str) -> list[str]:
    files = {(row["network"], row["by"]): row for row in rows if row["format"] == form and "by" in row}
    times = {row["network"]: row for row in rows if row["format"] == form and "rounds" in row}
    lines = [
        f"| {form}: network | converter | from ONNX Runtime | from float64: largest, mean | MB | seconds (of the processor) | ms | time / ours |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    behind, problems = [], []
    for network in dict.fromkeys(network for network, _ in files):
        clocks = times.get(network)
        compared = ratios(clocks) if clocks and OURS in clocks["rounds"] else {}
        mine = files.get((network, OURS), {})
        for name in (one.name for one in CONVERTERS if one.format == form):
            row = files.get((network, name))
            if row is None:
                continue
            if "problem" in row:
                problems.append(f"* {network}, {name}: {row['problem']}")
                continue
            spent, ratio = "", ""
            if clocks and name in clocks["rounds"]:
                ms = [one[1] for one in clocks["rounds"][name]]
                spent = f"{statistics.median(ms):.2f} ({min(ms):.2f} to {max(ms):.2f})"
            if name in compared:
                one = compared[name]
                ratio = f"{statistics.median(one):.2f} ({min(one):.2f} to {max(one):.2f})"
            lines.append(
                f"| {network} | {name} | {row['difference']:.1e} | {row['error']:.1e}, {row['mean_error']:.1e} | {row['bytes'] / 1e6:.3f} "
                f"| {row['seconds']:.1f} ({row['processor_seconds']:.1f}) | {spent} | {ratio} |"
            )
            if name != OURS and name not in OTHER_NUMBERS and "bytes" in mine:
                behind += [f"* {network}: {what}" for what in _behind(name, mine, row, compared.get(name))]
    return ["\n".join(lines), *(["\n".join(part)] if (part := [*problems, *behind]) else [])]


def _behind(name: str, mine: Json, row: Json, compared: list[float] | None) -> list[str]:
    """In what our file is behind another one."""
    said = []
    if mine["bytes"] > WITHIN * row["bytes"]:
        said.append(f"ours is {mine['bytes'] / row['bytes']:.3f} times as large as {name}'s")
    if mine["mean_error"] > max(KNOWN_TO * row["mean_error"], ROUNDING):
        said.append(f"ours is {mine['mean_error'] / row['mean_error']:.2f} times as far from float64 as {name}'s")
    if mine["processor_seconds"] > WITHIN * row["processor_seconds"]:
        slower = mine["processor_seconds"] / row["processor_seconds"]
        said.append(f"ours takes {slower:.2f} times as long to write as {name}'s")
    if compared and statistics.median(compared) < 1 / WITHIN:
        said.append(f"{name}'s takes {statistics.median(compared):.3f} of our time")
    return said


def convert(network: str, rows: list[Json], keep: Callable[[Json], None], options: argparse.Namespace) -> None:
    """A network by every converter that has a python."""
    folder = options.models.absolute() / network
    known = {(row["network"], row["format"], row.get("by")) for row in rows}
    for one in CONVERTERS:
        python = getattr(options, one.environment) if one.environment else sys.executable
        if python and one.name in options.converters.split(",") and (network, one.format, one.name) not in known:
            prepare(folder, network)
            keep(converted(one, str(Path(python).absolute()), folder, network))


def measure(network: str, rows: list[Json], keep: Callable[[Json], None], options: argparse.Namespace) -> None:
    """The latencies of a network's files, a row a format."""
    for form in FORMATS:
        of = [row for row in rows if row["network"] == network and row["format"] == form]
        names = [row["by"] for row in of if "bytes" in row and row["by"] in options.converters.split(",")]
        if names and not any("rounds" in row for row in of):
            keep(timed(network, form, names, options.models.absolute() / network, options))


def main() -> None:
    """Rows, one after the other."""
    if sys.argv[1:] == ["--worker"]:
        worker.main(FileWorker)
        return
    from engine import NETWORKS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=NETWORKS)
    parser.add_argument("--rows", default="converters.jsonl")
    parser.add_argument("--models", type=Path, default=Path("converted"), help="folder for the files of the networks")
    parser.add_argument("--converters", default=",".join(dict.fromkeys(one.name for one in CONVERTERS)))
    for name in ("litert-torch", "onnx2tf", "pnnx"):
        parser.add_argument(f"--{name}", default="", metavar="PYTHON", help="of the environment that has it")
    parser.add_argument("--time", action="store_true", help="latencies of the files that are there")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.5, help="of each file in each round")
    parser.add_argument("--core", type=int, help="run everything on this core alone")
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    if options.core is not None:
        os.sched_setaffinity(0, {options.core})
    path = Path(options.rows)
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def keep(row: Json) -> None:
        rows.append(row)
        with path.open("a") as file:
            file.write(json.dumps(row) + "\n")

    for network in () if options.table else options.networks:
        (measure if options.time else convert)(network, rows, keep, options)
    print(table(rows))


if __name__ == "__main__":
    main()
