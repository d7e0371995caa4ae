"""The records of the native file are the same in Python, in the engine's C++ and in FORMAT.md."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from gossamer.compile.records import HEADER, INPUT, OPERATION, OUTPUT, PIECE, RECORDS, VALUE, Record

ROOT = Path(__file__).resolve().parents[1]
TITLES = {
    "Header, 128 bytes:": HEADER,
    "A value is a map, 32 bytes:": VALUE,
    "An operation is 256 bytes:": OPERATION,
    "An input is 96 bytes:": INPUT,
    "An output is 96 bytes:": OUTPUT,
    "A piece is 16 bytes:": PIECE,
}
TYPES = {"int32": "i", "uint32": "I", "int64": "q", "uint64": "Q", "float32": "f", "bytes": "s"}


def test_the_tables_of_the_format_are_those_of_the_records() -> None:
    text = (ROOT / "FORMAT.md").read_text()
    assert set(TITLES.values()) == set(RECORDS)
    for title, record in TITLES.items():
        assert str(record.size) in title
        table = text.split(f"\n{title}\n\n")[1].split("\n\n")[0].splitlines()[2:]
        rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table]
        fields = []
        for place, name, kind, _ in rows:
            first, last = map(int, place.split("-"))
            if not name:
                assert (first, last) == (record.fields[-1].offset + record.fields[-1].size, record.size - 1), title
                continue
            *count, type_name = kind.split()
            fields.append((name.strip("`"), "".join(count) + TYPES[type_name], first, last + 1 - first))
        assert fields == [(field.name, field.format, field.offset, field.size) for field in record.fields], title


@pytest.mark.parametrize("record", RECORDS, ids=[record.struct_name for record in RECORDS])
def test_the_structs_of_the_engine_are_the_records(record: Record, tmp_path: Path) -> None:
    """Sizes, offsets and types, asserted by the compiler."""
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    if compiler is None:
        pytest.skip("no C++ compiler")
    name = f"gossamer::{record.struct_name}"
    lines = [f'#include "{ROOT / "engine" / "src" / "model.h"}"', "#include <type_traits>", "using namespace std;"]
    lines.append(f'static_assert(sizeof({name}) == {record.size}, "size");')
    for field in record.fields:
        lines.append(f'static_assert(offsetof({name}, {field.name}) == {field.offset}, "{field.name}");')
        kind = f"{field.c_type}[{field.count}]" if field.count > 1 else field.c_type
        lines.append(f'static_assert(is_same<decltype({name}::{field.name}), {kind}>::value, "{field.name}");')
    source = tmp_path / "records.cpp"
    source.write_text("\n".join(lines) + "\n")
    done = subprocess.run([compiler, "-std=c++17", "-fsyntax-only", str(source)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    # and no field of the struct is left out of the record
    struct = re.search(rf"struct {record.struct_name} {{(.*?)\n}};", (ROOT / "engine/src/model.h").read_text(), re.S)
    assert struct is not None
    members = [part for line in struct[1].splitlines() for part in line.split("//")[0].replace(";", ",").split(",")]
    names = [re.sub(r"\[\d+\]", "", part).split()[-1] for part in members if part.strip()]
    assert [member for member in names if member != "reserved"] == [field.name for field in record.fields]


def test_a_record_packs_and_unpacks_what_it_is_told() -> None:
    fields = {"name": b"logits".ljust(64, b"\0"), "rank": 2, "sides": (3, 5, 0, 0), "first": 7, "pieces": 1}
    data = OUTPUT.pack(fields)
    assert len(data) == OUTPUT.size and OUTPUT.unpack(b"??" + data, 2) == fields
    assert OUTPUT.offset("first") == 84
