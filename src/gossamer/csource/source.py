"""A network's C source: net.c and net.h."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gossamer.csource.network import BYTES, Network, Output, View, arena_numbers
from gossamer.csource.text import array, comment, number
from gossamer.errors import InputError
from gossamer.images.preprocess import Preprocess

SECTION = re.compile(r"^/\* == (\w+)(?:: ([\w ]+))? == \*/\n", re.M)
# the body of a loop over v[i], and the sections that it needs
ACTIVATIONS = {
    "relu": ("v[i] = v[i] < 0.0f ? 0.0f : v[i];", ()),
    "relu6": ("v[i] = v[i] < 0.0f ? 0.0f : v[i] > 6.0f ? 6.0f : v[i];", ()),
    "hard_swish": ("v[i] *= net_hard_sigmoid(v[i]);", ("hard_sigmoid",)),
    "hard_sigmoid": ("v[i] = net_hard_sigmoid(v[i]);", ("hard_sigmoid",)),
    "sigmoid": ("v[i] = net_sigmoid(v[i]);", ("sigmoid",)),
    "silu": ("v[i] *= net_sigmoid(v[i]);", ("sigmoid",)),
    "tanh": ("v[i] = 2.0f * net_sigmoid(2.0f * v[i]) - 1.0f;", ("sigmoid",)),
    "clip": ("v[i] = v[i] < s->low ? s->low : v[i] > s->high ? s->high : v[i];", ()),
    "leaky_relu": ("v[i] = v[i] > 0.0f ? v[i] : v[i] * s->low;", ()),
    "exp": ("v[i] = net_exp(v[i]);", ("exp",)),
    "log": ("v[i] = net_log(v[i]);", ("log",)),
    "reciprocal": ("v[i] = 1.0f / v[i];", ()),
}
MOST_SMALL = {"kernel": 255, "stride": 255, "pads": 255, "dilation": 255}
MAP = "typedef struct {\n  int32_t at, h, w, c, ld; /* ld: from one position to the next; c 0: no map */\n} net_map;\n"
FLOAT_STEP = """typedef struct {
  uint8_t kind, act, kh, kw, sh, sw, top, left, bottom, right, dilation, count_padding;
  int32_t groups;
  net_map in, other, out;
  float low, high;
  const float *weight, *bias;
} net_step;
"""
BYTES_STEP = """typedef struct {
  uint8_t product, zero_a, zero_b, shift, zero, low, high;
  int32_t odds;
  int64_t a, b;
  const uint8_t *odd;
} net_pair;

