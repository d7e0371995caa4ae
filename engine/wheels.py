"""Build and test the wheels for Linux: x86-64 and aarch64, the engine inside, glibc 2.17 or later (manylinux2014).

    make wheel                                          both, into dist/
    python engine/wheels.py [--out DIR] [x86_64] [aarch64]

The compiler is clang as the package `ziglang` brings it: it links against the symbols of an old glibc, and libc++ statically.
A wheel is put into DIR only after `auditwheel` found nothing newer in it, and after its engine ran: that of this machine's
processor in a new environment with gossamer's three dependencies, by `gossamer verify` and `gossamer predict`; that of
aarch64 under qemu-aarch64 where that and a C library for it (libc6-arm64-cross) are installed, else it says that it was not run.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import json
import os
import platform
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gossamer.modelfile.metadata import ModelMetadata

ROOT = Path(__file__).resolve().parents[1]
GLIBC = (2, 17)
WORK = ROOT / "build" / "wheels"  # compilers and libraries, kept for the next time
LIBRARY = "gossamer/runtime/libgossamer.so"
SOURCES = ("engine", "src", "setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE")
ISAS = {  # every level that a library of this machine has inside
    "x86_64": ("portable", "avx2", "avx512", "avx512_vnni", "avx512_bf16", "amx"),
    "aarch64": ("portable", "neon", "neon_dotprod"),
}
COMPAT = ROOT / "tests" / "compat" / "0.1"
FILES = ("classify.goss", "classify-int8.goss", "classify-bf16.goss")  # small compiled networks with check inputs
IMAGE = COMPAT / "classes" / "train" / "class0" / "000.png"
SYSROOT = Path("/usr/aarch64-linux-gnu")  # where Debian and Ubuntu put the C library for emulation
NEEDED = ("build", "setuptools", "ziglang", "auditwheel")  # the extra `wheel` of pyproject.toml


def missing() -> str:
    """One line with what is missing to build wheels here and what to do; empty where nothing is."""
    if sys.platform != "linux":
        return f"wheels are built on Linux; this is {sys.platform}"
    names = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if names:
        return f"to build wheels {sys.executable} lacks {', '.join(names)}: pip install '.[wheel]'"
    if shutil.which("nm") is None:
        return "to build wheels nm is needed, which reads the symbols of compiled files: install binutils"
    return ""


def run(*words: str | Path, env: Mapping[str, str] | None = None) -> str:
    """What a command prints; ends this program where it fails."""
    done = subprocess.run([str(word) for word in words], env=env, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, words))}\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    return done.stdout


def compiler(machine: str) -> dict[str, str]:
    """The environment in which CXX is a C++ compiler for Linux on `machine`."""
    WORK.mkdir(parents=True, exist_ok=True)
    glibc = ".".join(map(str, GLIBC))
    # zig's own defaults are debugging information, and a register kept for the frame pointer. A vector type as a template's
    # argument loses its alignment, and the code may crash where it is used with the type itself: refused, not warned of
    options = f"-target {machine}-linux-gnu.{glibc} -g0 -fomit-frame-pointer -Werror=align-mismatch"
    command = f'"{sys.executable}" -m ziglang c++ {options}'
    path = WORK / f"c++-{machine}"
    path.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
    path.chmod(0o755)
    # by its name alone: CXX is split at spaces, which the path may have. exports.map is beside build.sh, which works there
    flags = {"CXX": path.name, "CXXFLAGS": "", "LDFLAGS": "-Wl,--version-script=exports.map"}
    return {**os.environ, **flags, "PATH": f"{WORK}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}


def is_built(machine: str) -> bool:
    """Whether the engine's library for `machine` was built from these sources by this compiler."""
    library, env = WORK / machine / "libgossamer.so", compiler(machine)
    digest, script = library.with_name(f"{library.name}.digest"), ROOT / "engine" / "digest.sh"
    if not (library.is_file() and digest.is_file()):
        return False
    now = run("sh", script, "--sources", env=env), run("sh", script, "--library", library, env=env)
    return digest.read_text().split() == [text.strip() for text in now]


def build_engine(machine: str) -> Path:
    """The engine's library for `machine`; one that is up to date is not built again."""
    library = WORK / machine / "libgossamer.so"
    if not is_built(machine):
        library.parent.mkdir(parents=True, exist_ok=True)
        run("sh", ROOT / "engine" / "build.sh", library, env=compiler(machine))
    return library


