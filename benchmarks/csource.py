"""C source beside plain loops: milliseconds of the same network, built by the same compiler, in turn.

    python benchmarks/csource.py FILE.onnx [FILE.onnx ...] [--rounds 7] [--runs 20] [--flags "-O3"]

Ours is what `gossamer export --to c` writes. The plain loops are the textbook's over the same weights and maps: a sum of one
output at a time, over rows, columns and input channels, its activation or its rounding behind it. Both have the same steps.
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
MAIN = """#include <stdio.h>
#include <time.h>
#include "net.h"
int main(void)
{
  struct timespec a, b;
  int i;
  for (i = 0; i < NET_INPUT_SIZE; i++) net_input()[i] = 1;
  net_run();
  clock_gettime(CLOCK_MONOTONIC, &a);
  for (i = 0; i < RUNS; i++) net_run();
  clock_gettime(CLOCK_MONOTONIC, &b);
  printf("%.9g\\n", ((double)(b.tv_sec - a.tv_sec) * 1e3 + (double)(b.tv_nsec - a.tv_nsec) * 1e-6) / RUNS);
  return 0;
}
"""


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


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", help="ONNX files, in float32 or int8 (QDQ)")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--runs", type=int, default=20, help="of the network in each round")
    parser.add_argument("--flags", default="-O3", help="of the compiler, for both")
    options = parser.parse_args()
    command = compiler.compiler()
    if command is None:
        raise SystemExit("no C compiler: set CC")
    rows = []
    for name in options.files:
        network = network_of(read_model_file(name))
        ours = net_c(network, None)
        programs = []
        with tempfile.TemporaryDirectory() as folder:
            for place, source in enumerate((ours, plain(ours, network.type == BYTES))):
                at = Path(folder) / str(place)
                at.mkdir()
                (at / "net.h").write_text(net_h(network, None))
                # what the loops do not call any more is no error here
                (at / "net.c").write_text(source)
                (at / "main.c").write_text("#define _POSIX_C_SOURCE 199309L\n" + MAIN)
                flags = ["-std=c99", f"-DRUNS={options.runs}", *shlex.split(options.flags)]
                programs.append(compiler.build(command, at, ("net.c", "main.c"), "run", *flags))
            times: tuple[list[float], list[float]] = ([], [])
            for _ in range(options.rounds):
                for program, spent in zip(programs, times):
                    spent.append(float(subprocess.run([program], capture_output=True, check=True).stdout))
        first, second = (statistics.median(spent) for spent in times)
        ratios = [b / a for a, b in zip(*times)]
        shown = re.sub(r".*/", "", name)
        rows.append(
            [
                shown,
                network.type,
                f"{ram_bytes(network) / 1024:.1f}",
                f"{first:.2f} ({min(times[0]):.2f} to {max(times[0]):.2f})",
                f"{second:.2f} ({min(times[1]):.2f} to {max(times[1]):.2f})",
                f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
            ]
        )
    print("| network | type | RAM, KiB | ours, ms | plain loops, ms | plain / ours |\n|---|---|---:|---:|---:|---:|")
    for row in rows:
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