typedef struct {
  uint8_t kind, as_words, kh, kw, sh, sw, top, left, bottom, right, dilation, count_padding, zero_in, zero_out, low, high;
  int32_t groups;
  net_map in, other, out;
  const int8_t *weight;
  const int32_t *bias;
  const uint32_t *scale; /* bits of float32 */
  const uint8_t *table;
  const net_pair *pair;
} net_step;
"""
# of a chip of 32 bits; the compiler's own figures are those of the machine that it compiles for
STEP_BYTES = {"float32": 12 + 4 + 60 + 8 + 8, "int8": 16 + 4 + 60 + 20}
PAIR_BYTES = 40
RESERVED = "no-tree-loop-distribute-patterns"


@cache
def sections(name: str) -> dict[str, tuple[tuple[str, ...], str]]:
    """The parts of a file of kernels by name: what each needs, and its text, in order."""
    text = (Path(__file__).parent / "kernels" / f"{name}.c").read_text(encoding="utf-8")
    marks = list(SECTION.finditer(text))
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    return {
        mark[1]: (tuple((mark[2] or "").split()), text[mark.end() : end].strip() + "\n")
        for mark, end in zip(marks, ends)
    }


def kinds_of(network: Network) -> list[str]:
    """The kernels that a network calls, in one order."""
    return sorted({step.kind for step in network.steps})


def acts_of(network: Network) -> list[str]:
    """Its activations, in one order."""
    return sorted({step.act for step in network.steps} - {"none"})


def kernels(network: Network) -> str:
    """The functions that a network needs."""
    known = {**sections("shared"), **sections("bytes" if network.type == BYTES else "float")}
    if network.type == BYTES:
        name = "put_words" if any(step.words for step in network.steps) else "put"
        name = "put_sums" if any(step.words and step.pair is not None for step in network.steps) else name
        known = {
            ("put" if key == name else key): one
            for key, one in known.items()
            if not key.startswith("put") or key == name
        }
    else:
        acts = acts_of(network)
        cases = "".join(
            f"  case {place + 1}: /* {act} */\n    for (i = 0; i < n; i++) {ACTIVATIONS[act][0]}\n    break;\n"
            for place, act in enumerate(acts)
        )
        needs = tuple(need for act in acts for need in ACTIVATIONS[act][1])
        body = (
            f"  int32_t i;\n  switch (s->act) {{\n{cases}  default: break;\n  }}\n"
            if acts
            else "  (void)s;\n  (void)v;\n  (void)n;\n"
        )
        finish = f"/* The activation of n numbers. */\nstatic void finish(const net_step *s, float *v, int32_t n)\n{{\n{body}}}\n"
        known["finish"] = (needs, finish)
    texts: dict[str, str] = {}

    def add(name: str) -> None:
        for need in known[name][0]:  # a function stands behind those that it calls
            if need not in texts:
                add(need)
        texts[name] = known[name][1]

    for name in kinds_of(network):
        add(name)
    return "\n".join(texts.values())


class _Arrays:
    """Constant arrays, each of its numbers once."""

    def __init__(self) -> None:
        self.names: dict[tuple[str, bytes], str] = {}
        self.texts: list[str] = []
        self.bytes = 0

    def add(self, values: NDArray[Any] | None) -> str:
        """Its name, 0 for none."""
        if values is None or not values.size:
            return "0"
        key = (values.dtype.name, values.tobytes())
        if key not in self.names:
            self.names[key] = f"net_{len(self.names)}"
            self.texts.append(array(self.names[key], values))
            self.bytes += values.nbytes
        return self.names[key]


def weight_bytes(network: Network) -> int:
    """Bytes of the constant arrays, each once."""
    seen: dict[tuple[str, bytes], int] = {}
    for step in network.steps:
        for one in step.constants():
            seen[one.dtype.name, one.tobytes()] = one.nbytes
    return sum(seen.values())


def table_bytes(network: Network, pixels: bool) -> int:
    """Bytes of the records of steps on a chip of 32 bits, and of what pixels become where it takes them."""
    pairs = sum(step.pair is not None for step in network.steps)
    of_pixels = network.input.c * (256 if network.type == BYTES else 8) if pixels else 0
    return len(network.steps) * STEP_BYTES[network.type] + pairs * PAIR_BYTES + of_pixels


def ram_bytes(network: Network) -> int:
    """Bytes of all memory: the arena, with input and outputs."""
    if network.type == BYTES:
        return arena_numbers(network) + 4 * network.output_count
    return 4 * arena_numbers(network)


def _map(network: Network, view: View | None) -> str:
    if view is None:
        return "{0, 0, 0, 0, 0}"
    at = view.first + (network.buffers[view.buffer].at if view.buffer >= 0 else 0)
    return f"{{{at}, {view.h}, {view.w}, {view.c}, {view.ld}}}"


def net_c(network: Network, preprocess: Preprocess | None, pixel_table: NDArray[Any] | None = None) -> str:
    """The source. pixel_table: of bytes, uint8 (channels, 256): what a pixel becomes. Raises InputError."""
    arrays = _Arrays()
    records: list[str] = []
    pairs: list[str] = []
    kinds, acts = kinds_of(network), ["none", *acts_of(network)]
    for step in network.steps:
        sides = (*step.kernel, *step.stride, *step.pads, step.dilation)
        if max(sides) > 255:
            raise InputError(
                f"layer {step.text()}: a kernel, stride or padding over 255", "up to 255", "take that layer out"
            )
        small = [kinds.index(step.kind), acts.index(step.act) if network.type != BYTES else step.words, *sides]
        maps = ", ".join(_map(network, view) for view in (step.input, step.other, step.out))
        if network.type == BYTES:
            small += [int(step.count_padding), *step.zeros, *step.range]
            scale = None if step.scale is None else np.asarray(step.scale, np.float32).view(np.uint32)
            pointers = [arrays.add(step.weight), arrays.add(step.bias), arrays.add(scale), arrays.add(step.table)]
            if step.pair is not None:
                one = step.pair
                fields = (
                    int(one.product),
                    one.zero_a,
                    one.zero_b,
                    one.shift,
                    one.zero,
                    one.low,
                    one.high,
                    len(one.odd),
                )
                pointers.append(f"&net_pairs[{len(pairs)}]")
                pairs.append(f"  {{{', '.join(map(str, fields))}, {one.a}LL, {one.b}LL, {arrays.add(one.odd)}}},")
            else:
                pointers.append("0")
            end = pointers
        else:
            small.append(int(step.count_padding))
            end = [number(step.bound[0]), number(step.bound[1]), arrays.add(step.weight), arrays.add(step.bias)]
        fields_text = ", ".join(map(str, small))
        records.append(f"  /* {comment(step.text())} */\n  {{{fields_text}, {step.groups}, {maps}, {', '.join(end)}}},")
    calls = "".join(f"    case {place}: {kind}(s); break;\n" for place, kind in enumerate(kinds))
    numbers = arena_numbers(network)
    in_bytes = network.type == BYTES
    storage = [f"static float arena[{numbers}];"]
    if in_bytes:  # one object, so that there is no gap between two
        storage = [
            f"static struct {{\n  uint32_t words[{network.output_count}];\n  uint8_t arena[{numbers}];\n}} net_memory;",
            "#define arena net_memory.arena",
            "#define words net_memory.words",
        ]
    return "\n".join(
        [
            "/* Written by gossamer. C99 without a library: see net.h. */",
            '#include "net.h"',
            "",
            "#if defined(__GNUC__) && !defined(__clang__)",
            f'#pragma GCC optimize("{RESERVED}") /* which would call memcpy and memset */',
            "#endif",
            "",
            *storage,
            "",
            MAP,
            BYTES_STEP if in_bytes else FLOAT_STEP,
            kernels(network),
            *arrays.texts,
            *(["static const net_pair net_pairs[] = {", *pairs, "};"] if pairs else []),
            f"static const net_step net_steps[{len(records)}] = {{",
            *records,
            "};",
            "",
            _functions(network, calls, preprocess, pixel_table),
        ]
    )


def _functions(network: Network, calls: str, preprocess: Preprocess | None, pixel_table: NDArray[Any] | None) -> str:
    kind, out = ("uint8_t", "uint32_t") if network.type == BYTES else ("float", "float")
    first = network.buffers[network.input.buffer].at + network.input.first
    outputs = "words" if network.type == BYTES else f"arena + {network.buffers[network.output].at}"
    lines = [
        f"{kind} *net_input(void) {{ return arena + {first}; }}",
        "",
        f"const {out} *net_output(void) {{ return {outputs}; }}",
        "",
        "void net_run(void)",
        "{",
        "  const net_step *s;",
        f"  for (s = net_steps; s < net_steps + {len(network.steps)}; s++) switch (s->kind) {{",
        calls + "    default: break;",
        "    }",
        "}",
    ]
    if preprocess is not None:
        channels = preprocess.channels
        count = network.input.h * network.input.w * network.input.c
        if pixel_table is not None:
            lines = [array("net_pixel_bytes", pixel_table), "", *lines]
            body = f"to[i] = net_pixel_bytes[i % {channels} * 256 + pixels[i]];"
        else:
            factor = (1 / (255 * np.asarray(preprocess.std, np.float64))).astype(np.float32)
            offset = (-np.asarray(preprocess.mean, np.float64) / np.asarray(preprocess.std, np.float64)).astype(
                np.float32
            )
            lines = [array("net_factor", factor), array("net_offset", offset), "", *lines]
            body = f"to[i] = (float)pixels[i] * net_factor[i % {channels}] + net_offset[i % {channels}];"
        lines += [
            "",
            "void net_pixels(const uint8_t *pixels)",
            "{",
            f"  {kind} *to = net_input();",
            "  int32_t i;",
            f"  for (i = 0; i < {count}; i++) {body}",
            "}",
        ]
    return "\n".join([*lines, ""])


def _shape(sides: Sequence[int]) -> str:
    return " x ".join(str(side) for side in sides)


def _output(place: int, one: Output) -> list[str]:
    head = f"/* output {place}: {comment(one.name)}, {_shape(one.shape)} */"
    return [head, f"#define NET_OUTPUT_{place}_FIRST {one.first}", f"#define NET_OUTPUT_{place}_SIZE {one.count}"]


def net_h(network: Network, preprocess: Preprocess | None) -> str:
    """The header."""
    in_bytes, view = network.type == BYTES, network.input
    kind, out = ("uint8_t", "uint32_t") if in_bytes else ("float", "float")
    sides = network.program.shape or (view.h, view.w, view.c)
    about = "the bits of a float32 (IEEE 754) each, as no float is computed" if in_bytes else "numbers"
    pixels = (
        [
            f"/* Fills the input from {view.h} x {view.w} pixels of {view.c} bytes each, row by row. */",
            "void net_pixels(const uint8_t *pixels);",
            "",
        ]
        if preprocess is not None
        else []
    )
    scale = [f"/* a byte of the input stands for (byte - {network.zero}) * {network.scale:.9g} */"] if in_bytes else []
    return "\n".join(
        [
            "/* Written by gossamer. A network in C99 without a library or dynamic memory; its functions are for one caller at a time. */",
            "#ifndef GOSSAMER_NET_H",
            "#define GOSSAMER_NET_H",
            "",
            "#include <stdint.h>",
            "",
            "/* bytes of static memory, with input and outputs, without the stack */",
            f"#define NET_RAM {ram_bytes(network)}",
            f"/* input: {_shape(sides)}{', channels last' if network.program.shape is None else ''} */",
            f"#define NET_INPUT_SIZE {view.h * view.w * view.c}",
            *scale,
            *[line for place, one in enumerate(network.outputs) for line in _output(place, one)],
            f"#define NET_OUTPUT_SIZE {network.output_count}",
            "",
            "/* Where to write the input, before each run: the network computes in its place. */",
            f"{kind} *net_input(void);",
            "",
            *pixels,
            "void net_run(void);",
            "",
            f"/* The outputs, concatenated, {about}, until the next input is written. */",
            f"const {out} *net_output(void);",
            "",
            "#endif",
            "",
        ]
    )
