"""What reaches a terminal: nothing that acts on it, in any encoding, with any stream closed."""

from __future__ import annotations

import errno
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gossamer.cli import main as cli
from gossamer.host.progress import PlainLines, escaped


@pytest.mark.parametrize(
    "text",
    ["\x1b[31mred", "bell\x07", "over\rwritten", "\x9b2J", "\x7f", "\x00", "\u202egnp.exe", "\u2066x", "a\u2028b"],
)
def test_what_acts_on_a_terminal_is_escaped(text: str) -> None:
    assert escaped(text).isprintable()
    stream = io.StringIO()
    PlainLines(stream).say(text)
    assert stream.getvalue().removesuffix("\n").isprintable()


@pytest.mark.parametrize("text", ["plain", "two\nlines\tand a tab", "Grüße", "猫", "می‌خواهم", "a\u3000b", "👩‍🔬"])
def test_text_of_any_language_is_left_as_it_is(text: str) -> None:
    assert escaped(text) == text


def run(arguments: str, **options: object) -> subprocess.CompletedProcess[bytes]:
    """One command in a shell, which can close streams."""
    line = f'"{sys.executable}" -m gossamer {arguments}'
    return subprocess.run(line, shell=True, capture_output=True, timeout=120, **options)  # type: ignore[call-overload, no-any-return]


@pytest.mark.parametrize(
    ("closed", "code"),
    [
        ("list lenet5 >&-", 0),
        ("list lenet5 --json >&-", 0),
        ("list lenet5 2>&-", 0),
        ("list lenet5 >&- 2>&-", 0),
        ("list --max-params x 2>&-", 2),
        ("verify nothing.onnx >&- 2>&-", 2),
        ("--no-such-flag 2>&-", 2),
    ],
)
def test_a_closed_stream_changes_no_exit_code(closed: str, code: int) -> None:
    assert run(closed).returncode == code


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252", "ascii", "latin-1", "koi8-r"])
@pytest.mark.parametrize("flag", ["", "--json"])
def test_every_encoding_can_be_written_to(encoding: str, flag: str) -> None:
    """The name of the file is in the error, and in no such encoding but the first."""
    done = run(f"verify 猫é.onnx {flag}", env={**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"})
    assert done.returncode == 2 and b"defect" not in done.stderr
    assert len(done.stderr.splitlines()) == 1
    if flag:
        assert "猫é.onnx" in json.loads(done.stdout.decode(encoding))["error"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this platform")
@pytest.mark.parametrize(("full", "code"), [("list lenet5 2>/dev/full", 0), ("list >/dev/full", 2)])
def test_lines_about_the_work_do_not_end_it(full: str, code: int) -> None:
    """A full disk under the log: the result is written all the same; under the result, it is an error."""
    done = run(full)
    assert done.returncode == code and bool(done.stdout) == (code == 0)


def test_a_log_that_cannot_be_written_is_let_go() -> None:
    class Full(io.StringIO):
        def flush(self) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    class Closed(io.StringIO):
        def flush(self) -> None:
            raise BrokenPipeError

    PlainLines(Full()).say("a line")
    assert list(PlainLines(Full(), every=0).track(range(3), what="images")) == [0, 1, 2]
    with pytest.raises(BrokenPipeError):
        PlainLines(Closed()).say("a line")


def test_names_that_are_no_text_are_still_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert json.loads(cli._json({"name": "a\udcffb"}))["name"] == "a\udcffb"
    assert cli.main(["verify", "\x1b[31mred.onnx"]) == 2
    error = capsys.readouterr().err
    assert "\x1b" not in error and "\\x1b[31mred" in error


def test_progress_is_told_in_what_a_reader_can_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many a second, or seconds each: "0.0/s" says nothing."""
    for seconds, expected in ((0.5, "images 1 (2.0/s)"), (40.0, "images 1 (40.0 s each)")):
        clock = iter([0.0, seconds])
        monkeypatch.setattr("gossamer.host.progress.time.monotonic", lambda clock=clock: next(clock))
        stream = io.StringIO()
        assert list(PlainLines(stream, every=0).track([1], what="images")) == [1]
        assert stream.getvalue() == expected + "\n"
