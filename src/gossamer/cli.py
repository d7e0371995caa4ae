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
from pathlib import Path
from typing import Any, NoReturn

import gossamer
from gossamer import settings as settings_module
from gossamer.errors import GossamerError, InputError, MissingPackageError, SettingsError
from gossamer.progress import Progress, terminal
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


# the commands


@dataclasses.dataclass(frozen=True)
class _Result:
    """A result that is lines for a person and plain values for a program."""

    lines: str
    values: Any
    exit_code: int = 0

    def text(self) -> str:
        return self.lines

    def to_json(self) -> Any:
        return self.values


def _train(options: argparse.Namespace, progress: Progress) -> Any:
    given = {
        name: value for name, value in vars(options).items() if name in settings_module.names() and value is not None
    }
    if options.resume:
        if given or options.config:
            raise SettingsError(
                f"--resume with {'--config' if options.config else '--' + next(iter(given)).replace('_', '-')}",
                "--resume alone: a run goes on with its own settings",
                "leave the rest out, or start a new run with --config",
            )
        from gossamer.trainer import resume

        return _trained(resume(options.resume, progress=progress))
    from gossamer.trainer import train

    if options.config:
        from gossamer.run import next_folder

        base = settings_module.load(options.config)
        given.setdefault(
            "out", next_folder(Path(base.out).name or base.net, Path(base.out).parent if base.out else "runs")
        )
        settings = base.replace(**given)
    else:
        settings = Settings(**given)
    return _trained(train(settings, progress=progress))


def _trained(run: gossamer.Run) -> _Result:
    from gossamer.tasks.registry import task_of

    name = f"val_{task_of(run.settings.task).score}"
    rows = run.metrics()
    best = max(rows, key=lambda row: row[name]) if rows else {}
    values = {"run": str(run.path), "epochs": len(rows), "best": best, "last": rows[-1] if rows else {}}
    said = f": {name.replace('_', ' ', 1)} {best[name]:.4f} after epoch {best['epoch']:g}" if best else ""
    return _Result(f"{run.path}{said}", values)


def _eval(options: argparse.Namespace, progress: Progress) -> Any:
    from gossamer.evaluate import evaluate
    from gossamer.tasks.registry import scorer_of, source_of

    if Path(options.model).is_dir():
        from gossamer.trained import run_data, torch_forward, trained

        network = trained(options.model, options.which)
        task, settings = network.task, network.settings
        source = (
            task.open_source(options.data, network.classes, settings) if options.data else run_data(network.run).val
        )
        forward, preprocess, scorer = torch_forward(network.model), network.preprocess, task.scorer()
    else:
        model = gossamer.load(options.model, runtime=options.runtime)
        card = model.card
        if card is None:
            raise InputError(f"{options.model}: carries no classes", "a file made by `gossamer export`", "export it")
        if not options.data:
            raise SettingsError("a model file without data", "gossamer eval FILE DATA", "name the images")
        source = source_of(card.heads, options.data, options.ignore_index)
        forward, preprocess, scorer = model.run, card.preprocess, scorer_of(card.heads)
    return evaluate(forward, source, preprocess, scorer, batch=options.batch, progress=progress).scores()


def _export(options: argparse.Namespace, progress: Progress) -> Any:
    from gossamer.export.onnx import export

    return export(options.run, options.out, which=options.which, licence=options.licence, progress=progress)


def _compile(options: argparse.Namespace, progress: Progress) -> Any:
    from gossamer.runtime.compilation import compile_model

    precision = {"fp32": "float32", "bf16": "bfloat16"}.get(options.precision, options.precision)
    return compile_model(options.model, options.out, precision, options.images, progress)


def _verify(options: argparse.Namespace, progress: Progress) -> Any:
    result = gossamer.verify(options.model, runtime=options.runtime)
    return _Result(result.text(), result.to_json(), 0 if result.ok else 1)


def _predict(options: argparse.Namespace, progress: Progress) -> Any:
    from gossamer.runtime.predict import predict_files

    model = gossamer.load(options.model, runtime=options.runtime, threads=options.threads)
    progress.say(f"{model.runtime_name}: {model.why}")
    lines, values, good = [], [], 0
    for item in predict_files(model, options.images, top=options.top, batch=options.batch, progress=progress):
        good += not item.error
        lines.append(f"{item.source}: {item.error or item.text()}")
        values.append(item.to_json())
    return _Result(
        "\n".join(lines),
        {"model": str(options.model), "runtime": model.runtime_name, "predictions": values},
        0 if good else 2,
    )


