"""Linear against non-linear bottlenecks, with and without shortcut: MobileNetV2 (1801.04381), section 6.4 and figure 6.

The paper: ReLU6 behind the bottleneck costs 1 % of top-1 on ImageNet, leaving the shortcuts out over 4 %.
"""

from __future__ import annotations

from typing import Any

import torch
from matplotlib.figure import Figure

from gossamer.networks import create_model
from studies.frame import COLOURS, Findings, figure, main
from studies.training import differs, load, score, train

VARIANTS: dict[str, dict[str, Any]] = {
    "linear, shortcut": {},
    "ReLU6, shortcut": {"last_act": "relu6"},
    "linear, no shortcut": {"shortcut": False},
    "ReLU6, no shortcut": {"last_act": "relu6", "shortcut": False},
}
WIDTH, SEEDS, EPOCHS = 0.35, 3, 5.0


def study(quick: bool = False, data: str = "") -> Findings:
    """The accuracy of each variant over the same seeds, images and steps."""
    images = load(data, 256 if quick else 4000)
    seeds = range(2 if quick else SEEDS)
    values: dict[str, list[float]] = {name: [] for name in VARIANTS}
    for seed in seeds:
        for name, options in VARIANTS.items():
            torch.manual_seed(seed)
            model = create_model("mobilenet_v2", width=WIDTH, num_classes=images.classes, small_input=True, **options)
            values[name].append(train(model, images, epochs=0.5 if quick else EPOCHS, seed=seed))
    base = values["linear, shortcut"]
    rows = []
    for name, mine in values.items():
        mean, margin = score(mine)
        change = score([x - y for x, y in zip(mine, base)])
        rows.append(
            {
                "bottleneck": name,
                "accuracy": mean,
                "+- (95 %)": margin,
                "change": change.mean,
                "+- (95 %), paired": change.margin,
                "significant": name != "linear, shortcut" and differs(mine, base),
            }
        )
    sentences = [_sentence("ReLU6 behind the bottleneck", rows[1]), _sentence("no shortcut", rows[2])]
    return Findings(rows, f"On {images.name}, {len(seeds)} seeds: {'; '.join(sentences)}.")


def _sentence(what: str, row: dict[str, Any]) -> str:
    by = f"{100 * row['change']:+.1f} +- {100 * row['+- (95 %), paired']:.1f} points"
    sure = "" if row["significant"] else ", which these seeds cannot tell from nothing"
    return f"{what} changes the accuracy by {by}{sure}"


def draw(findings: Findings) -> Figure:
    """Accuracy with its margin."""
    drawing, (axes,) = figure()
    at = range(len(findings.rows))
    axes.errorbar(
        [row["accuracy"] for row in findings.rows],
        list(at),
        xerr=[min(1.0, row["+- (95 %)"]) for row in findings.rows],
        fmt="o",
        color=COLOURS[0],
        capsize=4,
    )
    axes.set_yticks(list(at), [row["bottleneck"] for row in findings.rows])
    axes.invert_yaxis()
    axes.set_xlabel("accuracy, mean and 95 % interval over seeds")
    return drawing


if __name__ == "__main__":
    main("bottleneck", study, draw, takes_data=True)
