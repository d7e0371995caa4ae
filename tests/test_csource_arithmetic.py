"""The integers of the int8 C source beside float32 arithmetic, at all ties and ends: equal to the last bit."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from gossamer.csource import compiler
from gossamer.csource.arithmetic import pair, pair_bytes
from gossamer.csource.network import Pair
from gossamer.csource.source import BYTES_STEP, MAP, sections
from gossamer.csource.text import array

COMMAND = compiler.compiler()
if COMMAND is None:
    pytest.skip("no C compiler", allow_module_level=True)
FEW = ("half_even", "times", "requantise", "word", "bound", "together")
# ratios and zeros of two maps and their sum or product
PAIRS = {
    "sum of scales that differ": (False, (0.0213, 0.0471, 0.0517), (128, 3, 117)),
    "sum of one scale": (False, (0.02, 0.02, 0.02), (0, 255, 128)),
    "sum whose ties are halves": (False, (0.5, 0.25, 1.0), (128, 127, 1)),
    "sum of very different scales": (False, (1e-6, 0.3, 0.25), (5, 9, 77)),
    "product": (True, (0.0213, 0.0039215689, 0.0187), (128, 0, 120)),
    "product whose ties are halves": (True, (0.5, 0.25, 0.25), (128, 128, 128)),
    "product of a small scale": (True, (1e-4, 1e-4, 1e-6), (0, 0, 0)),
}


def record(one: Pair) -> str:
    numbers = (int(one.product), one.zero_a, one.zero_b, one.shift, one.zero, one.low, one.high, len(one.odd))
    odd = array("odd", one.odd.astype(np.uint8)) if one.odd.size else ""
    fields = f"{', '.join(map(str, numbers))}, {one.a}LL, {one.b}LL, {'odd' if odd else '0'}"
    return f"{odd}\nstatic const net_pair both = {{{fields}}};"


def program(folder: Path, end: str, *names: str) -> Path:
    known = sections("bytes")
    parts = [known[name][1] for name in names]
    source = "\n".join(["#include <stdint.h>", "#include <stdio.h>", MAP, BYTES_STEP, *parts, end])
    (folder / "p.c").write_text(source)
    assert COMMAND is not None
    flags = ("-std=c99", "-O1", "-fsanitize=undefined", "-fno-sanitize-recover=all")
    return compiler.build(COMMAND, folder, ("p.c",), "p", *flags)


def accumulators(scales: NDArray[np.float32]) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """For each scale the numbers around every tie of a byte, and the ends of int32."""
    sums, of = [], []
    ties = np.arange(-300, 300) + 0.5
    for scale in scales:
        middle = np.rint(ties / max(np.float64(scale), 1e-30))
        near = np.concatenate([middle + step for step in range(-3, 4)])
        powers = np.concatenate([2.0 ** np.arange(31) + step for step in (-1, 0, 1)])
        every = np.unique(
            np.clip(np.concatenate([near, powers, -powers, [0, -(2.0**31), 2.0**31 - 1]]), -(2**31), 2**31 - 1)
        )
        sums.append(every.astype(np.int64).astype(np.int32))
        of.append(np.full(len(every), scale, np.float32))
    return np.concatenate(sums), np.concatenate(of)


def test_requantising_is_float32_arithmetic_at_every_tie(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    random = (2.0 ** draw.uniform(-24, 3, 400)).astype(np.float32)
    halves = (2.0 ** np.arange(-30.0, 12)).astype(np.float32)
    odd = (halves[:, None] * np.array([1.5, 1.25, 1 + 2**-23, 2 - 2**-23, 1 / 3], np.float32)).reshape(-1)
    sums, scales = accumulators(np.concatenate([random, halves, odd, np.zeros(1, np.float32)]))
    more = draw.integers(-(2**31), 2**31, 200_000, np.int64).astype(np.int32) >> draw.integers(0, 28, 200_000).astype(
        np.int32
    )
    sums, scales = np.concatenate([sums, more]), np.concatenate([scales, np.resize(random, len(more))])
    end = """
int main(void)
{
  struct { int32_t sum; uint32_t scale; } in;
  while (fread(&in, sizeof in, 1, stdin) == 1) {
    int32_t out[2] = {requantise(in.sum, in.scale), (int32_t)word(in.sum, in.scale)};
    fwrite(out, sizeof out, 1, stdout);
  }
  return 0;
}
"""
    given = np.empty(len(sums), [("sum", np.int32), ("scale", np.float32)])
    given["sum"], given["scale"] = sums, scales
    run = program(tmp_path, end, *FEW[:4])
    done = subprocess.run([run], input=given.tobytes(), capture_output=True, check=True)
    levels, words = np.frombuffer(done.stdout, np.int32).reshape(-1, 2).T
    product = sums.astype(np.float32) * scales
    assert len(sums) > 1_000_000
    np.testing.assert_array_equal(words.view(np.float32), product)
    np.testing.assert_array_equal(np.clip(levels, -255, 255), np.clip(np.rint(product), -255, 255))


@pytest.mark.parametrize("name", PAIRS)
def test_two_bytes_become_the_byte_of_float32_arithmetic(name: str, tmp_path: Path) -> None:
    """All 65536 pairs; the list of those that float32 rounds twice is short."""
    product, scales, zeros = PAIRS[name]
    one = pair(product, scales, zeros, "relu6", (0.0, 0.0), "layer")
    end = f"""{record(one)}
int main(void)
{{
  int32_t a, b;
  for (a = 0; a < 256; a++)
    for (b = 0; b < 256; b++) putchar(together(&both, (uint8_t)a, (uint8_t)b));
  return 0;
}}
"""
    done = subprocess.run([program(tmp_path, end, "bound", "together")], capture_output=True, check=True)
    a, b = (side.reshape(-1) for side in np.meshgrid(*[np.arange(256, dtype=np.uint8)] * 2, indexing="ij"))
    wanted = pair_bytes(a, b, product, scales, zeros, "relu6", (0.0, 0.0))
    np.testing.assert_array_equal(np.frombuffer(done.stdout, np.uint8), wanted)
    assert len(one.odd) < 400


def test_two_float32_are_added_as_float32_arithmetic_does(tmp_path: Path) -> None:
    """Of all exponents that lie near, both signs, and where one is zero or the other's opposite."""
    draw = np.random.default_rng(1)
    count = 200_000
    x = (draw.standard_normal(count) * 2.0 ** draw.integers(-20, 20, count)).astype(np.float32)
    y = (x * draw.choice([1, -1, 0.5, -0.5, 1e-4, 3e-8, -6e-8, 0, 2.0**-40], count)).astype(np.float32)
    y += (draw.standard_normal(count) * (draw.random(count) < 0.5)).astype(np.float32)
    halves = (draw.integers(-(2**24), 2**24, count) * 2.0 ** draw.integers(-3, 3, count)).astype(np.float32)
    x, y = np.concatenate([x, halves]), np.concatenate([y, np.roll(halves, 1)])
    end = """
int main(void)
{
  uint32_t in[2], out;
  while (fread(in, sizeof in, 1, stdin) == 1) {
    out = add_words(in[0], in[1]);
    fwrite(&out, sizeof out, 1, stdout);
  }
  return 0;
}
"""
    given = np.stack([x, y], 1).tobytes()
    done = subprocess.run([program(tmp_path, end, "add_words")], input=given, capture_output=True, check=True)
    np.testing.assert_array_equal(np.frombuffer(done.stdout, np.float32), x + y)
