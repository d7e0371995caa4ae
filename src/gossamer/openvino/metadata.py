"""gossamer's metadata in an OpenVINO IR: found, checked and read without a package, whatever the files hold."""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from gossamer.errors import ModelFileError
from gossamer.modelfile.beside import bytes_of
from gossamer.modelfile.openvino import SUFFIX, WEIGHTS
from gossamer.modelfile.stated import Stated, is_shape, stated_of

ENTRY, VERSION, PIXELS = (
    "gossamer",
    1,
    2,
)  # the element of rt_info; of the entry, and of one whose network takes uint8 images
DIGEST = re.compile(rb'<sha256 value="([0-9a-f]{64})" ?/>')
BLANK = b"0" * 64
LIMITS = {SUFFIX: 2**28, WEIGHTS: 2**31}  # bytes
RULES = {
    1: "the .xml file of an OpenVINO IR, with the .bin file of the same name beside it",
    2: "a complete XML file in UTF-8, without a document type",
    3: "an IR that `gossamer export --to openvino` wrote, with its entry gossamer in rt_info",
    4: "files as they were written, with the SHA-256 that rt_info states",
    5: f"an entry of version {VERSION} or {PIXELS} with the input, the outputs and the metadata of FORMAT.md",
    6: "operations that the runtime has, and the input and outputs that rt_info states",
}


@dataclass(frozen=True)
class OpenVinoNetwork:
    """What the files hold. outputs: names. shapes: of the outputs behind the batch. sha256: of both files. pixels: the input is uint8."""

    xml: bytes
    weights: bytes
    sha256: str
    stated: Stated
    outputs: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    pixels: bool = False


def openvino_error(
    rule: int, problem: str, do: str = "export it again: gossamer export FILE --to openvino"
) -> ModelFileError:
    """The error for a rule of FORMAT.md, "The OpenVINO files", that does not hold."""
    return ModelFileError(rule, problem, RULES[rule], do)


def digest(xml: bytes, weights: bytes) -> str:
    """SHA-256 of the .xml file, in which the digest's own digits are zeros, and the .bin file behind it."""
    whole = hashlib.sha256(xml)
    whole.update(weights)
    return whole.hexdigest()


def read_network(path: str | os.PathLike[str]) -> OpenVinoNetwork:
    """The network of an .xml file, both files checked. Raises ModelFileError, whatever they hold."""
    name = os.fspath(path)
    xml, place = bytes_of(name, LIMITS[SUFFIX], openvino_error, "both files"), Path(path).with_suffix(WEIGHTS)
    if Path(path).suffix.lower() != SUFFIX:
        raise openvino_error(1, f"{name}: not called .xml", "rename it")
    weights = bytes_of(os.fspath(place), LIMITS[WEIGHTS], openvino_error, "both files")
    values = _entry(xml, name)
    found = [match.span(1) for match in DIGEST.finditer(xml)]
    if len(found) != 1:
        raise openvino_error(3, f"{name}: {len(found)} digests in it")
    begin, end = found[0]
    stated_digest = xml[begin:end].decode()
    if digest(xml[:begin] + BLANK + xml[end:], weights) != stated_digest:
        reason = f"{name} and {place.name}: not both as they were written, or not of one network"
        raise openvino_error(4, reason, "fetch both again, or export again")
    try:
        return _network(xml, weights, stated_digest, json.loads(values))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise openvino_error(5, f"{name}: its entry: {type(error).__name__}: {error}") from error


def _entry(xml: bytes, name: str) -> str:
    """The JSON text of the entry. Raises ModelFileError."""
    try:
        text = xml.decode()
        # expat would follow entities, whose text may be without end
        if "<!" in text or not re.match(r'<\?xml version="1\.0"( encoding="utf-8")?\s*\?>', text, re.IGNORECASE):
            raise ValueError("no XML as OpenVINO writes it")
        root = ElementTree.fromstring(text)
    except (ValueError, ElementTree.ParseError, RecursionError) as error:
        raise openvino_error(2, f"{name}: {error}", "fetch it again") from error
    if root.tag != "net":
        raise openvino_error(1, f"{name}: an element <{root.tag[:40]}>, not an IR", "check the path")
    entries = root.findall(f"rt_info/{ENTRY}/entry")
    if len(entries) != 1:
        raise openvino_error(3, f"{name}: {len(entries) or 'no'} entries of gossamer in it")
    return entries[0].get("value", "")


def _network(xml: bytes, weights: bytes, sha256: str, values: Any) -> OpenVinoNetwork:
    """Raises ValueError and the like, and ModelFileError for metadata that break a rule."""
    version = values["version"]
    if type(version) is not int or version not in (VERSION, PIXELS):
        raise ValueError(f"version {str(version)[:20]}")
    outputs = [(one["name"], one["shape"]) for one in values["outputs"]]
    if not outputs or not all(isinstance(name, str) and is_shape(shape) for name, shape in outputs):
        raise ValueError(f"outputs {str(outputs)[:80]}")
    if len({name for name, _ in outputs}) < len(outputs):
        raise ValueError("two outputs of one name")
    names, shapes = zip(*outputs, strict=True)
    stated, sides = stated_of(values), tuple(tuple(int(side) for side in one) for one in shapes)
    if version == PIXELS and stated.metadata is None:
        raise ValueError("uint8 images without their preprocessing")
    return OpenVinoNetwork(xml, weights, sha256, stated, names, sides, version == PIXELS)
