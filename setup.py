"""Build the native engine into the wheel where there is a C++17 compiler; without one gossamer installs all the same.

Everything else about the package is in pyproject.toml.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
BUILD = ROOT / "engine" / "build.sh"
BUILT = ROOT / "src" / "gossamer" / "runtime" / "libgossamer.so"  # by `make engine`


def can_build() -> bool:
    """Whether the engine can be built here."""
    posix = os.name == "posix" and sys.platform != "cygwin"
    return posix and BUILD.is_file() and shutil.which(os.environ.get("CXX", "c++")) is not None


def digest(*arguments: str) -> str:
    """What engine/digest.sh prints; nothing where it fails."""
    done = subprocess.run(["sh", str(BUILD.with_name("digest.sh")), *arguments], capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else ""


def up_to_date() -> bool:
    """Whether the library of `make engine` is what a build from these sources, with these flags, would give."""
    written = BUILT.with_name(f"{BUILT.name}.digest")
    if not (BUILT.is_file() and written.is_file()):
        return False
    return written.read_text().split() == [digest("--sources"), digest("--library", str(BUILT))]


class PlatformDistribution(Distribution):
    """A package with the engine's library belongs to the platform: not into the folder of pure Python packages."""

    def has_ext_modules(self) -> bool:
        return can_build()


class BuildPy(build_py):
    """Python files, and the engine's library among them."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:  # it has `make engine`
            return
        library = Path(self.build_lib).resolve() / "gossamer" / "runtime" / BUILT.name
        if not can_build():  # a wheel for every platform holds no library, whatever lies among the sources
            library.unlink(missing_ok=True)
            return
        if up_to_date():
            library.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(BUILT, library)
            return
        library.unlink(missing_ok=True)  # the copy of package data may be of other sources
        done = subprocess.run(["sh", str(BUILD), str(library)], capture_output=True, text=True)
        if done.returncode:
            self.warn(f"the native engine is left out: {done.stderr.strip()[-500:]}")


class BdistWheel(bdist_wheel):
    """One wheel for all Python versions, of this platform where it carries the engine."""

    def finalize_options(self) -> None:
        super().finalize_options()
        self.root_is_pure = not can_build()

    def get_tag(self) -> tuple[str, str, str]:
        python, abi, platform = super().get_tag()
        return (python, abi, platform) if self.root_is_pure else ("py3", "none", platform)


setup(distclass=PlatformDistribution, cmdclass={"build_py": BuildPy, "bdist_wheel": BdistWheel})
