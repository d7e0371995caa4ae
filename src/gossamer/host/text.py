"""Text tables and number formats for terminals and pages; what is not a number is shown as a dash or a question mark.

On pages a thin space stands between a number and its unit; on terminals, where columns are aligned, a plain one or none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

DASH = "–"
THIN = "\u202f"  # narrow no-break space: between a number and its unit, and between groups of three digits
ROUNDS_UP = 0.999995  # of a unit: what two decimal places would write as 1000.00 of the unit below

# score of a task, as metrics files call it -> as people write it
METRIC_NAMES = {
    "accuracy": "top-1 accuracy",
    "auc": "AUC",
    "ar1": "AR@1",
    "ar10": "AR@10",
    "ar100": "AR@100",
    "macro_f1": "macro F1",
    "mae": "MAE",
    "map": "mAP",
    "map50": "mAP@0.5",
    "map75": "mAP@0.75",
    "map_r": "MAP@R",
    "mean_accuracy": "mean class accuracy",
    "micro_f1": "micro F1",
    "miou": "mIoU",
    "r2": "R²",
    "r_precision": "R-precision",
    "recall1": "Recall@1",
    "recall5": "Recall@5",
    "recall10": "Recall@10",
    "rmse": "RMSE",
    "top5": "top-5 accuracy",
}


def percent(fraction: float, digits: int = 1) -> str:
    """0.9123 -> "91.2 %"."""
    return f"{fraction * 100:.{digits}f}{THIN}%" if math.isfinite(fraction) else DASH


def points(fraction: float, digits: int = 1) -> str:
    """0.9123 -> "91.2", for columns whose head says per cent."""
    return f"{fraction * 100:.{digits}f}" if math.isfinite(fraction) else DASH


def grouped(value: float) -> str:
    """1234567 -> "1 234 567"; four digits stay together."""
    if not math.isfinite(value):
        return DASH
    return f"{value:,.0f}".replace(",", THIN) if abs(value) >= 10_000 else f"{value:.0f}"


def si_number(value: float, digits: int = 3) -> str:
    """2237000 -> "2.24 M": thousands k, millions M, billions G; `digits` significant digits."""
    if not math.isfinite(value):
        return DASH
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size * 0.9995:
            return f"{significant(value / size, digits)}{THIN}{unit}"
    return significant(value, digits)


def significant(value: float, digits: int = 3) -> str:
    """`digits` significant digits, without an exponent where 1e-4 <= |value| < 1e6."""
    if not math.isfinite(value):
        return DASH
    if value == 0:
        return "0"
    places = digits - 1 - math.floor(math.log10(abs(float(f"{value:.{digits - 1}e}"))))
    if abs(value) < 1e-4 or abs(value) >= 1e6:
        return f"{value:.{digits - 1}e}"
    return f"{round(value, places):.{max(places, 0)}f}"


def tick(value: float) -> str:
    """The number beside an axis: as short as it can be."""
    if abs(value) >= 1000:
        for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
            if abs(value) >= size:
                return f"{value / size:g}{unit}"
    return f"{value:g}"


def decimal_bytes(value: float) -> str:
    """Bytes: 8912345 -> "8.91 MB" (powers of 1000)."""
    if not math.isfinite(value):
        return DASH
    return (
        f"{value:.0f}{THIN}bytes"
        if value < 1000
        else si_number(value).replace("k", "kB").replace("M", "MB").replace("G", "GB")
    )


def milliseconds(value: float) -> str:
    """3.456 -> "3.46 ms"."""
    return f"{significant(value)}{THIN}ms" if math.isfinite(value) else DASH


def duration(seconds: float) -> str:
    """4000 -> "1 h 07 min"; 75 -> "1 min 15 s"; 3.2 -> "3.2 s"."""
    if not math.isfinite(seconds):
        return DASH
    if seconds < 59.95:
        return f"{seconds:.1f}{THIN}s"
    rounded = round(seconds)
    if rounded < 3600:
        return f"{rounded // 60}{THIN}min {rounded % 60:02d}{THIN}s"
    minutes = round(seconds / 60)
    return f"{minutes // 60}{THIN}h {minutes % 60:02d}{THIN}min"


def truncated(name: str, length: int) -> str:
    """`name` cut to at most `length` characters, an ellipsis at the cut."""
    return name if len(name) <= length else name[: length - 1] + "…"


def metric_name(name: str) -> str:
    """ "map50" -> "mAP@0.5", "mae:price" -> "MAE price"; a name without an entry of its own keeps its words."""
    name, mark, of = name.partition(":")
    if mark and name == "accuracy":
        return f"accuracy at level {of}"
    return " ".join([METRIC_NAMES.get(name, name.replace("_", " ")), *([of] if mark else [])])


def metric_title(name: str) -> str:
    """`metric_name` as it begins a heading: "Top-1 accuracy", "mAP@0.5"."""
    shown = metric_name(name)
    return shown if shown[1:2].isupper() else f"{shown[:1].upper()}{shown[1:]}"


def metric_lines(metrics: Mapping[str, float], names: Mapping[str, str] | None = None) -> list[str]:
    """A line a score, in columns; those that nothing defines (nan) are left out, and a line says so where all are.

    names: how to write those that the task calls otherwise than `metric_name` does.
    """
    known = {(names or {}).get(name) or metric_name(name): value for name, value in metrics.items() if value == value}
    if not known:
        return ["no score: none is defined for these images and outputs"]
    width = max(map(len, known))
    return [f"{name:{width}}  {value:.4f}" for name, value in known.items()]


def ratio(value: float | None) -> str:
    """0.91234 -> "0.912", for columns of a terminal; a dash where nothing defines it."""
    return "-" if value is None or not math.isfinite(value) else f"{value:.3f}"


def compact_count(number: float | None) -> str:
    """3500000 -> "3.50M", for columns of a terminal; "?" where it is unknown."""
    if number is None:
        return "?"
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= limit * ROUNDS_UP:
            return f"{number / limit:.2f}{unit}"
    return f"{number:g}"


def binary_bytes(number: int) -> str:
    """Bytes, three significant digits: 1258291 -> "1.20 MiB" (powers of 1024)."""
    for limit, unit in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if number >= limit * ROUNDS_UP:
            return f"{significant(number / limit)} {unit}"
    return f"{number} B"


def fixed(value: float | None, digits: int) -> str:
    """`digits` decimal places; "?" where the value is unknown."""
    return "?" if value is None else f"{value:.{digits}f}"


def dimensions(shape: Sequence[int]) -> str:
    """(3, 224, 224) -> "3x224x224"."""
    return "x".join(map(str, shape))


def counted(number: float, word: str, several: str = "") -> str:
    """1 -> "1 epoch"; 2 -> "2 epochs"; 1.2 -> "1.2 epochs"; 2 -> "2 identities"; 2 -> "2 boxes".

    several: the words of any number but one, where more than the noun changes: "image is", "images are".
    """
    figure = f"{number:g}" if isinstance(number, float) else str(number)
    return f"{figure} {_words(number, word, several)}"


def short_minutes(minutes: float) -> str:
    """A time budget as it was given, without digits that nobody reads: 1.01624 -> "1.02"; 0.0751 -> "0.0751"."""
    return f"{round(minutes, 2) if minutes >= 1 else float(f'{minutes:.3g}'):g}"


def minutes_text(minutes: float, several: str = "") -> str:
    """`short_minutes` with the word: "1.02 minutes"; "1 minute". several: as of `counted`, "minutes are"."""
    rounded = float(short_minutes(minutes))
    return counted(rounded, "minute is", several) if several else counted(rounded, "minute")


def grouped_count(number: float, word: str, several: str = "") -> str:
    """As `counted`, the figure as `grouped` writes it: 12345 -> "12 345 images"."""
    return f"{grouped(number)} {_words(number, word, several)}"


def none_of(number: float, word: str, several: str = "") -> str:
    """3 -> "none of the 3 images"; 1 -> "none of 1 image"."""
    return f"none of {'the ' if number != 1 else ''}{counted(number, word, several)}"


def _words(number: float, word: str, several: str) -> str:
    if number == 1 or several:
        return word if number == 1 else several
    if word.endswith("y"):
        return f"{word[:-1]}ies"
    return f"{word}es" if word.endswith(("s", "x", "tch", "sh")) else f"{word}s"


def thread_count(threads: int) -> str:
    """2 -> "2 threads"."""
    return counted(threads, "thread")


def format_table(
    header: Sequence[str] | None,
    rows: Sequence[Sequence[str]],
    *,
    left: Sequence[int] = (0,),
    widths: Sequence[int] = (),
    gap: str = "  ",
) -> list[str]:
    """Lines of a table: the header, where there is one, then the rows, no spaces at the end of a line.

    left: the columns that are aligned left (negative numbers count from the last); the others are aligned right.
    widths: the least width of each column; one that is wider grows. gap: between two columns.
    Raises ValueError where a row has not as many cells as the first line, or `widths` not as many entries.
    """
    lines = [*([] if header is None else [tuple(header)]), *map(tuple, rows)]
    if not lines:
        return []
    columns = len(lines[0])
    if any(len(cells) != columns for cells in lines) or len(widths) not in (0, columns):
        raise ValueError(f"a row or widths without {columns} cells")
    least = tuple(widths) or (0,) * columns
    aligned_left = {column % columns for column in left}
    full = [max(least[n], *(len(cells[n]) for cells in lines)) for n in range(columns)]
    return [
        gap.join(
            cell.ljust(width) if n in aligned_left else cell.rjust(width)
            for n, (cell, width) in enumerate(zip(cells, full))
        ).rstrip()
        for cells in lines
    ]
