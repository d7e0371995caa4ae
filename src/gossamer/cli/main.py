"""The command line: each command is one library call, its result printed as text or JSON.

Results go to standard output, progress and errors to standard error. Exit codes: 0 done, 1 a check failed,
2 an argument or input cannot be used, 70 a defect of gossamer, 130 interrupted by Ctrl-C, 143 by SIGTERM, 129 by SIGHUP.
"""

from __future__ import annotations

import argparse
import importlib
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import gossamer
from gossamer.errors import GossamerError, MissingPackageError, SettingsError

# command -> (module of this package, one line of help); a module is imported when its command is used, and has
# arguments(parser) and run(options, progress) -> result
COMMANDS: dict[str, tuple[str, str]] = {
    "train": ("train", "train a network on a folder of images"),
    "eval": ("evaluate", "score a run or a model file on images"),
    "export": ("export", "write a run as one verified model file"),
    "quantize": ("quantize", "write a run or a float ONNX file in int8"),
    "compile": ("compile", "compile an ONNX file for the native engine"),
    "verify": ("verify", "check that a model file still computes what was trained"),
    "predict": ("predict", "run a model file or a run on images"),
    "bench": ("bench", "measure model files, runs or networks on this machine"),
    "probe": ("probe", "score classical classifiers on the features of a network"),
    "report": ("report", "write one HTML file about a run"),
    "doctor": ("doctor", "check the installation; with --data, check a dataset"),
    "inspect": ("inspect", "show what each layer of a network costs"),
    "compare": ("compare", "compare networks, files and runs"),
    "swap": ("swap", "train a run again with another network, on the same images"),
    "index": ("index", "write the embeddings of a folder of images to one file"),
    "search": ("search", "find the images of an index that are most similar to others"),
    "convert-boxes": ("convert_boxes", "write images with boxes in another format"),
    "list": ("list", "list networks, or the weights published for them"),
}


class _Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        raise SettingsError(f"{self.prog}: {message}", f"what `{self.prog} --help` lists", "check the arguments")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit code."""
    _open_streams()
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    as_json, debug = "--json" in arguments, "--debug" in arguments
    try:
        options = _parser(arguments).parse_args(arguments)
        if options.offline:
            os.environ["GOSSAMER_OFFLINE"] = "1"  # for the processes that this one starts, too
        from gossamer.host.progress import terminal

        result = _command(options.command).run(options, terminal())
        _print(result, as_json)
        return int(getattr(result, "exit_code", 0))
    except KeyboardInterrupt as error:
        print("gossamer: interrupted", file=sys.stderr)
        return 128 + getattr(error, "signal", 2)  # as shells count: 130 for Ctrl-C, 143 for SIGTERM
    except ModuleNotFoundError as error:
        # the whole training half stands on these, so one place names the extra for all of its imports
        package = (error.name or "").split(".")[0]
        if debug or package not in ("torch", "safetensors"):
            raise
        needed = MissingPackageError(package, "train", f"gossamer {arguments[0]}")
        return _fail(str(needed), needed.exit_code, as_json)
    except BrokenPipeError:
        sys.stderr.close()  # the reader of the output has closed the pipe
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
        what = " ".join(f"{type(error).__name__}: {error}".split())
        return _fail(
            f"a defect of gossamer: {what[:300]}; run it again with --debug and report what it prints", 70, as_json
        )


def _open_streams() -> None:
    """Let every text be written: to streams that were closed before the start, and in encodings that lack characters."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 (open as long as the process)
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _fail(line: str, code: int, as_json: bool) -> int:
    from gossamer.host.progress import escaped

    print(f"gossamer: {escaped(line)}", file=sys.stderr)
    if as_json:
        print(_json({"error": line, "exit_code": code}))
    return code


def _print(result: Any, as_json: bool) -> None:
    """A result as JSON, or as its own text."""
    from gossamer.host.progress import escaped

    if as_json:
        print(_json(result.to_json() if hasattr(result, "to_json") else result, indent=1))
    elif result is not None:
        print(escaped(str(result.text() if hasattr(result, "text") else result)))
    sys.stdout.flush()


def _json(value: Any, indent: int | None = None) -> str:
    """JSON that standard output can hold: a character that its encoding lacks is escaped as JSON escapes it."""
    from gossamer.host.strict_json import dumps

    text = dumps(value, indent=indent)
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        text = dumps(value, indent=indent, ascii_only=True)
    return text


def _command(name: str) -> Any:
    """The module of a command."""
    return importlib.import_module(f"gossamer.cli.{COMMANDS[name][0]}")


def _parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    """The parser of all commands, with the arguments of the one that `arguments` name."""
    common = _Parser(add_help=False)
    common.add_argument("--json", action="store_true", help="print the result as JSON")
    common.add_argument(
        "--offline", action="store_true", help="download nothing: weights come from the cache, or not at all"
    )
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser = _Parser(prog="gossamer", description=(gossamer.__doc__ or "").splitlines()[0])
    parser.add_argument("--version", action="version", version=f"gossamer {gossamer.__version__}")
    parsers = parser.add_subparsers(
        title="commands", required=True, metavar="COMMAND", dest="command", parser_class=_Parser
    )
    named = next((word for word in arguments if not word.startswith("-")), "")
    for name, (_, help) in COMMANDS.items():
        command = parsers.add_parser(name, help=help, description=help, parents=[common], allow_abbrev=False)
        if name == named:
            _command(name).arguments(command)
    return parser