def build(machine: str, folder: Path) -> Path:
    """The wheel for `machine`, in `folder`."""
    library = build_engine(machine)
    source = folder / "source"  # a copy: setuptools leaves build/ and an egg-info beside what it builds
    source.mkdir()
    unwanted = shutil.ignore_patterns("*.egg-info", "libgossamer.so*", "__pycache__")
    for name in SOURCES:
        path = ROOT / name
        if path.is_dir():
            shutil.copytree(path, source / name, ignore=unwanted)
        else:
            shutil.copy2(path, source)
    for path in (library, library.with_name(f"{library.name}.digest")):  # with it, setup.py takes the library as it is
        shutil.copy2(path, source / "src" / "gossamer" / "runtime")
    tag = "manylinux_{}_{}_{}".format(*GLIBC, machine)
    words = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder]
    run(*words, f"-C--build-option=--plat-name={tag}", source, env=compiler(machine))
    (wheel,) = folder.glob("*.whl")
    if not wheel.name.endswith(f"-py3-none-{tag}.whl"):
        raise SystemExit(f"{wheel.name}: its tag is not py3-none-{tag}")
    return wheel


def check(wheel: Path, machine: str) -> str:
    """The platform that `auditwheel` finds for the wheel, which is what its name says or older; every level is inside.

    Ends this program where it is not so.
    """
    with zipfile.ZipFile(wheel) as file:
        if LIBRARY not in file.namelist():
            raise SystemExit(f"{wheel.name} has no engine inside: its build failed, see engine/build.sh")
        library = file.read(LIBRARY)
    if library != build_engine(machine).read_bytes():
        raise SystemExit(f"{wheel.name}: its engine is not the one that was built for {machine}")
    lacking = [isa for isa in ISAS[machine] if f"{isa}\0".encode() not in library]
    if lacking:
        raise SystemExit(f"{wheel.name}: its engine was built without {', '.join(lacking)}")
    text = " ".join(run(sys.executable, "-m", "auditwheel", "show", wheel).split())
    found = re.search(rf'following platform tag: "manylinux_(\d+)_(\d+)_{machine}"', text)
    if found is None or (int(found[1]), int(found[2])) > GLIBC:
        raise SystemExit(f"{wheel.name} is not what its name says:\n{text}")
    if foreign := sorted(name for name in exported(library) if not name.startswith("gossamer_")):
        raise SystemExit(f"{wheel.name}: its engine exports {', '.join(foreign[:5])}: see engine/exports.map")
    return f"manylinux_{found[1]}_{found[2]}_{machine}"


def exported(library: bytes) -> set[str]:
    """The symbols that a shared library defines for others."""
    from elftools.elf.elffile import ELFFile

    symbols = ELFFile(io.BytesIO(library)).get_section_by_name(".dynsym").iter_symbols()
    return {symbol.name for symbol in symbols if symbol.name and symbol["st_shndx"] != "SHN_UNDEF"}


def allowed(name: str, tolerance: float) -> float:
    """The largest difference of a file's outputs: other levels round bfloat16 and bytes elsewhere than the file's writer did."""
    return tolerance if name == FILES[0] else 2 * tolerance


def install(wheel: Path, venv: Path, *options: str) -> None:
    """Install the wheel in a new environment, with its dependencies unless pip's options say otherwise."""
    run(sys.executable, "-m", "venv", "--without-pip", venv)
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        venv / "bin" / "python",
        "--disable-pip-version-check",
        "install",
        "--no-compile",
    ]
    run(*pip, "--quiet", *options, wheel)


