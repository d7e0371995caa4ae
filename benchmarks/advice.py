"""Is advice of `gossamer review` that claims speed faster when it is applied? Over all networks of the zoo, on this machine.

    python benchmarks/advice.py --results advice.jsonl --minutes 60
    python benchmarks/advice.py --results advice.jsonl --table

Each network is reviewed with --measure: where a change is an argument of the network or another network of ours, both are built
with fresh weights, exported, and timed in turn, each file in processes of its own, in the native engine (ONNX Runtime where that is
missing). A result is a line of the file; networks that are there are not measured again, so it can be stopped and started, and no
network begins when the minutes are used up. The table has the share of the advice for speed that was faster (by medians, and by
spreads that lie apart), and the worst cases. Networks are taken in an order drawn with --seed, so that a part is a sample.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gossamer.adviser.review import review
from gossamer.errors import GossamerError
from gossamer.host.machine import describe_machine
from gossamer.host.progress import SILENT
from gossamer.host.text import format_table, percent
from gossamer.networks import list_models

WORST = 15  # cases that are shown


def measured(name: str, threads: int) -> dict[str, Any]:
    """What became of the advice on a network: a line of the results."""
    begun = time.monotonic()
    try:
        result = review(name, measure=True, threads=threads, progress=SILENT)
    except GossamerError as error:
        return {"network": name, "error": str(error), "advice": []}
    advice = [
        {
            "rule": one.rule,
            "severity": one.severity,
            "claims": one.claims,
            "change": one.change.network,
            "arguments": {key: str(value) for key, value in one.change.arguments.items()},
            "ms": list(one.gain.ms),
            "clear": one.gain.clear,
            "macs": list(one.gain.macs),
            "runtime": one.gain.runtime,
        }
        for one in result.findings
        if one.gain is not None
    ]
    failed = {one.rule: one.not_measured for one in result.findings if one.not_measured}
    return {"network": name, "advice": advice, "not_measured": failed, "seconds": time.monotonic() - begun}


def read(path: Path) -> list[dict[str, Any]]:
    """The results so far; a line that was cut short by a kill is left out and measured again."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            lines.append(json.loads(line))
        except ValueError:
            continue
    return [line for line in lines if "network" in line]


def table(results: Sequence[dict[str, Any]]) -> str:
    """The shares by rule and in all, and the worst cases."""
    rows = [{**one, "network": result["network"]} for result in results for one in result["advice"]]
    speed = [one for one in rows if one["claims"] == "speed"]
    lines = [
        f"{len(results)} networks reviewed, {len(rows)} pieces of advice measured, {len(speed)} of them claim speed"
    ]
    if speed:
        cells = []
        for rule in (*sorted({one["rule"] for one in speed}), "all"):
            own = [one for one in speed if rule in ("all", one["rule"])]
            ratios = sorted(one["ms"][0] / max(1e-9, one["ms"][1]) for one in own)
            faster = sum(ratio > 1 for ratio in ratios)
            slower = sum(one["clear"] and one["ms"][1] > one["ms"][0] for one in own)
            cells.append(
                (
                    rule,
                    str(len(own)),
                    f"{faster} ({percent(faster / len(own))})",
                    str(slower),
                    f"{ratios[len(ratios) // 2]:.2f}x",
                )
            )
        header = ("rule", "advice", "faster", "slower beyond the spread", "median")
        lines += format_table(header, cells)
        worst = sorted(speed, key=lambda one: one["ms"][0] / max(1e-9, one["ms"][1]))[:WORST]
        lines.append("worst cases:")
        lines += format_table(
            ("network", "rule", "change", "ms before", "ms after", "", ""),
            [
                (
                    one["network"],
                    one["rule"],
                    " ".join([one["change"], *(f"{key}={value}" for key, value in one["arguments"].items())]),
                    f"{one['ms'][0]:.3f}",
                    f"{one['ms'][1]:.3f}",
                    f"{one['ms'][0] / max(1e-9, one['ms'][1]):.2f}x",
                    "" if one["clear"] else "within the spread",
                )
                for one in worst
            ],
            left=(0, 1, 2, 6),
        )
    lines += [f"failed: {result['network']}: {result['error']}" for result in results if result.get("error")]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--results", required=True, metavar="FILE", help="a line for each network, kept")
    parser.add_argument("--minutes", type=float, default=60.0, help="no network begins after them (default 60)")
    parser.add_argument("--nets", default="*", help="a pattern of names (default all)")
    parser.add_argument("--threads", type=int, default=1, help="of the engine (default 1)")
    parser.add_argument("--seed", type=int, default=0, help="of the order (default 0)")
    parser.add_argument("--table", action="store_true", help="only show what is there")
    options = parser.parse_args(arguments)
    path = Path(options.results)
    results = read(path)
    if not options.table:
        names = list_models(options.nets)
        random.Random(options.seed).shuffle(names)
        known = {one["network"] for one in results}
        end = time.monotonic() + 60 * options.minutes
        left = [name for name in names if name not in known]
        for number, name in enumerate(left, 1):
            if time.monotonic() > end:
                print(f"the minutes are used up; {len(left) - number + 1} networks are left", file=sys.stderr)
                break
            print(f"{number} of {len(left)}: {name}", file=sys.stderr)
            results.append({**measured(name, options.threads), "cpu": describe_machine()["cpu"]})
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(results[-1]) + "\n")
    print(table(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
