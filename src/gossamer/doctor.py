"""The check of an installation: which packages, tools and folders are there, and whether each works.

Every package is tried in a process of its own: one that crashes on import, such as a library built for another
processor, is a line in the table.
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
from gossamer.host.progress import SILENT, Progress
from gossamer.host.shown import Report
from gossamer.host.storage import user_cache
from gossamer.host.text import counted
from gossamer.runtime.table import RUNTIMES

PATIENCE = 120.0  # seconds for one package
ENGINE = Path(gossamer.__file__).parent / "runtime" / RUNTIMES["native"].library
LEAST_FREE = 256 << 20  # bytes on the disk: a run of a small network with its log

# ONNX, opset 17: y = Relu(x), both float32 (1, 1, 1, 2)
GRAPH = (
    b'\x08\x08:K\n\x0c\n\x01x\x12\x01y"\x04Relu\x12\x01gZ\x1b\n\x01x\x12\x16\n\x14\x08\x01\x12\x10\n\x02\x08\x01'
    b"\n\x02\x08\x01\n\x02\x08\x01\n\x02\x08\x02b\x1b\n\x01y\x12\x16\n\x14\x08\x01\x12\x10\n\x02\x08\x01\n\x02\x08\x01"
    b"\n\x02\x08\x01\n\x02\x08\x02B\x04\n\x00\x10\x11"
)


class PackageCheck(NamedTuple):
    """A package, its extra ("" for gossamer itself), what needs it, and code that raises where it does not work.

    What the code prints goes into the table.
    """

    package: str
    extra: str
    purpose: str
    code: str


def _run_graph(runtime: str) -> str:
    return (
        "import numpy as np; from gossamer.modelfile.metadata import parse_model_file; from gossamer.runtime.model import open_model\n"
        f"model = open_model(parse_model_file({GRAPH!r}, 'the check'), {runtime!r}, 1)\n"
        "result = model.run(np.array([[[[-1.0, 2.0]]]], np.float32)).ravel().tolist()\n"
        "assert result == [0.0, 2.0], result"
    )


# of runtimes that would take too long to write a file for
OWN_CODE = {
    "executorch": "from gossamer.executorch.package import import_runtime\n"
    "backends = import_runtime().Runtime.get().backend_registry.registered_backend_names\n"
    "assert 'XnnpackBackend' in backends, backends"
}

PACKAGE_CHECKS = (
    PackageCheck("numpy", "", RUNTIMES["reference"].purpose, _run_graph("reference")),
    PackageCheck(
        "pillow",
        "",
        "everything",
        "import io; from PIL import Image, features; image, file = Image.new('RGB', (64, 48)), io.BytesIO()\n"
        "image.save(file, 'JPEG'); small = Image.open(file); small.draft('RGB', (16, 12))\n"
        "assert small.size == (16, 12), small.size; image.save(io.BytesIO(), 'PNG')\n"
        "missing = [name for name in ('webp',) if not features.check(name)]\n"
        "print('without ' + ', '.join(missing) if missing else '')",
    ),
    PackageCheck("rich", "", "bars on a terminal", "import rich.console, rich.progress"),
    PackageCheck(
        "torch",
        "train",
        "train, eval, export, networks, report",
        "import torch; x = torch.nn.functional.conv2d(torch.ones(1, 1, 3, 4), torch.ones(1, 1, 3, 3))\n"
        "assert x.flatten().tolist() == [9.0, 9.0], x\n"
        "gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]\n"
        "print(', '.join(gpus) or 'CPU only')",
    ),
    PackageCheck(
        "safetensors",
        "train",
        "run folders, weights files",
        "import numpy as np, safetensors.numpy as s; assert s.load(s.save({'a': np.ones(2)}))['a'].sum() == 2",
    ),
    PackageCheck(
        "PyYAML", "train", "settings.yaml", "import yaml; assert yaml.safe_load('a: [1, 2]') == {'a': [1, 2]}"
    ),
    PackageCheck("onnx", "train", "export", f"import onnx; onnx.checker.check_model({GRAPH!r})"),
    PackageCheck("onnxscript", "train", "export", "import onnxscript"),
    *(
        PackageCheck(entry.package, entry.extra, entry.purpose, OWN_CODE.get(name) or _run_graph(name))
        for name, entry in RUNTIMES.items()
        if entry.extra
    ),
    PackageCheck(
        "coremltools",
        "coreml",
        "Core ML packages (.mlpackage): export",
        "from gossamer.coreml.write import import_package; import_package()\n"
        "from coremltools.libmilstoragepython import _BlobStorageReader",
    ),
    PackageCheck(
        "jinja2",
        "report",
        "report, inspect --html",
        "import jinja2; assert jinja2.Template('{{ a }}').render(a=1) == '1'",
    ),
    PackageCheck("huggingface_hub", "hub", "weights from hf://", "import huggingface_hub"),
    PackageCheck(
        "timm",
        "timm",
        "networks called timm:NAME",
        "from gossamer.networks.timm_adapter import import_timm; import_timm()",
    ),
    PackageCheck(
        "scikit-learn",
        "demo",
        "gossamer probe, and the images of the demo",
        "from sklearn.datasets import load_digits; assert load_digits().images.shape == (1797, 8, 8)",
    ),
)


@dataclass(frozen=True)
class CheckResult:
    """What the check of one package, tool or folder gave.

    state: "works", "absent" or "fails". detail: version, place or reason. purpose: what needs it. fix: what to do.
    """

    name: str
    state: Literal["works", "absent", "fails"]
    detail: str = ""
    purpose: str = ""
    fix: str = ""


@dataclass(frozen=True, repr=False)
class Diagnosis(Report):
    """The result of `doctor`; `exit_code` is 1 if something that is installed fails."""

    gossamer: str
    machine: dict[str, Any]
    checks: tuple[CheckResult, ...]

    @property
    def exit_code(self) -> int:
        return int(any(check.state == "fails" for check in self.checks))

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**dataclasses.asdict(self), "ok": self.exit_code == 0}

    def text(self) -> str:
        """A table for people, at most 100 columns wide, and what to do about what is missing."""
        here = self.machine
        memory = here["memory_limit_bytes"] or here["memory_bytes"]
        lines = [
            f"gossamer {self.gossamer}, Python {here['python']}, {here['os']}",
            f"{here['cpu']}, {counted(here['cores'], 'core')}"
            + (f", {memory / 2**30:.1f} GiB memory" if memory else ""),
            *_wrap("instruction sets: " + (", ".join(here["isa"]) if here["isa"] else "unknown")),
            "",
        ]
        for check in self.checks:
            lines += _wrap(f"{check.name:16} {check.state:7} {check.detail or '-':20}  {check.purpose}", 26)
        todo = [check for check in self.checks if check.fix]
        if todo:
            lines += ["", "what to do:"]
            for check in todo:
                lines += _wrap(f"  {check.name}: {check.fix}", 4)
        return "\n".join(lines)


def doctor(progress: Progress = SILENT) -> Diagnosis:
    """Check packages, compiler, folders and terminal. Takes some seconds, on a busy machine a minute; changes nothing."""
    progress.say(f"trying {counted(len(PACKAGE_CHECKS), 'package')}, each in a process of its own")
    with ThreadPoolExecutor(machine.usable_cores()) as pool:
        packages = list(progress.track(pool.map(_package, PACKAGE_CHECKS), len(PACKAGE_CHECKS), "packages"))
    checks = (*packages, _engine(), _compiler(), *_folders(), _terminal())
    return Diagnosis(gossamer.__version__, machine.describe_machine(), checks)


def _package(check: PackageCheck) -> CheckResult:
    version = machine.versions([check.package])[check.package]
    if version is None:
        extra = f"gossamer[{check.extra}]" if check.extra else "gossamer"
        return CheckResult(check.package, "absent", "", check.purpose, f'pip install "{extra}"')
    repair = f"pip install --force-reinstall {check.package}"
    return _run_code(check.package, version, check.purpose, check.code, repair)


def _engine() -> CheckResult:
    name, purpose = "native engine", RUNTIMES["native"].purpose
    if not ENGINE.is_file():
        return CheckResult(name, "absent", "", purpose, "run `make engine` in a clone; it needs a C++17 compiler")
    code = f"{_run_graph('native')}\nprint(model._runtime.isa)"
    return _run_code(name, "", purpose, code, "run `make engine` in a clone again")


def _run_code(name: str, version: str, purpose: str, code: str, repair: str) -> CheckResult:
    """The result of a process that runs `code`; repair: what to do where it fails."""
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
        return CheckResult(name, "fails", version, purpose, f"no reply within {PATIENCE:g} seconds; {repair}")
    if done.returncode == 0:
        return CheckResult(name, "works", f"{version} {done.stdout.strip()}".strip(), purpose)
    words = done.stderr.strip().splitlines()
    reason = words[-1].strip()[:200] if words else f"its process ended with {done.returncode}"
    return CheckResult(name, "fails", version, purpose, f"{reason}; {repair}")


def _import_paths() -> Iterator[str]:
    """The folder of this gossamer, so that the processes try the same one."""
    yield str(Path(gossamer.__file__).parents[1])
    if os.environ.get("PYTHONPATH"):
        yield os.environ["PYTHONPATH"]


def _compiler() -> CheckResult:
    """torch.compile writes C++ that includes Python's headers."""
    name, purpose = "C++ compiler", "train --compile, bench of torch.compile"
    compiler = next(
        (path for cxx in (os.environ.get("CXX", "c++"), "g++", "clang++") if (path := shutil.which(cxx))), None
    )
    if compiler is None:
        return CheckResult(name, "absent", "", purpose, "install g++ or clang++")
    with tempfile.TemporaryDirectory(prefix="gossamer-doctor-") as folder:
        source = Path(folder) / "try.cpp"
        source.write_text("#include <Python.h>\n#include <cmath>\ndouble f(double x) { return std::exp(x); }\n")
        command = [
            compiler,
            "-I",
            sysconfig.get_path("include"),
            "-c",
            str(source),
            "-o",
            str(source.with_suffix(".o")),
        ]
        try:
            done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            return CheckResult(name, "fails", compiler, purpose, f"no reply within {PATIENCE:g} seconds")
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines() or ["?"]
        reason = errors[0].replace(folder, "").strip()[:200]
        return CheckResult(
            name, "fails", compiler, purpose, f"{reason}; install Python's headers and a working compiler"
        )
    return CheckResult(name, "works", Path(compiler).name, purpose)


