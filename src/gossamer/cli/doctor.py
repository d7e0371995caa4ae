"""What is installed here, whether it works, and what would be missing for what.

Every package is tried in a process of its own: one that crashes on import, as a library for another processor does, is
a line in the table.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import gossamer
from gossamer.host import machine
from gossamer.host.storage import user_cache

PATIENCE = 120.0  # seconds for one package
ENGINE = Path(gossamer.__file__).parent / "runtime" / "libgossamer.so"
LEAST_FREE = 256 << 20  # bytes on the disk: a run of a small network with its log

# ONNX, opset 17: y = Relu(x), both float32 (1, 1, 1, 2)
GRAPH = (
    b'\x08\x08:K\n\x0c\n\x01x\x12\x01y"\x04Relu\x12\x01gZ\x1b\n\x01x\x12\x16\n\x14\x08\x01\x12\x10\n\x02\x08\x01'
    b"\n\x02\x08\x01\n\x02\x08\x01\n\x02\x08\x02b\x1b\n\x01y\x12\x16\n\x14\x08\x01\x12\x10\n\x02\x08\x01\n\x02\x08\x01"
    b"\n\x02\x08\x01\n\x02\x08\x02B\x04\n\x00\x10\x11"
)


class Probe(NamedTuple):
    """A package, the extra that brings it ("" for gossamer itself), what needs it, and code that fails if it fails.

    What the code prints is shown.
    """

    package: str
    extra: str
    purpose: str
    code: str


def _run_graph(runtime: str) -> str:
    return (
        "import numpy as np; from gossamer.modelfile import metadata as modelfile; from gossamer.runtime.model import open_model\n"
        f"model = open_model(modelfile.parse({GRAPH!r}, 'the check'), {runtime!r}, 1)\n"
        "result = model.run(np.array([[[[-1.0, 2.0]]]], np.float32)).ravel().tolist()\n"
        "assert result == [0.0, 2.0], result"
    )


PROBES = (
    Probe("numpy", "", "everything", _run_graph("reference")),
    Probe(
        "pillow",
        "",
        "everything",
        "import io; from PIL import Image, features; image, file = Image.new('RGB', (64, 48)), io.BytesIO()\n"
        "image.save(file, 'JPEG'); small = Image.open(file); small.draft('RGB', (16, 12))\n"
        "assert small.size == (16, 12), small.size; image.save(io.BytesIO(), 'PNG')\n"
        "missing = [name for name in ('webp',) if not features.check(name)]\n"
        "print('without ' + ', '.join(missing) if missing else '')",
    ),
    Probe("rich", "", "bars on a terminal", "import rich.console, rich.progress"),
    Probe(
        "torch",
        "train",
        "train, eval, export, networks, report",
        "import torch; x = torch.nn.functional.conv2d(torch.ones(1, 1, 3, 4), torch.ones(1, 1, 3, 3))\n"
        "assert x.flatten().tolist() == [9.0, 9.0], x\n"
        "gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]\n"
        "print(', '.join(gpus) or 'CPU only')",
    ),
    Probe(
        "safetensors",
        "train",
        "run folders, weights files",
        "import numpy as np, safetensors.numpy as s; assert s.load(s.save({'a': np.ones(2)}))['a'].sum() == 2",
    ),
    Probe("PyYAML", "train", "settings.yaml", "import yaml; assert yaml.safe_load('a: [1, 2]') == {'a': [1, 2]}"),
    Probe("onnx", "train", "export", f"import onnx; onnx.checker.check_model({GRAPH!r})"),
    Probe("onnxscript", "train", "export", "import onnxscript"),
    Probe("onnxruntime", "onnx", "export, fast predict and verify, bench", _run_graph("onnxruntime")),
    Probe("openvino", "openvino", "one more runtime for predict and bench", _run_graph("openvino")),
    Probe("jinja2", "report", "report", "import jinja2; assert jinja2.Template('{{ a }}').render(a=1) == '1'"),
    Probe(
        "matplotlib",
        "report",
        "bench --plot",
        "import io; from matplotlib.figure import Figure; Figure().savefig(io.BytesIO(), format='png')",
    ),
    Probe("huggingface_hub", "hub", "weights from hf://", "import huggingface_hub"),
    Probe(
        "timm", "timm", "networks called timm:NAME", "from gossamer.networks.foreign import import_timm; import_timm()"
    ),
    Probe(
        "scikit-learn",
        "demo",
        "gossamer probe, and the images of the demo",
        "from sklearn.datasets import load_digits; assert load_digits().images.shape == (1797, 8, 8)",
    ),
)


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    state: "works", "absent" or "fails". detail: version, place or reason. purpose: what needs it. fix: what to do.
    """

    name: str
    state: Literal["works", "absent", "fails"]
    detail: str = ""
    purpose: str = ""
    fix: str = ""


@dataclass(frozen=True)
class Diagnosis:
    """What doctor() found; `exit_code` is 1 if something that is there fails."""

    gossamer: str
    machine: dict[str, Any]
    findings: tuple[Finding, ...]

    @property
    def exit_code(self) -> int:
        return int(any(finding.state == "fails" for finding in self.findings))

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**dataclasses.asdict(self), "ok": self.exit_code == 0}

    def text(self) -> str:
        """A table for people, at most 100 columns wide, and what to do about what is missing."""
        here = self.machine
        memory = here["memory_limit_bytes"] or here["memory_bytes"]
        lines = [
            f"gossamer {self.gossamer}, Python {here['python']}, {here['os']}",
            f"{here['cpu']}, {here['cores']} cores" + (f", {memory / 2**30:.1f} GiB memory" if memory else ""),
            *_wrap("instruction sets: " + (", ".join(here["isa"]) if here["isa"] else "unknown")),
            "",
        ]
        for found in self.findings:
            lines += _wrap(f"{found.name:16} {found.state:7} {found.detail or '-':20}  {found.purpose}", 26)
        todo = [found for found in self.findings if found.fix]
        if todo:
            lines += ["", "what to do:"]
            for found in todo:
                lines += _wrap(f"  {found.name}: {found.fix}", 4)
        return "\n".join(lines)


