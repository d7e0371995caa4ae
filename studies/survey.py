"""The survey's table of light networks, with milliseconds of this machine: accuracy with its source, MACs, parameters, ms.

    python -m studies.survey [NETWORK ...] [--out studies] [--rounds 3]

Every network of the zoo of at most 1,000 million MACs at its own input, weights drawn, in the native engine on one thread, batch 1:
float32, bf16 (not available where the processor multiplies no bfloat16: it would be converted, and slower) and int8. The precisions
of a network are timed in turn, several times; a cell is the median over these rounds, each the fastest of some runs. Accuracy
is what was published for ImageNet, with its source; none was measured here. Writes survey.md and survey.csv; rows that survey.csv
has of the same machine and engine are not measured again, so that it can be stopped and started.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import io
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

from gossamer.host import machine
from gossamer.host.storage import write_text
from gossamer.networks.listing import network_rows
from gossamer.networks.published import published_top1
from gossamer.networks.registry import list_models, traits
from gossamer.runtime import native
from gossamer.selection.choices import NetworkChoice
from gossamer.selection.counting import Builder
from gossamer.selection.timing import NATIVE, NetworkTimes
from studies.rows import csv_text

LIGHT = 1_000_000_000  # multiply-adds of the heaviest network of the table
PRECISIONS = ("float32", "bf16", "int8")
ABSENT = "not available"
COLUMNS = (
    "network", "input", "top1", "source", "macs", "parameters", "ms_float32", "ms_bf16", "ms_int8", "spread", "load", "machine", "date",
)  # fmt: skip
Row = dict[str, str]


def row_of(name: str, rounds: int, precisions: Sequence[str], about: str) -> Row:
    """A network's row. precisions: those to be timed. about: the machine and the engine."""
    (entry,) = network_rows(name)
    known = published_top1(name)
    row = {
        "network": name,
        "input": entry["input"],
        "top1": known.text if known else "",
        "source": known.source if known else "",
        "macs": str(entry["macs"]),
        "parameters": str(entry["params"]),
        "load": f"{machine.busy_load(1) or 0:.1f}",
        "machine": about,
        "date": datetime.date.today().isoformat(),
    }
    channels, height, width = traits(name).input
    choice, builder = NetworkChoice(name, None, (height, width), channels), Builder()
    counted = builder.count(choice)
    took: dict[str, list[float]] = {precision: [] for precision in precisions}
    for _ in range(rounds):
        found, reasons = NetworkTimes(NATIVE, 1, keep=False).measure(builder, choice, counted, precisions)
        for precision, (ms, _) in found.items():
            took[precision].append(ms)
        row |= {f"ms_{precision}": f"failed: {' '.join(why.split())}" for precision, why in reasons.items()}
    row |= {f"ms_{precision}": f"{statistics.median(ms):.3f}" for precision, ms in took.items() if ms}
    row |= {f"ms_{precision}": ABSENT for precision in PRECISIONS if precision not in precisions}
    # the largest ratio of two rounds of one file: what the machine's other work adds
    row["spread"] = f"{max((max(ms) / min(ms) for ms in took.values() if ms), default=1.0):.2f}"
    return row


def known_rows(path: Path, about: str) -> dict[str, Row]:
    """The rows of an earlier run on the same machine with the same engine, by network."""
    if not path.is_file():
        return {}
    rows = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"), newline=""))
    return {row["network"]: row for row in rows if tuple(row) == COLUMNS and row["machine"] == about}


def markdown(rows: Sequence[Row]) -> str:
    """The page: what was measured and where, and the table, the fastest first."""
    loads = [float(row["load"]) for row in rows]
    spread = statistics.median(float(row["spread"]) for row in rows)
    busy = sum(load > 0 for load in loads)
    quiet = "no other program was at work on half of the cores or more" if not busy else (
        f"**other programs were at work for {busy} of {len(rows)} rows (a load of up to {max(loads):.1f}): their milliseconds are "
        "of a busy machine, and only their ratios say something**"
    )  # fmt: skip
    dates = sorted({row["date"] for row in rows})
    lines = [
        "# Light networks",
        "",
        f"Written by `python -m studies.survey` on {' to '.join(dict.fromkeys((dates[0], dates[-1])))}: {rows[0]['machine']}, one "
        f"thread, batch 1, native engine, weights drawn; {quiet}. Two rounds of a file differ by a factor of {spread:.2f} at the median "
        "network. Top-1 is ImageNet's as published, in per cent; none was measured here, and the papers trained with different recipes.",
        "",
        "| network | input | top-1 | M MACs | M parameters | ms float32 | ms bf16 | ms int8 | source of the accuracy |",
        "|---|---|---:|---:|---:|---:|---:|---:|---|",
    ]
    for row in sorted(rows, key=_milliseconds):
        cells = [
            row["network"], row["input"], row["top1"] or "not known", f"{int(row['macs']) / 1e6:.1f}",
            f"{int(row['parameters']) / 1e6:.2f}", *(row[f"ms_{one}"].replace("|", "/") for one in PRECISIONS), row["source"].replace("|", "/"),
        ]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _milliseconds(row: Row) -> tuple[float, str]:
    try:
        return float(row["ms_float32"]), row["network"]
    except ValueError:  # it failed
        return float("inf"), row["network"]


def survey(
    names: Sequence[str], folder: Path, rounds: int, say: Callable[[str], None] = print, light: int = LIGHT
) -> list[Row]:
    """Measure what is not measured yet, and write both files after every network."""
    here = machine.describe_machine()
    isa, bfloat16 = engine_facts()
    about = f"{here['cpu']}, engine {isa}"
    precisions = [one for one in PRECISIONS if one != "bf16" or bfloat16]
    path = folder / "survey.csv"
    rows = known_rows(path, about)
    for entry in network_rows():
        name = entry["name"]
        if name not in names or entry["macs"] > light or name in rows:
            continue
        rows[name] = row_of(name, rounds, precisions, about)
        say(f"{name}: " + ", ".join(f"{one} {rows[name]['ms_' + one]}" for one in PRECISIONS))
        ordered = [rows[one] for one in sorted(rows)]
        write_text(path, csv_text(ordered, COLUMNS))
        write_text(folder / "survey.md", markdown(ordered))
    return list(rows.values())


def engine_facts() -> tuple[str, bool]:
    """The instruction set of the engine here, and whether it multiplies bfloat16."""
    import tempfile

    from torch import nn

    from gossamer.compile.write import compile_bytes
    from gossamer.export.traced import onnx_to_time
    from gossamer.modelfile.metadata import parse_model_file

    data = onnx_to_time(nn.Sequential(nn.Conv2d(3, 4, 1)).eval(), (4, 4), 3)
    with tempfile.TemporaryDirectory() as folder:
        trial = Path(folder) / "network.goss"
        trial.write_bytes(compile_bytes(parse_model_file(data, "a layer"))[0])
        engine = native.Native(trial, 1)
        try:
            return engine.isa, engine.isa in native.NATIVE_BFLOAT16
        finally:
            engine.close()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("networks", nargs="*", help="default all light ones")
    parser.add_argument("--out", default=str(Path(__file__).parent), help="folder of survey.md and survey.csv")
    parser.add_argument("--rounds", type=int, default=3, help="of each network (default 3)")
    options = parser.parse_args(arguments)
    wanted = options.networks or list_models()
    if unknown := sorted(set(wanted) - set(list_models())):
        parser.error(f"unknown: {', '.join(unknown)}")
    survey(wanted, Path(options.out), options.rounds)


if __name__ == "__main__":
    main()
