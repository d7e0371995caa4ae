"""The files of a network in C: source, header, check, Makefile and metadata."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gossamer.compile.lower import lower
from gossamer.csource.arithmetic import quantised
from gossamer.csource.floats import float_network
from gossamer.csource.integers import byte_network
from gossamer.csource.limits import Needs
from gossamer.csource.network import BYTES, Network
from gossamer.csource.reference import byte_outputs
from gossamer.csource.source import net_c, net_h
from gossamer.csource.text import array, number
from gossamer.errors import InputError
from gossamer.images.preprocess import Preprocess
from gossamer.modelfile.metadata import ModelFile

VERSION = 1
FILES = ("net.c", "net.h", "net_check.c", "Makefile", "net.json")
MOST_CHECK_BYTES, MOST_CHECKS = 2**20, 16  # of check inputs in net_check.c
CHECKED = 4096  # outputs of each, evenly spread
NOISE = 4  # check inputs of a file that has none
TOLERANCE = 1e-4  # of the largest output: other compilers and chips add up in other orders
MAKEFILE = """# builds the check for this machine and runs it: make check
CC ?= cc
CFLAGS ?= -O3

check: net_check
\t./net_check

net_check: net.c net_check.c net.h
\t$(CC) -std=c99 -Wall -Wextra -ffreestanding $(CFLAGS) net.c net_check.c -o $@

# the object file alone, as for a chip: make net.o CC=arm-none-eabi-gcc CFLAGS="-mcpu=cortex-m4 -mthumb -Os"
net.o: net.c net.h
\t$(CC) -std=c99 -Wall -Wextra -ffreestanding $(CFLAGS) -c net.c -o $@

clean:
\trm -f net_check net.o

.PHONY: check clean
"""


@dataclass(frozen=True)
class Checks:
    """Check inputs as bytes (N, height * width * channels), pixels where the file has metadata; values: what the ONNX file reads.

    expected: outputs (N, numbers), float32, or of int8 the bits of float32.
    """

    given: NDArray[np.uint8]
    values: NDArray[np.float32]
    expected: NDArray[Any]


def network_of(file: ModelFile) -> Network:
    """The network of an ONNX file: in int8 where its maps are bytes. Raises InputError that names what has no kernel."""
    program = lower(file.graph)
    if program.in_bytes():
        return byte_network(program)
    return float_network(program)


def preprocess_of(file: ModelFile, network: Network) -> Preprocess | None:
    """How pixels become the input, where the file says it and the input is an image."""
    known = file.metadata
    return known.preprocess if known is not None and network.program.shape is None else None


def checks_of(file: ModelFile, network: Network, reference: Any) -> Checks:
    """The file's own check inputs, or noise. reference: runs the ONNX file, batch -> outputs (N, numbers).

    Raises InputError where an output is not finite.
    """
    view, preprocess = network.input, preprocess_of(file, network)
    count = view.h * view.w * view.c
    most = max(1, min(MOST_CHECKS, MOST_CHECK_BYTES // count))
    if preprocess is not None and file.metadata is not None:
        pixels = np.stack([check.pixels for check in file.metadata.checks[:most]])
        pixels = pixels.reshape(len(pixels), view.h, view.w, view.c)
        values = preprocess.normalise(pixels)
        given = pixels.reshape(len(pixels), -1)
    else:
        given = np.random.default_rng(0).integers(0, 256, (min(NOISE, most), count), np.uint8)
        values = _values(network, given)
    if network.type == BYTES:
        expected: NDArray[Any] = byte_outputs(network.program, c_inputs(network, preprocess, given))
    else:
        expected = reference(values)
        if not np.isfinite(expected).all():
            at, output = np.argwhere(~np.isfinite(expected))[0]
            raise InputError(
                f"{file.path}: output {output} of check input {at + 1} is {expected[at, output]}",
                "outputs that are finite, so that the C source can be checked",
                "take the operator that makes it (such as a logarithm or a division) out of the network",
            )
    return Checks(given, values, expected)


def _values(network: Network, given: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What check bytes stand for, in the shape of the ONNX file's input."""
    wide = given.astype(np.float32)
    wide = (wide - network.zero) * np.float32(network.scale) if network.type == BYTES else (wide - 128) / np.float32(64)
    view, shape = network.input, network.program.shape
    if shape is not None:
        return wide.reshape(len(given), *shape)
    return np.ascontiguousarray(wide.reshape(len(given), view.h, view.w, view.c).transpose(0, 3, 1, 2))


def c_inputs(network: Network, preprocess: Preprocess | None, given: NDArray[np.uint8]) -> NDArray[Any]:
    """What net_input() holds for check bytes, (N, numbers)."""
    if preprocess is None:
        if network.type == BYTES:
            return given
        values = _values(network, given)
        values = values if network.program.shape is not None else values.transpose(0, 2, 3, 1)
        return np.ascontiguousarray(values).reshape(len(given), -1)
    if network.type == BYTES:
        table = pixel_table(network, preprocess)
        channel = np.arange(given.shape[1]) % len(table)
        made: NDArray[np.uint8] = table[channel, given]
        return made
    values = preprocess.normalise(given.reshape(len(given), network.input.h, network.input.w, network.input.c))
    return np.ascontiguousarray(values.transpose(0, 2, 3, 1)).reshape(len(given), -1)


