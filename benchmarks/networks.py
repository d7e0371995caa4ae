"""Counts every network of gossamer and writes what is said of them: `python benchmarks/networks.py`.

Writes src/gossamer/networks/costs.py, the table that `gossamer list` prints, and docs/networks.md, the same for reading,
with the published accuracy of the listed weights. With --check nothing is written: exit 1 where a file differs.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COSTS, PAGE = ROOT / "src" / "gossamer" / "networks" / "costs.py", ROOT / "docs" / "networks.md"
HEAD = '''"""Parameters and MACs of every network at its own input size, with 1000 classes; written by benchmarks/networks.py.

One multiply-add is one MAC; convolutions and linear layers count, for one image.
"""

from __future__ import annotations

# network -> parameters, MACs
COSTS: dict[str, tuple[int, int]] = {
'''
ABOUT = """\
# Networks

`gossamer list` prints this table, `gossamer list --weights` the published weights with licence and source. A network is
named as in timm, or else as in torchvision; other names in use are accepted too (second column).

* **Parameters and MACs** are counted at the input size shown, with 1000 classes. One MAC is one multiply-add; convolutions
  and linear layers count, for one image. `gossamer inspect NAME` shows them layer by layer; the latency on your machine
  is what `gossamer bench NAME` measures.
* **Weights: top-1** is the published ImageNet-1K accuracy in per cent of the weights that `--weights default` loads, as timm's
  results table or torchvision's documentation says, whichever published them. Networks without weights start from random
  ones. **Paper: top-1** is what the paper reports of its own training (src/gossamer/networks/published.csv). Neither was measured here.
* `--width`, `--act`, `--norm`, `--output-stride` and `--input` change a network; any of them serves any [task](tasks.md).

Written by `python benchmarks/networks.py`; do not edit.

| network | also called | input | parameters (M) | MACs (M) | weights: top-1 (%) | weights | paper: top-1 (%) | paper |
|---|---|---|---:|---:|---:|---|---:|---|
"""


def costs_file(counts: dict[str, tuple[int, int]]) -> str:
    """The text of costs.py."""
    return HEAD + "".join(f'    "{name}": ({params:_}, {macs:_}),\n' for name, (params, macs) in counts.items()) + "}\n"


def networks_page() -> str:
    """The text of docs/networks.md, from the tables of the package."""
    from gossamer.networks.listing import network_rows
    from gossamer.networks.load import weight_sets
    from gossamer.networks.published import papers_top1

    papers = papers_top1()
    lines = []
    for row in network_rows():
        top1, weights = "", ""
        if sets := weight_sets(row["name"]):
            top1, weights = "" if sets[0].top1 is None else f"{sets[0].top1:.2f}", f"`{sets[0].name}`"
        cells = [
            f"`{row['name']}`",
            ", ".join(f"`{alias}`" for alias in row["aliases"]),
            row["input"],
            f"{row['params'] / 1e6:.2f}",
            f"{row['macs'] / 1e6:.1f}",
            top1,
            weights,
            *((known.text, known.source) if (known := papers.get(row["name"])) else ("", "")),
        ]
        lines.append("| " + " | ".join(cells) + " |\n")
    return ABOUT + "".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where a file differs")
    options = parser.parse_args()
    from gossamer.networks.counting import count_network
    from gossamer.networks.registry import NETWORKS

    texts = {COSTS: costs_file({name: count_network(name) for name in NETWORKS}), PAGE: networks_page()}
    for path, text in texts.items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            if options.check:
                print(f"{path}: differs; run python benchmarks/networks.py")
                return 1
            path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
