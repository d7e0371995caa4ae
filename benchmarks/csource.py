"""C source beside plain loops: milliseconds of the processor of the same network, built by the same compiler, in turn.

    python benchmarks/csource.py FILE.onnx [FILE.onnx ...] [--rounds 7] [--runs 20] [--flags "-O3"] [--onnx2c PROGRAM]

Ours is what `gossamer export --to c` writes. The plain loops are the textbook's over the same weights and maps: a sum of one
output at a time, over rows, columns and input channels, its activation or its rounding behind it. Both have the same steps.
--onnx2c: what that program (github.com/kraiskil/onnx2c) writes of the same file beside them, and by how much its outputs for one
input differ from ours, over the largest. Of a QDQ file it computes in float32 what lies between the roundings.
"""

from __future__ import annotations

import argparse
import re
import shlex
import statistics
import subprocess
import tempfile
from pathlib import Path

from gossamer.csource import compiler
from gossamer.csource.device import network_of
from gossamer.csource.network import BYTES
from gossamer.csource.source import net_c, net_h, ram_bytes
from gossamer.modelfile.metadata import read_model_file

LAYERS = ("conv", "pointwise", "depthwise")
# `weight` finds a tap among the panels of 8 outputs that net.c has
PLAIN = """
static void {name}(const net_step *s)
{{
  const int32_t k = {depthwise} ? 1 : s->in.c / s->groups, n = {depthwise} ? 1 : s->out.c / s->groups;
  int32_t y, x, o, r, q, i;
  for (y = 0; y < s->out.h; y++)
    for (x = 0; x < s->out.w; x++) {{
      const int32_t at = y * s->out.w + x;
      for (o = 0; o < s->out.c; o++) {{
        const int32_t group = o / n, first = o % n / 8 * 8, count = n - first < 8 ? n - first : 8;
        {sum} sum = s->bias[o];
        for (r = 0; r < s->kh; r++)
          for (q = 0; q < s->kw; q++) {{
            const int32_t row = y * s->sh - s->top + r * s->dilation, column = x * s->sw - s->left + q * s->dilation;
            if (row < 0 || row >= s->in.h || column < 0 || column >= s->in.w) continue;
            for (i = 0; i < k; i++) {{
              const int32_t tap = {depthwise} ? (r * s->kw + q) * s->out.c + o
                                  : ((group * n + first) * s->kh * s->kw * k) + ((r * s->kw + q) * k + i) * count + o % n - first;
              sum += (arena[s->in.at + (row * s->in.w + column) * s->in.ld + group * k + i]{zero}) * s->weight[tap];
            }}
          }}
        {end}
      }}
      {finish}
    }}
}}
"""
# the outputs of the first run, and the milliseconds of the processor of those behind it
MAIN = """#define _POSIX_C_SOURCE 199309L
#include <stdio.h>
#include <string.h>
#include <time.h>
#include "net.h"
{declared}
int main(void)
{{
  struct timespec a, b;
  int i;
  float one;
  for (i = 0; i < NET_INPUT_SIZE; i++) {input}[i] = GIVEN;
  {run};
  for (i = 0; i < NET_OUTPUT_SIZE; i++) {{
    memcpy(&one, &{output}[i], sizeof one);
    printf("%.9g ", (double)one);
  }}
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &a);
  for (i = 0; i < RUNS; i++) {run};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &b);
  printf("%.9g\\n", ((double)(b.tv_sec - a.tv_sec) * 1e3 + (double)(b.tv_nsec - a.tv_nsec) * 1e-6) / RUNS);
  return 0;
}}
"""
OURS_MAIN = MAIN.format(declared="", input="net_input()", run="net_run()", output="net_output()")
ONNX2C_MAIN = MAIN.format(
    declared="static float given[NET_INPUT_SIZE], made[NET_OUTPUT_SIZE];\nvoid entry(const void *, void *);",
    input="given",
    run="entry(given, made)",
    output="made",
)
MATH = ("-Wl,--no-as-needed", "-lm")  # for onnx2c, in front of what needs it
STEPS = 10  # above its zero point, the bytes that an int8 network is given
MOST = 1e-4  # that outputs in float32 may differ, of the largest


