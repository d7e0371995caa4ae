"""What each compression step buys a VGG, a ResNet and a MobileNet: milliseconds, bytes, and points of accuracy.

    python -m studies.compression --data cifar10-small --folder SCRATCH --minutes 4

A network of each family is trained for --minutes; then each step alone and all of them, every training with a quarter of the
minutes and the network as teacher: `gossamer prune --latency 0.5`, `gossamer decompose`, `gossamer quantize`, a network of half the width
from the start with the teacher and all of the minutes, and prune, decompose and quantize one after another. "more training" is the
control: what the quarter brings without a step. Milliseconds are of the native engine, one thread, batch 1, all files of a network
in turn; MB of the compiled file; points are against the network on the same validation images, with the 95 % interval of so many
images (one seed: the spread of trainings comes on top). SCRATCH keeps the runs: the same command goes on, and trains nothing twice.
Writes compression.md and compression.csv.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import gossamer
from gossamer.compile.write import compile_bytes
from gossamer.data.source import Data
from gossamer.errors import InputError, VerificationError
from gossamer.export.formats import export
from gossamer.host import machine
from gossamer.host.progress import SILENT, Progress
from gossamer.host.storage import write_text
from gossamer.modelfile.metadata import ModelFile, read_model_file
from gossamer.run import SETTINGS, Run
from gossamer.runtime.model import open_model
from gossamer.settings import Settings
from gossamer.shrink.decompose import METHODS
from gossamer.shrink.outcome import settings_after
from gossamer.shrink.recipe.latency import NATIVE, latencies
from gossamer.shrink.recipe.paired import Outcome, drop_between, outcome
from gossamer.training.loop import resume, train
from gossamer.training.restore import LoadedRun, load_run, same_data
from studies.rows import csv_text

NETS = {"vgg11": 0.25, "resnet18": 0.25, "mobilenet_v2": 0.5}  # with their widths
SHARE = 0.25  # of the minutes: a training that follows a step
LATENCY = 0.5  # of the network's ms, that is pruned to
LEAST = 0.05  # minutes of a training that follows
STEPS = ("the network", "more training", "prune", "decompose", "int8", "distil", "all")
COLUMNS = ("network", "step", "minutes", "ms", "ms_ratio", "mb", "accuracy", "points_lost", "low", "high", "note")
Row = dict[str, str]


@dataclass
class Family:
    """A trained network and what its steps need. folder: of its runs and files. after: minutes of a training that follows."""

    loaded: LoadedRun
    data: Data
    folder: Path
    minutes: float
    progress: Progress

    @property
    def after(self) -> float:
        return max(LEAST, SHARE * self.minutes)

    @property
    def run(self) -> Path:
        return self.loaded.run.path

    def again(self, name: str, settings: Settings) -> Path:
        """A training of that name, as far as it has come."""
        out = self.folder / name
        if (out / SETTINGS).exists():
            return resume(out, progress=self.progress).path
        return train(settings.replace(out=str(out)), split_of=self.loaded.run, progress=self.progress).path

    def following(self) -> Settings:
        """Of a training that follows a step, the network as teacher."""
        return settings_after(self.loaded.settings, self.loaded.run, "", self.after, "best", "narrowed")[0]


def more_training(family: Family) -> tuple[Path, str]:
    return family.again("more", family.following()), ""


def prune(family: Family) -> tuple[Path, str]:
    out = family.folder / "pruned"
    if (out / SETTINGS).exists():
        return resume(out, progress=family.progress).path, ""
    result = gossamer.prune(family.run, out, latency=LATENCY, minutes=family.after, progress=family.progress)
    gone = f", {len(result.dropped)} blocks gone" if result.dropped else ""
    return Path(result.file), f"{len(result.widths)} narrower layers{gone}"


def decompose(family: Family, run: Path | None = None, name: str = "decomposed") -> tuple[Path, str]:
    """run: what is decomposed, the network by default. Where nothing is accepted it stays as it is."""
    out = family.folder / name
    if (out / SETTINGS).exists():
        return resume(out, progress=family.progress).path, ""
    result = gossamer.decompose(run or family.run, out, minutes=family.after, methods=METHODS, progress=family.progress)
    if not result.file:
        return run or family.run, f"nothing accepted of {len(result.tried)} tried"
    return Path(result.file), f"{len(result.accepted)} of {len(result.tried)} layers decomposed"


def quantize(family: Family, run: Path | None = None, name: str = "int8") -> tuple[Path, str]:
    out = family.folder / f"{name}.onnx"
    if not out.exists():
        gossamer.quantize(run or family.run, out, progress=family.progress)
    return out, ""


def distil(family: Family) -> tuple[Path, str]:
    settings = family.following()
    width = round(float(settings.width or 1.0) / 2, 4)
    student = settings.replace(width=width, weights="", minutes=family.minutes)
    return family.again("student", student), f"width {width:g}, from the start"


def everything(family: Family) -> tuple[Path, str]:
    narrow, first = prune(family)
    smaller, second = decompose(family, narrow, "pruned-decomposed")
    return quantize(family, smaller, "all")[0], "; ".join(one for one in (first, second) if one)


MAKERS: dict[str, Callable[[Family], tuple[Path, str]]] = {
    "more training": more_training, "prune": prune, "decompose": decompose, "int8": quantize, "distil": distil, "all": everything,
}  # fmt: skip
TRAINED = {
    "more training": 1,
    "prune": 1,
    "decompose": 1,
    "int8": 0,
    "distil": 4,
    "all": 2,
}  # quarters of the minutes, about


def file_of(place: Path, folder: Path) -> ModelFile:
    """The model file of a run, or a file as it is."""
    if place.is_dir():
        out = folder / f"{place.name}.float.onnx"
        export(place, out)
        place = out
    return read_model_file(place)


def measured(file: ModelFile, family: Family, name: str) -> Outcome:
    """What a file's answers score on the validation images."""
    model = open_model(file, NATIVE, 1)
    preprocess = model.need_metadata().preprocess
    return outcome(model.run, family.data.val, preprocess, family.loaded.task, family.progress, f"scoring {name}")


