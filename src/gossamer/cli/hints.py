"""What to say of commands and flags that gossamer does not have: the nearest of its own, or the one that other tools call so."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence

from gossamer.errors import InputError, SettingsError, nearest_names

# flags that are accepted for ours: the other spelling of the same word
SPELLINGS = {
    "--colour-jitter": "--color-jitter",
    "--license": "--licence",
    "--optimiser": "--optimizer",
}

# commands of other tools, and other words -> ours
COMMAND_HINTS = {
    "benchmark": "bench",
    "classify": "predict",
    "convert": "convert-boxes",
    "detect": "predict",
    "evaluate": "eval",
    "finetune": "train",
    "infer": "predict",
    "inference": "predict",
    "info": "inspect",
    "models": "list",
    "profile": "bench",
    "score": "eval",
    "segment": "predict",
    "summary": "inspect",
    "test": "eval",
    "val": "eval",
    "validate": "eval",
}

# flags of Ultralytics, timm, torchvision's references and others -> what to write here, likely ones first; one is taken
# that the command has; a word without dashes is an argument that stands without a flag
FLAG_HINTS: dict[str, tuple[str, ...]] = {
    "a": ("--net",),
    "aa": ("--randaugment",),
    "amp": ("--precision bf16",),
    "arch": ("--net",),
    "architecture": ("--net",),
    "auto-augment": ("--randaugment",),
    "b": ("--batch",),
    "backbone": ("--net",),
    "batch-size": ("--batch",),
    "bf16": ("--precision bf16",),
    "bs": ("--batch",),
    "cfg": ("--config",),
    "channels-last": ("--memory-format channels_last",),
    "checkpoint": ("--weights", "--which", "MODEL", "RUN"),
    "clip-grad": ("--clip-norm",),
    "clip-grad-norm": ("--clip-norm",),
    "conf": ("--threshold",),
    "conf-thres": ("--threshold",),
    "confidence": ("--threshold",),
    "cos-lr": ("--schedule cosine",),
    "cuda": ("--device cuda",),
    "data": ("DATA", "FOLDER", "IMAGES"),
    "data-dir": ("DATA", "--data", "FOLDER", "IMAGES"),
    "data-path": ("DATA", "--data", "FOLDER", "IMAGES"),
    "dataset": ("DATA", "--data", "FOLDER", "IMAGES"),
    "drop": ("--drop-rate",),
    "drop-path": ("--drop-path-rate",),
    "dropout": ("--drop-rate",),
    "early-stopping": ("--early-stop",),
    "ep": ("--epochs",),
    "fliplr": ("--flip",),
    "flipud": ("--vertical-flip",),
    "format": ("--to",),
    "fp16": ("--precision bf16",),
    "freeze-backbone": ("--freeze backbone",),
    "gpu": ("--device cuda",),
    "gpus": ("--device cuda",),
    "half": ("--precision bf16",),
    "hflip": ("--flip",),
    "image-size": ("--input",),
    "images": ("IMAGES", "DATA", "FOLDER"),
    "img": ("--input",),
    "img-size": ("--input",),
    "imgsz": ("--input",),
    "input-size": ("--input",),
    "iou-thres": ("--iou",),
    "j": ("--workers",),
    "k": ("--top",),
    "learning-rate": ("--lr",),
    "lr-scheduler": ("--schedule",),
    "lr0": ("--lr",),
    "max-det": ("--max-boxes", "--max-detections"),
    "model": ("--net", "MODEL", "TARGET", "NET"),
    "model-ema": ("--ema 0.999",),
    "momentum-ema": ("--ema",),
    "name": ("--out",),
    "network": ("--net",),
    "nms": ("--iou",),
    "num-epochs": ("--epochs",),
    "num-workers": ("--workers",),
    "o": ("--out",),
    "opt": ("--optimizer",),
    "optim": ("--optimizer",),
    "out-dir": ("--out",),
    "output": ("--out",),
    "output-dir": ("--out",),
    "precision-mode": ("--precision",),
    "pretrained": ("--weights default",),
    "project": ("--out",),
    "reprob": ("--random-erasing",),
    "resolution": ("--input",),
    "runtime": ("--runtimes",),
    "save": ("--draw FOLDER",),
    "save-dir": ("--out", "--draw"),
    "sched": ("--schedule",),
    "scheduler": ("--schedule",),
    "show": ("--draw FOLDER",),
    "size": ("--input",),
    "smoothing": ("--label-smoothing",),
    "source": ("IMAGES", "DATA"),
    "thres": ("--threshold",),
    "topk": ("--top",),
    "val-data": ("--val",),
    "val-dir": ("--val",),
    "val-split": ("--val-share",),
    "validation-split": ("--val-share",),
    "vflip": ("--vertical-flip",),
    "visualize": ("--draw FOLDER",),
    "warmup-epochs": ("--warmup",),
    "wd": ("--weight-decay",),
    "weight": ("--weights",),
    "weights": ("MODEL", "RUN", "TARGET"),
}


OF_A_RUN = (
    "swap",
    "prune",
    "decompose",
    "shrink",
    "eval",
    "export",
    "quantize",
)  # commands that read the run's settings
EVERYWHERE = ("--help", "--json", "--debug", "--offline")  # flags of every command, which nobody means by another name


def respelled(words: Sequence[str]) -> list[str]:
    """The words with the flags of SPELLINGS as gossamer has them; what is behind a lone -- stays."""
    end = words.index("--") if "--" in words else len(words)
    result = []
    for position, word in enumerate(words):
        flag, mark, value = word.partition("=")
        result.append(SPELLINGS.get(flag, flag) + mark + value if position < end else word)
    return result


def unknown_command(word: str, commands: Collection[str]) -> InputError:
    """The error of a command that does not exist."""
    if "=" in word:
        return SettingsError(f"{word!r} where a command is expected", "gossamer COMMAND", "see gossamer --help")
    if target := COMMAND_HINTS.get(word.lower()):
        return SettingsError(f"no command is called {word!r}", target, f"did you mean gossamer {target}?")
    near = nearest_names(word.lower(), commands)
    do = f"did you mean gossamer {near[0]}?" if near else "see gossamer --help"
    return SettingsError(f"no command is called {word!r}", ", ".join(near or commands), do)


def unknown_flag(flag: str, command: str, flags: Collection[str], positionals: Iterable[str]) -> InputError:
    """The error of a flag that a command does not have; positionals: the names of its arguments without a flag."""
    from gossamer.settings import names

    problem, help = f"{command} has no flag {flag}", f"what gossamer {command} --help lists"
    named = {name.upper() for name in positionals}
    for hint in FLAG_HINTS.get(flag.lstrip("-").lower().replace("_", "-"), ()):
        if hint.split()[0] in flags:
            return SettingsError(problem, hint.split()[0], f"did you mean {hint}?")
        if hint in named:
            return SettingsError(problem, f"{hint} without a flag", f"write gossamer {command} {hint} ...")
    written = SPELLINGS.get(flag, flag).replace("_", "-")
    near = nearest_names(written, flags, cutoff=0.75)  # a slip
    settings = {written, *(hint.split()[0] for hint in FLAG_HINTS.get(written.lstrip("-").lower(), ()))}
    if not near and command != "train" and any(name[2:].replace("-", "_") in names() for name in settings):
        of_run = f"; {command} takes those of the run" if command in OF_A_RUN else ""
        return SettingsError(problem, help, f"it is a setting of gossamer train{of_run}")
    near = near or nearest_names(written, {*flags} - {*EVERYWHERE})
    return SettingsError(
        problem, ", ".join(near) or help, f"did you mean {near[0]}?" if near else "check the arguments"
    )


def key_value(word: str, command: str, flags: Collection[str], positionals: Iterable[str]) -> InputError | None:
    """The error of a word such as epochs=3, which other tools take for a flag; None where it is a file or no such word."""
    from pathlib import Path

    match = re.fullmatch(r"([A-Za-z][A-Za-z0-9_-]*)=(.*)", word)
    if match is None or Path(word).exists():
        return None
    name, value = match[1].replace("_", "-"), match[2]
    flag = SPELLINGS.get(f"--{name}", f"--{name}")
    problem = f"{command} with {word!r}"
    if flag in flags:
        return SettingsError(problem, "flags as --name value", f"did you mean {flag} {value}?")
    if name.upper() in {each.upper() for each in positionals}:
        return SettingsError(problem, f"{name.upper()} without a name", f"did you mean gossamer {command} {value}?")
    if name.lower() in FLAG_HINTS or nearest_names(flag, flags):
        error = unknown_flag(flag, command, flags, positionals)
        return SettingsError(problem, "flags as --name value", error.do)
    return None
