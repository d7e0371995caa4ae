"""Build and test the wheels for Linux: x86-64 and aarch64, the engine inside, glibc 2.17 or later (manylinux2014).

    make wheel                                          both, into dist/
    python engine/wheels.py [--out DIR] [x86_64] [aarch64]

The compiler is clang as the package `ziglang` brings it: it links against the symbols of an old glibc, and libc++ statically.
A wheel is put into DIR only after `auditwheel` found nothing newer in it, and its engine answered: that of this machine's
processor in a new environment with numpy and pillow, by `gossamer verify`; that of aarch64 under qemu-aarch64 where that
and a C library for it (libc6-arm64-cross) are installed, else it says that it was not run.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
GLIBC = "2.17"
TAG = "manylinux_2_17_{0}.manylinux2014_{0}"
MODELS = ROOT / "tests" / "compat" / "0.1"
FILES = ("classify.goss", "classify-int8.goss", "classify-bf16.goss")  # small compiled networks with check inputs
SYSROOT = Path("/usr/aarch64-linux-gnu")  # where Debian and Ubuntu put the C library for emulation


def run(*words: str | Path, **environment: str) -> str:
    """What a command prints; ends this program where it fails."""
    done = subprocess.run(
        [str(word) for word in words], env={**os.environ, **environment}, cwd=ROOT, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, words))}\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    return done.stdout


def compiler(machine: str, folder: Path) -> Path:
    """A C++ compiler for Linux on `machine`, as one command: what CXX of engine/build.sh names."""
    path = folder / f"c++-{machine}"
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m ziglang c++ -target {machine}-linux-gnu.{GLIBC} "$@"\n')
    path.chmod(0o755)
    return path


def build(machine: str, folder: Path) -> Path:
    """The wheel for `machine`, in `folder`."""
    source = folder / "source"  # a copy: setuptools leaves build/ and an egg-info beside what it builds
    shutil.copytree(
        ROOT,
        source,
        ignore=shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "libgossamer.so*", "__pycache__"),
    )
    tag = TAG.format(machine)
    words = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder]
    run(*words, f"-C--build-option=--plat-name={tag}", source, CXX=str(compiler(machine, folder)))
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        if "gossamer/runtime/libgossamer.so" not in file.namelist():
            raise SystemExit(f"{wheel.name} has no engine inside: its build failed, see engine/build.sh")
    return wheel


def check_platform(wheel: Path, machine: str) -> str:
    """The oldest platform that `auditwheel` allows the wheel; ends this program where it is newer than the wheel says."""
    text = run(sys.executable, "-m", "auditwheel", "show", wheel)
    tags = re.findall(rf"manylinux_(\d+)_(\d+)_{machine}", " ".join(text.split()))
    allowed = min(((int(major), int(minor)) for major, minor in tags), default=None)
    if allowed is None or allowed > tuple(map(int, GLIBC.split("."))):
        raise SystemExit(f"{wheel.name} is not what its name says:\n{text}")
    return f"manylinux_{allowed[0]}_{allowed[1]}_{machine}"


def answers_here(wheel: Path, folder: Path) -> str:
    """Install the wheel in a new environment, and let its engine answer; says what was done."""
    run(sys.executable, "-m", "venv", folder / "venv")
    python = folder / "venv" / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", wheel)
    for name in FILES:
        run(python, "-m", "gossamer", "verify", MODELS / name, "--runtime", "native")
    return f"installed in a new environment; verified {', '.join(FILES)}"


def answers_emulated(wheel: Path, folder: Path) -> str:
    """Let the engine of an aarch64 wheel answer under an emulator; says what was done."""
    emulator = shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static")
    if emulator is None or not SYSROOT.is_dir():
        return "NOT RUN: no qemu-aarch64, or no C library for it (Debian: qemu-user-static libc6-arm64-cross)"
    with zipfile.ZipFile(wheel) as file:
        file.extract("gossamer/runtime/libgossamer.so", folder)
    library = folder / "gossamer" / "runtime"
    program = folder / "run"
    run(
        compiler("aarch64", folder), "-O1", ROOT / "engine" / "test" / "run.cpp", "-L", library,
        "-lgossamer", "-Wl,-rpath,/", "-o", program,
    )  # fmt: skip
    import numpy as np

    from gossamer.runtime.native import Native

    worst = 0.0
    for name in FILES:
        network = Native(MODELS / name, 1)
        images = np.random.default_rng(0).standard_normal((2, *network.input_shape[1:])).astype(np.float32)
        images.tofile(folder / "in")
        command = [emulator, "-L", SYSROOT, "-E", f"LD_LIBRARY_PATH={library}", program, MODELS / name]
        isa = run(*command, folder / "in", folder / "out").strip()
        expected = np.asarray(network(images))
        outputs = np.fromfile(folder / "out", np.float32).reshape(expected.shape)
        difference = float(np.abs(outputs - expected).max() / np.abs(expected).max())
        limit = 1e-4 if name == FILES[0] else 0.05
        if not difference < limit:
            raise SystemExit(f"{wheel.name}: {name} differs by {difference:.2g} of the largest output on {isa}")
        worst = max(worst, difference)
    return f"its engine ({isa}) answered {', '.join(FILES)} under emulation within {worst:.2g} of the largest output"


def main() -> None:
    """Build, check and test each wheel, then put it into its folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("machines", nargs="*", choices=[[], "x86_64", "aarch64"], help="default: both")
    parser.add_argument("--out", type=Path, default=ROOT / "dist")
    options = parser.parse_args()
    for machine in options.machines or ["x86_64", "aarch64"]:
        print(f"{machine}: building, about 2 minutes of one core", flush=True)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            wheel = build(machine, folder)
            platform_tag = check_platform(wheel, machine)
            test = answers_here if machine == platform.machine() else answers_emulated
            tested = test(wheel, folder) if test is answers_here or machine == "aarch64" else "NOT RUN on this machine"
            options.out.mkdir(parents=True, exist_ok=True)
            target = options.out / wheel.name
            shutil.copyfile(wheel, target.with_suffix(".part"))
            target.with_suffix(".part").replace(target)
        print(f"{target}: {target.stat().st_size / 1e6:.2f} MB, {platform_tag}; {tested}", flush=True)


if __name__ == "__main__":
    main()
