"""What each command does: one library call, and its result as lines for a person and plain values for a program."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gossamer
from gossamer import settings as settings_module
from gossamer.errors import InputError, SettingsError
from gossamer.host.progress import Progress
from gossamer.settings import Settings

if TYPE_CHECKING:
    from gossamer.runtime.model import Model


@dataclasses.dataclass(frozen=True)
class Result:
    """A result that is lines for a person and plain values for a program."""

    lines: str
    values: Any
    exit_code: int = 0

    def text(self) -> str:
        return self.lines

    def to_json(self) -> Any:
        return self.values


def train(options: argparse.Namespace, progress: Progress) -> Any:
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
        from gossamer.training.loop import resume

        return _trained(resume(options.resume, progress=progress))
    from gossamer.training.loop import train

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


def _trained(run: gossamer.Run) -> Result:
    from gossamer.tasks.registry import task_of

    name = f"val_{task_of(run.settings.task).score}"
    rows, best = run.metrics(), run.best(name)
    values = {"run": str(run.path), "epochs": len(rows), "best": best, "last": rows[-1] if rows else {}}
    said = f": {name.replace('_', ' ', 1)} {best[name]:.4f} after epoch {best['epoch']:g}" if best else ""
    return Result(f"{run.path}{said}", values)


def evaluate(options: argparse.Namespace, progress: Progress) -> Any:
    from gossamer.tasks.registry import scorer_of, source_of
    from gossamer.training.evaluate import evaluate

    if Path(options.model).is_dir():
        from gossamer.training.restore import load_run, run_data, torch_forward

        network = load_run(options.model, options.which)
        task = network.task
        if options.data:
            source = task.open_source(options.data, network.classes, network.settings, options.split or "")
        else:
            splits, split = run_data(network.run).splits(), options.split or "val"
            if split not in splits:
                raise SettingsError(f"{options.model}: no {split} images", ", ".join(splits), "choose one of them")
            source = splits[split]
        forward, preprocess, scorer = torch_forward(network.model), network.preprocess, task.scorer()
    else:
        model = gossamer.load(options.model, runtime=options.runtime)
        metadata = model.metadata
        if metadata is None:
            raise InputError(f"{options.model}: carries no classes", "a file made by `gossamer export`", "export it")
        if not options.data:
            raise SettingsError("a model file without data", "gossamer eval FILE DATA", "name the images")
        source = source_of(metadata.heads, options.data, options.ignore_index, options.split or "")
        forward, preprocess, scorer = model.run, metadata.preprocess, scorer_of(metadata.heads)
    return evaluate(forward, source, preprocess, scorer, batch=options.batch, progress=progress).scores()


def export(options: argparse.Namespace, progress: Progress) -> Any:
    from gossamer.export.onnx import export

    return export(options.run, options.out, which=options.which, licence=options.licence, progress=progress)


def compile_file(options: argparse.Namespace, progress: Progress) -> Any:
    from gossamer.runtime.compilation import compile_model

    precision = {"fp32": "float32", "bf16": "bfloat16"}.get(options.precision, options.precision)
    if precision == "int8":
        raise SettingsError(
            "--precision int8",
            "fp32 and bf16; int8 is what a calibrated QDQ file has",
            "quantise the ONNX file, and compile that with --metadata and the original",
        )
    size = settings_module.parse_size(options.input) if options.input else None
    return compile_model(
        options.model, options.out, precision, options.images, progress, options.classifier, options.metadata, size
    )


def verify(options: argparse.Namespace, progress: Progress) -> Any:
    result = gossamer.verify(options.model, runtime=options.runtime)
    return Result(result.text(), result.to_json(), 0 if result.ok else 1)


def _network(options: argparse.Namespace) -> Model:
    """The model file, or the network of a run folder."""
    if not Path(options.model).is_dir():
        return gossamer.load(options.model, runtime=options.runtime, threads=options.threads)
    if options.runtime != "auto":
        raise SettingsError(
            f"a run folder with the runtime {options.runtime}", "a model file", f"gossamer export {options.model}"
        )
    import torch

    from gossamer.training.restore import as_model

    if options.threads:
        torch.set_num_threads(options.threads)
    return as_model(options.model)


def predict(options: argparse.Namespace, progress: Progress) -> Any:
    from gossamer.runtime.predict import predict_files

    model = _network(options)
    progress.say(f"{model.runtime_name}: {model.why}")
    lines, values, good = [], [], 0
    answers = predict_files(model, options.images, top=options.top, batch=options.batch, progress=progress)
    if options.draw:
        from gossamer.runtime.drawing import draw_files

        answers = draw_files(answers, model.need_metadata(), options.images, options.draw)
    for item in answers:
        good += not item.error
        problem = item.error.removeprefix(f"{item.source}: ")  # an image's own says which it is
        lines.append(f"{item.source}: {problem or item.text()}")
        values.append(item.to_json())
    return Result(
        "\n".join(lines),
        {"model": str(options.model), "runtime": model.runtime_name, "predictions": values},
        0 if good else 2,
    )


def bench(options: argparse.Namespace, progress: Progress) -> Any:
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
    from gossamer.host.storage import write_text
    from gossamer.run import BENCH

    for target in options.targets:  # a run keeps its figures, and its report shows them
        if (Path(target) / "settings.yaml").is_file():
            write_text(Path(target) / BENCH, json.dumps(result.to_json(), indent=1))
    return result


def probe(options: argparse.Namespace, progress: Progress) -> Any:
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
    return Result("\n\n".join(texts), values)


def _threads(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if not all(part.isdecimal() and 1 <= int(part) <= 4096 for part in parts):
        raise SettingsError(f"threads {text!r}", "numbers from 1 with commas, as 1,2", "give such numbers")
    return tuple(int(part) for part in parts)


def report(options: argparse.Namespace, progress: Progress) -> Any:
    from gossamer.report.page import write

    path = write(options.run, options.out, model_file=options.model, progress=progress)
    return Result(str(path), {"report": str(path)})


def doctor(options: argparse.Namespace, progress: Progress) -> Any:
    if options.data:
        from gossamer.cli.check_data import look_through

        return look_through(options.data, options.task or "classify", val=options.val, progress=progress)
    if options.task:
        raise SettingsError(f"--task {options.task} without --data", "both, or neither", "name the images: --data DIR")
    from gossamer.cli.doctor import doctor

    return doctor()


def inspect(options: argparse.Namespace, progress: Progress) -> Any:
    from gossamer.microscope.inspection import inspect
    from gossamer.microscope.table import table

    shape = settings_module.parse_shape(options.input) if options.input else None
    found = inspect(options.target, shape, measure=options.measure, threads=options.threads)
    if options.html:
        from gossamer.microscope.page import write

        write(found, options.html)
        progress.say(f"{options.html}: the network drawn, coloured by {'time' if found.timing else 'MACs'}")
    return Result(table(found), found.to_json())


def compare(options: argparse.Namespace, progress: Progress) -> Any:
    from gossamer.microscope.compare import compare

    shape = settings_module.parse_shape(options.input) if options.input else None
    result = compare(
        [*options.targets, *options.runs], shape, measure=options.measure, threads=options.threads, progress=progress
    )
    if options.plot:
        result.plot(options.plot)
    return result


def swap(options: argparse.Namespace, progress: Progress) -> Any:
    from gossamer.training.rerun import swap

    run, dropped = swap(options.run, options.net, options.out, weights=options.weights, progress=progress)
    trained = _trained(run)
    return Result(trained.lines, {**trained.values, "dropped": dropped})


def index(options: argparse.Namespace, progress: Progress) -> Any:
    from gossamer.runtime.retrieval import index_folder

    model = gossamer.load(options.model, runtime=options.runtime)
    gallery, aside = index_folder(model, options.folder, options.batch, progress)
    gallery.save(options.out)
    identities = len({label for label in gallery.labels if label})
    lines = [f"{options.out}: {len(gallery)} images, {identities} identities"]
    values = {
        "index": options.out,
        "model": options.model,
        "images": len(gallery),
        "identities": identities,
        "unreadable": [{"source": source, "error": reason} for source, reason in aside],
    }
    return Result("\n".join([*lines, *(f"set aside: {reason}" for _, reason in aside)]), values)


def search(options: argparse.Namespace, progress: Progress) -> Any:
    from gossamer.predictions.gallery import Gallery
    from gossamer.runtime.retrieval import model_beside, search_files

    gallery = Gallery.load(options.index)
    model = gossamer.load(options.model or model_beside(gallery), runtime=options.runtime)
    if bool(options.draw) != bool(options.gallery):
        raise SettingsError(
            "one of --draw and --gallery", "both: where the sheets go, and the folder that was indexed", "name both"
        )
    every = search_files(model, gallery, options.images, options.top, options.batch, options.backend, progress=progress)
    if options.draw:
        from gossamer.runtime.sheets import draw_neighbours

        every = draw_neighbours(every, options.images, options.gallery, options.draw)
    found = list(every)
    values = {"index": options.index, "model": model.path, "queries": [one.to_json() for one in found]}
    return Result("\n".join(one.text() for one in found), values, 0 if any(not one.error for one in found) else 2)


def convert_boxes(options: argparse.Namespace, progress: Progress) -> Any:
    from gossamer.data.boxes.convert import convert

    return convert(options.root, options.out, options.to)


def list_networks(options: argparse.Namespace, progress: Progress) -> Any:
    from gossamer.cli import listing

    if options.weights:
        sets = listing.weight_rows(options.pattern)
        lines = [
            f"{row['network']:{_widest(sets, 'network')}}  {row['name']:{_widest(sets, 'name')}}  "
            f"{'-' if row['top1'] is None else format(row['top1'], '.3f'):>6}  {row['preprocessing']:36}  "
            f"{row['licence']:{_widest(sets, 'licence')}}  {row['source']}"
            for row in sets
        ]
        return Result("\n".join(lines), sets)
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
        return Result("\n".join(lines), costs)
    names = listing.names(options.pattern)
    return Result("\n".join(names), names)


def _widest(rows: list[dict[str, Any]], column: str) -> int:
    return max((len(row[column]) for row in rows), default=0)
