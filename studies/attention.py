"""What attention and deformable convolutions buy ResNet-18 and MobileNetV2: accuracy, multiply-adds and milliseconds.

Squeeze-and-excitation (1709.01507), self-attention (1711.07971), deformable convolution (1811.11168), and gates that
close channels (1907.06627) or positions (1912.03203), all at 32x32, over the same seeds, images and steps.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import nn

from gossamer.analysis.cost import cost
from gossamer.blocks.gates import counted, gates_of, skip_closed
from gossamer.networks import create_model
from studies.frame import COLOURS, Findings, Row, figure, main
from studies.timing import measure
from studies.training import SIDE, accuracy, load, score, train

TARGET = 0.5  # of the multiply-adds behind gates
WIDTHS = {"resnet18": 0.25, "mobilenet_v2": 0.35}
LAST = {"resnet18": 3, "mobilenet_v2": 6}
SEEDS, EPOCHS = 3, 4.0


def variants(net: str) -> dict[str, dict[str, Any]]:
    """What is put into the network `net`, by name."""
    squeeze = {"squeeze-and-excitation": {"attention": "se"}} if net == "resnet18" else {}
    return {
        "plain": {},
        **squeeze,
        "self-attention": {"self_attention": (LAST[net],)},
        "deformable v2": {"deformable": "v2"},
        "gated channels": {"gating": "channels", "gate_target": TARGET},
        "gated positions": {"gating": "positions", "gate_target": TARGET},
    }


def study(quick: bool = False, data: str = "") -> Findings:
    """Accuracy over the seeds, and parameters, MACs and milliseconds of a single image."""
    images = load(data, 256 if quick else 4000)
    seeds = range(2 if quick else SEEDS)
    epochs = 0.25 if quick else EPOCHS
    rows: list[Row] = []
    for net, width in WIDTHS.items():
        scores: dict[str, list[float]] = {name: [] for name in variants(net)}
        computed_macs: dict[str, list[float]] = {name: [] for name in variants(net)}
        models: dict[str, nn.Module] = {}
        for seed in seeds:
            for name, options in variants(net).items():
                torch.manual_seed(seed)
                model = create_model(net, width=width, num_classes=images.classes, small_input=True, **options)
                train(model, images, epochs=epochs, seed=seed, gate_target=TARGET)
                with counted(model) as tally:
                    scores[name].append(accuracy(model, images))
                macs = cost(model, (1, 3, SIDE, SIDE)).macs
                computed_macs[name].append(
                    macs - tally.per_image * (1 - tally.fraction) if gates_of(model) else float(macs)
                )
                models[name] = model
                print(net, name, f"seed {seed}: accuracy {scores[name][-1]:.3f}", file=sys.stderr, flush=True)
        rows += _rows(net, scores, computed_macs, models, images.test[0].shape)
    return Findings(rows, f"On {images.name}, {len(seeds)} seeds, {epochs:g} epochs: {_conclusion(rows)}.")


def _rows(
    net: str,
    scores: dict[str, list[float]],
    macs: dict[str, list[float]],
    models: dict[str, nn.Module],
    shape: torch.Size,
) -> list[Row]:
    for model in models.values():
        model.to(memory_format=torch.contiguous_format)
        skip_closed(model)
    times = measure([(model, (1, *shape)) for model in models.values()], rounds=10)
    rows: list[Row] = []
    for (name, mine), time in zip(scores.items(), times, strict=True):
        change = score([x - y for x, y in zip(mine, scores["plain"])])
        rows.append(
            {
                "network": net,
                "with": name,
                "parameters": sum(parameter.numel() for parameter in models[name].parameters()),
                "MACs computed": round(sum(macs[name]) / len(macs[name])),
                "ms": time.median,
                "accuracy": score(mine).mean,
                "by seed": " ".join(f"{value:.3f}" for value in mine),
                "change": change.mean,
                "+- (95 %), paired": change.margin,
            }
        )
    return rows


def _conclusion(rows: list[Row]) -> str:
    """Which changes the seeds can tell from nothing."""
    others = [row for row in rows if row["with"] != "plain"]
    sure = [row for row in others if abs(row["change"]) > row["+- (95 %), paired"]]
    told = [f"{row['with']} changes {row['network']} by {100 * row['change']:+.1f} points" for row in sure]
    rest = len(others) - len(sure)
    return "; ".join([*told, f"{rest} of {len(others)} changes cannot be told from nothing"])


def draw(findings: Findings) -> Figure:
    """Accuracy over the multiply-adds, a network each: the mean, and a small point a seed."""
    drawing, axes = figure(len(WIDTHS))
    colours = dict(zip(dict.fromkeys(row["with"] for row in findings.rows), COLOURS, strict=False))
    for net, each in zip(WIDTHS, axes, strict=True):
        rows = [row for row in findings.rows if row["network"] == net]
        for row in rows:
            macs, seeds = row["MACs computed"] / 1e6, [float(value) for value in row["by seed"].split()]
            each.plot([macs] * len(seeds), seeds, ".-", color=colours[row["with"]], markersize=4, linewidth=0.8)
            each.plot(macs, row["accuracy"], "o", color=colours[row["with"]], label=row["with"])
        each.set_title(net)
        each.set_xlabel("million MACs computed an image")
        each.set_ylabel("accuracy: mean, and a point a seed")
        each.legend(frameon=False, fontsize=8)
    return drawing


if __name__ == "__main__":
    main("attention", study, draw, takes_data=True)
