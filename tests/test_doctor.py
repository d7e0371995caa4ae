"""What doctor says of packages, compiler, folders and terminal."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from gossamer import doctor
from gossamer.doctor import PACKAGE_CHECKS, CheckResult, Diagnosis, PackageCheck
from gossamer.host import machine
from gossamer.host.progress import PlainLines


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the packages that are quick to try."""
    monkeypatch.setattr(
        doctor, "PACKAGE_CHECKS", tuple(p for p in PACKAGE_CHECKS if p.package in ("numpy", "pillow", "rich"))
    )


def look(monkeypatch: pytest.MonkeyPatch, *checks: PackageCheck) -> CheckResult:
    monkeypatch.setattr(doctor, "PACKAGE_CHECKS", checks)
    return doctor.doctor().checks[0]


@pytest.mark.full
def test_all_that_is_installed_works_here() -> None:
    diagnosis = doctor.doctor()
    by_name = {check.name: check for check in diagnosis.checks}
    for check in PACKAGE_CHECKS:
        installed = machine.versions([check.package])[check.package]
        assert by_name[check.package].state == ("works" if installed else "absent"), by_name[check.package].fix
        assert installed is None or by_name[check.package].detail.startswith(installed)
    assert max(map(len, diagnosis.text().splitlines())) <= 100
    plain = json.loads(json.dumps(diagnosis.to_json()))
    assert plain["gossamer"] and plain["machine"]["cpu"] and plain["ok"] == (diagnosis.exit_code == 0)


def test_probes_are_the_optional_packages_of_the_project() -> None:
    text = (Path(__file__).parents[1] / "pyproject.toml").read_text()
    assert sum(bool(check.extra) for check in PACKAGE_CHECKS) >= 5
    for check in PACKAGE_CHECKS:
        if check.extra:
            line = next(line for line in text.splitlines() if line.startswith(f"{check.extra} = "))
            assert f'"{check.package.lower()}>=' in line


def test_an_absent_package_says_what_is_missing_and_what_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    result = look(monkeypatch, PackageCheck("no-such-package", "train", "train, eval", "pass"))
    assert result == CheckResult("no-such-package", "absent", "", "train, eval", 'pip install "gossamer[train]"')


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import os; os.abort()", "its process ended with -6"),
        ("raise ImportError('libc10.so:\\nno such file')", "no such file"),
        ("assert 1 + 1 == 3, 'sums are wrong'", "AssertionError: sums are wrong"),
    ],
)
def test_a_broken_package_says_why(monkeypatch: pytest.MonkeyPatch, code: str, reason: str) -> None:
    result = look(monkeypatch, PackageCheck("numpy", "", "everything", code))
    assert result.state == "fails"
    assert result.fix == f"{reason}; pip install --force-reinstall numpy"


def test_a_package_that_hangs_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "PATIENCE", 0.5)
    result = look(monkeypatch, PackageCheck("numpy", "", "everything", "import time; time.sleep(60)"))
    assert result.state == "fails" and result.fix.startswith("no reply within 0.5 seconds")


def test_a_failure_is_told_in_the_exit_code_and_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        doctor, "PACKAGE_CHECKS", (PackageCheck("numpy", "", "everything", "raise ValueError('broken ' * 40)"),)
    )
    lines = io.StringIO()
    diagnosis = doctor.doctor(PlainLines(lines))
    assert lines.getvalue() == "trying 1 package, each in a process of its own\n"  # before it is silent for seconds
    assert diagnosis.exit_code == 1
    assert "what to do:\n  numpy: ValueError: broken broken" in diagnosis.text()
    assert max(map(len, diagnosis.text().splitlines())) <= 100


def test_absence_alone_is_no_failure() -> None:
    diagnosis = Diagnosis(
        "1", machine.describe_machine(), (CheckResult("torch", "absent", "", "train", "pip install it"),)
    )
    assert diagnosis.exit_code == 0


def one(name: str) -> CheckResult:
    return next(check for check in doctor.doctor().checks if check.name == name)


@pytest.mark.usefixtures("few")
def test_the_native_engine_is_tried_where_it_was_built(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if doctor.ENGINE.is_file():
        assert one("native engine").state == "works" and one("native engine").detail
    monkeypatch.setattr(doctor, "ENGINE", tmp_path / "libgossamer.so")
    assert one("native engine").state == "absent" and "`make engine`" in one("native engine").fix


@pytest.mark.usefixtures("few")
def test_no_compiler_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert (one("C++ compiler").state, one("C++ compiler").fix) == ("absent", "install g++ or clang++")


@pytest.mark.usefixtures("few")
def test_a_compiler_that_fails_says_its_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "c++"
    broken.write_text("#!/bin/sh\necho 'try.cpp:1: fatal error: Python.h: No such file' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CXX", str(broken))
    result = one("C++ compiler")
    assert result.state == "fails" and "fatal error: Python.h" in result.fix


@pytest.mark.usefixtures("few")
def test_a_folder_that_cannot_be_written_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file" / "below"))
    result = one("cache folder")
    assert result.state == "fails" and str(tmp_path / "file") in result.fix


@pytest.mark.usefixtures("few")
def test_an_absent_cache_folder_is_fine_and_not_created(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "a" / "b"))
    assert one("cache folder").state == "works"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("few")
def test_a_full_disk_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    class Disk:
        free = 5 << 20

    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: Disk)
    result = one("temporary folder")
    assert result.state == "fails" and result.fix == f"{tempfile.gettempdir()}: free disk space"


def test_it_runs_without_torch_in_its_own_process() -> None:
    code = "import sys, gossamer.doctor; assert not {'torch', 'onnxruntime', 'openvino', 'onnx'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("encoding", "is_terminal", "status", "detail"),
    [
        ("utf-8", True, "works", "77 columns, utf-8"),
        ("UTF8", False, "works", "not a terminal: plain lines, utf8"),
        ("ascii", True, "fails", "77 columns, ascii"),
        ("cp1252", False, "fails", "not a terminal: plain lines, cp1252"),
    ],
)
def test_an_encoding_that_cannot_show_class_names_is_reported(
    encoding: str, is_terminal: bool, status: str, detail: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return is_terminal

    Terminal.encoding = encoding  # type: ignore[assignment]
    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setenv("COLUMNS", "77")
    result = doctor._terminal()
    assert (result.name, result.state, result.detail) == ("terminal", status, detail)
    assert ("PYTHONUTF8=1" in result.fix) == (status == "fails")
