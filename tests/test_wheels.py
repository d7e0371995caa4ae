"""The wheels of `make wheel`, the source archive, and an installation without a compiler."""

from __future__ import annotations

import importlib.util
import platform
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

from gossamer.runtime import native

ROOT = Path(__file__).resolve().parents[1]


def load_wheels() -> ModuleType:
    """engine/wheels.py, which belongs to no package."""
    spec = importlib.util.spec_from_file_location("wheels", ROOT / "engine" / "wheels.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


wheels = load_wheels()


def write_wheel(folder: Path, files: dict[str, bytes]) -> Path:
    """A wheel with these files, as far as auditwheel reads it."""
    path = folder / "gossamer-0.1.0-py3-none-manylinux_2_17_x86_64.whl"
    about = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: false\nTag: py3-none-manylinux_2_17_x86_64\n"
    with zipfile.ZipFile(path, "w") as file:
        for name, data in files.items():
            file.writestr(name, data)
        file.writestr("gossamer-0.1.0.dist-info/WHEEL", about)
        file.writestr("gossamer-0.1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: gossamer\nVersion: 0.1.0\n")
        file.writestr("gossamer-0.1.0.dist-info/RECORD", "".join(f"{name},,\n" for name in files))
    return path


@pytest.mark.parametrize("name", ["ziglang", "auditwheel", "build"])
def test_what_is_missing_is_said_in_one_line_and_nothing_is_written(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(wheels.importlib.util, "find_spec", lambda one: None if one == name else object())
    monkeypatch.setattr(wheels, "WORK", tmp_path / "work")
    monkeypatch.setattr(sys, "argv", ["wheels.py", "--out", str(tmp_path / "dist")])
    with pytest.raises(SystemExit) as ended:
        wheels.main()
    shown = capsys.readouterr()
    assert ended.value.code == 2 and shown.out == "" and len(shown.err.splitlines()) == 1
    assert f"lacks {name}: pip install '.[wheel]'" in shown.err
    assert not list(tmp_path.iterdir())


def test_another_system_and_no_nm_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheels.importlib.util, "find_spec", lambda one: object())
    monkeypatch.setattr(wheels.shutil, "which", lambda one: None)
    assert "binutils" in wheels.missing()
    monkeypatch.setattr(wheels.sys, "platform", "darwin")
    assert "on Linux; this is darwin" in wheels.missing()


def test_a_machine_that_has_no_wheel_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["wheels.py", "riscv64"])
    with pytest.raises(SystemExit) as ended:
        wheels.main()
    assert ended.value.code == 2 and "'riscv64': x86_64 or aarch64" in capsys.readouterr().err


def test_a_wheel_without_the_engine_or_with_another_or_without_a_level_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = tmp_path / "libgossamer.so"
    library.write_bytes(b"\0".join(name.encode() for name in wheels.ISAS["x86_64"] if name != "amx") + b"\0")
    monkeypatch.setattr(wheels, "build_engine", lambda machine: library)
    with pytest.raises(SystemExit, match="has no engine inside"):
        wheels.check(write_wheel(tmp_path, {}), "x86_64")
    purelib = {f"gossamer-0.1.0.data/purelib/{wheels.LIBRARY}": library.read_bytes()}
    with pytest.raises(SystemExit, match="has no engine inside"):
        wheels.check(write_wheel(tmp_path, purelib), "x86_64")
    with pytest.raises(SystemExit, match="is not the one that was built"):
        wheels.check(write_wheel(tmp_path, {wheels.LIBRARY: b"another"}), "x86_64")
    with pytest.raises(SystemExit, match="built without amx"):
        wheels.check(write_wheel(tmp_path, {wheels.LIBRARY: library.read_bytes()}), "x86_64")


@pytest.mark.full
def test_a_wheel_of_a_newer_c_library_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("auditwheel")
    if not native.LIBRARY.is_file() or platform.machine() != "x86_64":
        pytest.skip("the native engine of x86-64 is not built: make engine")
    monkeypatch.setattr(wheels, "build_engine", lambda machine: native.LIBRARY)
    monkeypatch.setattr(wheels, "ISAS", {"x86_64": ("portable",)})
    monkeypatch.setattr(wheels, "GLIBC", (2, 5))
    path = write_wheel(tmp_path, {wheels.LIBRARY: native.LIBRARY.read_bytes()})
    with pytest.raises(SystemExit, match="is not what its name says"):
        wheels.check(path, "x86_64")
    assert "gossamer_open" in wheels.exported(native.LIBRARY.read_bytes())
    monkeypatch.setattr(wheels, "exported", lambda library: {"gossamer_open", "_Znwm"})
    monkeypatch.setattr(wheels, "GLIBC", (2, 99))
    with pytest.raises(SystemExit, match="its engine exports _Znwm"):
        wheels.check(path, "x86_64")


@pytest.fixture(scope="module", params=["x86_64", "aarch64"])
def wheel(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, Path]:
    """The machine, its wheel and the folder that holds it, with the engine that `make wheel` built: it takes minutes."""
    if line := wheels.missing():
        pytest.skip(line)
    if not wheels.is_built(request.param):
        pytest.skip(f"no engine of these sources for a wheel of {request.param}: run make wheel first")
    folder = tmp_path_factory.mktemp(request.param)
    return request.param, wheels.build(request.param, folder), folder


@pytest.mark.full
def test_the_engine_of_a_wheel_runs_in_an_empty_environment(wheel: tuple[str, Path, Path]) -> None:
    machine, path, folder = wheel
    assert wheels.check(path, machine).endswith(machine)
    if machine != platform.machine():
        if machine != "aarch64":
            pytest.skip(f"no emulator of {machine} is used")
        said = wheels.run_emulated(path, folder)
        if said.startswith("NOT RUN"):
            pytest.skip(said)
        assert said.endswith("portable, neon, neon_dotprod")
        return
    wheels.install(path, folder / "venv", "--no-deps")  # the network is not used: dependencies are linked
    (site,) = (folder / "venv" / "lib").glob("python3*/site-packages")
    for name in ("numpy", "PIL", "rich", "markdown_it", "mdurl", "pygments"):
        found = importlib.util.find_spec(name)
        assert found is not None and found.origin is not None
        origin = Path(found.origin).parent
        (site / name).symlink_to(origin)
        for libraries in origin.parent.glob(f"{'pillow' if name == 'PIL' else name}.libs"):
            (site / libraries.name).symlink_to(libraries)
    assert "portable" in wheels.run_here(path, folder / "venv")
