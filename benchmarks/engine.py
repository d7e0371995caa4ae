"""The native engine beside its peers: Python call to Python call, each in a process of its own, in turn.

    python benchmarks/engine.py [NETWORK ...] [--threads 1,2] [--batch 1] [--seconds 1] [--rounds 5] [--json]

fp32 everywhere. A ratio is the fastest peer's median over ours: above 1 we are faster. Nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
import json

from gossamer.bench import bench

NETWORKS = (
    "mobilenet_v1",
    "mobilenet_v2",
    "mobilenet_v3_large",
    "shufflenet_v1",
    "shufflenet_v2",
    "sqnxt23_w1",
    "squeezenet1_1",
    "resnet18",
    "resnet50",
)
PEERS = ("onnxruntime", "openvino", "torch")


def main() -> None:
    """Measure and print one Markdown row a network and number of threads."""
    parser = argparse.ArgumentParser()
    parser.add_argument("networks", nargs="*", default=NETWORKS)
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    threads = tuple(map(int, options.threads.split(",")))
    found = []
    if not options.json:
        print("| network | threads | " + " | ".join(("native", *PEERS)) + " | best peer / native |")
        print("|---" * (len(PEERS) + 4) + "|")
    for network in options.networks:
        result = bench(
            [network],
            runtimes=("native", *PEERS),
            threads=threads,
            batch=options.batch,
            seconds=options.seconds,
            rounds=options.rounds,
        )
        for count in threads:
            rows = {row.runtime: row for row in result.rows if row.threads == count}
            medians = {name: row.median_ms for name, row in rows.items()}
            ours, peers = medians["native"], [ms for name, ms in medians.items() if name != "native" and ms]
            ratio = min(peers) / ours if ours and peers else None
            found.append({"network": network, "threads": count, "median_ms": medians, "ratio": ratio})
            cells = [
                rows[name].error[:40]
                if rows[name].median_ms is None
                else "{:.2f} ({:.2f}-{:.2f})".format(*_spread(rows[name]))
                for name in ("native", *PEERS)
            ]
            if not options.json:
                print(
                    f"| {network} | {count} | " + " | ".join(cells) + f" | {ratio:.2f} |" if ratio else " - |",
                    flush=True,
                )
    if options.json:
        print(json.dumps({"machine": result.machine, "rows": found}, indent=1))


def _spread(row: object) -> tuple[float, float, float]:
    """Median, and the 10 and 90 % points, in milliseconds."""
    return row.median_ms, row.p10_ms, row.p90_ms  # type: ignore[attr-defined, no-any-return]


if __name__ == "__main__":
    main()
