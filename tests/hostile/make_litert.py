"""Writes tests/hostile/litert: a good .tflite file and, for each rule of FORMAT.md, "The LiteRT file", files that break it.

    python tests/hostile/make_litert.py

A file's name starts with the number of the rule. Everything is written by hand: no package that is tested here has a say.
The digest is right wherever the rule broken is another one, as in a file that someone made on purpose.
"""

from __future__ import annotations

import copy
import hashlib
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "litert"
MARK = b'{"sha256": "' + b"0" * 64
FLOAT32, INT8 = 0, 9
ADD, CONV, DEPTHWISE, RELU, PAD, SLICE = 0, 3, 4, 19, 34, 65
WIDTH = {"b": 1, "B": 1, "i": 4, "I": 4, "f": 4, "q": 8}
Fields = dict[
    int, tuple[str, Any]
]  # of a table: number -> (type as struct names it, "table", "[...]", "text" or "bytes"; value)


def flat(root: Fields) -> bytes:
    """A FlatBuffer with the identifier TFL3, each table before those that it points to."""
    out = bytearray(struct.pack("<I4s", 0, b"TFL3"))
    struct.pack_into("<I", out, 0, write(out, "table", root))
    return bytes(out)


def write(out: bytearray, kind: str, value: Any) -> int:
    """Append a table, a vector or a text; where it begins."""
    if kind == "table":
        most = max(value, default=-1) + 1
        out += bytes(-(len(out) + 4 + 2 * most) % 8) + bytes(4 if (4 + 2 * most + len(out)) % 8 == 0 else 0)
        while (len(out) + 4 + 2 * most) % 8 != 4:
            out += b"\0"
        layout, at = len(out), len(out) + 4 + 2 * most
        out += struct.pack("<HH", 4 + 2 * most, 4 + 8 * most)
        out += b"".join(struct.pack("<H", 4 + 8 * number if number in value else 0) for number in range(most))
        out += struct.pack("<i", at - layout) + bytes(8 * most)
        for number, (of, one) in value.items():
            slot = at + 4 + 8 * number
            struct.pack_into(f"<{of if of in WIDTH else 'I'}", out, slot, one if of in WIDTH else 0)
            if of not in WIDTH:
                child = write(out, of, one)
                struct.pack_into("<I", out, slot, child - slot)
        return at
    if kind == "[table]":
        out += bytes(-len(out) % 4)
        at = len(out)
        out += struct.pack("<I", len(value)) + bytes(4 * len(value))
        for place, one in enumerate(value):
            slot = at + 4 + 4 * place
            child = write(out, "table", one)
            struct.pack_into("<I", out, slot, child - slot)
        return at
    data = value.encode() if kind == "text" else value if kind == "bytes" else b""
    width = 1 if kind in ("text", "bytes") else WIDTH[kind[1]]
    if kind.startswith("["):
        data = struct.pack(f"<{len(value)}{kind[1]}", *value)
    out += bytes(-(len(out) + 4) % 16)
    at = len(out)
    out += struct.pack("<I", len(data) // width) + data + (b"\0" if kind == "text" else b"")
    return at


def entry(**changed: Any) -> bytes:
    """gossamer's metadata of the network."""
    known = {"sha256": "0" * 64, "version": 1, "input": [3, 2, 2], "channels_last": True, "metadata": None}
    return json.dumps(known | changed).encode()


def tensor(name: str, shape: list[int], kind: int = FLOAT32, buffer: int = 0, steps: Fields | None = None) -> Fields:
    fields: Fields = {0: ("[i]", shape), 1: ("b", kind), 2: ("I", buffer), 3: ("text", name)}
    return fields if steps is None else {**fields, 4: ("table", steps)}


def operator(code: int, inputs: list[int], outputs: list[int]) -> Fields:
    return {0: ("I", code), 1: ("[i]", inputs), 2: ("[i]", outputs)}


class Network:
    """ReLU of (1, 2, 2, 3), as its parts."""

    def __init__(self) -> None:
        self.codes = [RELU]
        self.tensors = [tensor("x", [1, 2, 2, 3]), tensor("y", [1, 2, 2, 3])]
        self.operators = [operator(0, [0], [1])]
        self.buffers: list[Any] = [None]
        self.inputs, self.outputs, self.graphs = [0], [1], 1
        self.entries: list[tuple[str, bytes]] = [("gossamer", entry())]

    def bytes(self) -> bytes:
        graph: Fields = {
            0: ("[table]", self.tensors),
            1: ("[i]", self.inputs),
            2: ("[i]", self.outputs),
            3: ("[table]", self.operators),
        }
        codes: list[Fields] = [{0: ("b", min(code, 127)), 2: ("i", 1), 3: ("i", code)} for code in self.codes]
        held = [*self.buffers, *(data for _, data in self.entries)]
        named: list[Fields] = [
            {0: ("text", name), 1: ("I", len(self.buffers) + place)} for place, (name, _) in enumerate(self.entries)
        ]
        return flat(
            {
                0: ("I", 3),
                1: ("[table]", codes),
                2: ("[table]", [graph] * self.graphs),
                4: ("[table]", [{} if data is None else {0: ("bytes", data)} for data in held]),
                6: ("[table]", named),
            }
        )


def sealed(data: bytes) -> bytes:
    """The file with its digest."""
    return data.replace(MARK, MARK[:12] + hashlib.sha256(data).hexdigest().encode(), 1)


def changed(edit: Callable[[Network], Any]) -> bytes:
    """The network with one edit, its digest right."""
    one = copy.deepcopy(Network())
    edit(one)
    return sealed(one.bytes())


def with_entry(data: bytes) -> bytes:
    return changed(lambda one: setattr(one, "entries", [("gossamer", data)]))


def moved(data: bytes, at: int, offset: int) -> bytes:
    """The file with another offset at a place."""
    return data[:at] + struct.pack("<I", offset) + data[at + 4 :]


def steps(scales: list[float], zeros: list[int]) -> Fields:
    return {2: ("[f]", scales), 3: ("[q]", zeros)}


def padded(one: Network) -> None:
    """A second operator that pads by four thousand million columns."""
    widths = struct.pack("<8i", 0, 0, 0, 0, 0, 2**31 - 1, 0, 0)
    one.buffers.append(widths)
    one.tensors += [tensor("w", [4, 2], 2, 1), tensor("z", [1, 2, 2, 3])]
    one.codes.append(PAD)
    one.operators.append({**operator(1, [1, 2], [3]), 3: ("B", 22), 4: ("table", {})})
    one.outputs = [3]


def behind(code: int, options: int, fields: Fields, constants: list[tuple[str, list[Any], int]], side: int) -> bytes:
    """A second operator, on (1, 2, 2, 3) and constants of one side or (type, numbers, tensor's type) with a shape, that makes
    (1, 1, 1, side) or (1, 2, 2, side).
    """
    one = Network()
    for kind, numbers, type_ in constants:
        one.buffers.append(struct.pack(f"<{len(numbers)}{kind}", *numbers))
        long = code in (CONV, DEPTHWISE) and len(one.buffers) == 2
        shape = (
            [len(numbers)]
            if not long
            else [1, 1, 1, len(numbers)]
            if code == DEPTHWISE
            else [len(numbers) // 3, 1, 1, 3]
        )
        one.tensors.append(tensor("c", shape, type_, len(one.buffers) - 1))
    one.tensors.append(tensor("z", [1, 1, 1, side] if code == SLICE else [1, 2, 2, side]))
    one.codes.append(code)
    places = list(range(1, 2 + len(constants)))
    one.operators.append({**operator(1, places, [len(one.tensors) - 1]), 3: ("B", options), 4: ("table", fields)})
    one.outputs = [len(one.tensors) - 1]
    return sealed(one.bytes())


def summed(scale: float) -> bytes:
    """The sum of two maps of int8 of the scale 1 as one of another scale."""
    one = Network()
    for scales in ([1.0], [scale]):
        one.tensors.append(tensor("q", [1, 2, 2, 3], INT8, 0, steps(scales, [0])))
    one.tensors.append(tensor("z", [1, 2, 2, 3]))
    one.codes += [114, ADD, 6]  # QUANTIZE, DEQUANTIZE
    add: Fields = {**operator(2, [2, 2], [3]), 3: ("B", 11), 4: ("table", {0: ("b", 0)})}
    one.operators += [operator(1, [1], [2]), add, operator(3, [3], [4])]
    one.outputs = [4]
    return sealed(one.bytes())


def shared(count: int) -> bytes:
    """The network with more tensors, which are all one, of as many sides."""
    one = Network()
    one.tensors += [tensor("s", [1] * count), *([tensor("t", [1])] * (count - 1))]
    data = bytearray(one.bytes())
    at = data.index(struct.pack("<I", count + 2)) + 4  # of the list
    slots = [at + 4 * place for place in range(2, count + 2)]
    (first,) = struct.unpack_from("<I", data, slots[0])
    for slot in slots:
        struct.pack_into("<I", data, slot, slots[0] + first - slot)
    return sealed(bytes(data))


CONV_OPTIONS: Fields = {0: ("b", 1), 1: ("i", 1), 2: ("i", 1), 3: ("b", 0), 4: ("i", 1), 5: ("i", 1)}
DEPTHWISE_OPTIONS: Fields = {0: ("b", 1), 1: ("i", 1), 2: ("i", 1), 4: ("b", 0), 5: ("i", 1), 6: ("i", 1)}


def files() -> dict[str, bytes]:
    """Every file by its name."""
    good = sealed(Network().bytes())
    deep = b'{"sha256": "' + b"0" * 64 + b'", "version": ' + b"[" * 20000
    root = struct.unpack_from("<I", good)[0]
    return {
        "good": good,
        "1_empty": b"",
        "1_seven_bytes": good[:7],
        "1_an_onnx_file": b"\x08\x09\x12\x08gossamer" + bytes(40),
        "1_an_executorch_file": good[:4] + b"ET12" + good[8:],
        "1_an_ncnn_file": b"7767517\n2 2\nInput in0 0 1 in0\nReLU r 1 1 in0 out0\n",
        "1_a_compiled_file": b"GOSSAMER" + bytes(40),
        "2_header_alone": good[:8],
        "2_cut_off": good[: len(good) // 2],
        "2_root_past_the_end": moved(good, 0, len(good)),
        "2_root_at_the_largest_offset": moved(good, 0, 2**32 - 1),
        "2_layout_before_the_file": moved(good, root, 2**31 - 1),
        "3_another_exporter": changed(lambda one: one.entries.clear()),
        "3_another_exporter_with_metadata": changed(
            lambda one: setattr(one, "entries", [("min_runtime_version", b"1.5.0"), ("TFLITE_METADATA", b"M001")])
        ),
        "3_two_entries": changed(lambda one: one.entries.append(one.entries[0])),
        "4_one_bit": good[:-1] + bytes([good[-1] ^ 1]),
        "4_a_byte_more": good + b"\0",
        "4_an_archive_behind_it": good + b"PK\x05\x06" + bytes(18),
        "4_digest_of_another": good.replace(good[good.index(MARK[:12]) + 12 :][:64], b"a" * 64),
        "4_entry_too_short": with_entry(b"{}"),
        "5_no_json": with_entry(MARK + b'", nothing'),
        "5_nested_too_deep": with_entry(deep),
        "5_not_utf8": with_entry(MARK + b'", "version": "\xff"}'),
        "5_a_later_version": with_entry(entry(version=2)),
        "5_no_input": with_entry(entry(input=[])),
        "5_an_input_of_fractions": with_entry(entry(input=[3.0, 2.0, 2.0])),
        "5_a_layout_of_text": with_entry(entry(channels_last="yes")),
        "5_metadata_of_no_keys": with_entry(entry(metadata={})),
        "5_metadata_of_another_kind": with_entry(entry(metadata=[1, 2])),
        "6_unknown_operator": changed(lambda one: setattr(one, "codes", [9999])),
        "6_custom_operator": changed(lambda one: setattr(one, "codes", [32])),
        "6_operator_past_the_codes": changed(lambda one: setattr(one, "operators", [operator(7, [0], [1])])),
        "6_tensor_past_the_end": changed(lambda one: setattr(one, "operators", [operator(0, [99], [1])])),
        "6_tensor_below_zero": changed(lambda one: setattr(one, "operators", [operator(0, [-5], [1])])),
        "6_reads_its_own_output": changed(lambda one: setattr(one, "operators", [operator(0, [1], [1])])),
        "6_writes_its_input": changed(lambda one: setattr(one, "operators", [operator(0, [0], [0])])),
        "6_output_that_nothing_writes": changed(lambda one: one.operators.clear()),
        "6_output_past_the_end": changed(lambda one: setattr(one, "outputs", [2])),
        "6_buffer_past_the_end": changed(lambda one: one.tensors.append(tensor("z", [1], FLOAT32, 1000))),
        "6_buffer_of_too_few_bytes": changed(
            lambda one: (one.buffers.append(b"\0" * 4), one.tensors.append(tensor("z", [2], FLOAT32, 1)))
        ),
        "6_enormous_tensor": changed(lambda one: one.tensors.append(tensor("z", [2**31 - 1] * 4))),
        "6_side_below_zero": changed(lambda one: one.tensors.append(tensor("z", [1, -2, 2, 3]))),
        "6_type_of_texts": changed(lambda one: one.tensors.append(tensor("z", [1], 5))),
        "6_zero_point_past_a_byte": changed(
            lambda one: one.tensors.append(tensor("z", [1], INT8, 0, steps([1], [999])))
        ),
        "6_scale_of_zero": changed(lambda one: one.tensors.append(tensor("z", [1], INT8, 0, steps([0], [0])))),
        "6_scale_that_is_no_number": changed(
            lambda one: one.tensors.append(tensor("z", [1], INT8, 0, steps([float("nan")], [0])))
        ),
        "6_scales_without_zero_points": changed(
            lambda one: one.tensors.append(tensor("z", [1], INT8, 0, steps([1], [])))
        ),
        "6_padding_without_end": changed(padded),
        "6_scale_next_to_zero": changed(lambda one: one.tensors.append(tensor("z", [1], INT8, 0, steps([1e-40], [0])))),
        "6_sum_of_a_far_smaller_scale": summed(1e-9),
        "6_bias_of_too_few": behind(CONV, 1, CONV_OPTIONS, [("f", [1.0] * 3000, 0), ("f", [1.0], 0)], 1000),
        "6_weight_of_more_channels": behind(
            DEPTHWISE, 2, {**DEPTHWISE_OPTIONS, 3: ("i", 1)}, [("f", [1.0] * 900, 0), ("f", [1.0] * 900, 0)], 900
        ),
        "6_depth_multiplier_of_zero": behind(
            DEPTHWISE, 2, {**DEPTHWISE_OPTIONS, 3: ("i", 0)}, [("f", [1.0] * 3, 0), ("f", [1.0] * 3, 0)], 3
        ),
        "6_part_before_its_input": behind(SLICE, 48, {}, [("i", [0, 0, 0, -99999], 2), ("i", [1, 1, 1, 3], 2)], 3),
        "6_part_of_fewer_axes": behind(SLICE, 48, {}, [("i", [0], 2), ("i", [1], 2)], 3),
        "6_another_shape_than_it_makes": changed(lambda one: one.tensors.__setitem__(1, tensor("y", [1, 2, 2, 9000]))),
        "6_lists_in_each_other": shared(300),
        "6_two_graphs": changed(lambda one: setattr(one, "graphs", 2)),
        "6_no_graph": changed(lambda one: setattr(one, "graphs", 0)),
        "6_two_inputs": changed(lambda one: setattr(one, "inputs", [0, 0])),
        "6_another_input": with_entry(entry(input=[3, 4, 2])),
    }


def main(folder: Path = FOLDER) -> None:
    """Write all of them."""
    folder.mkdir(exist_ok=True)
    for name, data in files().items():
        (folder / f"{name}.tflite").write_bytes(data)


if __name__ == "__main__":
    main()