def rows_of(net: str, width: float, data: str, folder: Path, minutes: float, progress: Progress) -> list[Row]:
    """The rows of a network: itself, and every step."""
    place = folder / net
    place.mkdir(parents=True, exist_ok=True)
    run: Run
    if (place / "network" / SETTINGS).exists():
        run = resume(place / "network", progress=progress)
    else:
        settings = Settings(
            data=data, net=net, width=width, minutes=minutes, threads=1, workers=0, out=str(place / "network")
        )
        run = train(settings, progress=progress)
    loaded = load_run(run.path)
    whole = same_data(run)
    loaded.task.prepare(whole)
    family = Family(loaded, whole, place, minutes, progress)
    files, notes = {STEPS[0]: file_of(run.path, place)}, {STEPS[0]: f"width {width:g}"}
    for step in STEPS[1:]:
        progress.say(f"{net}: {step}")
        try:
            made, notes[step] = MAKERS[step](family)
        except (InputError, VerificationError) as error:  # a limit that is out of reach is a finding too
            made, notes[step] = run.path, f"not made: {' '.join(str(error).split())}"
        files[step] = file_of(made, place)
    sizes = {step: len(compile_bytes(file)[0]) for step, file in files.items()}
    outcomes = {step: measured(file, family, step) for step, file in files.items()}
    took = latencies([open_model(file, NATIVE, 1) for file in files.values()], progress, f"timing {net}")
    rows = []
    for step, ms in zip(files, took, strict=True):
        drop = drop_between(outcomes[STEPS[0]], outcomes[step])
        first = step == STEPS[0]
        trained = minutes if first else minutes + TRAINED[step] * family.after
        rows.append(
            {
                "network": net, "step": step, "minutes": f"{trained:.2f}", "ms": f"{ms:.3f}", "ms_ratio": f"{ms / took[0]:.2f}",
                "mb": f"{sizes[step] / 1e6:.3f}", "accuracy": f"{100 * outcomes[step].value:.1f}",
                "points_lost": "" if first else f"{drop.points:.1f}", "low": "" if first else f"{drop.low:.1f}",
                "high": "" if first else f"{drop.high:.1f}", "note": notes[step],
            }
        )  # fmt: skip
    return rows


def markdown(rows: Sequence[Row], minutes: float, images: int, load: float | None) -> str:
    """The page: how it was measured, the table, and which steps the images tell from the network."""
    busy = (
        ""
        if load is None
        else f"; **other programs were at work (a load of {load:.1f}): the ms are of a busy machine**"
    )
    told = [row for row in rows if row["low"] and (float(row["low"]) > 0 or float(row["high"]) < 0)]
    lines = [
        "# What each compression step buys",
        "",
        f"Written by `python -m studies.compression --minutes {minutes:g}`: {machine.describe_machine()['cpu']}, one thread{busy}. One seed, "
        f"{images} validation images. Minutes are those of all trainings up to the file, about; points lost are against the network itself, "
        "with the 95 % interval of the images alone.",
        "",
        "| network | step | minutes | ms | of the network's | MB | accuracy, % | points lost (95 %) | |",
        "|---|---|---:|---:|---:|---:|---:|---|---|",
    ]
    for row in rows:
        lost = f"{row['points_lost']} ({row['low']} to {row['high']})" if row["low"] else ""
        cells = (
            row["network"],
            row["step"],
            row["minutes"],
            row["ms"],
            row["ms_ratio"],
            row["mb"],
            row["accuracy"],
            lost,
            row["note"].replace("|", "/"),
        )
        lines.append("| " + " | ".join(cells) + " |")
    seen = ", ".join(f"{row['step']} of {row['network']} ({-float(row['points_lost']):+.1f})" for row in told)
    lines += ["", f"Differences that the images tell from none: {seen or 'none'}."]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None, progress: Progress = SILENT) -> list[Row]:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", required=True, help="a folder of images with labels")
    parser.add_argument("--folder", required=True, help="where the runs lie; what was begun goes on")
    parser.add_argument("--minutes", type=float, default=4.0, help="of each network (default 4)")
    parser.add_argument("--nets", nargs="+", choices=tuple(NETS), default=tuple(NETS))
    parser.add_argument(
        "--out", default=str(Path(__file__).parent), help="folder of compression.md and compression.csv"
    )
    options = parser.parse_args(arguments)
    rows: list[Row] = []
    load = machine.busy_load(1)
    for net in options.nets:
        rows += rows_of(net, NETS[net], options.data, Path(options.folder), options.minutes, progress)
        load = max(filter(None, (load, machine.busy_load(1))), default=None)
        images = len(same_data(Run.open(Path(options.folder) / net / "network")).val)
        write_text(Path(options.out) / "compression.csv", csv_text(rows, COLUMNS))
        write_text(Path(options.out) / "compression.md", markdown(rows, options.minutes, images, load))
    return rows


if __name__ == "__main__":
    import sys

    from gossamer.host.progress import PlainLines

    main(progress=PlainLines(sys.stderr))
