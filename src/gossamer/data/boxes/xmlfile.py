"""XML from anywhere: no document type, so no entities that grow, no files that it names; bounded size and depth."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.parsers import expat

from gossamer.data.boxes.records import contents
from gossamer.data.folder import printable_path
from gossamer.errors import DataError

LIMIT = 1 << 24
"""Bytes of an XML file; an image with ten thousand objects has a tenth of that."""
DEPTH = 32
"""Elements inside one another; PASCAL VOC needs 5."""
_ALLOWED = "a PASCAL VOC annotation in XML"


class _RefusedError(Exception):
    pass


def read_xml(path: Path, limit: int = LIMIT, allowed: str = _ALLOWED) -> ElementTree.Element:
    """The root element of a file of at most `limit` bytes; allowed: what it should be. Raises DataError."""
    return parse_xml(contents(path, limit), printable_path(str(path)), allowed)


def parse_xml(data: bytes, name: str, allowed: str = _ALLOWED) -> ElementTree.Element:
    """The root element of the bytes of a file called `name`. Raises DataError."""
    builder = ElementTree.TreeBuilder()
    parser = expat.ParserCreate()
    parser.buffer_text = True
    depth = 0

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > DEPTH:
            raise _RefusedError(f"more than {DEPTH} elements inside one another")
        builder.start(tag, attributes)

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(tag)

    def refuse(*_: Any) -> None:
        raise _RefusedError("a document type or an entity, which is not read")

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = refuse
    try:
        parser.Parse(data, True)
        return builder.close()
    except _RefusedError as error:
        raise DataError(f"{name}: has {error}", allowed, "remove it from the file") from error
    except (expat.ExpatError, ValueError, LookupError) as error:
        raise DataError(f"{name}: is no XML: {error}", allowed, "fix or remove the file") from error