def _folders() -> Iterator[CheckResult]:
    for name, folder, purpose in (
        ("current folder", Path.cwd(), "runs, model files, reports"),
        ("cache folder", user_cache(), "weights, resized images"),
        ("temporary folder", Path(tempfile.gettempdir()), "bench, export"),
    ):
        yield _folder(name, folder, purpose)


def _folder(name: str, folder: Path, purpose: str) -> CheckResult:
    """Writes into the folder, or into the nearest one above it where it would be made."""
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=existing) as file:
            file.write(b"\0" * 4096)
            file.flush()
            os.fsync(file.fileno())
        free = shutil.disk_usage(existing).free
    except OSError as error:
        reason = error.strerror or str(error)
        return CheckResult(
            name, "fails", "", purpose, f"{existing}: {reason}; give another folder, or permission to write"
        )
    detail = f"{free / 2**30:.1f} GiB free"
    if free < LEAST_FREE:
        return CheckResult(name, "fails", detail, purpose, f"{existing}: free disk space")
    return CheckResult(name, "works", detail, purpose)


def _terminal() -> CheckResult:
    encoding = (getattr(sys.stdout, "encoding", None) or "unknown").lower()
    shown = (
        [f"{shutil.get_terminal_size().columns} columns"] if sys.stdout.isatty() else ["not a terminal: plain lines"]
    )
    if not encoding.startswith("utf"):
        fix = "set PYTHONUTF8=1, or class names and bars may not print"
        return CheckResult("terminal", "fails", ", ".join([*shown, encoding]), "progress, class names", fix)
    return CheckResult("terminal", "works", ", ".join([*shown, encoding]), "progress, class names")


def _wrap(line: str, indent: int = 2, width: int = 100) -> list[str]:
    """Lines of at most `width`, broken at spaces where that is possible; those after the first are indented."""
    lines = []
    while len(line) > width:
        cut = line.rfind(" ", indent + 1, width + 1)
        cut = cut if cut > indent else width
        lines.append(line[:cut].rstrip())
        line = " " * indent + line[cut:].lstrip()
    return [*lines, line.rstrip()]
