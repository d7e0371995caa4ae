"""The files of an ncnn network that gossamer wrote: found, checked and read without a package, whatever they hold."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gossamer.errors import ModelFileError
from gossamer.modelfile.beside import bytes_of, values_of
from gossamer.modelfile.ncnn import MAGIC, METADATA, SUFFIX, WEIGHTS
from gossamer.modelfile.stated import Stated, is_shape, stated_of
from gossamer.ncnn.graph import Shape
from gossamer.ncnn.layers import check_layers

FORMAT, VERSION = "gossamer ncnn", 1
LIMITS = {SUFFIX: 2**26, WEIGHTS: 2**31, METADATA: 2**30}  # bytes
RULES = {
    1: "a .param file of ncnn, with the .bin and .json files of the same name beside it",
    2: "the .json file that `gossamer export --to ncnn` wrote, with the SHA-256 that it states",
    3: "a .param and a .bin file of the SHA-256 that the .json file states",
    4: "layers that gossamer writes, each behind those that it reads and of their shapes, and a .bin file of just their weights",
    5: f"a .json file of version {VERSION} with the input, the outputs and the metadata of FORMAT.md",
    6: "layers that the runtime has, and the input and outputs that the .json file states",
}


@dataclass(frozen=True)
class Output:
    """name: of the ONNX file. blob: its name in the .param file. shape: behind the batch. made: the shape that the layers make."""

    name: str
    blob: str
    shape: Shape
    made: Shape


@dataclass(frozen=True)
class NcnnNetwork:
    """What the files say. weights: the path of the .bin file. sha256: of the .json file, which holds those of the others."""

    param: str
    weights: Path
    sha256: str
    stated: Stated
    input_blob: str
    outputs: tuple[Output, ...]


def ncnn_error(rule: int, problem: str, do: str = "export it again: gossamer export FILE --to ncnn") -> ModelFileError:
    """The error for a rule of FORMAT.md, "The ncnn files", that does not hold."""
    return ModelFileError(rule, problem, RULES[rule], do)


def beside(path: str | os.PathLike[str], suffix: str) -> Path:
    """The other file of a .param file: NAME.bin or NAME.json."""
    return Path(path).with_suffix(suffix) if Path(path).suffix.lower() == SUFFIX else Path(f"{os.fspath(path)}{suffix}")


def read_network(path: str | os.PathLike[str]) -> NcnnNetwork:
    """The network of a .param file, all three files checked. Raises ModelFileError, whatever they hold."""
    name = os.fspath(path)
    param = bytes_of(name, LIMITS[SUFFIX], ncnn_error, "the three files")
    if not param.startswith(MAGIC):
        raise ncnn_error(1, f"{name}: not a .param file of ncnn", "check the path")
    places = {suffix: beside(path, suffix) for suffix in (METADATA, WEIGHTS)}
    metadata, weights = (
        bytes_of(os.fspath(place), LIMITS[suffix], ncnn_error, "the three files") for suffix, place in places.items()
    )
    values = values_of(metadata, os.fspath(places[METADATA]), FORMAT, "an ncnn network", ncnn_error)
    for key, data, place in (("param", param, name), ("bin", weights, os.fspath(places[WEIGHTS]))):
        if values.get(key) != hashlib.sha256(data).hexdigest():
            raise ncnn_error(
                3,
                f"{place}: not the file that {places[METADATA].name} belongs to",
                "fetch the three again, or export again",
            )
    try:
        text = param.decode("ascii")
        blobs = check_layers(text, len(weights))
    except (ValueError, UnicodeDecodeError) as error:
        raise ncnn_error(4, f"{name}: {error}") from error
    try:
        return _network(values, text, places[WEIGHTS], hashlib.sha256(metadata).hexdigest(), blobs)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ncnn_error(5, f"{places[METADATA]}: {type(error).__name__}: {error}") from error


def _network(values: dict[str, Any], param: str, weights: Path, digest: str, blobs: dict[str, Shape]) -> NcnnNetwork:
    """Raises ValueError and the like, and ModelFileError for metadata that break a rule."""
    if values["version"] != VERSION:
        raise ValueError(f"version {str(values['version'])[:20]}")
    stated, outputs = stated_of(values), []
    for one in values["outputs"]:
        name, blob, shape = one["name"], one["blob"], one["shape"]
        if not isinstance(name, str) or not is_shape(shape) or blob not in blobs:
            raise ValueError(f"an output {str(one)[:80]}")
        outputs.append(Output(name, blob, tuple(shape), blobs[blob]))
    if not outputs or len({one.name for one in outputs}) < len(outputs) or values["input_blob"] != next(iter(blobs)):
        raise ValueError("no outputs, two of one name, or no such input")
    if stated.input != blobs[values["input_blob"]]:
        raise ncnn_error(
            6, f"{weights}: layers that read {blobs[values['input_blob']]}, not an input of {stated.input}"
        )
    return NcnnNetwork(param, weights, digest, stated, values["input_blob"], tuple(outputs))
