"""The parts of a report that tests make up."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import numpy as np

from gossamer.analysis.cost import Cost, LayerCost
from gossamer.report.contents import ReportData
from gossamer.report.gallery import mistake
from gossamer.report.scores import worst_mistakes
from gossamer.settings import Settings
from gossamer.tasks.scores import Evaluation

VOID = {"meta", "img", "br", "hr", "link", "input"}


class Page(HTMLParser):
    """Reads a page and holds it to account: every element is closed, in order; gathers elements and text."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == [], f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


def evaluation(classes: tuple[str, ...], each: int = 20, wrong: int = 3) -> Evaluation:
    """Of each class `each` images; the first `wrong` of them are predicted as the next class."""
    size = len(classes)
    targets = np.repeat(np.arange(size), each)
    predicted = np.where(np.arange(size * each) % each < wrong, (targets + 1) % size, targets)
    logits = np.random.default_rng(3).normal(0, 0.1, (size * each, size)).astype(np.float32)
    logits[np.arange(size * each), predicted] += 4
    return Evaluation(classes, [f"{classes[t]}/{i}.jpg" for i, t in enumerate(targets)], logits, targets, [])


def rows(epochs: int) -> list[dict[str, Any]]:
    return [
        {
            "epoch": float(epoch),
            "step": epoch * 10,
            "lr": 0.1 / epoch,
            "loss": 2.0 / epoch,
            "images_per_second": 500.0,
            "data_seconds": 1.0,
            "step_seconds": 9.0,
            "val_loss": 2.5 / epoch,
            "val_accuracy": 1 - 0.5 / epoch,
            "seconds": 10.0 * epoch,
        }
        for epoch in range(1, epochs + 1)
    ]


LAYERS = (
    LayerCost("stem.conv", "convolution", (1, 8, 16, 16), 216, 55_296, 864, 12_288, 8192, 20_480),
    LayerCost("stages.0.0.conv", "convolution", (1, 8, 16, 16), 64, 16_384, 256, 8192, 8192, 16_384),
    LayerCost("stages.0.1.conv", "convolution", (1, 8, 16, 16), 64, 16_384, 256, 8192, 8192, 16_384),
    LayerCost("head.fc", "addmm", (1, 2), 18, 16, 72, 32, 8, 40),
)
COST = Cost((1, 3, 32, 32), LAYERS, 362, 0, 88_080, 1448, 20_480, "stem.conv convolution", {})


def data(classes: tuple[str, ...] = ("cat", "dog"), **changes: Any) -> ReportData:
    scored = changes.pop("evaluation", None) or evaluation(classes)
    worst = worst_mistakes(scored.probabilities, scored.targets, 3)
    photo = np.full((32, 32, 3), 90, np.uint8)
    values: dict[str, Any] = {
        "run": "runs/pets",
        "created": "2026-01-02 03:04 UTC",
        "version": "0.1.0",
        "settings": Settings(data="pets", input="32", width=0.5),
        "split": "validation",
        "evaluation": scored,
        "metrics": rows(5),
        "counts": {"train": tuple(range(10, 10 + len(classes))), "val": (20,) * len(classes)},
        "unreadable": [("train/cat/broken.jpg", "truncated")],
        "mistakes": tuple(
            mistake(
                scored.names[i],
                photo,
                np.eye(4, dtype=np.float32),
                int(scored.targets[i]),
                int(scored.predicted[i]),
                scored.probabilities[i],
            )
            for i in worst
        ),
        "cost": COST,
        "exported": None,
        "latencies": (),
        "bench": {},
        "machine": {"cpu": "a processor", "isa": None, "versions": {"torch": "2.13"}, "processes": 1},
        "data": {"how": "train/ and val/", "notes": [], "fingerprint": "ab12"},
    }
    return ReportData(**{**values, **changes})


def check_alone(html: str) -> Page:
    """Balanced, with nothing from outside, no script, and words for every image."""
    parsed = Page(html)
    for name, attributes in parsed.elements:
        for key in ("src", "href", "action", "poster", "srcset", "xlink:href"):
            link = attributes.get(key)
            assert link is None or link.startswith(("data:image/", "#")), (name, key, link[:80])
        assert not any(key.startswith("on") for key in attributes), (name, attributes)
        style = (attributes.get("style") or "") + (attributes.get("mask") or "")
        assert all(target.startswith("#") for target in re.findall(r"url\((.*?)\)", style))
    assert not parsed.all("script") and not parsed.all("link") and not parsed.all("iframe")
    (css,) = re.findall(r"<style>(.*?)</style>", html, re.S)
    assert "url(" not in css and "@import" not in css and "http" not in css
    figures = parsed.all("img") + parsed.all("svg")
    assert figures
    for attributes in figures:
        assert len((attributes.get("alt") or attributes.get("aria-label") or "").strip()) > 20, attributes
    return parsed


HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=http://evil.example/x onerror=alert(1)>',
    "{{ 7 * 7 }}{% raw %}' & \u202eevil",
    "</style><b>",
    "a" * 300,
    "url(http://evil.example/)",
    "\x00\x1b[31m\udcff\x85\ufffe",
    "</title></svg>]]>-->",
)
