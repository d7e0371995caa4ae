"""The command line: each command is one library call, its result printed as text or JSON.

Results go to standard output, progress and errors to standard error. Exit codes: 0 done, 1 a check failed,
2 something given cannot be used, 70 a defect of gossamer, 130 interrupted.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import typing
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import gossamer
from gossamer import settings as settings_module
from gossamer.cli import commands
from gossamer.errors import GossamerError, MissingPackageError, SettingsError
from gossamer.host.progress import Progress, terminal
from gossamer.settings import Settings

Command = Callable[[argparse.Namespace, Progress], Any]


class _Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        raise SettingsError(f"{self.prog}: {message}", f"what `{self.prog} --help` lists", "mend the command")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    as_json, debug = "--json" in arguments, "--debug" in arguments
    try:
        options = _parser().parse_args(arguments)
        if options.offline:
            os.environ["GOSSAMER_OFFLINE"] = "1"  # for the processes that this one starts, too
        result = options.command(options, terminal())
        _print(result, as_json)
        return int(getattr(result, "exit_code", 0))
    except KeyboardInterrupt:
        print("gossamer: interrupted", file=sys.stderr)
        return 130
    except ModuleNotFoundError as error:
        # the whole training half stands on these, so one place names the extra for all of its imports
        package = (error.name or "").split(".")[0]
        if debug or package not in ("torch", "safetensors"):
            raise
        needed = MissingPackageError(package, "train", f"gossamer {arguments[0]}")
        return _fail(str(needed), needed.exit_code, as_json)
    except BrokenPipeError:
        sys.stderr.close()  # the reader went away; nothing is left to say to it
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


def _fail(line: str, code: int, as_json: bool) -> int:
    print(f"gossamer: {line}", file=sys.stderr)
    if as_json:
        print(json.dumps({"error": line, "exit_code": code}, ensure_ascii=False))
    return code


def _print(result: Any, as_json: bool) -> None:
    """A result as JSON, or as the text that it makes of itself."""
    if as_json:
        plain = result.to_json() if hasattr(result, "to_json") else result
        print(json.dumps(plain, ensure_ascii=False, indent=1))
    elif result is not None:
        print(result.text() if hasattr(result, "text") else result)
    sys.stdout.flush()


# the arguments


def _parser() -> argparse.ArgumentParser:
    common = _Parser(add_help=False)
    common.add_argument("--json", action="store_true", help="print the result as JSON")
    common.add_argument(
        "--offline", action="store_true", help="fetch nothing: weights come from the cache, or not at all"
    )
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser = _Parser(prog="gossamer", description=(gossamer.__doc__ or "").splitlines()[0])
    parser.add_argument("--version", action="version", version=f"gossamer {gossamer.__version__}")
    parsers = parser.add_subparsers(title="commands", required=True, metavar="COMMAND", parser_class=_Parser)

    def command(name: str, function: Command, help: str) -> argparse.ArgumentParser:
        made = parsers.add_parser(name, help=help, description=help, parents=[common], allow_abbrev=False)
        made.set_defaults(command=function)
        return made

    _train_arguments(command("train", commands.train, "train a network on a folder of images"))

    made = command("eval", commands.evaluate, "score a run or a model file on images")
    made.add_argument("model", help="run folder or model file")
    made.add_argument("data", nargs="?", default="", help="images; default the run's validation images")
    made.add_argument("--which", choices=("best", "last"), default="best", help="weights of a run")
    made.add_argument("--batch", type=_count, default=64, help="images at once")
    made.add_argument(
        "--split", choices=("train", "val", "test"), help="default: val of a run's own data; test of DATA, or else val"
    )
    made.add_argument("--ignore-index", type=int, default=None, help="masks: a value that counts for nothing")
    _runtime_argument(made)

    made = command("export", commands.export, "write a run as one verified model file")
    made.add_argument("run", help="run folder")
    made.add_argument("--out", required=True, help="the .onnx file to write")
    made.add_argument("--which", choices=("best", "last"), default="best", help="weights of the run")
    made.add_argument("--licence", default="unspecified", help="licence of the model, e.g. CC-BY-4.0")

    made = command("compile", commands.compile_file, "compile an ONNX file for the native engine")
    made.add_argument("model", help="ONNX file, ours or any other of a convolutional network")
    made.add_argument("--out", required=True, help="the .goss file to write")
    made.add_argument("--precision", default="fp32", help="fp32, or bf16; what a QDQ file has in int8 stays int8")
    made.add_argument(
        "--classifier", default="same", help="int8: the last layers' weights in bytes, for speed and size"
    )
    made.add_argument(
        "--metadata",
        default=None,
        metavar="FILE",
        help="the exported file that another tool, a quantiser say, made this one of",
    )
    made.add_argument("--input", default="", metavar="HxW", help="input of a file that leaves its height or width open")
    made.add_argument("--images", nargs="*", default=[], help="images and folders to compare the answers on")

    made = command("verify", commands.verify, "check that a model file still computes what was trained")
    made.add_argument("model", help="model file")
    _runtime_argument(made)

    made = command("predict", commands.predict, "say what a model file or a run finds in images")
    made.add_argument("model", help="model file or run folder")
    made.add_argument("images", nargs="+", help="images or folders")
    made.add_argument("--top", type=_count, default=1, help="classes to name")
    made.add_argument("--batch", type=_count, default=32, help="images at once")
    made.add_argument("--draw", default="", metavar="FOLDER", help="also draw the boxes or masks into this folder")
    made.add_argument("--threads", type=int, default=0, help="threads; 0 is the runtime's choice")
    _runtime_argument(made)

    made = command("bench", commands.bench, "measure model files, runs or networks on this machine")
    made.add_argument("targets", nargs="+", help="model file, run folder or network name")
    made.add_argument("--threads", default="1", help="numbers of threads, e.g. 1,2")
    made.add_argument("--batch", type=_count, default=1, help="images at once")
    made.add_argument("--runtimes", default="", help="e.g. onnxruntime,openvino; default all that are installed")
    made.add_argument("--profile", action="store_true", help="time each operation of compiled networks instead")
    made.add_argument("--plot", default="", help="also draw the latencies into this .png or .svg file")

    made = command("probe", commands.probe, "score classical classifiers on the features of a network")
    made.add_argument("data", nargs="?", default="", help="images, as for training; default the run's own")
    made.add_argument("--net", default="mobilenet_v2", help="network (default mobilenet_v2)")
    made.add_argument("--weights", default="", help="its weights: default, a listed set, a file or URL; none: random")
    made.add_argument("--run", default="", metavar="RUN", help="the network of this run folder instead")
    made.add_argument("--which", choices=("best", "last"), default="best", help="weights of the run")
    made.add_argument("--classifiers", default="all", help="all, linear, non-linear, or names with commas")
    made.add_argument("--folds", type=_count, default=5, help="of the cross-validation (default 5)")
    made.add_argument("--val", default="", help="held-out images, where they do not lie beside")
    made.add_argument("--input", default="auto", metavar="HxW", help="input of the network; default by the images")
    made.add_argument("--batch", type=_count, default=64, help="images at once")
    made.add_argument("--seed", type=int, default=0, help="of the split, the folds and every random draw")
    made.add_argument("--plot", default="", help="also draw the accuracies into this .png, .svg or .pdf file")

    made = command("report", commands.report, "write one HTML file about a run")
    made.add_argument("run", help="run folder")
    made.add_argument("--out", default=None, help="the file; default RUN/report.html")
    made.add_argument("--model", default=None, help="exported model file whose check is to be shown")

    made = command("doctor", commands.doctor, "say what is installed and works; with --data, look through images")
    made.add_argument("--data", default="", help="images to look through")
    made.add_argument("--task", default="", help="what they are for, as for train: also look through boxes or masks")
    made.add_argument("--val", default="", help="validation images, where they do not lie beside")

    made = command("inspect", commands.inspect, "show what each layer of a network costs")
    made.add_argument("target", help="network, ONNX file or run folder")
    made.add_argument("--input", default="", metavar="CxHxW", help="e.g. 3x224x224; default the network's own")
    made.add_argument("--measure", action="store_true", help="also time each layer on this machine")
    made.add_argument("--threads", type=_count, default=1, help="threads while timing")
    made.add_argument("--html", default="", help="also draw the network into this file")

    made = command("compare", commands.compare, "set networks, files and runs side by side")
    made.add_argument("targets", nargs="*", metavar="NET", help="network, ONNX file or run folder")
    made.add_argument("--runs", nargs="+", default=[], metavar="RUN", help="more run folders")
    made.add_argument("--input", default="", metavar="CxHxW", help="e.g. 3x224x224; default each network's own")
    made.add_argument(
        "--measure",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="measure the latency of each on this machine; default where a run is among them",
    )
    made.add_argument("--threads", type=_count, default=1, help="threads while measuring")
    made.add_argument("--plot", default="", help="also draw them into this .png or .svg file")

    made = command("swap", commands.swap, "train a run again with another network, on the same images")
    made.add_argument("run", help="run folder")
    made.add_argument("--net", required=True, help="the other network")
    made.add_argument("--out", required=True, help="the run folder to make")
    made.add_argument("--weights", default="", help="weights that it starts from, as for train; none: random")

    made = command("index", commands.index, "keep the embeddings of a folder of images in one file")
    made.add_argument("model", help="model file of an embedder")
    made.add_argument("folder", help="images, at best in one folder for each identity")
    made.add_argument("--out", required=True, help="the index to write")
    _batch_arguments(made)

    made = command("search", commands.search, "find the images of an index that are most like others")
    made.add_argument("index", help="file that `gossamer index` wrote")
    made.add_argument("images", nargs="+", help="images or folders")
    made.add_argument("--model", default="", help="model file that made it; default the one beside the index")
    made.add_argument("--top", type=_count, default=5, help="images to find for each (default 5)")
    made.add_argument("--backend", default="auto", help="auto, numpy or faiss; auto is faiss where it is installed")
    made.add_argument(
        "--draw", default="", metavar="FOLDER", help="also draw each image and its neighbours into this folder"
    )
    made.add_argument("--gallery", default="", metavar="FOLDER", help="for --draw: the folder that was indexed")
    _batch_arguments(made)

    made = command("convert-boxes", commands.convert_boxes, "write images with boxes in another format")
    made.add_argument("root", help="VOC, COCO or YOLO folder")
    made.add_argument("out", help="the folder to make")
    made.add_argument("--to", required=True, metavar="voc|coco|yolo", help="the format to write")

    made = command("list", commands.list_networks, "list networks, or the weights published for them")
    made.add_argument("pattern", nargs="?", default="*", help="e.g. 'mobilenet*', or 'timm:*mobilenet*'")
    made.add_argument("--max-params", default="", metavar="N", help="count, and keep those of at most N parameters: 3M")
    made.add_argument("--max-macs", default="", metavar="N", help="count, and keep those of at most N MACs: 300M, 1.5G")
    made.add_argument(
        "--weights", action="store_true", help="network, set, published top-1 in %%, preprocessing, licence, source"
    )
    return parser


def _batch_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--batch", type=_count, default=32, help="images at once")
    _runtime_argument(parser)


def _runtime_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--runtime", default="auto", help="auto, onnxruntime, openvino, reference, or native for a compiled file"
    )


def _train_arguments(parser: argparse.ArgumentParser) -> None:
    """The positional data, --config and --resume, and one flag a setting."""
    parser.add_argument("data", nargs="?", help="images: a folder, a CSV file, or tar shards")
    parser.add_argument("--config", default="", help="settings.yaml of another run; flags beside it win")
    parser.add_argument("--resume", default="", metavar="RUN", help="go on with an interrupted run")
    groups: dict[str, Any] = {}
    hints = typing.get_type_hints(Settings)
    for field in dataclasses.fields(Settings):
        if field.name == "data":
            continue
        group = field.metadata["group"]
        groups.setdefault(group, parser.add_argument_group(group))
        groups[group].add_argument(
            "--" + field.name.replace("_", "-"), dest=field.name, default=None, **_flag(field, hints[field.name])
        )


def _flag(field: dataclasses.Field[Any], hint: Any) -> dict[str, Any]:
    """How argparse reads one setting; Settings checks the value."""
    default = "" if field.default in (None, "", ()) else f" (default {_shown(field.default)})"
    options: dict[str, Any] = {"help": (field.metadata["help"] + default).replace("%", "%%")}
    kinds = [kind for kind in typing.get_args(hint) or (hint,) if kind is not type(None)]
    if bool in kinds:
        return {**options, "action": argparse.BooleanOptionalAction}
    if tuple in (typing.get_origin(hint), *map(typing.get_origin, kinds)):
        return {**options, "type": float, "nargs": "+", "metavar": "X"}
    if choices := settings_module.choices(field.name):
        return {**options, "metavar": "|".join(choices)}
    kind = int if int in kinds else float if float in kinds else str
    return {**options, "type": kind, "metavar": {int: "N", float: "X", str: "TEXT"}[kind]}


def _shown(value: Any) -> str:
    return " ".join(f"{item:.4g}" for item in value) if isinstance(value, tuple) else str(value)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1")
    return int(text)
