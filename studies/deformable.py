"""Boxes with and without deformable convolutions: Dai et al. 2017 (1703.06211), table 2; Zhu et al. 2018 (1811.11168), table 1.

Both papers change the last stages of large networks with weights of ImageNet on COCO. Here SSDLite around MobileNetV2
begins from random weights and sees a small set; all variants take the same steps over the same seeds.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from gossamer.analysis.cost import cost
from gossamer.errors import SettingsError
from gossamer.settings import Settings
from gossamer.training.loop import train
from gossamer.training.restore import load_run
from studies.frame import COLOURS, Findings, Row, figure, main
from studies.timing import measure
from studies.training import score

VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "v1, last 2 stages": {"deformable": "v1", "deformable_stages": 2},
    "v2, last 2 stages": {"deformable": "v2", "deformable_stages": 2},
}
SIDE, WIDTH, SEEDS, EPOCHS = 128, 0.35, 2, 10.0


def study(quick: bool = False, data: str = "") -> Findings:
    """mAP@0.5 of the last epoch over the seeds. Raises SettingsError without data."""
    if not data:
        raise SettingsError("no data", "a folder of images with boxes", "give --data FOLDER")
    maps: dict[str, list[float]] = {name: [] for name in VARIANTS}
    costs: dict[str, tuple[int, int]] = {}
    models = {}
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(SEEDS):
            for name, options in VARIANTS.items():
                settings = Settings(
                    data=data,
                    task="detect",
                    out=str(Path(folder) / f"{len(maps[name])}-{name}"),
                    width=WIDTH,
                    input=str(64 if quick else SIDE),
                    small_input=False,
                    epochs=1.0 if quick else EPOCHS,
                    eval_every=1000,
                    seed=seed,
                    threads=1,
                    workers=0,
                    precision="float32",
                    memory_format="channels_last",
                    **options,
                )
                run = train(settings)
                maps[name].append(run.metrics()[-1]["val_map50"])
                loaded = load_run(run.path, "last")
                counted = cost(loaded.model, (1, 3, *loaded.preprocess.size))
                costs[name], models[name] = (counted.params, counted.macs), loaded
                print(name, f"seed {seed}: mAP@0.5 {maps[name][-1]:.3f}", file=sys.stderr, flush=True)
    times = measure([(each.model, (1, 3, *each.preprocess.size)) for each in models.values()], rounds=10)
    rows: list[Row] = []
    for (name, mine), time in zip(maps.items(), times, strict=True):
        change = score([x - y for x, y in zip(mine, maps["plain"])])
        rows.append(
            {
                "convolutions": name,
                "parameters": costs[name][0],
                "MACs": costs[name][1],
                "ms": time.median,
                "mAP@0.5": score(mine).mean,
                "by seed": " ".join(f"{value:.3f}" for value in mine),
                "change": change.mean,
                "+- (95 %), paired": change.margin,
            }
        )
    return Findings(rows, f"{SEEDS} seeds, {1 if quick else EPOCHS:g} epochs: {_conclusion(rows)}.")


def _conclusion(rows: list[Row]) -> str:
    return "; ".join(
        f"{row['convolutions']} changes mAP@0.5 by {100 * row['change']:+.1f} +- "
        f"{100 * row['+- (95 %), paired']:.1f} points"
        for row in rows[1:]
    )


def draw(findings: Findings) -> Figure:
    """mAP@0.5 of each seed."""
    drawing, (axes,) = figure()
    for index, (row, colour) in enumerate(zip(findings.rows, COLOURS, strict=False)):
        values = [float(value) for value in row["by seed"].split()]
        axes.plot([index] * len(values), values, "o", color=colour)
    axes.set_xticks(range(len(findings.rows)), [row["convolutions"] for row in findings.rows])
    axes.set_ylabel("mAP@0.5, a point a seed")
    return drawing


if __name__ == "__main__":
    main("deformable", study, draw, takes_data=True)