def _bench(options: argparse.Namespace, progress: Progress) -> Any:
    if options.profile:
        return _profile(options)
    from gossamer.bench import bench

    result = bench(
        options.targets,
        runtimes=options.runtimes.split(",") if options.runtimes else None,
        threads=_threads(options.threads),
        batch=options.batch,
        progress=progress,
    )
    if options.plot:
        result.plot(options.plot)
    from gossamer.run import BENCH
    from gossamer.storage import write_text

    for target in options.targets:  # a run keeps its figures, and its report shows them
        if (Path(target) / "settings.yaml").is_file():
            write_text(Path(target) / BENCH, json.dumps(result.to_json(), indent=1))
    return result


def _probe(options: argparse.Namespace, progress: Progress) -> Any:
    from gossamer.probe import probe

    names = ("net", "weights", "run", "which", "classifiers", "folds", "val", "input", "batch", "seed")
    result = probe(options.data, **{name: getattr(options, name) for name in names}, progress=progress)
    if options.plot:
        result.plot(options.plot)
    return result


def _profile(options: argparse.Namespace) -> Any:
    """Each operation of compiled networks, on the engine."""
    from gossamer.runtime.native import Native, is_compiled
    from gossamer.runtime.steps import table

    texts, values = [], []
    for target in options.targets:
        if not is_compiled(target):
            raise InputError(f"{target} with --profile", "a compiled network", "compile it first: gossamer compile")
        for threads in _threads(options.threads):
            engine = Native(target, threads)
            steps = engine.profile()
            texts.append(f"{target}: {table(steps, engine.isa, threads)}")
            values.append(
                {
                    "path": target,
                    "isa": engine.isa,
                    "threads": threads,
                    "operations": [dataclasses.asdict(step) for step in steps],
                }
            )
    return _Result("\n\n".join(texts), values)


