"""A finished recipe that tests make up, to look at its page."""

from __future__ import annotations

import io
from dataclasses import asdict
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
from PIL import Image

from gossamer.data.source import Source
from gossamer.host.steprunner import FinishedStep
from gossamer.shrink.channel_ranges import ChannelRanges
from gossamer.shrink.recipe.candidates import Candidate, Targets
from gossamer.shrink.recipe.page import recipe_html
from gossamer.shrink.recipe.paired import Outcome, drop_between
from gossamer.shrink.recipe.result import Shrunk
from gossamer.shrink.recipe.settings import ShrinkSettings
from gossamer.shrink.recipe.steps import Workplace
from gossamer.shrink.sensitivity import LayerNoise

IMAGES = 200
COSTS = {"float": (1.2, 4.1), "int8": (0.6, 1.2), "narrow-1": (0.5, 1.9), "narrow-1-int8": (0.27, 0.55)}  # ms, MB
WRONG = {"float": 20, "int8": 22, "narrow-1": 24, "narrow-1-int8": 26}


class Picture:
    """A store with one picture for all rows, but for the first, which cannot be read."""

    def read(self, row: int) -> bytes:
        if row == 0:
            return b"no image"
        file = io.BytesIO()
        Image.fromarray(np.full((32, 48, 3), 40 + row, np.uint8)).save(file, "PNG")
        return file.getvalue()


def outcome(wrong: int, names: tuple[str, ...]) -> Outcome:
    predicted = tuple(1 if number < wrong else 0 for number in range(IMAGES))
    return Outcome("accuracy", IMAGES, {"accuracy": 1 - wrong / IMAGES}, names, predicted, (0,) * IMAGES)


def recipe(
    name: str = "cat", layer: str = "stages.0.0.conv", **changes: Any
) -> tuple[Shrunk, dict[str, Any], Workplace]:
    """(result, what each step left, place). name: of a class and of images; layer: of a layer."""
    names = tuple(f"{name}/{number}.jpg" for number in range(IMAGES))
    outcomes = {key: outcome(wrong, names) for key, wrong in WRONG.items()}
    candidates, values = [], {}
    for key, (ms, mb) in COSTS.items():
        drop = drop_between(outcomes["float"], outcomes[key])
        one = Candidate(
            key, f"{key}.onnx", "pruned to 0.43x the milliseconds" if "narrow" in key else "the run",
            "int8" if "int8" in key else "float32", "native", ms, int(mb * 1e6), outcomes[key].value, drop.points,
            drop.low, drop.high, "runs/narrow-1" if "narrow" in key else "runs/pets",
        )  # fmt: skip
        candidates.append(one)
        step = {"narrow-1": "narrow-1-float"}.get(key, key)
        values[step] = {"candidate": asdict(one), "outcome": outcomes[key].to_json()}
    noise = [
        LayerNoise(layer, "Conv", 31.5, 0.7, "int8", 0.21, 0.09),
        LayerNoise("head.fc", "Gemm", float("inf"), 0.0, "float32", 0.1, None),
    ]
    values["narrow-1-int8"]["quantised"] = {
        "measured_on": 32,
        "layers": [{**asdict(one), "alone": None if one.alone == float("inf") else one.alone} for one in noise],
        "ranges": [asdict(ChannelRanges(layer, 16, (0.01, 0.5, 8.0), (1.0, 2.0, 8.0)))],
    }
    values["narrow-1-choose"] = {
        "widths": [[layer, 64, 24], ["head.conv", 128, 64]],
        "staircase": [
            {"layer": layer, "channels": [64, 48, 32, 24], "ms": [1.2, 1.0, 0.98, 0.7], "chosen": 24},
            {"layer": "head.conv", "channels": [128, 64], "ms": [1.2, 1.1], "chosen": 64},
        ],
    }
    targets = changes.pop("targets", Targets(0.3, 0.6, 2.0))
    best = candidates[-1]
    found = Shrunk(
        file="shrunk/best.onnx", best=best.name, score="accuracy", scores={"accuracy": (0.9, 0.87)},
        test={"accuracy": (0.89, 0.86)}, test_drop=(3.0, 0.5, 5.5), images=IMAGES, ms=best.ms, bytes=best.bytes,
        targets=targets, misses=tuple(targets.misses(best)), candidates=tuple(candidates),
        steps=(FinishedStep("float", "measure the run", 3.0), FinishedStep("int8", "quantise the run", 9.5, f"{name} failed")),
        notes=("a note",),
    )  # fmt: skip
    settings = ShrinkSettings(
        f"runs/{name}", "best", "ab12", 0, targets.max_ms, targets.max_mb, targets.max_drop, 90.0, None, "taylor", 1
    )
    source = Source((name, "dog"), list(names), np.zeros(IMAGES, np.int64), cast(Any, Picture()), np.arange(IMAGES))
    place = Workplace(
        settings, cast(Any, SimpleNamespace()), cast(Any, SimpleNamespace()), source, "native", cast(Any, None)
    )
    return found, values, place


def recipe_page(**options: Any) -> str:
    return recipe_html(*recipe(**options))
