"""Group number and channel shuffle: ShuffleNet (1707.01083), section 4.1 and tables 2 and 3.

The paper, at equal cost: more groups allow more channels, which helps small networks most; without shuffle, grouped
networks lose 1 to 5 points, more with more groups. The widths here are set so that the MACs are nearly equal.
"""

from __future__ import annotations

import torch
from matplotlib.figure import Figure

from gossamer.analysis.cost import cost
from gossamer.networks import create_model
from studies.frame import COLOURS, Findings, figure, main
from studies.training import SIDE, differs, load, score, train

GROUPS = (1, 3, 8)
SEEDS, EPOCHS = 3, 5.0
WIDTH = 0.25  # published for 3 and 8 groups; the channels grow with the groups


def study(quick: bool = False, data: str = "") -> Findings:
    """Each number of groups, with shuffle and without, over the same seeds, images and steps."""
    images = load(data, 256 if quick else 4000)
    seeds = range(2 if quick else SEEDS)
    rows = []
    for groups in GROUPS:
        values: dict[bool, list[float]] = {True: [], False: []}
        macs = 0
        for shuffle in (True, False) if groups > 1 else (True,):
            for seed in seeds:
                torch.manual_seed(seed)
                model = create_model(
                    f"shufflenet_v1_g{groups}_x1_0",
                    width=WIDTH,
                    num_classes=images.classes,
                    small_input=True,
                    shuffle=shuffle,
                )
                macs = cost(model, (1, 3, SIDE, SIDE)).macs
                values[shuffle].append(train(model, images, epochs=0.5 if quick else EPOCHS, seed=seed))
        with_it, without = values[True], values[False]
        change = score([x - y for x, y in zip(with_it, without)]) if without else None
        rows.append(
            {
                "groups": groups,
                "MACs": macs,
                "accuracy": score(with_it).mean,
                "+- (95 %)": score(with_it).margin,
                "without shuffle": score(without).mean if without else "-",
                "shuffle gains": change.mean if change else "-",
                "+- (95 %), paired": change.margin if change else "-",
                "significant": bool(without) and differs(with_it, without),
            }
        )
    gains = [row for row in rows if row["groups"] != 1]
    comparison = "; ".join(
        f"with {row['groups']} groups shuffle gains {100 * row['shuffle gains']:+.1f} +- "
        f"{100 * row['+- (95 %), paired']:.1f} points{'' if row['significant'] else ', which these seeds cannot tell from nothing'}"
        for row in gains
    )
    return Findings(rows, f"On {images.name}, {len(seeds)} seeds: {comparison}.")


def draw(findings: Findings) -> Figure:
    """Accuracy with and without shuffle over the groups."""
    drawing, (axes,) = figure()
    axes.errorbar(
        [row["groups"] for row in findings.rows],
        [row["accuracy"] for row in findings.rows],
        yerr=[min(1.0, row["+- (95 %)"]) for row in findings.rows],
        marker="o",
        color=COLOURS[0],
        capsize=4,
        label="with shuffle",
    )
    grouped = [row for row in findings.rows if row["groups"] != 1]
    axes.plot(
        [row["groups"] for row in grouped],
        [row["without shuffle"] for row in grouped],
        "s--",
        color=COLOURS[1],
        label="without",
    )
    axes.set_xticks(list(GROUPS))
    axes.set_xlabel("groups")
    axes.set_ylabel("accuracy, mean and 95 % interval over seeds")
    axes.legend(frameon=False)
    return drawing


if __name__ == "__main__":
    main("shuffle", study, draw, takes_data=True)
