"""The command line: each command is one library call, its result printed as text or JSON.

Results go to standard output, progress and errors to standard error. Exit codes: 0 done, 1 a check failed,
2 an argument or input cannot be used, 70 a defect of gossamer, 130 interrupted by Ctrl-C, 143 by SIGTERM, 129 by SIGHUP.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence

from gossamer.cli.parser import parse
from gossamer.cli.table import command_module
from gossamer.errors import GossamerError, MissingPackageError

TYPE_CHECKING = False  # as typing has it, whose import the help need not wait for
if TYPE_CHECKING:
    from typing import Any, TextIO

OUT_OF_MEMORY = ("allocate memory", "not enough memory", "out of memory")  # as torch and the runtimes say it


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit code."""
    _open_streams()
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    as_json, debug = "--json" in arguments, "--debug" in arguments
    try:
        try:
            options = parse(arguments)
        except SystemExit:  # of the help and the version, which may still wait to be written
            _write(sys.stdout, "")
            raise
        except OSError:
            _drop(sys.stdout)
            raise
        if options.offline:
            os.environ["GOSSAMER_OFFLINE"] = "1"  # for the processes that this one starts, too
        from gossamer.cli.loading import loading_said
        from gossamer.host.progress import terminal
        from gossamer.host.signals import ends_as_interrupts

        progress = terminal()
        with ends_as_interrupts(), loading_said(progress):
            result = command_module(options.command).run(options, progress)
        _print(result, as_json)
        return int(getattr(result, "exit_code", 0))
    except KeyboardInterrupt as error:
        _say("gossamer: interrupted")
        return 128 + getattr(error, "signal", 2)  # as shells count: 130 for Ctrl-C, 143 for SIGTERM
    except ModuleNotFoundError as error:
        # the whole training half stands on torch and safetensors, so one place names the extra for all of its imports
        package = (error.name or "").split(".")[0]
        if debug or package in ("", "gossamer"):
            raise
        extra = "train" if package in ("torch", "safetensors", "yaml") else ""
        needed = MissingPackageError(
            package, extra, f"gossamer {arguments[0]}", "" if extra else f"pip install {package}"
        )
        return _fail(str(needed), needed.exit_code, as_json)
    except BrokenPipeError:
        _drop(sys.stdout)  # the reader of the output has closed the pipe
        _drop(sys.stderr)
        return 0
    except GossamerError as error:
        if debug:
            raise
        return _fail(str(error), error.exit_code, as_json)
    except OSError as error:
        if debug:
            raise
        place = f"{error.filename}: " if error.filename else ""
        return _fail(f"{place}{error.strerror or error}", 2, as_json)
    except Exception as error:
        if debug:
            raise
        if isinstance(error, MemoryError) or any(text in str(error) for text in OUT_OF_MEMORY):
            return _fail(
                "the memory of this machine is not enough; try a smaller --batch or --input, or other images",
                2,
                as_json,
            )
        what = " ".join(f"{type(error).__name__}: {error}".split())
        return _fail(
            f"a defect of gossamer: {what[:300]}; run it again with --debug and report what it prints", 70, as_json
        )


def _open_streams() -> None:
    """Let every text be written: to streams that were closed before the start, and in encodings that lack characters."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            from pathlib import Path

            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 (open as long as the process)
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _fail(line: str, code: int, as_json: bool) -> int:
    from gossamer.host.progress import escaped

    _say(f"gossamer: {escaped(line)}")
    if as_json:
        try:  # noqa: SIM105 (contextlib is slow to import)
            _write(sys.stdout, _json({"error": line, "exit_code": code}) + "\n")
        except OSError:  # a full disk or a closed pipe, which may be the error itself
            pass
    return code


def _say(line: str) -> None:
    """A line on standard error, where that takes one: a full disk or a terminal that is gone change no exit code."""
    try:  # noqa: SIM105 (as above)
        _write(sys.stderr, line + "\n")
    except OSError:
        pass


def _write(stream: TextIO, text: str) -> None:
    """Write to a standard stream, at once. Raises OSError; what it did not take is then dropped."""
    try:
        stream.write(text)
        stream.flush()
    except OSError:
        _drop(stream)
        raise


def _drop(stream: TextIO) -> None:
    """Let go of what a standard stream did not take: Python would try again as it ends, and make the exit code 120.

    As "Note on SIGPIPE" in Python's documentation of `signal` has it.
    """
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)
    except (OSError, ValueError):  # a stream without a number, as in tests
        pass


def _print(result: Any, as_json: bool) -> None:
    """A result as JSON, or as its own text."""
    from gossamer.host.progress import escaped

    if as_json:
        text = _json(result.to_json() if hasattr(result, "to_json") else result, indent=1) + "\n"
    else:
        text = "" if result is None else escaped(str(result.text() if hasattr(result, "text") else result)) + "\n"
    _write(sys.stdout, text)


def _json(value: Any, indent: int | None = None) -> str:
    """JSON that standard output can hold: a character that its encoding lacks is escaped as JSON escapes it."""
    from gossamer.host.strict_json import dumps

    text = dumps(value, indent=indent)
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        text = dumps(value, indent=indent, ascii_only=True)
    return text
