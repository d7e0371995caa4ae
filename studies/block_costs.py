"""What deformable convolution, attention and gates cost ResNet-18 and MobileNetV2 at 224x224, without any training.

Gates are set to leave half of the channels open, and skip the closed ones; positions are counted, not skipped.
"""

from __future__ import annotations

import time
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import nn

from gossamer.analysis.cost import cost
from gossamer.blocks.gates import counted, gates_of, skip_closed
from gossamer.networks import create_model
from studies.frame import COLOURS, Findings, Row, figure, main
from studies.timing import measure

LAST = {"resnet18": 3, "mobilenet_v2": 6}


def variants(net: str) -> dict[str, dict[str, Any]]:
    """What is put into the network `net`, by name."""
    return {
        "plain": {},
        "deformable v1": {"deformable": "v1"},
        "deformable v2, 2 stages": {"deformable": "v2", "deformable_stages": 2},
        "self-attention": {"self_attention": (LAST[net],)},
        "half of the channels": {"gating": "channels", "gate_draw": "topk", "gate_target": 0.5},
        "half of the positions": {"gating": "positions", "gate_draw": "topk", "gate_target": 0.5},
    }


def study(quick: bool = False) -> Findings:
    """Parameters, MACs that are computed, and processor time of a single image."""
    side, rounds = (64, 2) if quick else (224, 6)
    rows: list[Row] = []
    for net in LAST:
        models: dict[str, nn.Module] = {}
        for name, options in variants(net).items():
            torch.manual_seed(0)
            models[name] = create_model(net, **options).eval()
            for gate in gates_of(models[name]):
                nn.init.normal_(gate.get_submodule("saliency").weight)  # type: ignore[arg-type]
            skip_closed(models[name])
        shape = (1, 3, side, side)
        times = measure(
            [(model, shape) for model in models.values()], rounds=rounds, calls=1, clock=time.thread_time_ns
        )
        for (name, model), ms in zip(models.items(), times, strict=True):
            whole = cost(model, shape)
            with torch.inference_mode(), counted(model) as tally:
                model(torch.randn(shape))
            computed = whole.macs - round(tally.per_image * (1 - tally.fraction))
            rows.append({"network": net, "with": name, "parameters": whole.params, "MACs": whole.macs})
            rows[-1] |= {"MACs computed": computed, "CPU ms": ms.median, "quartiles": f"{ms.low:.1f}-{ms.high:.1f}"}
    return Findings(rows, _conclusion(rows))


def _conclusion(rows: list[Row]) -> str:
    """Time and MACs of the gated channels against the plain network."""
    told = []
    for net in LAST:
        plain, gated = (
            next(row for row in rows if row["network"] == net and row["with"] == name)
            for name in ("plain", "half of the channels")
        )
        told.append(
            f"{net} with half of the channels computes {gated['MACs computed'] / plain['MACs']:.2f} of the MACs in "
            f"{gated['CPU ms'] / plain['CPU ms']:.2f} of the time"
        )
    return "; ".join(told) + "."


def draw(findings: Findings) -> Figure:
    """Time over the MACs that are computed, a network each."""
    drawing, axes = figure(len(LAST))
    for net, each in zip(LAST, axes, strict=True):
        for row, colour in zip((row for row in findings.rows if row["network"] == net), COLOURS, strict=False):
            each.plot(row["MACs computed"] / 1e6, row["CPU ms"], "o", color=colour, label=row["with"])
        each.set_title(net)
        each.set_xlabel("million multiply-adds computed")
        each.set_ylabel("CPU milliseconds an image")
        each.legend(frameon=False, fontsize=8)
    return drawing


if __name__ == "__main__":
    main("block_costs", study, draw)
