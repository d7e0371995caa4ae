"""What is built from the sources: the archive of them, and the wheel where there is no compiler."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.full
ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("engine", "src", "setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE")
LIBRARY = "gossamer/runtime/libgossamer.so"


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what the package is built from, with a library among it that no compiler here has built."""
    folder = tmp_path_factory.mktemp("sources")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(
                ROOT / name, folder / name, ignore=shutil.ignore_patterns("*.egg-info", "*.so*", "__pycache__")
            )
        else:
            shutil.copy2(ROOT / name, folder)
    (folder / "src" / LIBRARY).write_bytes(b"of another machine")
    (folder / "src" / f"{LIBRARY}.digest").write_text("of other sources\n")
    return folder


def build(folder: Path, kind: str, out: Path, **environment: str) -> str:
    """What `python -m build` makes in `out`: its name."""
    words = [sys.executable, "-m", "build", f"--{kind}", "--no-isolation", "--outdir", str(out), str(folder)]
    done = subprocess.run(words, env={**os.environ, **environment}, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    (path,) = out.iterdir()
    return path.name


def test_the_source_archive_has_the_engines_sources_and_no_library(sources: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / build(sources, "sdist", tmp_path)) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    engine = {str(path.relative_to(sources)) for path in (sources / "engine").rglob("*") if path.is_file()}
    assert engine <= names and "src/gossamer/runtime/native.py" in names
    assert not [name for name in names if ".so" in Path(name).suffixes]


def test_without_a_compiler_the_wheel_is_for_every_platform_and_has_no_library(sources: Path, tmp_path: Path) -> None:
    name = build(sources, "wheel", tmp_path, CXX=str(tmp_path / "none"))
    assert name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(tmp_path / name) as file:
        assert LIBRARY.replace("libgossamer.so", "native.py") in file.namelist()
        assert not [one for one in file.namelist() if ".so" in one]


def test_the_library_of_a_wheel_is_among_a_platforms_files(sources: Path, tmp_path: Path) -> None:
    """Not among those of pure Python (purelib), where tools that check wheels refuse it."""
    copy, out = tmp_path / "copy", tmp_path / "out"
    shutil.copytree(sources, copy)
    script = '#!/bin/sh\necho library >"$1"\n'  # in place of minutes of compiling
    (copy / "engine" / "build.sh").write_text(script)
    name = build(copy, "wheel", out, CXX="true")
    assert "-py3-none-" in name and not name.endswith("-any.whl")
    with zipfile.ZipFile(out / name) as file:
        assert file.read(LIBRARY) == b"library\n"
        assert [one for one in file.namelist() if one.endswith(".so")] == [LIBRARY]