def run_here(wheel: Path, venv: Path) -> str:
    """Let the engine run on this machine, in an environment in which the wheel is installed; says what was done."""
    python = venv / "bin" / "python"
    isolated = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "GOSSAMER_"))}
    loaded = run(python, "-I", "-c", "from gossamer.runtime import native; print(native.library()._name)", env=isolated)
    if not Path(loaded.strip()).is_relative_to(venv):
        raise SystemExit(f"{wheel.name}: the engine that is loaded is {loaded.strip()}")
    tested = []
    for isa in ISAS[platform.machine()]:
        for name in FILES:
            words = [str(python), "-I", "-m", "gossamer", "verify", str(COMPAT / name), "--runtime", "native", "--json"]
            done = subprocess.run(words, env={**isolated, "GOSSAMER_ISA": isa}, capture_output=True, text=True)
            if done.returncode == 2 and "that this machine lacks" in done.stderr:
                break
            result = json.loads(done.stdout) if done.returncode in (0, 1) else {}
            if not result or result["largest_difference"] > allowed(name, result["tolerance"]):
                raise SystemExit(f"{wheel.name}: verify {name} on {isa}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        else:
            tested.append(isa)
    if not set(tested) - {"portable"}:
        raise SystemExit(f"{wheel.name}: no instruction set of this machine but portable ran")
    command = venv / "bin" / "gossamer"
    predicted = json.loads(run(command, "predict", COMPAT / FILES[0], IMAGE, "--json", env=isolated))
    answer = predicted["predictions"][0]
    if predicted["runtime"] != "native" or answer["error"] or answer["classes"] != [IMAGE.parent.name]:
        raise SystemExit(f"{wheel.name}: predict: {predicted}")
    return f"in a new environment verify and predict ran on {', '.join(tested)}"


def checks(path: Path) -> tuple[ModelMetadata, NDArray[np.float32], NDArray[np.float32]]:
    """The metadata of a compiled network, its check inputs (N, C, H, W) and the outputs expected (N, F); see FORMAT.md."""
    data = path.read_bytes()
    (first,), (size,) = struct.unpack_from("<Q", data, 48), struct.unpack_from("<Q", data, 64)
    metadata = ModelMetadata.from_json(json.loads(data[first : first + size]))
    images = metadata.preprocess.normalise(np.stack([check.pixels for check in metadata.checks]))
    return metadata, images, np.stack([check.outputs for check in metadata.checks])


def run_emulated(wheel: Path, folder: Path) -> str:
    """Let the engine of an aarch64 wheel run under an emulator; says what was done."""
    emulator = shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static")
    if emulator is None or not SYSROOT.is_dir():
        return "NOT RUN: no qemu-aarch64, or no C library for it (Debian: qemu-user-static libc6-arm64-cross)"
    with zipfile.ZipFile(wheel) as file:
        file.extract(LIBRARY, folder)
    library, program, env = (folder / LIBRARY).parent, folder / "run", compiler("aarch64")
    source = ROOT / "engine" / "test" / "run.cpp"
    run(WORK / env["CXX"], "-O1", source, "-L", library, "-lgossamer", "-o", program, env=env)
    tested = []
    for processor, isa in (("max", "portable"), ("cortex-a53", "neon"), ("max", "neon_dotprod")):
        command = [emulator, "-cpu", processor, "-L", SYSROOT, "-E", f"LD_LIBRARY_PATH={library}"]
        for name in FILES:
            metadata, images, expected = checks(COMPAT / name)
            images.tofile(folder / "in")
            words = [*command, "-E", f"GOSSAMER_ISA={isa}", program, COMPAT / name, folder / "in", folder / "out"]
            used = run(*words).strip()
            outputs = np.fromfile(folder / "out", np.float32).reshape(expected.shape)
            limit, difference = allowed(name, metadata.tolerance), float(np.abs(outputs - expected).max())
            if used != isa or not difference <= limit:  # NaN too
                raise SystemExit(f"{wheel.name}: {name} on {isa} (ran {used}) differs by {difference}; allowed {limit}")
        tested.append(isa)
    return f"its engine ran under emulation on {', '.join(tested)}"


def main() -> None:
    """Build, check and test each wheel, then put it into its folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("machines", nargs="*", metavar="machine", help="x86_64 or aarch64 (default: both)")
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="folder of the wheels (default: dist/)")
    options = parser.parse_args()
    machines = options.machines or list(ISAS)
    if unknown := [name for name in machines if name not in ISAS]:
        parser.error(f"unknown machine {unknown[0]!r}: {' or '.join(ISAS)}")
    if line := missing():
        print(line, file=sys.stderr)
        raise SystemExit(2)
    for machine in machines:
        print(f"{machine}: building the engine takes minutes the first time", flush=True)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            wheel = build(machine, folder)
            platform_tag = check(wheel, machine)
            if machine == platform.machine():
                install(wheel, folder / "venv")
                tested = run_here(wheel, folder / "venv")
            else:
                tested = run_emulated(wheel, folder) if machine == "aarch64" else "NOT RUN on this machine"
            options.out.mkdir(parents=True, exist_ok=True)
            target = options.out / wheel.name
            shutil.copyfile(wheel, target.with_suffix(".part"))
            target.with_suffix(".part").replace(target)
        print(f"{target}: {target.stat().st_size / 1e6:.2f} MB, {platform_tag}; {tested}", flush=True)


if __name__ == "__main__":
    main()