def plain(source: str, in_bytes: bool) -> str:
    """net.c with the textbook's loops in the place of its layers."""
    for name in LAYERS:
        start = source.find(f"static void {name}(const net_step *s)\n")
        if start < 0:
            continue
        stop = source.index("\n}\n", start) + 3
        end = "put(s, o, sum, at);"
        if not in_bytes:
            end = (
                "if (s->other.c) sum += arena[s->other.at + at * s->other.ld + o];\n"
                "        arena[s->out.at + at * s->out.ld + o] = sum;"
            )
        loops = PLAIN.format(
            name=name,
            depthwise=int(name == "depthwise"),
            sum="int32_t" if in_bytes else "float",
            zero=" - s->zero_in" if in_bytes else "",
            end=end,
            finish="" if in_bytes else "finish(s, arena + s->out.at + at * s->out.ld, s->out.c);",
        )
        source = source[:start] + loops.lstrip() + source[stop:]
    return source


def onnx2c_source(program: str, file: str) -> str:
    """What onnx2c writes of a file, for one image. Ends where it refuses the file."""
    done = subprocess.run([program, "-d", "batch:1", file], capture_output=True, text=True)
    if done.returncode or "void entry(" not in done.stdout:
        raise SystemExit(f"{program} {file}: {done.stderr.strip()[-300:] or f'exit code {done.returncode}'}")
    return done.stdout


def ratio(times: list[float], ours: list[float]) -> str:
    """Of two programs within a round: the median, the least and the greatest."""
    found = [b / a for a, b in zip(ours, times, strict=True)]
    return f"{statistics.median(found):.2f} ({min(found):.2f} to {max(found):.2f})"


def row(name: str, command: list[str], options: argparse.Namespace) -> list[str]:
    """The cells of a file."""
    network = network_of(read_model_file(name))
    in_bytes = network.type == BYTES
    source = net_c(network, None)
    given = str(network.zero + STEPS) if in_bytes else "1.0f"
    sources = [(source, OURS_MAIN, given), (plain(source, in_bytes), OURS_MAIN, given)]
    if options.onnx2c:
        floats = f"{STEPS * network.scale:.9e}f" if in_bytes else "1.0f"
        sources.append((onnx2c_source(options.onnx2c, name), ONNX2C_MAIN, floats))
    times: list[list[float]] = [[] for _ in sources]
    outputs: list[list[float]] = [[] for _ in sources]
    with tempfile.TemporaryDirectory() as folder:
        programs = []
        for place, (text, main, number) in enumerate(sources):
            at = Path(folder) / str(place)
            at.mkdir()
            (at / "net.h").write_text(net_h(network, None))
            # what the loops do not call any more is no error here
            (at / "net.c").write_text(text)
            (at / "main.c").write_text(main)
            flags = [f"-DRUNS={options.runs}", f"-DGIVEN={number}", *shlex.split(options.flags)]
            programs.append(compiler.build(command, at, ("net.c", "main.c"), "run", "-std=c99", *flags, *MATH))
        for _ in range(options.rounds):
            for place, program in enumerate(programs):
                said = subprocess.run([program], capture_output=True, check=True).stdout.split()
                outputs[place], spent = [float(one) for one in said[:-1]], float(said[-1])
                times[place].append(spent)
    largest = max(abs(one) for one in outputs[0]) or 1.0
    differ = [max(abs(a - b) for a, b in zip(outputs[0], other, strict=True)) / largest for other in outputs]
    if differ[1] > MOST or (not in_bytes and differ[-1] > MOST):
        raise SystemExit(f"{name}: other outputs than ours, by {max(differ):.2g} of the largest")
    cells = [re.sub(r".*/", "", name), network.type, f"{ram_bytes(network) / 1024:.1f}"]
    cells += [f"{statistics.median(spent):.2f} ({min(spent):.2f} to {max(spent):.2f})" for spent in times]
    cells += [ratio(spent, times[0]) for spent in times[1:]]
    return cells + ([f"{differ[-1]:.1e}"] if options.onnx2c else [])


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", help="ONNX files, in float32 or int8 (QDQ)")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--runs", type=int, default=20, help="of the network in each round")
    parser.add_argument("--flags", default="-O3", help="of the compiler, for all")
    parser.add_argument("--onnx2c", default="", metavar="PROGRAM", help="onnx2c, built elsewhere")
    options = parser.parse_args()
    command = compiler.compiler()
    if command is None:
        raise SystemExit("no C compiler: set CC")
    rows = [row(name, command, options) for name in options.files]
    others = ["plain loops", *(["onnx2c"] if options.onnx2c else [])]
    heads = ["network", "type", "RAM, KiB", "ours, ms", *(f"{one}, ms" for one in others)]
    heads += [f"{one} / ours" for one in others] + (["onnx2c's difference"] if options.onnx2c else [])
    print(f"| {' | '.join(heads)} |\n|---|---|{'---:|' * (len(heads) - 2)}")
    for cells in rows:
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