def doctor() -> Diagnosis:
    """Look at packages, compiler, folders and terminal. Takes some seconds; changes nothing."""
    with ThreadPoolExecutor(machine.usable_cores()) as pool:
        packages = list(pool.map(_package, PROBES))
    findings = (*packages, _engine(), _compiler(), *_folders(), _terminal())
    return Diagnosis(gossamer.__version__, machine.describe(), findings)


def _package(probe: Probe) -> Finding:
    version = machine.versions([probe.package])[probe.package]
    if version is None:
        extra = f"gossamer[{probe.extra}]" if probe.extra else "gossamer"
        return Finding(probe.package, "absent", "", probe.purpose, f'pip install "{extra}"')
    again = f"pip install --force-reinstall {probe.package}"
    return _tried(probe.package, version, probe.purpose, probe.code, again)


def _engine() -> Finding:
    name, purpose = "native engine", "compiled networks, the fastest predict and verify"
    if not ENGINE.is_file():
        return Finding(name, "absent", "", purpose, "run `make engine` in a clone; it needs a C++17 compiler")
    code = f"{_run_graph('native')}\nprint(model._runtime.isa)"
    return _tried(name, "", purpose, code, "run `make engine` in a clone again")


def _tried(name: str, version: str, purpose: str, code: str, again: str) -> Finding:
    """What a process says that runs `code`; again: what to do where it fails."""
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", code],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PATIENCE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(_import_paths())},
        )
    except subprocess.TimeoutExpired:
        return Finding(name, "fails", version, purpose, f"no answer within {PATIENCE:g} seconds; {again}")
    if done.returncode == 0:
        return Finding(name, "works", f"{version} {done.stdout.strip()}".strip(), purpose)
    words = done.stderr.strip().splitlines()
    reason = words[-1].strip()[:200] if words else f"its process ended with {done.returncode}"
    return Finding(name, "fails", version, purpose, f"{reason}; {again}")


def _import_paths() -> Iterator[str]:
    """Where this gossamer lies, so that the processes try the same one."""
    yield str(Path(gossamer.__file__).parents[1])
    if os.environ.get("PYTHONPATH"):
        yield os.environ["PYTHONPATH"]


def _compiler() -> Finding:
    """torch.compile writes C++ that includes Python's headers."""
    name, purpose = "C++ compiler", "train --compile, bench of torch.compile"
    found = next(
        (path for cxx in (os.environ.get("CXX", "c++"), "g++", "clang++") if (path := shutil.which(cxx))), None
    )
    if found is None:
        return Finding(name, "absent", "", purpose, "install g++ or clang++")
    with tempfile.TemporaryDirectory(prefix="gossamer-doctor-") as folder:
        source = Path(folder) / "try.cpp"
        source.write_text("#include <Python.h>\n#include <cmath>\ndouble f(double x) { return std::exp(x); }\n")
        command = [found, "-I", sysconfig.get_path("include"), "-c", str(source), "-o", str(source.with_suffix(".o"))]
        try:
            done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            return Finding(name, "fails", found, purpose, f"no answer within {PATIENCE:g} seconds")
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines() or ["?"]
        reason = errors[0].replace(folder, "").strip()[:200]
        return Finding(name, "fails", found, purpose, f"{reason}; install Python's headers and a working compiler")
    return Finding(name, "works", Path(found).name, purpose)


def _folders() -> Iterator[Finding]:
    for name, folder, purpose in (
        ("current folder", Path.cwd(), "runs, model files, reports"),
        ("cache folder", user_cache(), "weights, resized images"),
        ("temporary folder", Path(tempfile.gettempdir()), "bench, export"),
    ):
        yield _folder(name, folder, purpose)


def _folder(name: str, folder: Path, purpose: str) -> Finding:
    """Writes into the folder, or into the nearest one above it where it would be made."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(b"\0" * 4096)
            file.flush()
            os.fsync(file.fileno())
        free = shutil.disk_usage(there).free
    except OSError as error:
        reason = error.strerror or str(error)
        return Finding(name, "fails", "", purpose, f"{there}: {reason}; give another folder or its rights")
    detail = f"{free / 2**30:.1f} GiB free"
    if free < LEAST_FREE:
        return Finding(name, "fails", detail, purpose, f"{there}: free some room")
    return Finding(name, "works", detail, purpose)


def _terminal() -> Finding:
    encoding = (getattr(sys.stdout, "encoding", None) or "unknown").lower()
    shown = (
        [f"{shutil.get_terminal_size().columns} columns"] if sys.stdout.isatty() else ["not a terminal: plain lines"]
    )
    if not encoding.startswith("utf"):
        fix = "set PYTHONUTF8=1, or class names and bars may not print"
        return Finding("terminal", "fails", ", ".join([*shown, encoding]), "progress, class names", fix)
    return Finding("terminal", "works", ", ".join([*shown, encoding]), "progress, class names")


def _wrap(line: str, indent: int = 2, width: int = 100) -> list[str]:
    """Lines of at most `width`, broken at spaces where that is possible; those after the first are indented."""
    lines = []
    while len(line) > width:
        cut = line.rfind(" ", indent + 1, width + 1)
        cut = cut if cut > indent else width
        lines.append(line[:cut].rstrip())
        line = " " * indent + line[cut:].lstrip()
    return [*lines, line.rstrip()]