def _threads(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if not all(part.isdecimal() and 1 <= int(part) <= 4096 for part in parts):
        raise SettingsError(f"threads {text!r}", "numbers from 1 with commas, as 1,2", "give such numbers")
    return tuple(int(part) for part in parts)


def _report(options: argparse.Namespace, progress: Progress) -> Any:
    from gossamer.report.page import write

    path = write(options.run, options.out, model_file=options.model, progress=progress)
    return _Result(str(path), {"report": str(path)})


def _doctor(options: argparse.Namespace, progress: Progress) -> Any:
    if options.data:
        from gossamer.data.inspect import inspect
        from gossamer.data.open import open_data

        return inspect(open_data(options.data, val=options.val or ""), progress=progress)
    from gossamer.doctor import doctor

    return doctor()


def _inspect(options: argparse.Namespace, progress: Progress) -> Any:
    from gossamer.microscope.inspection import inspect
    from gossamer.microscope.table import table

    shape = settings_module.parse_shape(options.input) if options.input else None
    found = inspect(options.target, shape, measure=options.measure, threads=options.threads)
    if options.html:
        from gossamer.microscope.page import write

        write(found, options.html)
        progress.say(f"{options.html}: the network drawn, coloured by {'time' if found.timing else 'MACs'}")
    return _Result(table(found), found.to_json())


def _compare(options: argparse.Namespace, progress: Progress) -> Any:
    from gossamer.microscope.compare import compare

    shape = settings_module.parse_shape(options.input) if options.input else None
    result = compare(
        [*options.targets, *options.runs], shape, measure=options.measure, threads=options.threads, progress=progress
    )
    if options.plot:
        result.plot(options.plot)
    return result


def _list(options: argparse.Namespace, progress: Progress) -> Any:
    from gossamer import listing

    if options.weights:
        sets = listing.weight_rows(options.pattern)
        lines = [
            f"{row['network']:{_widest(sets, 'network')}}  {row['name']:{_widest(sets, 'name')}}  "
            f"{'-' if row['top1'] is None else format(row['top1'], '.3f'):>6}  {row['preprocessing']:36}  "
            f"{row['licence']:{_widest(sets, 'licence')}}  {row['source']}"
            for row in sets
        ]
        return _Result("\n".join(lines), sets)
    if options.max_params or options.max_macs:
        costs = listing.costs(
            options.pattern,
            max_params=settings_module.parse_count(options.max_params) if options.max_params else None,
            max_macs=settings_module.parse_count(options.max_macs) if options.max_macs else None,
            progress=progress,
        )
        width = max((len(row["name"]) for row in costs), default=4)
        lines = [f"{'name':{width}}  params (M)   MACs (M)  input"]
        lines += [
            f"{row['name']:{width}}  {row['params'] / 1e6:10.3f}  {row['macs'] / 1e6:9.1f}  {row['input']}"
            for row in costs
        ]
        return _Result("\n".join(lines), costs)
    names = listing.names(options.pattern)
    return _Result("\n".join(names), names)


def _widest(rows: list[dict[str, Any]], column: str) -> int:
    return max((len(row[column]) for row in rows), default=0)


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
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND", parser_class=_Parser)

    def command(name: str, function: Command, help: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=help, description=help, parents=[common], allow_abbrev=False)
        made.set_defaults(command=function)
        return made

    _train_arguments(command("train", _train, "train a network on a folder of images"))

    made = command("eval", _eval, "score a run or a model file on images")
    made.add_argument("model", help="run folder or model file")
    made.add_argument("data", nargs="?", default="", help="images; default the run's validation images")
    made.add_argument("--which", choices=("best", "last"), default="best", help="weights of a run")
    made.add_argument("--batch", type=_count, default=64, help="images at once")
    made.add_argument("--ignore-index", type=int, default=None, help="masks: a value that counts for nothing")
    _runtime_argument(made)

    made = command("export", _export, "write a run as one verified model file")
    made.add_argument("run", help="run folder")
    made.add_argument("--out", required=True, help="the .onnx file to write")
    made.add_argument("--which", choices=("best", "last"), default="best", help="weights of the run")
    made.add_argument("--licence", default="unspecified", help="licence of the model, e.g. CC-BY-4.0")

    made = command("compile", _compile, "compile an ONNX file for the native engine")
    made.add_argument("model", help="ONNX file, ours or any other of a convolutional network")
    made.add_argument("--out", required=True, help="the .goss file to write")
    made.add_argument("--precision", default="fp32", help="fp32, or bf16; what a QDQ file has in int8 stays int8")
    made.add_argument("--images", nargs="*", default=[], help="images and folders to compare the answers on")

    made = command("verify", _verify, "check that a model file still computes what was trained")
    made.add_argument("model", help="model file")
    _runtime_argument(made)

    made = command("predict", _predict, "classify images with a model file")
    made.add_argument("model", help="model file")
    made.add_argument("images", nargs="+", help="images or folders")
    made.add_argument("--top", type=_count, default=1, help="classes to name")
    made.add_argument("--batch", type=_count, default=32, help="images at once")
    made.add_argument("--threads", type=int, default=0, help="threads; 0 is the runtime's choice")
    _runtime_argument(made)

    made = command("bench", _bench, "measure model files, runs or networks on this machine")
    made.add_argument("targets", nargs="+", help="model file, run folder or network name")
    made.add_argument("--threads", default="1", help="numbers of threads, e.g. 1,2")
    made.add_argument("--batch", type=_count, default=1, help="images at once")
    made.add_argument("--runtimes", default="", help="e.g. onnxruntime,openvino; default all that are installed")
    made.add_argument("--profile", action="store_true", help="time each operation of compiled networks instead")
    made.add_argument("--plot", default="", help="also draw the latencies into this .png or .svg file")

    made = command("probe", _probe, "score classical classifiers on the features of a network")
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

    made = command("report", _report, "write one HTML file about a run")
    made.add_argument("run", help="run folder")
    made.add_argument("--out", default=None, help="the file; default RUN/report.html")
    made.add_argument("--model", default=None, help="exported model file whose check is to be shown")

    made = command("doctor", _doctor, "say what is installed and works; with --data, look through images")
    made.add_argument("--data", default="", help="images to look through")
    made.add_argument("--val", default="", help="validation images, where they do not lie beside")

    made = command("inspect", _inspect, "show what each layer of a network costs")
    made.add_argument("target", help="network, ONNX file or run folder")
    made.add_argument("--input", default="", metavar="CxHxW", help="e.g. 3x224x224; default the network's own")
    made.add_argument("--measure", action="store_true", help="also time each layer on this machine")
    made.add_argument("--threads", type=_count, default=1, help="threads while timing")
    made.add_argument("--html", default="", help="also draw the network into this file")

    made = command("compare", _compare, "set networks, files and runs side by side")
    made.add_argument("targets", nargs="*", metavar="NET", help="network, ONNX file or run folder")
    made.add_argument("--runs", nargs="+", default=[], metavar="RUN", help="more run folders")
    made.add_argument("--input", default="", metavar="CxHxW", help="e.g. 3x224x224; default each network's own")
    made.add_argument("--measure", action="store_true", help="also measure the latency of each on this machine")
    made.add_argument("--threads", type=_count, default=1, help="threads while measuring")
    made.add_argument("--plot", default="", help="also draw them into this .png or .svg file")

    made = command("list", _list, "list networks, or the weights published for them")
    made.add_argument("pattern", nargs="?", default="*", help="e.g. 'mobilenet*', or 'timm:*mobilenet*'")
    made.add_argument("--max-params", default="", metavar="N", help="count, and keep those of at most N parameters: 3M")
    made.add_argument("--max-macs", default="", metavar="N", help="count, and keep those of at most N MACs: 300M, 1.5G")
    made.add_argument(
        "--weights", action="store_true", help="network, set, published top-1 in %%, preprocessing, licence, source"
    )
    return parser


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