def pixels_of(file: ModelFile, network: Network) -> tuple[Preprocess | None, NDArray[np.uint8] | None]:
    """As of `preprocess_of`, and of int8 the table of the bytes that pixels become."""
    preprocess = preprocess_of(file, network)
    return preprocess, pixel_table(network, preprocess) if preprocess is not None and network.type == BYTES else None


def pixel_table(network: Network, preprocess: Preprocess) -> NDArray[np.uint8]:
    """(channels, 256): the byte that each pixel becomes, normalised and quantised as by the ONNX file."""
    return quantised(preprocess.table(), network.scale, network.zero)


def files_of(file: ModelFile, network: Network, checks: Checks, needs: Needs) -> dict[str, str]:
    """The text of each of FILES."""
    preprocess, table = pixels_of(file, network)
    texts = {
        "net.c": net_c(network, preprocess, table),
        "net.h": net_h(network, preprocess),
        "net_check.c": _check(network, preprocess is not None, checks),
        "Makefile": MAKEFILE,
    }
    texts["net.json"] = _metadata(file, network, needs, texts)
    return texts


def tolerance_of(network: Network, checks: Checks) -> float:
    """Absolute, of an output in float32."""
    finite = checks.expected[np.isfinite(checks.expected)] if network.type != BYTES else np.zeros(1)
    return TOLERANCE * max(1e-6, float(np.abs(finite).max(initial=0)))


def _check(network: Network, pixels: bool, checks: Checks) -> str:
    """net_check.c: each check input, and its outputs compared."""
    in_bytes, count = network.type == BYTES, network.output_count
    places = np.arange(min(count, CHECKED)) * count // min(count, CHECKED)
    arrays = []
    for place, (given, expected) in enumerate(zip(checks.given, checks.expected)):
        arrays += [array(f"given_{place}", given), array(f"expected_{place}", expected[places])]
    names = [", ".join(f"{what}_{place}" for place in range(len(checks.given))) for what in ("given", "expected")]
    kind = "uint32_t" if in_bytes else "float"
    if pixels:
        fill = "    net_pixels(given[k]);"
    elif in_bytes:
        fill = "    for (i = 0; i < NET_INPUT_SIZE; i++) net_input()[i] = given[k][i];"
    else:
        fill = "    for (i = 0; i < NET_INPUT_SIZE; i++) net_input()[i] = ((float)given[k][i] - 128.0f) / 64.0f;"
    if in_bytes:
        differs = "if (net_output()[at] != expected[k][i]) return k + 1;"
    else:
        limit = number(tolerance_of(network, checks))
        differs = (
            f"const float difference = net_output()[at] - expected[k][i];\n"
            f"      if (!(difference <= {limit} && -difference <= {limit})) return k + 1;"
        )
    at = "i" if len(places) == count else f"(int32_t)((int64_t)i * {count} / {len(places)})"
    return "\n".join(
        [
            "/* Written by gossamer. Runs the check inputs: 0, or the number of the first whose outputs are wrong. */",
            '#include "net.h"',
            "",
            *arrays,
            "",
            "int net_check(void);",
            "",
            "int net_check(void)",
            "{",
            f"  static const uint8_t *const given[] = {{{names[0]}}};",
            f"  static const {kind} *const expected[] = {{{names[1]}}};",
            "  int32_t k, i;",
            f"  for (k = 0; k < {len(checks.given)}; k++) {{",
            fill,
            "    net_run();",
            f"    for (i = 0; i < {len(places)}; i++) {{",
            f"      const int32_t at = {at};",
            f"      {differs}",
            "    }",
            "  }",
            "  return 0;",
            "}",
            "",
            "#ifndef NET_NO_MAIN",
            "int main(void) { return net_check(); }",
            "#endif",
            "",
        ]
    )


def _metadata(file: ModelFile, network: Network, needs: Needs, texts: dict[str, str]) -> str:
    """The JSON beside the source, which says what the outputs are, and the digests of the other files and of itself."""
    view = network.input
    values: dict[str, Any] = {
        "version": VERSION,
        "type": network.type,
        "input": list(network.program.shape or (view.h, view.w, view.c)),
        "input_scale": network.scale if network.type == BYTES else None,
        "input_zero": network.zero if network.type == BYTES else None,
        "outputs": [
            {"name": one.name, "shape": list(one.shape), "first": one.first, "count": one.count}
            for one in network.outputs
        ],
        "needs": needs.to_json(),
        "files": {name: hashlib.sha256(text.encode()).hexdigest() for name, text in texts.items()},
        "metadata": None if file.metadata is None else file.metadata.to_json(),
    }
    body = json.dumps(values, ensure_ascii=True, allow_nan=False, sort_keys=True)
    return json.dumps({"sha256": hashlib.sha256(body.encode()).hexdigest(), **json.loads(body)}, indent=1) + "\n"
