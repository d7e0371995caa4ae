"""The table of commands."""

from __future__ import annotations

import importlib

TYPE_CHECKING = False  # as typing has it, whose import the help need not wait for
if TYPE_CHECKING:
    from typing import Any

# command -> (module of this package, one line of help); a module is imported when its command is used, and has EXAMPLES,
# arguments(parser) and run(options, progress) -> result
COMMANDS: dict[str, tuple[str, str]] = {
    "train": ("train", "train a network on a folder of images"),
    "eval": ("evaluate", "score a run or a model file on images"),
    "export": ("export", "write a run as one verified model file"),
    "quantize": ("quantize", "write a run or a float ONNX file in int8"),
    "prune": ("prune", "remove channels of a run's network until it keeps a limit, and train it on"),
    "decompose": ("decompose", "replace layers of a run's network by smaller ones that are measured faster"),
    "shrink": ("shrink", "prune, distil and quantise a run until it keeps limits of time, size and score"),
    "pick": ("pick", "find the network that keeps a budget here, and train it on your images"),
    "sweep": ("sweep", "train many settings, leave the worse ones early, find the best by score and speed"),
    "compile": ("compile", "compile an ONNX file for the native engine"),
    "verify": ("verify", "check that a model file still computes what was trained"),
    "predict": ("predict", "run a model file or a run on images"),
    "fit": ("fit", "say whether a network fits into the memory of a chip"),
    "bench": ("bench", "measure model files, runs or networks on this machine"),
    "probe": ("probe", "score classical classifiers on the features of a network"),
    "report": ("report", "write one HTML file about a run"),
    "diagnose": ("diagnose", "say why a run failed, or what holds it back"),
    "doctor": ("doctor", "check the installation; with --data, check a dataset"),
    "inspect": ("inspect", "show what each layer of a network costs"),
    "review": ("review", "compare a network with the rules of the papers, and measure what they would gain"),
    "compare": ("compare", "compare networks, files and runs"),
    "swap": ("swap", "train a run again with another network, on the same images"),
    "index": ("index", "write the embeddings of a folder of images to one file"),
    "search": ("search", "find the images of an index that are most similar to others"),
    "convert-boxes": ("convert_boxes", "write images with boxes in another format"),
    "list": ("list", "list networks, or the weights published for them"),
    "completion": ("completion", "print the completion script of a shell"),
}

# other spellings of commands, which the help does not list
ALIASES = {"quantise": "quantize"}

# the order in which the help shows them
GROUPS: dict[str, tuple[str, ...]] = {
    "train": ("train", "eval", "report", "diagnose", "swap", "prune", "decompose", "shrink", "sweep", "probe"),
    "deploy": ("export", "verify", "predict", "quantize", "compile", "fit", "bench", "index", "search"),
    "networks": ("list", "pick", "inspect", "review", "compare"),
    "data and installation": ("doctor", "convert-boxes", "completion"),
}


def command_module(name: str) -> Any:
    """The module of a command."""
    return importlib.import_module(f"gossamer.cli.{COMMANDS[name][0]}")
